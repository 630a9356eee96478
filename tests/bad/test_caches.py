"""What the tool itself wrote for later, and finds changed: times, scans, rows of a sweep."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from torch import nn

from compressor.asking import Sensitivity, load_sensitivity
from compressor.cli.main import main
from compressor.cost import LatencyTable
from compressor.errors import ModelError, UsageError
from compressor.program import InputSpec, Program, capture
from compressor.timing.operator_clock import OperatorClock
from tests.bad.forging import check_message, no_hang

TIMES: dict[str, str] = {
    "nothing": "", "no JSON": "{", "a list": "[]", "a number": "3", "deep": "[" * 100_000, "digits": "9" * 5000,
    "not a number": '{"KEY": NaN}', "infinity": '{"KEY": Infinity}', "below zero": '{"KEY": -1}', "zero": '{"KEY": 0}',
    "a year": '{"KEY": 31536000}', "a text": '{"KEY": "1"}', "true": '{"KEY": true}', "null": '{"KEY": null}',
    "a table": '{"KEY": {}}', "a large number": '{"KEY": 1e999}', "whole and large": '{"KEY": ' + "9" * 400 + "}",
    "half a letter": '{"\\ud800": 1}', "bytes": "\udcff",
}  # fmt: skip


def linear(n_out: int) -> Program:
    return capture(nn.Linear(3, n_out), [InputSpec("x", (None, 3))])


def take(models: Sequence[bytes], threads: int) -> tuple[float, ...]:
    return tuple(1.0 for _ in models)


@pytest.mark.parametrize("what", TIMES)
def test_times_that_are_none_are_measured_anew_and_said(tmp_path: Path, what: str) -> None:
    cache = tmp_path / "times.json"
    clock = OperatorClock(1, cache, take)
    clock.seconds([linear(2)])
    (key,) = json.loads(cache.read_text())
    cache.write_bytes(TIMES[what].replace("KEY", key).encode(errors="surrogateescape"))
    with no_hang():
        clock = OperatorClock(1, cache, take)
        assert (clock.trouble is not None and "measured again" in clock.trouble) or what == "half a letter"
        assert clock.seconds([linear(2)]) == (1.0,)
    check_message(clock.trouble or "none")


def test_twin_a_time_that_can_be_is_believed(tmp_path: Path) -> None:
    cache = tmp_path / "times.json"
    OperatorClock(1, cache, take).seconds([linear(2)])
    (key,) = json.loads(cache.read_text())
    cache.write_text(json.dumps({key: 0.25}))
    clock = OperatorClock(1, cache, take)
    assert clock.seconds([linear(2)]) == (0.25,) and clock.trouble is None


@pytest.mark.parametrize("seconds", [float("nan"), float("inf"), 0.0, -1.0])
def test_no_stopwatch_gives_a_table_of_times_that_are_none(seconds: float) -> None:
    with pytest.raises(ModelError, match="a stopwatch gave a time that is not above 0"):
        LatencyTable((1, 2), (1,), np.array([[1.0], [seconds]]))


@pytest.fixture
def home(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A home that cannot be written to, even by root."""
    monkeypatch.setenv("HOME", "/proc/none")
    for variable in ("XDG_CACHE_HOME", "XDG_STATE_HOME"):
        monkeypatch.delenv(variable, raising=False)
    yield folder


@pytest.mark.parametrize("place", ["unwritable", "relative", "damaged", "no home"])
def test_a_cache_that_is_bad_stops_no_run(
    home: Path, place: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    if place == "relative":
        monkeypatch.setenv("XDG_CACHE_HOME", "cache")
        monkeypatch.setenv("HOME", "home")
    elif place == "damaged":
        monkeypatch.setenv("XDG_CACHE_HOME", str(home / "cache"))
        (home / "cache" / "compress").mkdir(parents=True)
        (home / "cache" / "compress" / "operators.json").write_text('{"a": NaN}')
    elif place == "no home":
        monkeypatch.delenv("HOME")
        monkeypatch.setattr(Path, "home", lambda: (_ for _ in ()).throw(RuntimeError("no home")))
    words = ["prune", "good.pt", "-r", "1.2x", "-m", "magnitude", "--no-retrain", "--round-to", "auto", "-o", "out.pt"]
    assert main([*words, "--json"]) == 0, capsys.readouterr().err
    told = capsys.readouterr()
    assert json.loads(told.out)["got"] >= 1.2
    if place in ("unwritable", "damaged"):
        assert "note: " in told.err and "again" in told.err
    assert not (home / "cache").exists() or place == "damaged", "the working directory is no cache"


SCAN = {"metric": "accuracy", "dense": 0.9, "n_samples": 48, "pattern": "unstructured", "higher_is_better": True,
        "curves": {"0": [[0.5, 0.3]]}, "unmeasured": ["4"], "schema": "compress.sensitivity/1"}  # fmt: skip
VALUES = (None, True, -1, 0, 0.5, 2**70, "", "x", [], [1], [[1]], [[1, 2, 3]], [["a", "b"]], [[2.0, 1.0]], [[None, 1]],
          {}, {"a": 1}, {"0": [[0.5]]})  # fmt: skip


def test_every_field_of_a_scan_with_every_wrong_value(tmp_path: Path) -> None:
    path, n = tmp_path / "scan.json", 0
    for key in [*SCAN, "curves/0", "curves/0/0", "curves/0/0/0", "curves/0/0/1"]:
        for value in VALUES:
            scan = json.loads(json.dumps(SCAN))
            at: Any = scan
            *parents, last = (
                int(part) if part == "0" and not isinstance(at, dict) else part for part in key.split("/")
            )
            for part in parents:
                at = at[part if isinstance(at, dict) else int(part)]
            at[last if isinstance(at, dict) else int(last)] = value
            path.write_text(json.dumps(scan))
            try:
                found = load_sensitivity(path)
            except UsageError as error:
                check_message(str(error))
                n += 1
            else:
                assert isinstance(found, Sensitivity) and type(found.n_samples) is int and type(found.metric) is str
    assert n > 100
    path.write_text("[" * 100_000)
    with pytest.raises(UsageError, match="is no JSON"):
        load_sensitivity(path)


ROWS = ["", "{", "[]", "{}", '{"identity": 3, "row": {}}', '{"identity": "x", "row": {"asked": "2"}}', "[" * 100_000]


@pytest.mark.parametrize("text", ROWS, ids=[row[:20] for row in ROWS])
def test_a_row_of_a_sweep_that_is_none(folder: Path, capsys: pytest.CaptureFixture[str], text: str) -> None:
    os.makedirs(folder / "sweep")
    (folder / "sweep" / "1.2x.json").write_text(text)
    code = main(["prune", "good.pt", "--sweep", "1.2x", "-m", "magnitude", "--no-retrain", "-o", "sweep"])
    told = capsys.readouterr().err
    assert code in (1, 2) and "bug" not in told and told.count("\n") <= 4, told
