"""What `prune` and `compact` say about latency and widths, by scripted clocks: no test here waits for a real one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import compressor.timing
from compressor.cost import Preference, Preferences, filled_work
from compressor.cost.preferences import KINDS
from compressor.formats import load, save
from compressor.program import InputSpec, Program, capture
from compressor.timing import CutLatency

FASTER = CutLatency(1.83, 1.75, 1.9, "faster", 4.5e-3, 2.5e-3)
SLOWER = CutLatency(0.83, 0.8, 0.86, "slower", 2.5e-3, 3e-3)
CUT = ("--method", "magnitude", "--no-retrain")


class Scripted:
    """Stands in for `timing.glance`: one answer, and how often it was asked."""

    def __init__(self) -> None:
        self.answer: CutLatency | Exception | None = FASTER
        self.asked = 0

    def __call__(
        self, before: bytes, after: bytes, feeds: Sequence[Any], threads: int = 1, seconds: float = 1.0
    ) -> CutLatency | None:
        assert before and after and len(feeds) == 1
        self.asked += 1
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer if self.answer is None else replace(self.answer, threads=threads)


class Fours:
    """Stands in for the clock of operators: its kernels load channels in fours and compute filters in blocks of 4."""

    def __init__(self, threads: int, cache: Path) -> None:
        self.trouble: str | None = None

    def seconds(self, programs: Sequence[Program], batch: int = 1) -> tuple[float, ...]:
        table = Preferences(dict.fromkeys(KINDS, Preference(4, 4, odd=2.0)))
        return tuple(filled_work(program, table) for program in programs)


class Broken(Fours):
    def seconds(self, programs: Sequence[Program], batch: int = 1) -> tuple[float, ...]:
        self.trouble = "times are not remembered, each run measures again: read-only file system"
        raise RuntimeError("illegal instruction")


@pytest.fixture(scope="module")
def wide(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """A checkpoint with widths of 32 and 48, which leave something to choose."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        net = nn.Sequential()
        net.add_module("conv1", nn.Conv2d(1, 32, 3, padding=1))
        net.add_module("relu1", nn.ReLU())
        net.add_module("conv2", nn.Conv2d(32, 48, 3, padding=1))
        net.add_module("relu2", nn.ReLU())
        net.add_module("conv3", nn.Conv2d(48, 4, 3, padding=1))
    path = tmp_path_factory.mktemp("wide") / "wide.pt"
    save(capture(net, [InputSpec("x", (None, 1, 8, 8))]), path)
    return path.read_bytes()


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch, here: Path, wide: bytes) -> Scripted:
    """Latency is looked at, widths are measured, both by script, for the model wide.pt."""
    (here / "wide.pt").write_bytes(wide)
    for name in ("COMPRESS_ROUND_TO", "COMPRESS_NO_LATENCY"):
        monkeypatch.delenv(name)
    scripted = Scripted()
    monkeypatch.setattr(compressor.timing, "glance", scripted)
    monkeypatch.setattr(compressor.timing, "OperatorClock", Fours)
    return scripted


def widths(path: str) -> list[int]:
    masks = load(path).masks
    return [int(masks[f"{name}.weight"].any(dim=(1, 2, 3)).sum()) for name in ("conv1", "conv2")]


def test_both_commands_say_what_the_cut_does(run: Any, clock: Scripted) -> None:
    for command in (("prune", "wide.pt", "-r2x", *CUT), ("compact", "wide.pruned.pt")):
        done = run(*command)
        assert done.code == 0, done.err
        assert "latency 4.5 ms -> 2.5 ms: 1.83x (95 %: 1.75x to 1.90x), onnxruntime, 1 thread, batch 1" in done.out
        assert "no faster" not in done.out
    assert clock.asked == 2


def test_a_dry_run_says_it_before_anything_is_trained(run: Any, clock: Scripted) -> None:
    done = run("prune", "wide.pt", "-r2x", "--dry-run")
    assert done.code == 0 and "1.83x (95 %" in done.out


def test_json_has_it_too(run: Any, clock: Scripted) -> None:
    done = run("prune", "wide.pt", "-r2x", *CUT, "--json")
    assert done.json["latency"]["speedup"] == 1.83 and done.json["latency"]["verdict"] == "faster"
    done = run("compact", "wide.pruned.pt", "--json", "--threads", "2")
    assert done.json["latency"]["threads"] == 2 and done.json["warnings"] == []


