"""Units that pass means and variances: pinned, freed with the original divisor, freed without."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from compressor.asking import PruneSettings, WalkOptions
from compressor.axes import find_units
from compressor.compaction import compact, norms, rescaled_norms, slice_program
from compressor.errors import ModelError, UsageError, VerificationError
from compressor.exporting import export_onnx
from compressor.formats import load, save
from compressor.program import InputSpec, Program, arguments
from compressor.pruning import prune
from tests.axes.attention_networks import (
    IMAGE,
    NETWORKS,
    WIDTH,
    difference,
    leaves,
    masked_and_compact,
    network,
    program_of,
    random_keep,
)

aten = torch.ops.aten
EXACT, RESCALE = WalkOptions(through_norm="exact"), WalkOptions(through_norm="rescale")
LIMIT = 1e-12


def count(program: Program, *targets: object) -> int:
    return sum(node.target in targets for node in program.module.graph.nodes)


@pytest.mark.parametrize("name", NETWORKS)
def test_exact_norms_agree_with_the_masked_model(name: str) -> None:
    program = network(name)
    for seed in range(2):
        masked, small, units, _ = masked_and_compact(program, EXACT, seed)
        assert units.n_units > find_units(program).n_units
        assert small.n_parameters < masked.n_parameters
        assert difference(masked, small) <= LIMIT


@pytest.mark.parametrize("name", NETWORKS)
def test_a_compacted_network_can_be_pruned_again(name: str) -> None:
    """The sums of the written-out norm are exact by themselves: even the default frees them the second time."""
    _, small, _, _ = masked_and_compact(network(name), EXACT)
    for options in (EXACT, WalkOptions()):
        masked, smaller, units, _ = masked_and_compact(small, options, seed=1)
        assert units.n_units > 1
        assert smaller.n_parameters < small.n_parameters
        assert difference(masked, smaller) <= LIMIT


@pytest.mark.parametrize("name", NETWORKS)
def test_exact_norms_survive_a_file_and_a_training_step(name: str, tmp_path: Path) -> None:
    masked, small, _, _ = masked_and_compact(network(name), EXACT)
    save(small, tmp_path / "small.pt")
    again = load(tmp_path / "small.pt")
    assert difference(masked, again) <= LIMIT
    module = again.module.train()
    optimizer = torch.optim.SGD(module.parameters(), lr=1e-3)
    inputs = tuple(x.double() if x.is_floating_point() else x for x in again.example_inputs(3))
    before = {name: p.detach().clone() for name, p in module.named_parameters()}
    sum(out.square().mean() for out in leaves(module(*inputs))).backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in module.parameters())
    optimizer.step()
    moved = [name for name, p in module.named_parameters() if not torch.equal(p, before[name])]
    assert len(moved) > len(before) / 2
    module.eval()
    assert difference(masked, again) > LIMIT


@pytest.mark.parametrize("name", ["vit", "llama", "group norms"])
def test_exact_norms_have_an_onnx_form(name: str, tmp_path: Path) -> None:
    """`export_onnx` compares with onnxruntime on several batch sizes and raises when they differ."""
    _, small, _, _ = masked_and_compact(network(name), EXACT)
    small = small.replace(module=small.module.clone(torch.float32))
    report = export_onnx(small, tmp_path / "small.onnx")
    assert (tmp_path / "small.onnx").stat().st_size > 0
    assert report is not None


def test_a_wrong_divisor_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    """The twin: with its share of the divisor, as a plain norm on what is left has it, nothing agrees."""
    written = norms._standardised
    monkeypatch.setattr(norms, "_standardised", lambda w, x, dims, n, *rest: written(w, x, dims, n - 1, *rest))
    masked, small, _, _ = masked_and_compact(network("vit"), EXACT)
    assert difference(masked, small) > 1e-4


def test_compact_verifies_what_exact_wrote(monkeypatch: pytest.MonkeyPatch) -> None:
    program, _ = prune(network("vit"), settings(through_norm="exact"))
    _, report = compact(program)
    assert report.agreement is not None
    assert report.agreement.float64_relative <= LIMIT
    assert report.rescaled == ()
    written = norms._standardised
    monkeypatch.setattr(norms, "_standardised", lambda w, x, dims, n, *rest: written(w, x, dims, n - 1, *rest))
    with pytest.raises(VerificationError, match="masked and compact model differ"):
        compact(program)


@pytest.mark.parametrize("name", ["vit", "swin", "convnext", "bert", "llama", "group norms"])
def test_pinned_by_default_with_the_reason(name: str) -> None:
    program = network(name)
    reasons = {pin.reason for pin in find_units(program).pin_at.values()}
    assert any("(--through-norm)" in reason for reason in reasons)
    freed = {pin.reason for pin in find_units(program, EXACT).pin_at.values()}
    assert not any("normalised over" in reason for reason in freed)


def test_a_norm_that_keeps_its_width_stays_what_it_was() -> None:
    program = network("vit")
    units = find_units(program, EXACT)
    keep = np.ones(units.n_units, dtype=bool)
    (hidden,) = (group for group in units.groups if ("blocks.0.mlp.0.weight", 0) in units.slices[group[0]])
    keep[list(hidden[:7])] = False
    small = slice_program(program, units, keep)
    assert count(small, aten.layer_norm.default) == count(program, aten.layer_norm.default) == 5
    assert small.n_parameters < program.n_parameters


def test_conditioning_is_bounded_by_what_was_removed() -> None:
    """One of 48 features gone and the mean far above the deviation: float32 still agrees to a few roundings."""

    class Offset(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.up, self.norm, self.down = nn.Linear(4, 48), nn.LayerNorm(48), nn.Linear(48, 3)

        def forward(self, x: Tensor) -> Tensor:
            return self.down(self.norm(self.up(x)))

    program = program_of(Offset(), (InputSpec("x", (None, 4)),))
    with torch.no_grad():
        program.parameters["up.bias"].add_(50.0)
    units = find_units(program, EXACT)
    keep = np.ones(units.n_units, dtype=bool)
    keep[0] = False
    masked = program.clone()
    for name in ("up.weight", "up.bias", "norm.weight", "norm.bias"):
        masked.parameters[name].data[0] = 0
    small = slice_program(masked, units, keep)
    inputs = torch.randn(64, 4, dtype=torch.float64)
    expected = masked.module(inputs)
    assert (small.module(inputs) - expected).abs().max() <= LIMIT * expected.abs().max()
    single = small.module.clone(torch.float32)(inputs.float())
    assert (single - expected).abs().max() <= 1e-5 * expected.abs().max()


class Between(nn.Module):
    """Something between a linear layer and a norm."""

    def __init__(self, between: object, **affine: bool) -> None:
        super().__init__()
        self.up, self.norm, self.down = nn.Linear(5, WIDTH), nn.LayerNorm(WIDTH, **affine), nn.Linear(WIDTH, 3)
        self.between = between
        self.register_buffer("offset", torch.ones(WIDTH))

    def forward(self, x: Tensor) -> Tensor:
        return self.down(self.norm(self.between(self.up(x), self.offset)))


FEATURES = (InputSpec("x", (None, 5)),)


@pytest.mark.parametrize(
    "between", [lambda x, _: torch.sigmoid(x), lambda x, _: x + 1, lambda x, _: x.exp(), lambda x, offset: x + offset]
)
def test_what_is_not_zero_when_removed_stays_pinned(between: object) -> None:
    units = find_units(program_of(Between(between), FEATURES), EXACT)
    assert "where a removed position would not be 0" in units.pin_at["up.weight", 0].reason


@pytest.mark.parametrize("affine", [{}, {"bias": False}, {"elementwise_affine": False}])
def test_norms_without_weights(affine: dict[str, bool]) -> None:
    program = program_of(Between(lambda x, _: F.relu(x), **affine), FEATURES)
    masked, small, units, _ = masked_and_compact(program, EXACT)
    assert units.n_units == WIDTH
    assert difference(masked, small) <= LIMIT


class Means(nn.Module):
    """Means over channels: alone, with the positions, as a gate that comes back."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.gate = nn.Conv2d(3, 12, 3, padding=1), nn.Conv2d(1, 1, 3, padding=1)
        self.last, self.head = nn.Conv2d(12, 5, 1), nn.Linear(4, 2)

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        x = F.relu(self.conv(x))
        gated = x * torch.sigmoid(self.gate(x.mean(1, keepdim=True)))
        return self.last(gated).mean((2, 3)), x.mean((1, 2, 3)), self.head(x.mean((-3, -1))), x.mean(1)


