"""The six commands on a tiny network, from options to files."""

from __future__ import annotations

import contextlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from compressor.cli.session import Session
from compressor.formats import file_sha256, load
from compressor.progress import Silent

TRAIN = ("--epochs", "1", "--batch-size", "16", "--device", "cpu")


def prune(run: Any, *more: str) -> Any:
    return run("prune", "model.pt", "--ratio", "3x", "--method", "magnitude", "--no-retrain", *more)


def test_analyze_as_table_and_json(run: Any) -> None:
    table, found = run("analyze", "model.pt"), run("analyze", "model.pt", "--json")
    assert (table.code, found.code) == (0, 0)
    for word in ("conv1", "conv2", "fc", "parameters", "MACs", "Pinned"):
        assert word in table.out
    body = found.json
    assert list(body)[:2] == ["schema", "model"]
    assert body["schema"] == "compress.analyze/1"
    assert body["n_params"] == 8 * 9 + 8 + 12 * 8 * 9 + 12 + 48 * 3 + 3
    assert 0 <= body["metrics"]["accuracy"] <= 1


def test_analyze_explains_a_filter(run: Any) -> None:
    done = run("analyze", "model.pt", "--explain", "conv2:1", "--json")
    assert done.code == 0
    slices = {(s["parameter"], s["axis"]): s["positions"] for s in done.json["explanation"]["slices"]}
    assert slices["conv2.weight", 0] == [1]
    assert slices["fc.weight", 1] == [4, 5, 6, 7]
    assert "conv2.weight" in run("analyze", "model.pt", "--explain", "conv2").out


@pytest.mark.parametrize("text", ["", ":", "conv1:", "conv1:x", "conv1:-1"])
def test_explain_wants_a_layer_and_maybe_an_index(run: Any, text: str) -> None:
    done = run("analyze", "model.pt", "--explain", text)
    assert done.code == 2
    assert "write LAYER or LAYER:N" in done.err


def test_prune_writes_a_masked_checkpoint_with_its_history(run: Any, here: Path) -> None:
    done = prune(run, "--json")
    assert done.code == 0, done.err
    body = done.json
    assert (body["schema"], body["output"], body["dry_run"]) == ("compress.prune/1", "model.pruned.pt", False)
    assert body["got"] >= 3
    assert body["size_bytes"] == (here / "model.pruned.pt").stat().st_size
    program = load("model.pruned.pt")
    (step,) = program.record.steps
    assert (step.command, step.options["ratio"], step.seed) == ("prune", "3x", 0)
    assert step.parent_sha256 == file_sha256("model.pt")
    assert step.metrics["got"] == pytest.approx(body["got"])
    assert program.record.dense_params == body["dense_params"]
    assert program.n_zeroed > 0


def test_prune_with_training_reports_every_stage(run: Any, here: Path) -> None:
    done = run("prune", "model.pt", "-r", "2x", "--retrain-epochs", "1", *TRAIN, "-o", "p.pt")
    assert done.code == 0, done.err
    for stage in ("dense", "admm", "hard prune", "retrain", "accuracy"):
        assert stage in done.out
    assert "admm: done in" in done.err
    assert not (here / "p.pt.resume").exists()


def test_sparsity_is_the_same_request(run: Any) -> None:
    by_ratio = prune(run, "--json", "-o", "a.pt").json
    by_share = run(
        "prune",
        "model.pt",
        "--sparsity",
        str(1 - 1 / 3),
        "--method",
        "magnitude",
        "--no-retrain",
        "--json",
        "-o",
        "b.pt",
    ).json
    assert by_share["kept_params"] == by_ratio["kept_params"]
    assert by_share["asked"] == pytest.approx(3)


@pytest.mark.parametrize("more", [(), ("--ratio", "2x", "--sparsity", "0.5")])
def test_exactly_one_of_ratio_and_sparsity(run: Any, more: tuple[str, ...]) -> None:
    done = run("prune", "model.pt", *more)
    assert done.code == 2
    assert "exactly one of --ratio" in done.err


