"""Tab completion: what it offers, and that it is no slower than --help."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
HEAVY = ("torch", "numpy", "onnx", "onnxruntime", "accelerate", "safetensors")


def complete(line: str, shell: str = "bash", *, loaded: bool = False) -> str:
    """What the shell gets for the line, the cursor at its end; or with `loaded` which heavy packages came in."""
    words = line.split(" ")
    code = "import sys; from compressor.cli.main import run\ntry: run()\nexcept SystemExit: pass\n"
    code += f"print([name for name in {HEAVY!r} if name in sys.modules], file=sys.stderr)"
    environment = {
        **os.environ,
        "_COMPRESS_COMPLETE": f"complete_{shell}",
        "COMP_WORDS": line,
        "COMP_CWORD": str(len(words) - 1),
        "_TYPER_COMPLETE_ARGS": line,
        "_TYPER_COMPLETE_FISH_ACTION": "get-args",
    }
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, cwd=ROOT, capture_output=True, text=True, check=True
    )
    return done.stderr.strip().splitlines()[-1] if loaded else done.stdout


@pytest.mark.parametrize(
    ("line", "offered"),
    [
        ("compress ", ["analyze", "prune", "retrain", "compact", "export", "bench", "env"]),
        ("compress ex", ["export"]),
        ("compress prune model.pt --met", ["--method"]),
        ("compress prune model.pt --method a", ["admm"]),
        ("compress export model.pt --int8 ", ["dynamic", "static"]),
        ("compress bench m.onnx --provider o", ["openvino"]),
        ("compress bench m.onnx --table ", ["text", "markdown", "csv"]),
        ("compress prune model.pt --pattern ch", ["channel", "channel+shape"]),
        ("compress prune model.pt --preset ", ["quick", "balanced", "best"]),
        ("compress analyze m.pth --arch resnet5", ["resnet56"]),
        ("compress analyze m.pth --arch t", ["torchvision:", "timm:", "transformers:"]),
        ("compress analyze m.pt --data fash", ["fashion-mnist:"]),
        ("compress analyze m.pt --data sample_models/mn", ["sample_models/mnist_5k.npz"]),
        ("compress analyze mod", []),
    ],
)
def test_what_is_offered(line: str, offered: list[str]) -> None:
    """Nothing is offered for a MODEL, so that the shell offers its files."""
    assert complete(line).split() == offered


def test_other_shells_get_it_in_their_own_words() -> None:
    assert '"--method":' in complete("compress prune m.pt --met", "zsh")
    assert complete("compress analyze mod", "zsh").strip() == "_files"
    assert complete("compress prune m.pt --met", "fish").startswith("--method\t")


@pytest.mark.parametrize("line", ["compress ", "compress prune model.pt --method ", "compress bench --provider "])
def test_nothing_heavy_is_imported(line: str) -> None:
    assert complete(line, loaded=True) == "[]"


def test_the_script_for_a_shell_is_shown() -> None:
    code = (
        "import sys; sys.argv = ['compress', '--show-completion', 'bash']; from compressor.cli.main import run; run()"
    )
    # The shell is named instead of looked for among the parents of this process: there may be none.
    environment = {**os.environ, "_TYPER_COMPLETE_TEST_DISABLE_SHELL_DETECTION": "1"}
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert "complete -o default -F _compress_completion compress" in done.stdout