def test_means_over_channels() -> None:
    program = program_of(Means(), (InputSpec("x", (None, 3, 4, 1)),))
    assert "passes a mean over 12 positions (--through-norm)" in find_units(program).pin_at["conv.weight", 0].reason
    masked, small, units, _ = masked_and_compact(program, EXACT)
    assert units.n_units == 12
    assert difference(masked, small) <= LIMIT


def test_groups_of_one_channel_need_no_option() -> None:
    class OneEach(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.norm, self.last = nn.Conv2d(3, 8, 3), nn.GroupNorm(8, 8), nn.Conv2d(8, 2, 1)

        def forward(self, x: Tensor) -> Tensor:
            return self.last(self.norm(self.conv(x)))

    masked, small, units, _ = masked_and_compact(program_of(OneEach(), IMAGE), WalkOptions())
    assert units.n_units == 8
    assert count(small, aten.group_norm.default) == 1
    assert difference(masked, small) <= LIMIT


def test_groups_stay_equally_wide() -> None:
    units = find_units(network("group norms"), EXACT)
    of_index = units.axes["conv1.weight", 0].reshape(4, 3)
    assert (of_index == of_index[:1]).all()
    assert len(np.unique(of_index)) == 3


def settings(**changes: object) -> PruneSettings:
    return PruneSettings(ratio=1.5, method="magnitude", **changes)  # type: ignore[arg-type]


def test_rescaled_norms_are_not_claimed_to_be_equal() -> None:
    program, _ = prune(network("vit"), settings(through_norm="rescale"))
    small, report = compact(program)
    assert report.agreement is None
    assert report.rescaled == ("blocks.0.norm1", "blocks.0.norm2", "blocks.1.norm1", "blocks.1.norm2", "norm")
    assert count(small, aten.layer_norm.default) == 5
    assert difference(program, small) > 1e-3


def test_rescale_verifies_where_no_norm_got_narrower() -> None:
    program = network("vit")
    units = find_units(program, RESCALE)
    keep = random_keep(units)
    assert len(rescaled_norms(program, units, keep)) == 5
    residual = units.axes["patches.weight", 0]
    keep[residual] = True
    assert rescaled_norms(program, units, keep) == ()
    assert rescaled_norms(program, find_units(program, EXACT), random_keep(units)) == ()


@pytest.mark.parametrize("name", ["group norms", "swin", "llama"])
def test_rescaled_networks_run_and_train(name: str) -> None:
    _, small, _, _ = masked_and_compact(network(name), RESCALE)
    inputs = tuple(x.double() if x.is_floating_point() else x for x in small.example_inputs(2))
    outputs = list(leaves(small.module.train()(*inputs)))
    sum(out.square().mean() for out in outputs).backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in small.module.parameters())


