"""Where a result comes from: what is told, and that a shell reads it."""

from __future__ import annotations

import html
import re
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest

from compressor.cli.commands import command_functions
from compressor.program.record import Record, Step
from compressor.report.html import About, analysis_page
from compressor.report.html.history import COMMANDS, command_line, provenance
from tests.report.html import values
from tests.report.html.test_pages import PAGES, shown


def test_command_lines_can_be_typed() -> None:
    options = {"ratio": "13x", "keep": ["conv 1", "fc"], "augment": True, "off": False, "none": None}
    assert command_line("prune", options) == "compress prune --ratio 13x --keep 'conv 1' --keep fc --augment"


def test_provenance_names_commands_seeds_versions_and_digests() -> None:
    text = shown("compact")
    for word in ('compress prune "$MODEL" --ratio 13x', "compress compact", "seed 7", "2026-01-03", "compressor 0.0.9",
                 "9d4d93700481fa78", "torch 2.13.0", "zoo/model.pt -> out/model.small.pt", "mnist.npz"):  # fmt: skip
        assert word in text, word


@pytest.mark.parametrize(
    ("page", "lines"),
    [
        ("compact", ["MODEL=model.pt", 'compress prune "$MODEL" --ratio 13x --data mnist.npz --output step1.pt',
                     "compress retrain step1.pt --teacher", "compress compact zoo/model.pt"]),
        ("bench", ["MODEL=model.pt", "compress prune", "compress retrain step1.pt", "compress compact step2.pt",
                   "compress bench zoo/model.pt --ratio 13x --scope 'conv*' --scope 'fc 1' --heads"]),
    ],
)  # fmt: skip
def test_provenance_is_a_script_that_a_shell_reads(page: str, lines: list[str], tmp_path: Path) -> None:
    found = [html.unescape(text) for text in re.findall(r"<pre><code>(.*?)</code></pre>", PAGES[page](), re.DOTALL)]
    assert len(found) == len(lines) and all(map(str.startswith, found, lines)), found
    canary = tmp_path / "$(touch canary)"
    quoted = analysis_page(values.analysis(), replace(values.about("analyze"), model=str(canary)))
    script = "\n".join(html.unescape(text) for text in re.findall(r"<code>(.*?)</code>", quoted))
    done = subprocess.run(
        ["bash", "-eu", "-c", f"compress() {{ printf '%s\\n' \"$2\"; }}\n{script}"],
        capture_output=True, text=True, cwd=tmp_path,
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "") and str(canary) in done.stdout.splitlines()
    assert not list(tmp_path.iterdir()), "no name is run"


def test_a_run_without_a_step_of_its_own_is_told_too() -> None:
    assert re.search(r"compress bench \S.* --ratio 13x --scope 'conv\*' --scope 'fc 1' --heads", shown("bench"))
    assert "compress compact --ratio" not in shown("compact"), "the last step of the history is this run"


def typed(about: About) -> list[str]:
    return [html.unescape(text) for text in re.findall(r"<code>(.*?)</code>", provenance(about))]


def test_each_command_reads_what_the_one_before_it_wrote() -> None:
    steps = tuple(Step(command) for command in ("train", "prune", "retrain", "compact"))
    made = About("compact", "r.pt", output="c.pt", record=Record(steps=steps))
    assert typed(made) == [
        "MODEL=model.pt", 'compress prune "$MODEL" --output step2.pt', "compress retrain step2.pt --output r.pt",
        "compress compact r.pt --output c.pt",
    ]  # fmt: skip
    once = replace(made, command="prune", model="net.pt", output="p.pt", record=Record(steps=steps[:2]))
    assert typed(once) == ["compress prune net.pt --output p.pt"], "where the page knows the file it is named"
    assert "train, from Python" in provenance(once)
    asked = replace(once, command="bench", output=None, models=("a, b.onnx", "c.onnx"), record=None)
    assert typed(asked) == ["compress bench 'a, b.onnx' c.onnx"]
    stream = replace(once, model="-", output="-")
    assert typed(stream)[-1].endswith("--output step2.pt"), "a pipe has no name to be made again under"


def test_steps_of_a_history_are_commands() -> None:
    assert set(COMMANDS) <= set(command_functions())
