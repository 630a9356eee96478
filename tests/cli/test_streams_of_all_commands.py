"""`-` on every command: a model from standard input, and where one is made, to standard output."""

from __future__ import annotations

import io
import sys
from pathlib import Path
from typing import Any

import pytest

from compressor.formats import from_bytes

TRAIN = ("--batch-size", "16", "--device", "cpu", "--epochs", "1")
BENCH = ("--min-seconds", "0.01", "--max-seconds", "0.3", "--min-runs", "5", "--warmup", "1")
READERS: dict[str, tuple[str, ...]] = {
    "analyze": ("analyze", "-"),
    "prune": ("prune", "-", "-r", "2x", "-m", "magnitude", "--no-retrain"),
    "retrain": ("retrain", "-", *TRAIN),
    "compact": ("compact", "-", "--allow-noop"),
    "export": ("export", "-"),
    "bench": ("bench", "-", *BENCH),
}


@pytest.fixture
def piped(monkeypatch: pytest.MonkeyPatch, here: Path, capfdbinary: Any) -> Any:
    """Calls a command with the model on a pipe; gives (code, what came out, what was said)."""
    from compressor.cli.main import main

    def call(content: bytes, *arguments: str) -> tuple[int, bytes, bytes]:
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(content)))
        capfdbinary.readouterr()
        code = main([*arguments])
        captured = capfdbinary.readouterr()
        return code, captured.out, captured.err

    return call


@pytest.mark.parametrize("command", READERS)
def test_every_command_reads_standard_input(piped: Any, here: Path, command: str) -> None:
    output = () if command in ("analyze", "bench") else ("-o", "out")
    code, out, err = piped((here / "model.pt").read_bytes(), *READERS[command], *output, "--json")
    assert code == 0, err
    assert b"standard input" in out or command == "bench"
    assert not output or (here / "out").stat().st_size > 0


@pytest.mark.parametrize("command", ["prune", "retrain", "compact", "export"])
def test_every_command_that_makes_a_model_writes_standard_output(piped: Any, here: Path, command: str) -> None:
    code, out, err = piped((here / "model.pt").read_bytes(), *READERS[command], "-o", "-", "-q")
    assert (code, err) == (0, b"")
    if command == "export":
        import onnx

        onnx.checker.check_model(out)
    else:
        assert from_bytes(out).n_parameters == 8 * 9 + 8 + 12 * 8 * 9 + 12 + 48 * 3 + 3


@pytest.mark.parametrize("command", ["prune", "retrain", "compact", "export"])
def test_a_pipe_without_a_name_needs_one_for_the_output(piped: Any, here: Path, command: str) -> None:
    code, out, err = piped((here / "model.pt").read_bytes(), *READERS[command])
    assert (code, out) == (2, b"")
    assert b"give -o FILE or -o -" in err


@pytest.mark.parametrize("command", READERS)
@pytest.mark.parametrize("content", [b"", b"garbage" * 99, b"PK\x03\x04"])
def test_garbage_on_the_pipe_is_one_message(piped: Any, command: str, content: bytes) -> None:
    output = () if command in ("analyze", "bench") else ("-o", "out")
    code, out, err = piped(content, *READERS[command], *output)
    assert (code, out) == (1, b"")
    assert 1 <= err.count(b"\n") <= 3, err