def test_a_checkpoint_remembers_how_it_was_pruned(tmp_path: Path) -> None:
    dense = network("convnext")
    program, report = prune(dense, settings(through_norm="exact"))
    assert program.record.walk == {"through_norm": "exact"}
    save(program, tmp_path / "pruned.pt")
    small, compacted = compact(load(tmp_path / "pruned.pt"))
    assert compacted.compact_params == report.kept_params
    assert small.parameters["stem.weight"].shape[0] < WIDTH
    forgetful = program.replace(record=replace(program.record, walk={}))
    assert compact(forgetful, allow_noop=True)[1].compact_params > report.kept_params


def test_the_default_leaves_nothing_in_the_record() -> None:
    program, _ = prune(network("convnext"), settings())
    assert program.record.walk == {}


def test_walk_options_as_plain_values() -> None:
    for options in (WalkOptions(), EXACT, WalkOptions(keep_heads=True, through_norm="rescale")):
        assert WalkOptions.from_mapping(options.to_mapping()) == options
    with pytest.raises(ModelError, match="'through_norm' = 'magic' is unknown"):
        WalkOptions.from_mapping({"through_norm": "magic"})
    with pytest.raises(ModelError, match="'keep_tails' = 'True' is unknown"):
        WalkOptions.from_mapping({"keep_tails": True})
    with pytest.raises(UsageError, match="--through-norm magic: choose one of pin, exact, rescale"):
        settings(through_norm="magic")


def test_the_default_epsilon_of_an_rms_norm_is_that_of_the_network() -> None:
    """It depends on the element type: verifying in float64 would compare two different networks."""
    program = network("llama")
    (node,) = (node for node in program.module.graph.nodes if node.target is aten.rms_norm.default)
    assert arguments(node)["eps"] == torch.finfo(torch.float64).eps
