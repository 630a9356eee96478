"""Scores, amounts per layer and healing on the command line, from option to checkpoint."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.cli.conftest import Run


def said(text: str) -> str:
    return " ".join(text.split())


def test_a_score_that_needs_data_finds_the_remembered_one(run: Run, here: Path) -> None:
    done = run(
        "prune", "model.pt", "-r", "2x", "-m", "magnitude", "--score", "taylor", "--score-batches", "1",
        "--no-retrain", "--reconstruct", "1", "--recalibrate", "1", "--json", "-o", "a.pt",
    )  # fmt: skip
    assert done.code == 0 and done.json["got"] >= 2.0
    names = [row["name"] for row in done.json["stages"]]
    assert names == ["dense", "prune: cut", "prune: recovered", "prune"]
    assert done.json["stages"][2]["extra"]["output error"] < done.json["stages"][2]["extra"]["unfitted"]
    dry = run(
        "prune", "model.pt", "-r", "2x", "-m", "magnitude", "--score", "fisher", "--reconstruct", "1", "-n", "--json"
    )
    assert dry.code == 0 and [row["name"] for row in dry.json["stages"]] == ["dense", "prune"]


def test_layers_choose_by_their_outputs_where_nothing_searches(run: Run, here: Path) -> None:
    asked = ("prune", "model.pt", "-p", "2:4", "--epochs", "0", "--no-retrain", "--json")
    done = run(*asked, "--reconstruct", "1", "--score", "activation", "-o", "a.pt")
    assert done.code == 0, done.err
    names = [row["name"] for row in done.json["stages"]]
    assert names == ["dense", "hard prune: cut", "hard prune: recovered", "hard prune"]
    plain = run(*asked, "--reconstruct", "1", "-m", "magnitude", "-o", "b.pt")
    errors = [next(row["extra"]["output error"] for row in one.json["stages"] if row["extra"]) for one in (done, plain)]
    assert errors[0] < errors[1] and done.json["got"] == plain.json["got"]
    searched = run("prune", "model.pt", "-p", "2:4", "--epochs", "1", "--reconstruct", "1", "--score", "activation")
    assert searched.code == 2 and "--score activation: --method admm draws to 0" in said(searched.err)


def test_admm_projects_and_says_so(run: Run, here: Path) -> None:
    done = run("prune", "model.pt", "-r", "2x", "--score", "taylor", "-n")
    assert done.code == 2 and "--score taylor: --method admm draws to 0 what weighs least" in said(done.err)


def test_thresholds_and_shares_stand_for_a_ratio(run: Run, here: Path) -> None:
    done = run(
        "prune", "model.pt", "-m", "magnitude", "-p", "unstructured", "--quality", "0.8", "--quality", "fc=0.1", "-n"
    )
    assert done.code == 0 and "magnitude, unstructured: got" in done.out and "asked" not in done.out
    shares = run(
        "prune", "model.pt", "-m", "magnitude", "--layer", "conv1=0.5", "--layer", "conv2=0.25", "-n", "--json"
    )
    assert {cut["name"]: cut["kept"] for cut in shares.json["layers"]} == {"conv1": 4, "conv2": 3, "fc": 3}
    assert shares.json["asked"] is None
    both = run("prune", "model.pt", "-r", "4x", "-m", "magnitude", "--layer", "conv1=0.5", "-n", "--json")
    assert both.json["asked"] == 4.0 <= both.json["got"] and both.json["layers"][0]["kept"] == 4
    neither = run("prune", "model.pt", "-m", "magnitude", "-n")
    assert neither.code == 2 and "give exactly one of --ratio" in said(neither.err)


def test_amounts_may_stand_in_a_config(run: Run, here: Path) -> None:
    (here / "compress.toml").write_text('[prune]\nmethod = "magnitude"\nlayer = ["conv1=0.5"]\n')
    done = run("prune", "model.pt", "-n", "--json")
    assert done.code == 0 and done.json["layers"][0]["kept"] == 4


def test_a_scan_spreads_the_budget(run: Run, here: Path) -> None:
    curves = {"conv1": [[0.5, 0.2]], "conv2": [[0.5, 0.89], [0.9, 0.8]], "fc": [[0.5, 0.3]]}
    scan = {"metric": "accuracy", "dense": 0.9, "n_samples": 48, "pattern": "unstructured", "curves": curves}
    (here / "scan.json").write_text(json.dumps(scan))
    common = (
        "prune",
        "model.pt",
        "-m",
        "magnitude",
        "-p",
        "unstructured",
        "--sensitivity",
        "scan.json",
        "-n",
        "--json",
    )
    done = run(*common, "--allocation", "sensitivity", "-r", "2x")
    kept = {cut["name"]: cut["kept"] / cut["dense"] for cut in done.json["layers"]}
    assert done.code == 0 and kept["conv2"] < 0.5 < min(kept["conv1"], kept["fc"]) and done.json["got"] >= 2.0
    loss = run(*common, "--max-loss", "0.05")
    assert loss.code == 0 and loss.json["asked"] is None and loss.json["got"] > 1.5
    alone = run(*common, "-r", "2x")
    assert alone.code == 2 and "--sensitivity: goes with --allocation sensitivity" in said(alone.err)
    missing = run("prune", "model.pt", "-m", "magnitude", "-r", "2x", "--allocation", "sensitivity", "-n")
    assert missing.code == 2 and "compress analyze MODEL --sensitivity -o scan.json" in said(missing.err)


def test_retrain_heals_alone(run: Run, here: Path) -> None:
    assert run("prune", "model.pt", "-r", "3x", "-m", "magnitude", "--no-retrain", "-o", "cut.pt").code == 0
    done = run(
        "retrain", "cut.pt", "--epochs", "0", "--reconstruct", "1", "--teacher", "model.pt", "-o", "h.pt", "--json"
    )
    assert done.code == 0 and [row["name"] for row in done.json["stages"]] == ["before", "recovered"]
    assert (here / "h.pt").exists() and done.json["history"] == []
    trained = run("retrain", "cut.pt", "--epochs", "1", "--alternate", "-o", "t.pt", "--json")
    assert trained.code == 0 and len(trained.json["history"]) == 1


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (("--epochs", "0"), "--epochs 0: leaves nothing to do without --recalibrate or --reconstruct"),
        (("--reconstruct", "2"), "--reconstruct fits the outputs of the dense model; name it with --teacher model.pt"),
        (("--recalibrate", "-1"), "--recalibrate -1: must be at least 0"),
    ],
)
def test_what_retrain_cannot_do_is_refused(run: Run, here: Path, options: tuple[str, ...], told: str) -> None:
    done = run("retrain", "model.pt", *options, "-o", "x.pt")
    assert done.code == 2 and told in said(done.err) and not (here / "x.pt").exists()


def test_inputs_can_go(run: Run, here: Path) -> None:
    done = run("prune", "model.pt", "-r", "2x", "-m", "magnitude", "--select-inputs", "-n")
    assert done.code == 2 and "--select-inputs: no fully connected layer reads the network's input" in said(done.err)
