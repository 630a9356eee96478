"""Runs that are told to end, streams that are closed, disks that are full, outputs that are no files."""

from __future__ import annotations

import json
import os
import re
import signal
import stat
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from compressor import atomic
from compressor.errors import OutputError
from compressor.units import format_reachable, parse_ratio

pytestmark = pytest.mark.skipif(os.name != "posix", reason="signals, pipes and permissions of POSIX")

TRAIN = ["--batch-size", "8", "--device", "cpu"]
RUNS = {
    "prune": ["prune", "model.pt", "-r", "2x", "--epochs", "4000", *TRAIN, "-o", "out.pt"],
    "retrain": ["retrain", "model.pt", "--epochs", "4000", *TRAIN, "-o", "out.pt"],
    "bench": ["bench", "init", "--arch", "net.py:Net", "--input", "1x8x8", "--min-seconds", "60"],
}
HELD = {"prune": "out.pt.resume", "retrain": "out.pt.resume", "bench": "*/compress-bench-*/0/init"}
"""What appears while the run is at work: then it is told to end."""


def start(arguments: list[str], here: Path, environment: dict[str, str], **more: Any) -> subprocess.Popen[str]:
    (here / "tmp").mkdir(exist_ok=True)
    command = [sys.executable, "-m", "compressor", *arguments]
    how = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "preexec_fn": hearing, **more}
    return subprocess.Popen(command, cwd=here, env={**environment, "TMPDIR": str(here / "tmp")}, text=True, **how)


def hearing() -> None:
    """Signals as a terminal's program has them: what runs under nohup or in the background ignores some, and so do its
    children."""
    for name in ("SIGTERM", "SIGHUP", "SIGINT"):
        signal.signal(getattr(signal, name), signal.SIG_DFL)


ONNXRUNTIMES_OWN = ".ses"
"""A file of its own that onnxruntime leaves where temporary files go, from its first session on."""


def wait_for(pattern: str, here: Path, process: subprocess.Popen[str]) -> None:
    while not list(here.glob(pattern)):
        assert process.poll() is None, process.communicate()
        time.sleep(0.02)


@pytest.mark.parametrize(("name", "code"), [("SIGTERM", 143), ("SIGHUP", 129), ("SIGINT", 130)])
@pytest.mark.parametrize("run", RUNS)
def test_a_run_that_is_told_to_end_leaves_nothing_but_its_resume_point(
    run: str, name: str, code: int, here: Path, environment: dict[str, str]
) -> None:
    before = {path.name for path in here.iterdir()}
    process = start(RUNS[run], here, environment)
    wait_for(HELD[run], here, process)
    process.send_signal(getattr(signal, name))
    _, told = process.communicate(timeout=120)
    assert process.returncode == code, told
    assert ("interrupted" if name == "SIGINT" else f"ended by {name}") in told
    assert "Traceback" not in told and "bug" not in told
    left = {path.name for path in here.iterdir()} - before - {"tmp"}
    assert left == ({"out.pt.resume"} if run != "bench" else set())
    assert {path.name for path in (here / "tmp").iterdir()} <= {ONNXRUNTIMES_OWN}
    assert ("continue with the same command and --resume" in told) == (run != "bench")


def test_twin_a_run_that_is_killed_leaves_its_files(here: Path, environment: dict[str, str]) -> None:
    process = start(RUNS["bench"], here, environment)
    wait_for(HELD["bench"], here, process)
    process.kill()
    process.communicate()
    assert {path.name for path in (here / "tmp").iterdir()} - {ONNXRUNTIMES_OWN} != set()


def test_a_run_under_nohup_is_not_ended_by_a_hang_up(here: Path, environment: dict[str, str]) -> None:
    ignore = lambda: signal.signal(signal.SIGHUP, signal.SIG_IGN)  # noqa: E731
    process = start(RUNS["bench"], here, environment, preexec_fn=ignore)
    wait_for(HELD["bench"], here, process)
    process.send_signal(signal.SIGHUP)
    with pytest.raises(subprocess.TimeoutExpired):
        process.communicate(timeout=1)
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=120)
    assert process.returncode == 143


@pytest.mark.parametrize("name", ["SIGTERM", "SIGINT"])
def test_an_ending_that_python_drops_is_raised_again(name: str, here: Path, environment: dict[str, str]) -> None:
    """A signal that comes while a value is tidied away ends in `sys.unraisablehook`, and the program would go on."""
    code = f"""
import os, signal, time
from compressor.cli.signals import Terminated, end_in_order
end_in_order()
class Held:
    def __del__(self):
        os.kill(os.getpid(), signal.{name})
        time.sleep(1)
try:
    Held()
    time.sleep(20)
except (Terminated, KeyboardInterrupt) as error:
    print("ended", type(error).__name__)
"""
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=here, env=environment, capture_output=True, text=True, timeout=60,
        preexec_fn=hearing,
    )  # fmt: skip
    assert done.stdout.startswith("ended "), done.stderr
    assert done.stderr == ""