def test_nothing_is_measured_that_nobody_wants_or_would_see(run: Any, clock: Scripted) -> None:
    done = run("prune", "wide.pt", "-r2x", *CUT, "--no-latency", "--json")
    assert done.code == 0 and done.json["latency"] is None
    assert run("compact", "wide.pruned.pt", "-q").code == 0
    assert "latency" not in run("prune", "wide.pt", "-r2x", *CUT, "--pattern", "unstructured", "-o", "u.pt").out
    assert clock.asked == 0


@pytest.mark.parametrize(
    ("more", "named"),
    [
        (("--round-to", "1"), "compress prune wide.pt --ratio 2x --round-to auto"),
        ((), "compress prune wide.pt --ratio 2x --of latency"),
        (("--of", "latency"), "--allocation latency"),
    ],
)
def test_a_cut_that_gains_nothing_ends_with_what_to_run(
    run: Any, clock: Scripted, more: tuple[str, ...], named: str
) -> None:
    clock.answer = SLOWER
    done = run("prune", "wide.pt", "-r", "2x", *CUT, *more)
    assert done.code == 0, done.err
    (warning,) = [line for line in done.out.splitlines() if "no faster" in line]
    assert warning.startswith("warning: no faster than before (0.83x (95 %: 0.80x to 0.86x))") and named in warning


def test_compact_names_itself_where_filling_widths_would_help(run: Any, clock: Scripted) -> None:
    clock.answer = SLOWER
    assert run("prune", "wide.pt", "-r2x", *CUT, "--round-to", "1", "-o", "odd.pt").code == 0
    assert any(n % 4 for n in widths("odd.pt"))
    done = run("compact", "odd.pt", "-o", "a.pt", "--json")
    assert "compress compact odd.pt --round-to auto" in done.json["warnings"][0]
    done = run("compact", "odd.pt", "-o", "b.pt", "--round-to", "auto", "--json")
    assert "--of latency" in done.json["warnings"][0]
    filled = load("b.pt").parameters
    assert all(filled[f"{name}.weight"].shape[0] % 4 == 0 for name in ("conv1", "conv2"))


def test_compact_knows_when_the_widths_are_not_to_blame(run: Any, clock: Scripted) -> None:
    clock.answer = SLOWER
    assert run("prune", "wide.pt", "-r2x", *CUT).code == 0
    assert all(n % 4 == 0 for n in widths("wide.pruned.pt"))
    done = run("compact", "wide.pruned.pt", "--json")
    assert "compress prune" in done.json["warnings"][0] and "--of latency" in done.json["warnings"][0]


@pytest.mark.parametrize(
    ("answer", "why"),
    [(None, "one inference takes too long"), (RuntimeError("no kernel for Foo\nat all"), "no kernel for Foo")],
)
def test_what_cannot_be_measured_is_estimated_by_the_widths(run: Any, clock: Scripted, answer: Any, why: str) -> None:
    clock.answer = answer
    done = run("prune", "wide.pt", "-r2x", *CUT, "--json")
    latency = done.json["latency"]
    assert done.code == 0 and latency["estimated"] == why and latency["before_s"] is None
    assert latency["speedup"] > 1.3
    assert "by the widths alone; not measured, " + why in run("compact", "wide.pruned.pt").out


def test_widths_that_kernels_like_are_the_default(run: Any, clock: Scripted) -> None:
    done = run("prune", "wide.pt", "-r2x", *CUT, "--json")
    assert done.code == 0 and done.json["got"] >= 2
    assert all(n % 4 == 0 for n in widths("wide.pruned.pt"))
    assert done.json["got"] <= 2.04 or "widths that kernels like come no closer" in done.json["warnings"][0]
    done = run("prune", "wide.pt", "-r2x", *CUT, "--json", "--round-to", "1", "-o", "exact.pt")
    assert 2 <= done.json["got"] < 2.04 and any(n % 4 for n in widths("exact.pt"))


def test_the_environment_pins_both(run: Any, clock: Scripted, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COMPRESS_ROUND_TO", "1")
    monkeypatch.setenv("COMPRESS_NO_LATENCY", "1")
    done = run("prune", "wide.pt", "-r2x", *CUT, "--json")
    assert done.json["latency"] is None and any(n % 4 for n in widths("wide.pruned.pt"))


def test_a_runtime_that_does_not_work_stops_nothing(run: Any, clock: Scripted, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compressor.timing, "OperatorClock", Broken)
    clock.answer = RuntimeError("illegal instruction")
    done = run("prune", "wide.pt", "-r2x", *CUT)
    assert done.code == 0, done.err
    assert "no width could be measured, so those that are usually fast are taken: illegal instruction" in done.err
    assert "note: times are not remembered" in done.err
    assert all(n % 4 == 0 for n in widths("wide.pruned.pt"))
