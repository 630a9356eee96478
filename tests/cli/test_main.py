"""Help, version, failures and exit codes."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import compressor
from compressor.cli import commands
from compressor.cli import main as main_module
from compressor.cli.commands import command_functions
from compressor.errors import CompressError, GateError, RatioError, VerificationError

COMMANDS = tuple(command_functions())


def fail_with(monkeypatch: pytest.MonkeyPatch, error: BaseException) -> None:
    """Makes `compress export` raise."""
    functions = command_functions()
    real = functions["export"]

    def export(options: Any, session: Any) -> None:
        raise error

    export.__annotations__ = real.__annotations__
    export.__doc__ = real.__doc__
    export.__globals__.update({name: real.__globals__[name] for name in ("ExportOptions", "Session")})
    monkeypatch.setattr(commands, "command_functions", lambda: {**functions, "export": export})


def python(code: str) -> str:
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=Path(__file__).parents[2])
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_version(run: Any) -> None:
    assert run("--version") == type(run("--version"))(0, f"compress {compressor.__version__}\n", "")


@pytest.mark.parametrize("command", COMMANDS)
def test_help_of_every_command_has_examples_and_common_options(run: Any, command: str) -> None:
    done = run(command, "--help")
    assert done.code == 0
    assert f"compress {command} " in done.out.partition("Examples:")[2]
    for option in ("--json", "--seed", "--device", "--config", "--quiet", "--verbose", "--arch", "--data"):
        assert option in done.out


def test_help_in_a_pipe_has_no_boxes_or_colour(run: Any) -> None:
    text = run("prune", "--help").out + run("--help").out
    assert "\x1b" not in text
    assert not set(text) & set("│─╭╮╰╯┃━")


@pytest.mark.parametrize("command", ["", *COMMANDS])
def test_help_on_a_terminal_says_the_same_words(run: Any, monkeypatch: pytest.MonkeyPatch, command: str) -> None:
    """Rich reads [word] as markup and drops it; whatever the pipe is told, the terminal must be told too."""
    monkeypatch.setenv("TERMINAL_WIDTH", "200")
    plain = run(*([command] if command else []), "--help").out
    monkeypatch.setattr(main_module, "help_markup", lambda: "rich")
    boxed = run(*([command] if command else []), "--help").out
    assert "╭" in boxed
    words = set(re.findall(r"[\w-]{2,}", re.sub(r"\[default.*?\]|<.*?>", "", plain)))
    missing = words - set(re.findall(r"[\w-]{2,}", boxed)) - {"Show", "this", "message", "and", "exit"}
    assert not missing


@pytest.mark.parametrize("command", COMMANDS)
def test_every_example_in_the_help_is_accepted(run: Any, monkeypatch: pytest.MonkeyPatch, command: str) -> None:
    """The examples are parsed as they stand, pipes and all; only the work is left out."""
    lines = run(command, "--help").out.partition("Examples:")[2].partition("\n\n")[0].splitlines()
    examples = [line.strip() for line in lines if line.strip().startswith("compress ")]
    assert len(examples) >= 2
    seen: list[str] = []
    monkeypatch.setattr(main_module._Ending, "around", lambda self, name, function, options, origins: seen.append(name))
    for part in (part for example in examples for part in example.split("|")):
        words = shlex.split(part.partition("<")[0])
        if words[0] == "compress":
            assert run(*words[1:]).code == 0, part
    assert command in seen


@pytest.mark.parametrize(
    "arguments",
    [
        ["--help"],
        ["prune", "--help"],
        ["prune"],
        ["prone"],
        ["prune", "m.pt", "--ratoi", "3"],
        ["prune", "m.pt"],
        ["analyze", "m.pt", "--table", "html"],
        ["export", "m.pt", "--fp16", "--int8", "dynamic"],
        ["export", "m.pt", "--opset", "9"],
        ["export", "m.pt", "--check-only", "--sparse"],
        ["bench", "m.onnx", "--threads", "0"],
        ["bench", "m.onnx", "--require", "speed>=3"],
        ["bench", "m.onnx", "--plot", "picture.png"],
        [],
    ],
)
def test_help_and_usage_errors_do_not_import_torch(arguments: list[str]) -> None:
    heavy = ("torch", "numpy", "onnx", "onnxruntime")
    code = f"import sys; from compressor.cli.main import main; main({arguments!r})"
    told = python(f"{code}; print('heavy:', [name for name in {heavy!r} if name in sys.modules])")
    assert told.rstrip().endswith("heavy: []")


def test_the_check_for_torch_can_fail() -> None:
    assert python("import sys, torch; print('torch' in sys.modules)").strip() == "True"


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["prone"], "compress: No such command 'prone'. Did you mean 'prune'?\nsee compress --help\n"),
        (["prune"], "compress prune: Missing argument 'MODEL'.\nsee compress prune --help\n"),
        (
            ["prune", "m.pt", "--ratoi", "3"],
            "compress prune: No such option: --ratoi (Possible options: --ratio, ",
        ),
        (
            ["prune", "m.pt", "--method", "x"],
            "compress prune: Invalid value for '--method' / '-m': 'x' is not one of",
        ),
        (["prune", "m.pt", "--seed", "x"], "compress prune: Invalid value for '--seed'"),
        (["analyze", "m.pt", "--seed", "-1"], "compress analyze: Invalid value for '--seed'"),
    ],
)
def test_usage_errors_are_short_on_stderr_with_2(run: Any, arguments: list[str], told: str) -> None:
    done = run(*arguments)
    assert (done.code, done.out) == (2, "")
    assert done.err.startswith(told)
    assert done.err.count("\n") <= 3


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (RatioError("too much"), 1),
        (CompressError("no"), 1),
        (GateError("not met"), 3),
        (VerificationError("differs"), 3),
        (KeyboardInterrupt(), 130),
        (MemoryError(), 1),
        (ValueError("oops"), 1),
    ],
)
def test_every_failure_has_its_exit_code_and_one_json_object(
    run: Any, monkeypatch: pytest.MonkeyPatch, error: BaseException, code: int
) -> None:
    fail_with(monkeypatch, error)
    plain, as_json = run("export", "m.pt"), run("export", "m.pt", "--json")
    assert (plain.code, plain.out, as_json.code) == (code, "", code)
    assert plain.err.startswith("compress export: ")
    assert list(as_json.json) == ["schema", "error", "message", "exit_code"]
    assert (as_json.json["schema"], as_json.json["exit_code"]) == ("compress.error/1", code)
    assert plain.err == as_json.err


def test_a_usage_error_is_a_json_object_too(run: Any) -> None:
    found = run("prune", "--json")
    assert found.code == 2
    assert found.json == {
        "schema": "compress.error/1",
        "error": "UsageError",
        "message": "Missing argument 'MODEL'.\nsee compress prune --help",
        "exit_code": 2,
    }


def test_a_bug_is_a_message_and_the_traceback_is_asked_for(run: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    fail_with(monkeypatch, ValueError("oops\nsecond line"))
    quiet, verbose = run("export", "m.pt"), run("export", "m.pt", "-v")
    assert quiet.err == (
        "compress export: this is a bug in compress: ValueError: oops\n"
        "see where with -v or COMPRESS_DEBUG=1, and report it\n"
    )
    assert "Traceback" in verbose.err
    monkeypatch.setenv("COMPRESS_DEBUG", "1")
    assert "Traceback" in run("export", "m.pt").err


def test_an_interrupt_says_what_is_left(run: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    fail_with(monkeypatch, KeyboardInterrupt())
    assert run("export", "m.pt").err == "compress export: interrupted; nothing was written\n"


def test_memory_errors_say_what_to_try(run: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    out_of_memory = type("OutOfMemoryError", (RuntimeError,), {})("CUDA out of memory. Tried …")
    fail_with(monkeypatch, out_of_memory)
    assert "a smaller --batch-size" in run("export", "m.pt").err


def test_a_broken_pipe_is_quiet(run: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    fail_with(monkeypatch, BrokenPipeError())
    monkeypatch.setattr(main_module.os, "dup2", lambda a, b: None)
    done = run("export", "m.pt")
    assert (done.code, done.out, done.err) == (1, "", "")


def test_json_from_the_environment_counts_for_errors_too(run: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COMPRESS_JSON", "1")
    assert run("prune", "model.pt").json["error"] == "UsageError"