def test_an_ending_is_told_as_json_too(here: Path, environment: dict[str, str]) -> None:
    process = start([*RUNS["retrain"], "--json"], here, environment)
    wait_for(HELD["retrain"], here, process)
    process.terminate()
    out, _ = process.communicate(timeout=120)
    assert json.loads(out) == {
        "schema": "compress.error/1", "error": "Terminated", "exit_code": 143, "message": json.loads(out)["message"]
    }  # fmt: skip


SHELL = {
    "closed output": ("compress analyze model.pt >&-", 2, "standard output is closed"),
    "closed input": ("compress analyze - <&-", 1, "is empty"),
    "closed errors": ("compress analyze model.pt 2>&-", 0, ""),
    "all closed": ("compress analyze model.pt <&- >&- 2>&-", 2, ""),
    "a full device": ("compress analyze model.pt >/dev/full", 1, "standard output: No space left on device"),
    "a full device, JSON": (
        "compress analyze model.pt --json >/dev/full",
        1,
        "standard output: No space left on device",
    ),
    "a full device, model": (
        "compress compact model.pt --allow-noop -q -o - >/dev/full",
        1,
        "standard output: No space",
    ),
    "an output to read from": ("compress analyze model.pt 1</dev/null", 1, "standard output: Bad file descriptor"),
    "a reader that left": ("compress analyze model.pt -v | true; exit ${PIPESTATUS[0]}", 1, ""),
    "a model to a pipe by name": ("compress compact model.pt --allow-noop -o /dev/stdout | cat", 1, "is a pipe"),
    "full errors": ("compress analyze nothing.pt 2>/dev/full", 1, ""),
}


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
@pytest.mark.parametrize("what", SHELL)
def test_streams_that_take_nothing(what: str, shell: Any, here: Path) -> None:
    line, code, message = SHELL[what]
    before = {path.name: path.read_bytes() for path in here.iterdir()}
    done = shell(line)
    told = done.stderr.decode()
    assert done.returncode in ({0, code} if what == "a reader that left" else {code}), told
    assert message in told and "bug" not in told and "Traceback" not in told and "Exception ignored" not in told
    assert {path.name: path.read_bytes() for path in here.iterdir()} == before, "no file was taken for a stream"


OUTPUTS: dict[str, list[str]] = {
    "prune": ["prune", "model.pt", "-r", "2x", "-m", "magnitude", "--no-retrain", "-o"],
    "retrain": ["retrain", "model.pt", "--epochs", "1", "-o"],
    "compact": ["compact", "model.pt", "--allow-noop", "-o"],
    "export": ["export", "model.pt", "-o"],
    "analyze --report": ["analyze", "model.pt", "--report"],
    "analyze -o": ["analyze", "model.pt", "--sensitivity", "-o"],
    "bench --plot": ["bench", "model.pt", "--min-runs", "2", "--min-seconds", "0", "--plot"],
}


