"""Several ratios at once on the command line: a folder of checkpoints and rows, and a run again goes on."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import compressor
from tests.cli.conftest import Run

SWEEP = ("prune", "model.pt", "-r", "1.5x,2x", "-m", "magnitude", "--no-retrain", "-o", "out")


def test_each_ratio_becomes_a_checkpoint_and_a_row(run: Run, here: Path) -> None:
    done = run(*SWEEP, "--json")
    assert done.code == 0
    assert [row["asked"] for row in done.json["rows"]] == [1.5, 2.0]
    assert all(row["asked"] <= row["got"] for row in done.json["rows"])
    assert sorted(f.name for f in (here / "out").iterdir()) == [
        "1.5x.json", "1.5x.pruned.pt", "2x.json", "2x.pruned.pt",
    ]  # fmt: skip
    alone = run("prune", "model.pt", "-r", "2x", "-m", "magnitude", "--no-retrain", "--json", "-o", "alone.pt")
    assert done.json["rows"][1]["params"] == alone.json["kept_params"]
    table = run(*SWEEP, "--table", "csv")
    assert (
        table.code == 0 and table.out.splitlines()[0].startswith("asked,got,params,macs") and table.out.count("\n") == 3
    )


def test_run_again_it_does_only_what_is_missing(run: Run, here: Path) -> None:
    run(*SWEEP)
    kept = (here / "out" / "1.5x.pruned.pt").stat().st_mtime_ns
    (here / "out" / "2x.json").unlink()
    assert run(*SWEEP).code == 0
    assert (here / "out" / "1.5x.pruned.pt").stat().st_mtime_ns == kept
    assert json.loads((here / "out" / "2x.json").read_text())["row"]["asked"] == 2.0
    other = run(*SWEEP, "--of", "macs")
    assert other.code != 0 and "belongs to a sweep of another model, other data or other options" in other.err


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (("-n",), "--dry-run: is about one result; give one --ratio"),
        (("--require", "ratio>=2"), "--require: is about one result"),
        (("-r", "2x,2x"), "a sweep needs ratios, each once"),
        (("-r", "2x,fast"), "fast"),
    ],
)
def test_what_speaks_about_one_result_is_refused(run: Run, here: Path, more: tuple[str, ...], message: str) -> None:
    done = run(*SWEEP, *more)
    assert done.code == 2 and message in done.err
    (here / "taken").write_text("")
    taken = run(*SWEEP[:-1], "taken")
    assert taken.code != 0 and "taken: is a file; a sweep writes a folder, name another with -o" in taken.err


def test_every_step_can_be_kept(run: Run, here: Path) -> None:
    done = run(
        "prune", "model.pt", "-r", "2x", "-m", "magnitude", "--steps", "2", "--epochs", "1", "--no-retrain",
        "--batch-size", "16", "--device", "cpu", "--save-every", "-o", "p.pt", "--json",
    )  # fmt: skip
    assert done.code == 0 and sorted(f.name for f in here.glob("p*.pt")) == ["p.1.pt", "p.2.pt", "p.pt"]
    for number, stage in ((1, done.json["stages"][1]), (2, done.json["stages"][2])):
        program = compressor.load(here / f"p.{number}.pt")
        assert program.n_parameters - program.n_zeroed == stage["params"]
    refused = run("prune", "model.pt", "-r", "2x", "-m", "magnitude", "--no-retrain", "--save-every", "-o", "-")
    assert refused.code == 2 and "--save-every: writes beside the output; name a file with -o" in refused.err