@pytest.mark.parametrize(
    ("more", "told"),
    [
        (("-r", "0.5x"), "must be above 1"),
        (("-r", "x"), "not a ratio"),
        (("--sparsity", "1.5"), "must lie between 0 and 1"),
        (("-r", "2x", "--floor", "1"), "--floor 1"),
        (("-r", "2x", "--steps", "0"), "must be at least 1"),
        (("-r", "2x", "--rho", "-1"), "--rho -1: must be at least 0"),
        (("-r", "2x", "--lr", "-1"), "--lr -1: must be above 0"),
        (("-r", "2x", "--input", "3x"), "not a shape"),
    ],
)
def test_values_that_cannot_be_meant_are_usage_errors(run: Any, more: tuple[str, ...], told: str) -> None:
    done = run("prune", "model.pt", *more)
    assert (done.code, told in done.err) == (2, True), done.err


def test_a_dry_run_writes_nothing_and_needs_no_data(run: Any, here: Path) -> None:
    before = sorted(here.iterdir())
    done = run("prune", "model.pt", "-r", "3x", "--dry-run")
    assert done.code == 0, done.err
    assert done.out.startswith("dry run, nothing written. By the weights as they are; admm chooses while it trains")
    assert run("prune", "model.pt", "-r", "3x", "-n", "--json").json["dry_run"] is True
    assert sorted(here.iterdir()) == before


def test_an_existing_output_is_refused_before_any_work(run: Any, here: Path) -> None:
    (here / "model.pruned.pt").write_text("mine")
    done = prune(run)
    assert done.code == 1
    assert "exists already; overwrite it with --force" in done.err
    assert (here / "model.pruned.pt").read_text() == "mine"
    assert prune(run, "--force").code == 0


def test_training_without_data_says_so(run: Any, here: Path) -> None:
    done = run("prune", "init", "--arch", "net.py:Net", "--input", "1x8x8", "-r", "2x")
    assert done.code == 2
    assert "no data: pruning by admm with training needs a data set" in done.err
    done = run("retrain", "init", "--arch", "net.py:Net", "--input", "1x8x8", "-o", "x.pt")
    assert "no data: retraining needs a data set" in done.err


def test_data_that_do_not_fit_are_refused(run: Any, here: Path) -> None:
    import numpy as np

    zeros, labels = np.zeros((4, 3, 8, 8), np.float32), np.arange(4) % 2
    np.savez(here / "other.npz", x_train=zeros, y_train=labels, x_test=zeros, y_test=labels)
    done = run("analyze", "model.pt", "--data", "other.npz")
    assert done.code == 1
    assert "gives inputs of 3×8×8 but the model takes 1×8×8" in done.err


def test_remembered_data_that_are_gone_are_a_note_unless_needed(run: Any, here: Path) -> None:
    assert prune(run).code == 0
    (here / "data.npz").unlink()
    done = run("compact", "model.pruned.pt")
    assert done.code == 0, done.err
    assert "note: not measured on data:" in done.err
    assert run("retrain", "model.pruned.pt", *TRAIN).code == 1
    assert run("compact", "model.pruned.pt", "-o", "x.pt", "--data", "data.npz").code == 1


def test_retrain_keeps_what_was_cut_cut(run: Any) -> None:
    assert prune(run).code == 0
    done = run("retrain", "model.pruned.pt", *TRAIN, "--json")
    assert done.code == 0, done.err
    assert (done.json["schema"], done.json["output"]) == ("compress.retrain/1", "model.retrained.pt")
    assert len(done.json["history"]) == 1
    before, after = load("model.pruned.pt"), load("model.retrained.pt")
    assert [step.command for step in after.record.steps] == ["prune", "retrain"]
    for name, mask in after.masks.items():
        assert torch.equal(mask, before.masks[name])
        assert not after.parameters[name][~mask].any()


