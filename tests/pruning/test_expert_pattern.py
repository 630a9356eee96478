"""`--pattern expert` down the whole road: chosen, drawn to 0 or cut, retrained, saved, removed, proven, written."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from compressor.asking import PruneSettings, Recipe
from compressor.compaction import compact
from compressor.data.arrays import Arrays, ArraySource
from compressor.errors import RatioError, UsageError
from compressor.exporting import export_onnx
from compressor.formats import load, save
from compressor.program import InputSpec, Program, capture, leaves_out
from compressor.pruning import Pruner, prune, retrain
from tests.axes import expert_networks as nets

ROUTER = "router.weight"


@pytest.fixture(scope="module")
def mixed() -> Program:
    return capture(nets.mixture(nets.softmax_first, nets.by_row), [InputSpec("x", (None, 4, 5))])


class Tokens(torch.nn.Module):
    """One answer for each sequence."""

    def __init__(self) -> None:
        super().__init__()
        self.mixture = nets.mixture(nets.softmax_first, nets.by_row)

    def forward(self, x_NTF: torch.Tensor) -> torch.Tensor:
        out: torch.Tensor = self.mixture(x_NTF).mean(1)
        return out


@pytest.fixture(scope="module")
def sequences() -> ArraySource:
    random = torch.Generator().manual_seed(0)
    x = torch.randn(48, 4, 5, generator=random)
    y = torch.randint(3, (48,), generator=random)
    return ArraySource("sequences", Arrays(x[:32], y[:32]), Arrays(x[32:], y[32:]), 3)


@pytest.fixture(scope="module")
def program() -> Program:
    return capture(Tokens(), [InputSpec("x", (None, 4, 5))])


RECIPE = Recipe(epochs=2, batch_size=16)
ROADS: dict[str, dict[str, Any]] = {
    "by what is routed": {"method": "magnitude"},
    "by weights": {"method": "magnitude", "score": "l2"},
    "by the loss": {"method": "magnitude", "score": "taylor"},
    "in steps": {"method": "magnitude", "steps": 2, "stage_recipe": RECIPE},
    "admm": {"method": "admm", "prune_recipe": RECIPE},
    "random": {"method": "random"},
}


@pytest.mark.parametrize("pattern", ["expert", "expert+channel"])
@pytest.mark.parametrize("road", ROADS)
def test_what_is_promised_is_what_compact_writes(
    program: Program, sequences: ArraySource, road: str, pattern: str, tmp_path: Path
) -> None:
    ratio = 1.5 if pattern == "expert" else 2.0
    settings = PruneSettings(
        **{"ratio": ratio, "pattern": pattern, "retrain_recipe": RECIPE, "round_to": 1, **ROADS[road]}
    )
    pruned, report = prune(program, settings, data=sequences)
    assert report.got >= ratio and leaves_out(pruned)
    save(pruned, tmp_path / "masked.pt")  # minus infinity and all of it goes through the file
    small, done = compact(load(tmp_path / "masked.pt"), data=sequences)
    assert done.agreement is not None and not leaves_out(small)
    assert small.n_parameters == report.compact_params and small.n_zeroed == 0
    rows = {small.parameters[f"mixture.{name}"].shape[0] for name in (ROUTER, "up", "down", "shift")}
    assert len(rows) == 1 and nets.CHOSEN <= rows.pop() < nets.EXPERTS
    inner = small.parameters["mixture.up"].shape[1]
    assert (inner < nets.INNER) == (pattern == "expert+channel")


def test_retraining_never_chooses_a_cut_expert_again(program: Program, sequences: ArraySource) -> None:
    pruned, _ = prune(program, PruneSettings(ratio=1.5, pattern="expert", method="magnitude"))
    before = pruned.masks[f"mixture.{ROUTER}"]
    trained, _ = retrain(pruned, RECIPE, data=sequences)
    weight = trained.parameters[f"mixture.{ROUTER}"]
    assert torch.equal(weight.any(1), before.any(1)) and not torch.equal(weight, pruned.parameters[f"mixture.{ROUTER}"])
    small, done = compact(trained, data=sequences)
    assert done.agreement is not None and small.parameters[f"mixture.{ROUTER}"].shape[0] == int(before.any(1).sum())


def test_as_many_experts_stay_as_a_router_chooses(mixed: Program) -> None:
    with pytest.raises(RatioError, match="the largest feasible is"):
        prune(mixed, PruneSettings(ratio=30, pattern="expert", method="magnitude"))
    alone = prune(mixed, PruneSettings(ratio=1.8, pattern="expert", method="magnitude"))[0]
    assert int(alone.masks[ROUTER].any(1).sum()) >= nets.CHOSEN
    small, _ = compact(prune(mixed, PruneSettings(ratio=2.5, pattern="expert", method="magnitude"))[0])
    assert small.parameters[ROUTER].shape[0] == nets.CHOSEN


def test_channels_alone_take_no_expert_even_where_experts_were_cut_before(mixed: Program) -> None:
    once, _ = prune(mixed, PruneSettings(ratio=1.3, pattern="expert", method="magnitude"))
    left = int(once.masks[ROUTER].any(1).sum())
    twice, _ = prune(once, PruneSettings(ratio=2, pattern="channel", method="magnitude", round_to=1))
    assert int(twice.masks[ROUTER].any(1).sum()) == left
    small, done = compact(twice)
    assert small.parameters[ROUTER].shape[0] == left and done.agreement is not None


@pytest.mark.parametrize("masks_only", [False, True])
def test_what_is_left_goes_to_onnx_and_masked_experts_do_too(mixed: Program, tmp_path: Path, masks_only: bool) -> None:
    pruned, _ = prune(mixed, PruneSettings(ratio=1.5, pattern="expert", method="magnitude"))
    export_onnx(pruned, tmp_path / "masked.onnx")
    small, _ = compact(pruned, masks_only=masks_only)
    export_onnx(small, tmp_path / "small.onnx")
    assert (tmp_path / "small.onnx").stat().st_size < (tmp_path / "masked.onnx").stat().st_size


def test_a_module_of_ones_own_cannot_leave_experts_out_and_that_is_said(program: Program) -> None:
    inputs = torch.zeros(2, 4, 5)
    with pytest.raises(UsageError, match="pattern expert is of the tool's own loop"):
        Pruner(Tokens(), inputs, ratio=1.5, pattern="expert", method="magnitude")
    pruned, _ = prune(program, PruneSettings(ratio=1.5, pattern="expert", method="magnitude"))
    with pytest.raises(UsageError, match="choose no expert that is cut"):
        Pruner.under_masks(Tokens(), pruned)


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ({"pattern": "expert+shape"}, "these do not combine"),
        ({"pattern": "layer+expert"}, "these do not combine"),
        ({"pattern": "expert", "method": "group-lasso"}, "draws the units of widths"),
        ({"pattern": "channel", "score": "routing", "method": "magnitude"}, "says what is sent to an expert"),
        ({"pattern": "expert", "of": "latency"}, "changes none"),
        ({"pattern": "expert", "round_to": 8}, "changes no width"),
    ],
)
def test_what_does_not_go_with_experts_is_refused(asked: dict[str, Any], said: str) -> None:
    with pytest.raises(UsageError, match=said):
        PruneSettings(ratio=2, **asked)