@pytest.mark.parametrize("force", [[], ["--force"]], ids=["", "force"])
@pytest.mark.parametrize("output", ["pipe.svg", "/dev/null", "link.svg", "."])
@pytest.mark.parametrize("command", OUTPUTS)
def test_an_output_that_is_no_file_is_refused_before_any_work(
    command: str, output: str, force: list[str], run: Any, here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if command.endswith("--plot") and not output.endswith(".svg"):
        pytest.skip("a name that ends in .svg is asked for first")
    os.mkfifo(here / "pipe.svg")
    (here / "link.svg").symlink_to("pipe.svg")
    monkeypatch.setattr("compressor.formats.load", lambda *_, **__: pytest.fail("the work had begun"))
    done = run(*OUTPUTS[command], output, *force)
    assert done.code == 1 and re.search("is a (pipe or a device|directory)", done.err), done.err
    assert stat.S_ISFIFO((here / "pipe.svg").stat().st_mode)


WRITERS: dict[str, tuple[list[str], str]] = {
    "prune": (OUTPUTS["prune"], "out.pt"),
    "retrain": (OUTPUTS["retrain"], "out.pt"),
    "compact": (OUTPUTS["compact"], "out.pt"),
    "export": (OUTPUTS["export"], "out.onnx"),
    "report": (OUTPUTS["analyze --report"], "out.html"),
}


@pytest.mark.parametrize("mode", [0o600, 0o640, 0o666, 0o400])
@pytest.mark.parametrize("command", WRITERS)
def test_a_file_that_is_overwritten_keeps_its_mode(command: str, mode: int, run: Any, here: Path) -> None:
    arguments, name = WRITERS[command]
    (here / name).write_text("old")
    (here / name).chmod(mode)
    done = run(*arguments, name, "--force")
    assert done.code == 0, done.err
    assert stat.S_IMODE((here / name).stat().st_mode) == mode
    assert (here / name).read_bytes() != b"old"


def test_a_new_file_has_the_mode_of_the_umask(run: Any, here: Path) -> None:
    before = os.umask(0o027)
    try:
        assert run(*OUTPUTS["compact"], "out.pt").code == 0
    finally:
        os.umask(before)
    assert stat.S_IMODE((here / "out.pt").stat().st_mode) == 0o640


@pytest.mark.skipif(os.name != "posix" or os.geteuid() != 0, reason="only root gives files to others")
def test_a_file_that_is_overwritten_keeps_its_owner(here: Path) -> None:
    (here / "out").write_text("old")
    os.chown(here / "out", 4242, 4243)
    with atomic.atomic_write(here / "out", force=True) as temporary:
        assert stat.S_IMODE(temporary.stat().st_mode) == 0o600, "nobody reads it half done"
        temporary.write_text("new")
    found = (here / "out").stat()
    assert (found.st_uid, found.st_gid) == (4242, 4243)


def test_a_group_that_cannot_be_kept_leaves_no_rights_to_another(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (here / "out").write_text("old")
    (here / "out").chmod(0o664)
    replaced = os.stat(here / "out")
    other = os.stat_result((*replaced[:5], replaced.st_gid + 1, *replaced[6:]))

    def refuse(*_: Any) -> None:
        raise PermissionError

    monkeypatch.setattr(os, "chown", refuse)
    atomic._take_over(here / "out", other)
    assert stat.S_IMODE((here / "out").stat().st_mode) == 0o604


LIMITED = """
import os, resource, signal, sys
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[1]),) * 2)
from compressor.cli.main import main
sys.exit(main(sys.argv[2:]))
"""


@pytest.mark.parametrize("room", [0, 100, 4096])
@pytest.mark.parametrize("command", WRITERS)
def test_a_full_disk_is_called_one(command: str, room: int, here: Path, environment: dict[str, str]) -> None:
    arguments, name = WRITERS[command]
    done = subprocess.run(
        [sys.executable, "-c", LIMITED, str(room), *arguments, name], cwd=here, env=environment, capture_output=True,
        text=True, timeout=120, check=False,
    )  # fmt: skip
    if (here / name).exists():
        assert done.returncode == 0 and (here / name).stat().st_size <= room
        return
    assert done.returncode == 1, done.stderr
    told = ("File too large; free some space", "No usable temporary directory")
    assert any(text in done.stderr for text in told) and done.stderr.count("\n") <= 3, done.stderr
    assert not [path for path in here.iterdir() if ".tmp-" in path.name]


def test_a_writer_of_another_language_does_not_hide_what_the_disk_said(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="No space left"), atomic.opened(tmp_path / "file") as file:
        try:
            raw = file.raw  # type: ignore[attr-defined]
            raw.refused = OSError(28, "No space left on device")
            raise RuntimeError("unexpected pos 4096 vs 3998")
        finally:
            del raw


@pytest.mark.parametrize(
    ("ratio", "told"), [(271.27, "271.2x"), (9.999, "9.99x"), (10.04, "10.0x"), (2.0, "2.00x"), (99.99, "99.9x")]
)
def test_what_can_be_reached_is_not_rounded_up(ratio: float, told: str) -> None:
    assert format_reachable(ratio) == told
    assert parse_ratio(told) <= ratio


CUTS = [
    ["-p", pattern, "--of", of, *more]
    for pattern in ("channel", "filter", "shape", "filter+shape", "unstructured", "block:2x2")
    for of in ("params", "macs")
    for more in ([], ["--floor", "0.3"], ["--keep", "conv1"])
]


@pytest.mark.parametrize("cut", CUTS, ids=" ".join)
def test_the_largest_ratio_that_a_message_names_can_be_asked_for(run: Any, here: Path, cut: list[str]) -> None:
    command = ["prune", "model.pt", "-m", "magnitude", "--no-retrain", "-n", *cut, "-r"]
    refused = run(*command, "1e9x")
    assert refused.code == 1, refused.err
    named = re.search(r"the largest feasible is (\S+x)", refused.err)
    assert named is not None, refused.err
    done = run(*command, named[1], "--json")
    assert done.code == 0, f"{named[1]}: {done.err}"
    assert done.json["got"] >= parse_ratio(named[1]) * (1 - 1e-9)


def test_an_output_error_names_the_option(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="choose another path with --report"):
        atomic.refuse_taken(Path("/dev/null"), True, "--report")


def test_every_code_of_ending_is_documented() -> None:
    root = Path(__file__).parents[2]
    for page in ("README.md", "docs/ci.md"):
        text = (root / page).read_text(encoding="utf-8")
        assert all(code in text for code in ("130", "143", "129")), page
