"""`analyze --sensitivity` and `--report` of every command, from options to files."""

from __future__ import annotations

import html
import json
import re
import shlex
from pathlib import Path
from typing import Any

import pytest
import torch

import compressor
from compressor.asking import load_sensitivity

TRAIN = ("--epochs", "1", "--batch-size", "16", "--device", "cpu")


def test_a_scan_as_table_json_and_file(run: Any, here: Path) -> None:
    asked = ("analyze", "model.pt", "--sensitivity", "--samples", "24", "--ratios", "0.5,0.25")
    table = run(*asked, "-o", "scan.json")
    assert table.code == 0, table.err
    assert "-25 %" in table.out and "-50 %" in table.out and "on 24 samples" in table.out
    assert "sensitivity: done in" in table.err
    scan = load_sensitivity(here / "scan.json")
    assert (list(scan.curves), scan.n_samples, scan.pattern) == (["conv1", "conv2", "fc"], 24, "unstructured")
    body = run(*asked, "--json").json
    assert body["sensitivity"] == scan.to_mapping()
    assert "sensitivity" not in run("analyze", "model.pt", "--json").json


def test_a_scan_of_units_of_some_layers(run: Any) -> None:
    done = run("analyze", "model.pt", "--sensitivity", "-p", "channel", "--scope", "conv*", "--ratios", "0.5", "--json")
    assert done.code == 0, done.err
    assert list(done.json["sensitivity"]["curves"]) == ["conv1", "conv2"]


def test_a_scan_that_runs_out_of_time_says_so(run: Any) -> None:
    done = run("analyze", "model.pt", "--sensitivity", "--budget", "0.000001s")
    assert done.code == 0, done.err
    assert "--budget 0.000001s ended before conv1, conv2, fc" in done.err
    assert "not reached in time: conv1, conv2, fc" in done.out


@pytest.mark.parametrize(
    ("more", "told"),
    [
        (("--sensitivity", "--ratios", "half"), "--ratios half: write removed shares"),
        (("--sensitivity", "--ratios", "1.5"), "--ratios 1.5: removed shares lie between 0 and 1"),
        (("--sensitivity", "--budget", "soon"), "soon: not a time; write it as 90s, 5m or 1.5h"),
        (("--sensitivity", "-o", "-"), "-o -: the scan goes to standard output with --json"),
        (("-o", "scan.json"), "-o writes the scan of --sensitivity"),
        (("--explain", "conv1", "--report", "a.html"), "--explain is about one filter"),
        (("--report", "-"), "--report -: the page needs a file of its own"),
    ],
)
def test_options_that_cannot_be_meant(run: Any, more: tuple[str, ...], told: str) -> None:
    done = run("analyze", "model.pt", *more)
    assert (done.code, told in done.err) == (2, True), done.err


def test_a_scan_needs_data(run: Any, here: Path) -> None:
    done = run("analyze", "init", "--arch", "lenet5", "--sensitivity")
    assert done.code == 2
    assert "a sensitivity scan needs a data set" in done.err


def test_every_command_draws_its_result(run: Any, here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(here / "cache"))
    lines = (
        ("analyze", "model.pt", "--sensitivity", "--samples", "24"),
        ("prune", "model.pt", "-r", "2x", "--retrain-epochs", "1", *TRAIN, "-o", "p.pt"),
        ("retrain", "p.pt", *TRAIN, "-o", "r.pt"),
        ("compact", "r.pt", "-o", "c.pt"),
        ("bench", "model.pt", "c.pt", "--min-runs", "3", "--min-seconds", "0.01", "--max-seconds", "1", "-q"),
    )
    for command, *rest in lines:
        done = run(command, *rest, "--report", f"{command}.html")
        assert done.code == 0, done.err
        text = (here / f"{command}.html").read_text(encoding="utf-8")
        assert text.startswith("<!doctype html>")
        assert f"compress {command}" in text
        assert str(here) not in text.replace(str(here / "data.npz"), ""), "a page must not tell where one works"
    compacted = (here / "compact.html").read_text(encoding="utf-8")
    for word in ("compress prune", "compress retrain", "The way to the result", ">dense<", ">prune<", "data.npz"):
        assert word in compacted
    assert "Latency by layer" in compacted and (here / "cache" / "compress" / "operators.json").is_file()
    pruned = (here / "prune.html").read_text(encoding="utf-8")
    assert "Training" in pruned and "Residual" in pruned and "Sparsity" in pruned and "hard prune" in pruned