def test_an_interrupted_run_resumed_is_the_uninterrupted_one(
    run: Any, here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    command = ("prune", "model.pt", "-r", "2x", *TRAIN, "--epochs", "2", "--retrain-epochs", "2", "--json")
    assert run(*command, "-o", "whole.pt").code == 0

    class Impatient(Silent):
        steps = 0

        def advance(self, n: int = 1, /, **values: float) -> None:
            self.steps += n
            if self.steps == 9:  # in the second epoch of six steps
                raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(Session, "progress", lambda self: contextlib.nullcontext(Impatient()))
        done = run(*command, "-o", "broken.pt")
    assert (done.code, done.json["exit_code"]) == (130, 130)
    assert "the last finished epoch is in broken.pt.resume" in done.err
    assert not (here / "broken.pt").exists()
    assert run(*command, "-o", "broken.pt").code == 2
    resumed = run(*command, "-o", "broken.pt", "--resume")
    assert resumed.code == 0, resumed.err
    assert not (here / "broken.pt.resume").exists()
    whole, broken = load("whole.pt"), load("broken.pt")
    for name, tensor in whole.module.tensors().items():
        assert torch.equal(tensor, broken.module.tensors()[name]), name


def test_a_teacher_needs_a_name_and_brings_a_share(run: Any) -> None:
    from compressor.asking.recipe import DISTILL_WITH_TEACHER
    from compressor.cli.retrain import RetrainOptions, retrain_recipe

    done = run("retrain", "model.pt", "--distill", "0.5", *TRAIN)
    assert done.code == 2
    assert "--distill needs a teacher" in done.err
    assert retrain_recipe(RetrainOptions(model="m", teacher="t")).distill == DISTILL_WITH_TEACHER
    assert retrain_recipe(RetrainOptions(model="m", teacher="t", said={"distill": 0.2})).distill == 0.2
    assert run("retrain", "model.pt", "--teacher", "model.pt", *TRAIN).code == 0


def test_the_recipes_of_prune_are_what_was_asked() -> None:
    from compressor.cli.pruning import PruneOptions, prune_settings

    said = {"ratio": "2x", "lr": 0.01, "distill": 0.5, "keep_best": True, "patience": 2}
    settings = prune_settings(PruneOptions(model="m", said={**said, "epochs": 3, "retrain_epochs": 4}))
    assert settings.prune_recipe is not None and settings.retrain_recipe is not None
    assert (settings.prune_recipe.epochs, settings.retrain_recipe.epochs) == (3, 4)
    assert (settings.prune_recipe.lr, settings.retrain_recipe.lr) == (0.01, 0.01)
    assert (settings.prune_recipe.distill, settings.retrain_recipe.distill) == (0.0, 0.5)
    assert (settings.prune_recipe.keep, settings.retrain_recipe.keep) == ("last", "best")
    one_shot = prune_settings(PruneOptions(model="m", said={"ratio": "2x", "method": "magnitude", "no_retrain": True}))
    assert (one_shot.prune_recipe, one_shot.retrain_recipe) == (None, None)


def test_compact_is_smaller_and_says_what_it_removed(run: Any, here: Path) -> None:
    assert prune(run).code == 0
    done = run("compact", "model.pruned.pt", "--json")
    assert done.code == 0, done.err
    body = done.json
    assert (body["schema"], body["output"]) == ("compress.compact/1", "model.compact.pt")
    assert body["removed"] == body["masked_params"] - body["compact_params"] > 0
    assert (here / "model.compact.pt").stat().st_size < (here / "model.pruned.pt").stat().st_size
    assert [step.command for step in load("model.compact.pt").record.steps] == ["prune", "compact"]
    assert "removed" in run("compact", "model.pruned.pt", "--force").out


def test_nothing_to_remove_is_said_and_writes_nothing(run: Any, here: Path) -> None:
    done = run("compact", "model.pt")
    assert done.code == 1
    assert "nothing to remove" in done.err
    assert not (here / "model.compact.pt").exists()
    assert run("compact", "model.pt", "--allow-noop").code == 0


def test_export_writes_onnx_with_provenance(run: Any, here: Path) -> None:
    import onnx

    done = run("export", "model.pt", "--json")
    assert done.code == 0, done.err
    assert (done.json["schema"], done.json["output"]) == ("compress.export/1", "model.onnx")
    assert done.json["max_rel"] <= done.json["limit"]
    properties = {entry.key: entry.value for entry in onnx.load(here / "model.onnx").metadata_props}
    step = json.loads(properties["compressor.export"])
    assert (step["command"], step["parent_sha256"]) == ("export", file_sha256("model.pt"))
    assert str(here) not in str(properties)
    assert "onnxruntime against torch" in run("export", "model.pt", "--force").out


BENCH = ("--min-seconds", "0.01", "--max-seconds", "0.5", "--min-runs", "5", "--warmup", "1")


def test_bench_compares_and_gates(run: Any) -> None:
    assert run("export", "model.pt").code == 0
    done = run("bench", "model.pt", "model.onnx", *BENCH, "--require", "size<=1MiB", "--json")
    assert done.code == 0, done.err
    body = done.json
    assert body["schema"] == "compress.bench/1"
    assert [t["subject"]["name"] for t in body["timings"]] == ["model.pt", "model.onnx"]
    assert body["timings"][0]["median_s"] > 0
    assert body["requirements"] == [{"text": "size<=1MiB", "passed": True, "message": None}]
    assert body["passed"] is True
    assert all(warning["hint"] for warning in body["warnings"])


def test_a_gate_that_is_not_met_is_3_with_the_numbers(run: Any) -> None:
    table = run("bench", "model.pt", *BENCH, "--require", "latency<=1ns", "--require", "size<=1MiB")
    assert table.code == 3
    assert "NOT MET: latency<=1ns" in table.out
    assert "\nmet: size<=1MiB" in table.out
    assert "compress bench: 1 of 1 requirements failed: latency<=1ns" in table.err
    as_json = run("bench", "model.pt", *BENCH, "--require", "latency<=1ns", "--json")
    assert (as_json.code, as_json.json["schema"], as_json.json["passed"]) == (3, "compress.bench/1", False)


def test_a_malformed_gate_is_refused_before_measuring(run: Any) -> None:
    done = run("bench", "no-such-file.pt", "--require", "sped>=2")
    assert done.code == 2
    assert "--require sped>=2" in done.err


def test_bench_measures_accuracy_when_a_gate_asks_for_it(run: Any) -> None:
    done = run("bench", "model.pt", *BENCH, "--require", "accuracy>=0", "--json")
    assert done.code == 0, done.err
    assert 0 <= done.json["timings"][0]["accuracy"] <= 1


@pytest.mark.parametrize(
    ("option", "text"), [("--threads", "0"), ("--threads", "1,x"), ("--batch", "1,"), ("--batch", "²")]
)
def test_counts_are_whole_numbers(run: Any, option: str, text: str) -> None:
    done = run("bench", "model.pt", option, text)
    assert (done.code, f"{option} " in done.err) == (2, True)


def test_bench_opens_state_dicts_and_initial_weights(run: Any, here: Path) -> None:
    program = load("model.pt")
    torch.save(program.module.state_dict(), here / "weights.pth")
    common = ("--arch", "net.py:Net", "--input", "1x8x8", *BENCH)
    done = run("bench", "weights.pth", "init", "model.pt", *common, "--json")
    assert done.code == 0, done.err
    subjects = [timing["subject"] for timing in done.json["timings"]]
    assert [subject["name"] for subject in subjects] == ["weights.pth", "init", "model.pt"]
    assert [subject["path"] for subject in subjects] == ["weights.pth", "init", "model.pt"]


@pytest.mark.parametrize("command", ["analyze", "prune", "retrain", "compact", "export", "bench"])
@pytest.mark.parametrize(
    ("content", "told"),
    [
        (None, "no such file"),
        (b"", "is empty"),
        (b"hello, world\n" * 9, "is a text file"),
        (b"PK\x03\x04" + b"\x00" * 99, "broken.pt"),
    ],
)
def test_a_broken_file_is_one_short_message(
    run: Any, here: Path, command: str, content: bytes | None, told: str
) -> None:
    if content is not None:
        (here / "broken.pt").write_bytes(content)
    done = run(command, "broken.pt", *(("--ratio", "2x") if command == "prune" else ()))
    assert done.code == 1
    assert told in done.err
    assert "bug" not in done.err
    assert done.err.count("\n") <= 3


def test_augment_says_so_where_it_changes_nothing(run: Any, here: Path) -> None:
    held = dict(np.load(here / "data.npz"))
    told = run("retrain", "model.pt", *TRAIN, "--augment", "-o", "a.pt")
    assert told.code == 0 and "--augment changes nothing: " in told.err
    np.savez(here / "data.npz", **held, shift=1)
    moved = run("retrain", "model.pt", *TRAIN, "--augment", "-o", "b.pt")
    assert moved.code == 0 and "--augment" not in moved.err
    first, second = (load(name).parameters["fc.weight"] for name in ("a.pt", "b.pt"))
    assert not torch.equal(first, second)
