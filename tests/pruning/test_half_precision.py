"""Half precision through training: steps are taken in float32, and what is stored keeps its type."""

from __future__ import annotations

import pytest
import torch

from compressor.asking import PruneSettings, Recipe
from compressor.compaction import compact, foresee
from compressor.cost import count_macs
from compressor.data.arrays import ArraySource
from compressor.program import Program, taking_float32
from compressor.pruning import prune, retrain

HALVES = (torch.float16, torch.bfloat16)
SHORT = Recipe(epochs=1, batch_size=32, lr=1e-3)


def halved(program: Program, dtype: torch.dtype) -> Program:
    name = str(dtype).removeprefix("torch.")
    module = program.module.clone(dtype)
    specs = tuple(type(spec)(spec.name, spec.shape, name) for spec in program.inputs)
    return taking_float32(program.replace(module=module, inputs=specs))


def types_of(program: Program) -> set[torch.dtype]:
    return {parameter.dtype for parameter in program.module.parameters()}


@pytest.mark.parametrize("dtype", HALVES)
@pytest.mark.parametrize("method", ["magnitude", "admm"])
def test_pruned_with_training(tiny: Program, data: ArraySource, dtype: torch.dtype, method: str) -> None:
    program = halved(tiny, dtype)
    settings = PruneSettings(ratio=1.5, method=method, prune_recipe=SHORT, retrain_recipe=SHORT, round_to=1)  # type: ignore[arg-type]
    pruned, report = prune(program, settings, data=data)
    assert types_of(pruned) == {dtype} and types_of(program) == {dtype} and pruned.inputs == program.inputs
    assert report.stages[-1].name == f"rounded to {str(dtype).removeprefix('torch.')}"
    assert report.stages[-1].metrics is not None
    pruned.check_masks()
    smaller, _ = compact(pruned, data=data)
    assert types_of(smaller) == {dtype} and smaller.n_parameters == report.kept_params


@pytest.mark.parametrize("dtype", HALVES)
def test_steps_too_small_for_half_precision_are_taken(tiny: Program, data: ArraySource, dtype: torch.dtype) -> None:
    """Fifty steps of a thousandth of a rounding each: in half precision every one of them would come to nothing."""
    program = halved(tiny, dtype)
    recipe = Recipe(epochs=4, batch_size=8, lr=2e-4, optimizer="sgd", momentum=0.0)
    tuned, _ = retrain(program, recipe, data=data)
    before, after = program.parameters["out.weight"], tuned.parameters["out.weight"]
    assert after.dtype is dtype and not torch.equal(before, after)


def test_float32_has_no_stage_more(tiny: Program, data: ArraySource) -> None:
    settings = PruneSettings(ratio=1.5, method="magnitude", retrain_recipe=SHORT, round_to=1)
    _, report = prune(tiny, settings, data=data)
    assert not [row.name for row in report.stages if "rounded" in row.name]


def test_what_is_foreseen_is_what_is_left(tiny: Program) -> None:
    pruned, _ = prune(tiny, PruneSettings(ratio=1.7, method="magnitude", round_to=1))
    seen, (smaller, _) = foresee(pruned), compact(pruned)
    assert seen.n_parameters == smaller.n_parameters and count_macs(seen) == count_macs(smaller)
    assert all(tensor.is_meta for tensor in seen.module.tensors().values() if tensor.dim() > 1)


def test_without_data_the_weights_of_the_program_stay(tiny: Program) -> None:
    before = {name: p.detach().clone() for name, p in tiny.parameters.items()}
    pruned, _ = prune(tiny, PruneSettings(ratio=1.7, method="magnitude", round_to=1))
    assert all(torch.equal(before[name], p) for name, p in tiny.parameters.items()) and not tiny.masks
    assert pruned.n_zeroed > 0
    pruned.check_masks()