def test_a_dry_run_draws_what_would_be_cut(run: Any, here: Path) -> None:
    assert run("prune", "model.pt", "-r", "2x", "-n", "--report", "dry.html").code == 0
    assert "Layer by layer" in (here / "dry.html").read_text(encoding="utf-8")


def test_only_a_report_takes_the_time_of_layers(run: Any, here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(here / "cache"))
    assert run("compact", "model.pt", "--allow-noop", "-o", "c.pt").code == 0
    assert not (here / "cache").exists()


def test_a_bench_draws_its_profile(run: Any, here: Path) -> None:
    assert run("export", "model.pt", "-o", "m.onnx").code == 0
    brief = ("--min-runs", "3", "--min-seconds", "0.01", "--max-seconds", "1", "-q")
    for name, more, told in (("a", ("--profile",), "Where the time goes: cpu"), ("b", (), "compress bench --profile")):
        assert run("bench", "m.onnx", *brief, *more, "--report", f"{name}.html").code == 0
        page = (here / f"{name}.html").read_text(encoding="utf-8")
        assert told in page and "compress bench m.onnx " in page
        assert "--models" not in page, "what is typed without a name has none"


def test_a_report_that_is_there_is_not_overwritten(run: Any, here: Path) -> None:
    (here / "out.html").write_text("mine")
    done = run("compact", "model.pt", "--allow-noop", "-o", "c.pt", "--report", "out.html")
    assert (done.code, (here / "out.html").read_text()) == (1, "mine")
    assert "choose another path with --report" in done.err
    assert not (here / "c.pt").exists(), "found before the work, not after it"
    assert run("compact", "model.pt", "--allow-noop", "-o", "c.pt", "--report", "out.html", "--force").code == 0
    assert (here / "out.html").read_text().startswith("<!doctype html>")


def test_a_report_cannot_have_the_name_of_the_output(run: Any, here: Path) -> None:
    done = run("compact", "model.pt", "-o", "c.pt", "--report", str(here / "c.pt"))
    assert done.code == 2
    assert "is the output file too" in done.err


def test_json_and_report_go_together(run: Any, here: Path) -> None:
    done = run("analyze", "model.pt", "--json", "--report", "a.html")
    assert json.loads(done.out)["n_params"] > 0
    assert (here / "a.html").exists()


def pasted(page: Path) -> list[list[str]]:
    """The words of each command on a page, as a shell reads them."""
    found = re.findall(r"<pre><code>(compress .*?)</code></pre>", page.read_text(encoding="utf-8"))
    return [shlex.split(html.unescape(text))[1:] for text in found]


def test_the_commands_of_a_page_make_the_model_again(run: Any, here: Path) -> None:
    train = ("--retrain-epochs", "1", "--epochs", "1", "--batch-size", "16", "--device", "cpu", "--seed", "3")
    assert run("prune", "model.pt", "-r", "2x", *train, "--layer", "conv1=50%", "-o", "p.pt").code == 0
    assert run("compact", "p.pt", "-o", "c.pt", "--report", "c.html").code == 0
    words = pasted(here / "c.html")
    assert [line[0] for line in words] == ["prune", "compact"] and words[0][1] == "$MODEL"
    assert [line[line.index("--output") + 1] for line in words] == ["p.pt", "c.pt"]
    first = compressor.load(here / "c.pt").module.state_dict()
    for name in ("p.pt", "c.pt"):
        (here / name).unlink()
    for line in words:
        done = run(*(word.replace("$MODEL", "model.pt") for word in line))
        assert done.code == 0, (line, done.err)
    again = compressor.load(here / "c.pt").module.state_dict()
    assert all(torch.equal(again[name], value) for name, value in first.items())


def test_every_page_has_commands_that_are_taken(run: Any, here: Path) -> None:
    brief = ("--min-runs", "3", "--min-seconds", "0.01", "--max-seconds", "1", "-q", "--require", "size<=1GiB")
    lines = (
        ("analyze", "init", "--arch", "lenet5"),
        ("prune", "init", "--arch", "lenet5", "-r", "2x", "-n", "--scope", "c*", "--scope", "fc1"),
        ("bench", "model.pt", *brief, "--accuracy", "--data", str(here / "data.npz")),
    )
    for line in lines:
        done = run(*line, "--report", "page.html", "--force")
        assert done.code == 0, done.err
        (words,) = pasted(here / "page.html")
        assert run(*words, "--print-config").code == 0, words
        for flag in ("--arch", "--scope"):
            assert words.count(flag) == line.count(flag), words
    assert words[words.index("--data") + 1] == "data.npz", "a model without a record has its data from the command line"
