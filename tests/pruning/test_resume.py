"""Runs that are broken off and taken up again: bit for bit the same, and never somebody else's."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from compressor.asking import Admm, PruneSettings, Recipe
from compressor.data import Classification
from compressor.data.arrays import Arrays, ArraySource
from compressor.errors import ModelError, TrainingError
from compressor.program import Program
from compressor.progress import Progress
from compressor.pruning import prune, retrain
from compressor.pruning.run import identity_of
from compressor.training import load_state

EPOCHS = 3
STEPS = 5  # of 32 in 160 samples
RECIPE = Recipe(epochs=EPOCHS, batch_size=32, lr=5e-3, optimizer="sgd", weight_decay=1e-3)
ADMM = PruneSettings(ratio=2.0, prune_recipe=RECIPE, retrain_recipe=RECIPE)
MAGNITUDE = PruneSettings(ratio=3.0, method="magnitude", steps=2, prune_recipe=RECIPE, retrain_recipe=RECIPE)
STAGED = replace(ADMM, ratio=3.0, admm=Admm(stages=2), retrain_recipe=replace(RECIPE, optimizer="adam", distill=0.5))

BreakAfter = Callable[[int], Progress]


def assert_same(a: Program, b: Program) -> None:
    assert a.masks.keys() == b.masks.keys()
    assert all(torch.equal(a.masks[name], b.masks[name]) for name in a.masks)
    first, second = a.module.tensors(), b.module.tensors()
    assert [name for name in first if not torch.equal(first[name], second[name])] == []


@pytest.mark.parametrize("settings", [ADMM, MAGNITUDE, STAGED], ids=["admm", "magnitude", "staged"])
@pytest.mark.parametrize("broken_after", [0, 2, 7, 15, 16, 23])
def test_a_resumed_run_ends_bit_for_bit_the_same(
    tiny: Program,
    data: ArraySource,
    tmp_path: Path,
    break_after: BreakAfter,
    stopped: type[Exception],
    settings: PruneSettings,
    broken_after: int,
) -> None:
    whole, report = prune(tiny, settings, data=data)
    file = tmp_path / "run.resume"
    with pytest.raises(stopped, match="broken off"):
        prune(tiny, settings, data=data, progress=break_after(broken_after), resume_file=file)
    assert file.exists()
    resumed, after = prune(tiny, settings, data=data, resume_file=file, resume=True)
    assert_same(whole, resumed)
    assert [(r.name, r.params, r.metrics) for r in after.stages] == [
        (r.name, r.params, r.metrics) for r in report.stages
    ]


def test_twin_a_run_that_forgets_its_place_ends_elsewhere(
    tiny: Program, data: ArraySource, tmp_path: Path, break_after: BreakAfter, stopped: type[Exception],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    from compressor.pruning.admm import AdmmHook

    whole, _ = prune(tiny, ADMM, data=data)
    file = tmp_path / "run.resume"
    with pytest.raises(stopped, match="broken off"):
        prune(tiny, ADMM, data=data, progress=break_after(2 * STEPS), resume_file=file)
    monkeypatch.setattr(AdmmHook, "load_state_dict", lambda self, state: None)
    resumed, _ = prune(tiny, ADMM, data=data, resume_file=file, resume=True)
    with pytest.raises(AssertionError, match=r"weight|where False = all"):
        assert_same(whole, resumed)


def test_a_later_admm_stage_holds_what_the_first_one_cut(
    tiny: Program, data: ArraySource, tmp_path: Path, break_after: BreakAfter, stopped: type[Exception]
) -> None:
    file = tmp_path / "run.resume"
    with pytest.raises(stopped, match="broken off"):
        prune(tiny, STAGED, data=data, progress=break_after((EPOCHS + 2) * STEPS), resume_file=file)
    state = load_state(file)
    assert len(state["fit"]["history"]) == 2 and state["masks"]
    for name, mask in state["masks"].items():
        assert not state["fit"]["module"][name][~mask].any(), name


def test_resuming_twice_is_resuming(
    tiny: Program, data: ArraySource, tmp_path: Path, break_after: BreakAfter, stopped: type[Exception]
) -> None:
    whole, _ = prune(tiny, ADMM, data=data)
    file = tmp_path / "run.resume"
    for steps, resume in ((6, False), (6, True), (11, True)):
        with pytest.raises(stopped, match="broken off"):
            prune(tiny, ADMM, data=data, progress=break_after(steps), resume_file=file, resume=resume)
    assert_same(whole, prune(tiny, ADMM, data=data, resume_file=file, resume=True)[0])


def test_without_a_file_a_resumed_run_is_a_fresh_one(tiny: Program, data: ArraySource, tmp_path: Path) -> None:
    fresh, _ = prune(tiny, MAGNITUDE, data=data)
    assert_same(fresh, prune(tiny, MAGNITUDE, data=data, resume_file=tmp_path / "none", resume=True)[0])


class OtherTask(Classification):
    name = "another"


@pytest.mark.parametrize("what", ["settings", "model", "data"])
def test_a_file_of_another_run_is_refused(
    tiny: Program, other_tiny: Program, data: ArraySource, tmp_path: Path, what: str
) -> None:
    file = tmp_path / "run.resume"
    prune(tiny, MAGNITUDE, data=data, resume_file=file)
    other = {
        "settings": (tiny, replace(MAGNITUDE, ratio=3.1), data),
        "model": (other_tiny, MAGNITUDE, data),
        "data": (tiny, MAGNITUDE, replace(data, val=Arrays(data.val.inputs, data.val.target.flip(0)))),
    }
    program, settings, source = other[what]
    with pytest.raises(TrainingError, match="belongs to a run with another model, other data or other options"):
        prune(program, settings, data=source, resume_file=file, resume=True)


def test_a_file_that_is_no_resume_point_is_refused(tiny: Program, data: ArraySource, tmp_path: Path) -> None:
    file = tmp_path / "run.resume"
    file.write_bytes(b"nothing of the kind")
    with pytest.raises(ModelError, match="cannot be read as a resume point"):
        prune(tiny, MAGNITUDE, data=data, resume_file=file, resume=True)


def test_retraining_resumes_bit_for_bit(
    tiny: Program, data: ArraySource, tmp_path: Path, break_after: BreakAfter, stopped: type[Exception]
) -> None:
    pruned, _ = prune(tiny, PruneSettings(ratio=2.0))
    whole, _ = retrain(pruned, RECIPE, data=data)
    file = tmp_path / "retrain.resume"
    with pytest.raises(stopped, match="broken off"):
        retrain(pruned, RECIPE, data=data, progress=break_after(7), resume_file=file)
    resumed, report = retrain(pruned, RECIPE, data=data, resume_file=file, resume=True)
    assert_same(whole, resumed)
    assert len(report.history) == EPOCHS


def test_an_identity_sees_every_change(tiny: Program, other_tiny: Program, data: ArraySource) -> None:
    options = {"ratio": 2.0, "device": "cpu"}
    own = identity_of(tiny, options, data)
    elsewhere = replace(data, ref="elsewhere")
    assert own == identity_of(tiny.clone(), {"device": "cuda", "ratio": 2.0}, elsewhere), "a run may go on elsewhere"
    swapped = tiny.clone()
    with torch.no_grad():
        swapped.parameters["one.bias"].copy_(swapped.parameters["one.bias"].flip(0))
    masked = tiny.replace(masks={"one.weight": torch.zeros(8, 1, 3, 3, dtype=torch.bool)})
    others = [
        identity_of(other_tiny, options, data),
        identity_of(swapped, options, data),
        identity_of(masked, options, data),
        identity_of(tiny, {**options, "ratio": 2.5}, data),
        identity_of(tiny, options, replace(data, shift_pad=data.shift_pad + 1)),
        identity_of(tiny, options, data, teacher=other_tiny),
        identity_of(tiny, options, data, OtherTask()),
        identity_of(tiny, options, None),
    ]
    assert own not in others and len({*others}) == len(others)
