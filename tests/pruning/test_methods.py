"""Scores, thresholds, shares and what heals a cut, through `prune` and `retrain` as a whole."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from compressor.asking import PruneSettings, Recipe, Recovery, Sensitivity
from compressor.axes import find_units
from compressor.data import open_task
from compressor.data.arrays import ArraySource
from compressor.errors import UsageError
from compressor.program import Program, arguments
from compressor.progress import Silent
from compressor.pruning import prune, retrain
from compressor.pruning.rating import rated_tensors
from compressor.pruning.run import Trainer
from compressor.training import gradient_moments

SHORT = Recipe(epochs=2, batch_size=32, lr=5e-3)
ONE_SHOT = PruneSettings(ratio=2.0, method="magnitude", floor=0.1)
SCAN = Sensitivity("accuracy", 1.0, 60, "unstructured", {
    name: ((0.5, 0.99), (0.9, 0.5)) for name in ("one", "two", "hidden", "out")
})  # fmt: skip


@pytest.fixture
def trained(tiny: Program, data: ArraySource) -> Program:
    return retrain(tiny, Recipe(epochs=8, batch_size=32, lr=1e-2), data=data)[0]


@pytest.mark.parametrize("score", ["l1", "taylor", "fisher", "bn", "fpgm", "activation"])
def test_every_score_reaches_the_ratio_and_chooses_for_itself(trained: Program, data: ArraySource, score: str) -> None:
    pruned, report = prune(trained, replace(ONE_SHOT, score=score), data=data)
    again, _ = prune(trained, replace(ONE_SHOT, score=score), data=data)
    assert 2.0 <= report.got < 2.2
    assert all(torch.equal(mask, again.masks[name]) for name, mask in pruned.masks.items())
    plain, _ = prune(trained, ONE_SHOT)
    assert any(not torch.equal(mask, plain.masks[name]) for name, mask in pruned.masks.items() if name in plain.masks)


def test_fisher_takes_the_gradients_of_single_samples(trained: Program, data: ArraySource) -> None:
    """Its scores are w² · mean g² / 2 of the samples that the batches hold."""
    trainer = Trainer(data, open_task(None), 0, "cpu", Silent())
    units = find_units(trained)
    rated = rated_tensors(trained, units, replace(ONE_SHOT, score="fisher", score_batches=1), trainer)
    squares = gradient_moments(trained.module, data, open_task(None), n_batches=64, batch_size=1)
    for name, weight in trained.parameters.items():
        assert torch.allclose(rated[name].square(), weight.detach().square() * squares[name][1] / 2)


@pytest.mark.parametrize("score", ["l1", "taylor", "fisher", "activation"])
def test_scores_of_single_weights_serve_the_other_patterns(trained: Program, data: ArraySource, score: str) -> None:
    for pattern in ("unstructured", "shape"):
        settings = replace(ONE_SHOT, score=score, pattern=pattern, steps=2, prune_recipe=SHORT, retrain_recipe=SHORT)
        pruned, report = prune(trained, settings, data=data)
        assert report.got >= 2.0 and report.stages[-1].params < report.stages[1].params
        assert all(not pruned.parameters[name].detach()[~mask].any() for name, mask in pruned.masks.items())


def test_recovery_gives_accuracy_back_without_a_step(trained: Program, data: ArraySource) -> None:
    settings = replace(ONE_SHOT, ratio=2.5, recovery=Recovery(reconstruct=2, recalibrate=3))
    pruned, report = prune(trained, settings, data=data)
    names = [row.name for row in report.stages]
    assert names == ["dense", "prune: cut", "prune: recovered", "prune"]
    cut, healed = report.stages[1], report.stages[2]
    assert cut.metrics is not None and healed.metrics is not None
    assert healed.metrics["loss"] < cut.metrics["loss"]
    assert healed.extra["output error"] < healed.extra["unfitted"] and healed.extra["norms"] == 2
    assert all(not pruned.parameters[name].detach()[~mask].any() for name, mask in pruned.masks.items())


def test_admm_without_training_chooses_by_what_layers_answer(trained: Program, data: ArraySource) -> None:
    """As many weights of each layer stay as by magnitude, others of them, and the outputs are nearer the dense ones."""
    recovery = Recovery(reconstruct=4)
    cuts: list[dict[str, Any]] = [{"ratio": 4.0, "pattern": "unstructured"}, {"pattern": "2:4"}]
    for asked in [*cuts, {"ratio": 2.0, "pattern": "block:2x2"}]:
        found = {}
        for method in ("magnitude", "admm"):
            settings = PruneSettings(method=method, recovery=recovery, **asked)  # type: ignore[arg-type]
            pruned, report = prune(trained, settings, data=data)
            pruned.check_masks()
            assert report.got >= asked.get("ratio", 1.3)
            found[method] = pruned, report.stages[-2].extra["output error"]
        (plain, error), (chosen, less) = found["magnitude"], found["admm"]
        assert less < error, asked
        assert {name: int(mask.sum()) for name, mask in plain.masks.items()} == {
            name: int(mask.sum()) for name, mask in chosen.masks.items()
        }  # fmt: skip
        assert any(not torch.equal(mask, plain.masks[name]) for name, mask in chosen.masks.items())
    again, _ = prune(chosen, replace(settings, ratio=4.0), data=data)
    assert all(not (again.masks[name] & ~mask).any() for name, mask in chosen.masks.items()), "cut is cut"


@pytest.mark.parametrize(
    "changes", [{"method": "magnitude"}, {"prune_recipe": SHORT}, {"recovery": Recovery()}, {"pattern": "channel"}]
)
def test_what_else_decides_is_not_asked_of_outputs(changes: dict[str, object]) -> None:
    settings = PruneSettings(ratio=2.0, pattern="unstructured", recovery=Recovery(reconstruct=1))
    assert settings.chooses_by_outputs and replace(settings, score="activation").score == "activation"
    if "method" not in changes:
        with pytest.raises(UsageError, match="--method admm draws to 0 what weighs least, which is l2"):
            replace(settings, score="l1", **changes)  # type: ignore[arg-type]
    assert not replace(settings, **changes).chooses_by_outputs  # type: ignore[arg-type]


def test_admm_is_healed_once_per_cut(tiny: Program, data: ArraySource) -> None:
    settings = PruneSettings(ratio=2.0, prune_recipe=SHORT, retrain_recipe=SHORT, recovery=Recovery(recalibrate=2))
    _, report = prune(tiny, settings, data=data)
    assert [row.name for row in report.stages if row.name.endswith("recovered")] == ["hard prune: recovered"]


def test_retrain_can_heal_alone_and_before_training(trained: Program, data: ArraySource) -> None:
    cut, _ = prune(trained, replace(ONE_SHOT, ratio=2.5))
    recovery = Recovery(reconstruct=2, recalibrate=3)
    healed, report = retrain(cut, None, data=data, teacher=trained, recovery=recovery)
    assert [row.name for row in report.stages] == ["before", "recovered"] and report.history == ()
    before, after = (row.metrics for row in report.stages)
    assert before is not None and after is not None and after["loss"] < before["loss"]
    assert healed.n_zeroed >= cut.n_zeroed
    _, both = retrain(cut, SHORT, data=data, teacher=trained, recovery=recovery, alternate=True)
    assert [row.name for row in both.stages] == ["before", "recovered", "retrain"] and len(both.history) == 2


def test_retrain_with_nothing_to_do_or_fit_to_is_refused(trained: Program, data: ArraySource) -> None:
    with pytest.raises(UsageError, match="--epochs 0: leaves nothing to do without --recalibrate or --reconstruct"):
        retrain(trained, None, data=data)
    with pytest.raises(UsageError, match="--reconstruct fits the outputs of the dense model; name it with --teacher"):
        retrain(trained, None, data=data, recovery=Recovery(reconstruct=1))


def test_dropout_follows_the_cut_and_survives_a_resume(
    tiny: Program, data: ArraySource, tmp_path: Path, break_after: Callable[..., object], stopped: type[Exception]
) -> None:
    settings = PruneSettings(
        ratio=2.0,
        method="magnitude",
        pattern="unstructured",
        steps=2,
        prune_recipe=SHORT,
        retrain_recipe=SHORT,
        rescale_dropout=True,
    )
    whole, _ = prune(tiny, settings, data=data)
    rate = next(float(arguments(n)["p"]) for n in whole.module.graph.nodes if "dropout" in n.name)
    kept = float(whole.masks["out.weight"].float().mean())
    assert rate == pytest.approx(0.2 * kept**0.5) and rate < 0.2
    file = tmp_path / "run.resume"
    with pytest.raises(stopped, match="broken off"):
        prune(tiny, settings, data=data, resume_file=file, progress=break_after(17))  # type: ignore[arg-type]
    resumed, _ = prune(tiny, settings, data=data, resume_file=file, resume=True)
    assert all(torch.equal(p, whole.parameters[name]) for name, p in resumed.parameters.items())
    assert resumed.module.code == whole.module.code


def test_fresh_weights_start_the_last_retraining(trained: Program, data: ArraySource) -> None:
    settings = replace(ONE_SHOT, retrain_recipe=Recipe(epochs=1, batch_size=32, lr=1e-6))
    kept, _ = prune(trained, settings, data=data)
    fresh, _ = prune(trained, replace(settings, reinit=True), data=data)
    near = trained.parameters["hidden.weight"].detach() * kept.masks["hidden.weight"]
    assert torch.allclose(kept.parameters["hidden.weight"], near, atol=1e-3)
    assert not torch.allclose(fresh.parameters["hidden.weight"], near, atol=1e-2)
    for name, mask in fresh.masks.items():
        assert not fresh.parameters[name][~mask].any(), f"{name} came back"
    assert all(torch.equal(mask, fresh.masks[name]) for name, mask in kept.masks.items())


def test_a_threshold_cuts_further_in_every_step(trained: Program, data: ArraySource) -> None:
    settings = PruneSettings(
        ratio=1.0,
        method="magnitude",
        pattern="unstructured",
        quality=(("*", 0.5),),
        steps=2,
        prune_recipe=SHORT,
        retrain_recipe=SHORT,
    )
    _, report = prune(trained, settings, data=data)
    assert report.asked is None and report.got > 1.3 and not report.warnings
    assert [row.name for row in report.stages] == ["dense", "step 1/2", "step 2/2"]
    assert report.stages[2].params < report.stages[1].params < report.stages[0].params


def test_shares_and_curves_serve_admm_too(tiny: Program, data: ArraySource) -> None:
    shares = PruneSettings(ratio=1.0, layers=(("hidden", 0.5),), prune_recipe=SHORT)
    _, report = prune(tiny, shares, data=data)
    assert {cut.name: cut.kept for cut in report.layers}["hidden"] == 8
    curves = PruneSettings(
        ratio=3.0, pattern="unstructured", allocation="sensitivity", sensitivity=SCAN, prune_recipe=SHORT
    )
    _, report = prune(tiny, curves, data=data)
    assert 3.0 <= report.got < 3.1 and "residual" in report.stages[1].extra


def test_a_demand_that_cuts_nothing_says_so(tiny: Program) -> None:
    _, report = prune(tiny, PruneSettings(ratio=1.0, method="magnitude", layers=(("hidden", 1.0),)))
    assert report.got == 1.0 and report.warnings == ("nothing was cut: every layer keeps all it has",)


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        (
            {"method": "group-lasso", "pattern": "shape"},
            "--method group-lasso: draws the units of widths; with --pattern shape use --method admm",
        ),
        ({"score": "l1", "method": "admm"}, "--score l1: --method admm draws to 0 what weighs least, which is l2"),
        ({"score": "l1", "method": "random"}, "--score l1: --method random does not score; use it with --method magn"),
        ({"score": "hessian"}, "--score hessian: choose one of l2, l1, taylor, fisher, bn, fpgm"),
        (
            {"score": "bn", "pattern": "unstructured"},
            "--score bn: rates whole filters; with --pattern unstructured use",
        ),
        ({"score_batches": 0}, "--score-batches 0: must be at least 1"),
        ({"layers": (("one", 1.5),)}, "--layer one=1.5: the share that stays, above 0, at most 1"),
        ({"quality": (("*", 0.0),), "ratio": 1.0}, r"--quality \*=0: in standard deviations of the layer, above 0"),
        (
            {"quality": (("*", 1.0),)},
            "--quality: a threshold on weights; goes with --method magnitude --score l2, with",
        ),
        ({"quality": (("*", 1.0),), "ratio": 1.0, "method": "admm"}, "--quality: a threshold on weights; goes with"),
        ({"allocation": "sensitivity"}, "--allocation sensitivity: needs a scan; make one with"),
        ({"sensitivity": SCAN}, "--sensitivity: goes with --allocation sensitivity or with --max-loss"),
        (
            {"sensitivity": SCAN, "max_loss": 0.1, "pattern": "unstructured"},
            "--max-loss 0.1: stands instead of --ratio; leave one of them out",
        ),
        ({"sensitivity": SCAN, "max_loss": -0.1, "ratio": 1.0}, "--max-loss -0.1: must be at least 0"),
        (
            {"sensitivity": SCAN, "max_loss": 0.1, "ratio": 1.0},
            "--sensitivity: was measured with --pattern unstructured, which says little about --pattern channel; scan",
        ),
        (
            {"layers": (("one", 0.5),), "pattern": "shape"},
            "--layer: counts filters or single weights, and --pattern shape cuts neither; leave it out, or",
        ),
        ({"ratio": 1.0}, "--ratio 1: a ratio is dense ÷ kept and must be above 1"),
    ],
)
def test_what_does_not_go_together_is_refused(changes: dict[str, object], told: str) -> None:
    with pytest.raises(UsageError, match=told):
        replace(ONE_SHOT, **changes)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"score": "taylor"}, "no data: --score taylor takes gradients of the loss; give --data, or --score l2"),
        ({"score": "activation"}, "no data: --score activation measures what reaches each weight; give --data, or"),
        ({"recovery": Recovery(recalibrate=1)}, "no data: --reconstruct and --recalibrate run the network on training"),
    ],
)
def test_what_needs_data_says_so(tiny: Program, changes: dict[str, object], told: str) -> None:
    with pytest.raises(UsageError, match=told):
        prune(tiny, replace(ONE_SHOT, **changes))  # type: ignore[arg-type]


def test_recovery_is_checked() -> None:
    with pytest.raises(UsageError, match="--recalibrate -1: must be at least 0"):
        Recovery(recalibrate=-1)
    with pytest.raises(UsageError, match="--ridge 0: must be above 0"):
        Recovery(ridge=0.0)
