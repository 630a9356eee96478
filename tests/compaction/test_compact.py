"""`compact` as a whole: what it removes and reports, what it leaves, when it refuses."""

from __future__ import annotations

import importlib
import time
from dataclasses import replace

import pytest
import torch
from torch import nn

from compressor.compaction import compact, foresee, preview
from compressor.data.arrays import Arrays, ArraySource
from compressor.errors import CompressError, ModelError, VerificationError
from compressor.program import InputSpec, Program, capture


def images(n: int, seed: int) -> Arrays:
    random = torch.Generator().manual_seed(seed)
    return Arrays(torch.randn(n, 1, 8, 8, generator=random), torch.randint(0, 3, (n,), generator=random))


def under(program: Program, masks: dict[str, torch.Tensor]) -> Program:
    """The program with these masks, its cut weights 0."""
    return program.replace(masks=masks).clone().apply_masks()


def test_what_is_removed_is_reported(masked: Program) -> None:
    small, report = compact(masked)
    shapes = {name: tuple(p.shape) for name, p in small.parameters.items()}
    assert shapes == {
        "one.weight": (4, 1, 3, 3), "one.bias": (4,), "norm.weight": (4,), "norm.bias": (4,),
        "two.weight": (3, 4, 3, 3), "two.bias": (3,), "hidden.weight": (5, 48), "hidden.bias": (5,),
        "out.weight": (3, 5), "out.bias": (3,),
    }  # fmt: skip
    assert (report.masked_params, report.compact_params) == (masked.n_parameters, small.n_parameters)
    assert report.removed == report.zeroed == masked.n_zeroed and report.still_zeroed == 0 and not small.masks
    assert report.n_units_removed == 8 and report.skipped == ()
    changes = {c.name: (c.before, c.after) for c in report.layers}
    assert changes["hidden"] == ((10, 64), (5, 48)) and set(changes) == {"one", "norm", "two", "hidden", "out"}
    assert report.agreement is not None and report.agreement.float64_relative < 1e-14
    assert report.agreement.n_inputs == 2 and not report.agreement.on_data


def test_masked_and_compact_agree(masked: Program) -> None:
    small, _ = compact(masked)
    for batch in (1, 5):
        x = masked.example_inputs(batch, seed=batch)
        assert torch.allclose(masked.module(*x), small.module(*x), atol=1e-6)


def test_the_input_is_left_untouched(masked: Program) -> None:
    before = {name: t.clone() for name, t in masked.module.tensors().items()}
    code = masked.module.code
    compact(masked)
    assert masked.module.code == code
    assert all(torch.equal(t, before[name]) for name, t in masked.module.tensors().items())


def test_cut_weights_that_are_not_0_are_refused_until_the_masks_are_applied(masked: Program) -> None:
    revived = masked.clone()
    with torch.no_grad():
        revived.parameters["one.weight"].add_(1.0)
    with pytest.raises(ModelError, match=r"18 weights that the masks cut are not 0 \(one.weight 18\)"):
        compact(revived)
    small, report = compact(revived.apply_masks())
    assert report.agreement is not None and report.agreement.float64_relative < 1e-14
    assert torch.equal(small.parameters["one.weight"], revived.parameters["one.weight"][[0, 2, 3, 5]])


def test_the_record_knows_what_was_kept_of_the_dense_network(masked: Program) -> None:
    small, _ = compact(masked)
    assert small.record.dense_shapes["two.weight"] == [4, 6, 3, 3]
    assert small.record.kept["two.weight"] == {"0": [0, 1, 3], "1": [0, 2, 3, 5]}
    # A second compaction still speaks of the dense network's positions.
    mask = torch.ones(5, 48, dtype=torch.bool)
    mask[3] = False
    bias, reader = torch.ones(5, dtype=torch.bool), torch.ones(3, 5, dtype=torch.bool)
    bias[3], reader[:, 3] = False, False
    again, _ = compact(under(small, {"hidden.weight": mask, "hidden.bias": bias, "out.weight": reader}))
    assert again.record.kept["hidden.weight"]["0"] == [1, 3, 5, 9]
    assert again.record.dense_shapes["hidden.weight"] == [10, 64]


def test_a_compact_program_trains(masked: Program) -> None:
    small, _ = compact(masked)
    small.module.train()
    optimizer = torch.optim.SGD(small.module.parameters(), lr=0.1)
    x = torch.randn(6, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    before = small.parameters["one.weight"].detach().clone()
    small.module(x).square().sum().backward()
    optimizer.step()
    assert not torch.equal(before, small.parameters["one.weight"])
    assert small.module(x).shape == (6, 3)


def test_single_weights_stay_masked(masked: Program) -> None:
    mask = masked.masks["out.weight"].clone()
    mask[0, 1] = False
    small, report = compact(under(masked, {**masked.masks, "out.weight": mask}))
    assert report.still_zeroed == small.n_zeroed == 1
    assert small.masks.keys() == {"out.weight"} and small.masks["out.weight"].shape == (3, 5)


def test_nothing_to_remove_is_an_error_unless_allowed(dense: Program) -> None:
    with pytest.raises(CompressError, match="nothing to remove: 0 weights are zeroed, but no whole unit is"):
        compact(dense)
    mask = torch.ones(6, 1, 3, 3, dtype=torch.bool)
    mask[0, 0, 0, 0] = False
    scattered = under(dense, {"one.weight": mask})
    with pytest.raises(CompressError, match="nothing to remove: 1 weights"):
        compact(scattered)
    same, report = compact(scattered, allow_noop=True)
    assert report.removed == 0 and same.n_parameters == dense.n_parameters and report.still_zeroed == 1


def test_layers_that_were_looked_at_and_stay_dense_are_nothing_either(dense: Program) -> None:
    mask = torch.ones(4, 6, 3, 3, dtype=torch.bool)
    mask[:, :, 0] = False
    columns = under(dense, {"two.weight": mask})
    with pytest.raises(CompressError, match="nothing to remove: 72 weights"):
        compact(columns, lowering="dense")
    _, report = compact(columns, lowering="dense", allow_noop=True)
    assert [(layer.name, layer.form) for layer in report.lowered] == [("two", "dense")] and report.n_units_removed == 0


def test_the_time_told_is_that_of_the_call(masked: Program) -> None:
    began = time.perf_counter()
    _, report = compact(masked)
    assert 0 < report.seconds <= time.perf_counter() - began


def test_what_is_foreseen_has_the_widths_that_compact_leaves(masked: Program) -> None:
    small, _ = compact(masked)
    widths = {name: tensor.shape for name, tensor in small.parameters.items()}
    assert 5 in widths["hidden.weight"] and widths == {n: t.shape for n, t in preview(masked).parameters.items()}
    assert widths == {n: t.shape for n, t in foresee(masked).parameters.items()}


def test_zeros_without_masks_count_in_weights_and_not_in_biases(dense: Program) -> None:
    zeros = dense.clone()
    with torch.no_grad():
        zeros.parameters["one.weight"][0, 0, :2, 0] = 0
        zeros.parameters["one.bias"][1] = 0
    _, report = compact(zeros, allow_noop=True)
    assert report.zeroed == report.still_zeroed == 2


def test_one_unit_of_a_width_stays_when_all_are_cut(dense: Program) -> None:
    masks = {
        name: torch.zeros(dense.parameters[name].shape, dtype=torch.bool)
        for name in ("hidden.weight", "hidden.bias", "out.weight")
    }
    small, report = compact(under(dense, masks), masks_only=True)
    assert small.parameters["hidden.weight"].shape == (1, 64)
    assert len(report.skipped) == 1
    assert "hidden.weight, dimension 0: all 10 units are cut; one stays" in report.skipped[0]
    # Nobody reads what lies before it either: one unit of each width stays, as nothing but zeros.
    small, report = compact(under(dense, masks))
    assert small.parameters["hidden.weight"].shape == (1, 16) and small.parameters["one.weight"].shape[0] == 1
    assert not small.parameters["one.weight"].any() and not small.parameters["two.weight"].any()
    assert any("hidden.weight, dimension 0: all 10 units are cut; one stays" in text for text in report.skipped)


def test_no_part_of_a_split_is_emptied() -> None:
    class Halves(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.out = nn.Conv2d(1, 6, 1), nn.Conv2d(6, 2, 1)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            a, b = self.first(x).chunk(2, 1)
            pooled = [nn.functional.max_pool2d(part, 2) for part in (b, a)]
            return self.out(torch.cat(pooled, 1))

    program = capture(Halves(), [InputSpec("x", (None, 1, 8, 8))])
    masks = {
        name: torch.ones(p.shape, dtype=torch.bool) for name, p in program.parameters.items() if name != "out.bias"
    }
    masks["first.weight"][:3], masks["first.bias"][:3], masks["out.weight"][:, 3:] = False, False, False
    small, report = compact(under(program, masks))
    assert small.parameters["first.weight"].shape[0] == 4
    assert "chunk: all 3 units are cut; one stays" in report.skipped[0]


def test_data_is_verified_on_and_measured(masked: Program) -> None:
    source = ArraySource("noise", images(8, 0), images(100, 1), 3)
    _, report = compact(masked, data=source)
    assert report.agreement is not None and report.agreement.on_data and report.agreement.n_inputs == 3
    assert report.metrics is not None and report.metrics["n"] == 100


def test_twin_a_wrong_slice_never_leaves(masked: Program, monkeypatch: pytest.MonkeyPatch) -> None:
    module = importlib.import_module("compressor.compaction.removal")
    right = module.slice_program

    def wrong(program: Program, units: object, keep: object, **more: bool) -> Program:
        cut = right(program, units, keep, **more)  # type: ignore[arg-type]
        with torch.no_grad():
            cut.parameters["two.weight"].copy_(cut.parameters["two.weight"].flip(1))
        return cut

    monkeypatch.setattr(module, "slice_program", wrong)
    with pytest.raises(
        VerificationError, match=r"masked and compact model differ by .* of the largest output .* in float64"
    ):
        compact(masked)


def test_costs_are_compared_with_the_first_dense_network(masked: Program) -> None:
    first = {"dense_params": 999_999, "dense_macs": 888_888}
    name, weight = next((name, tensor) for name, tensor in masked.parameters.items() if tensor.dim() > 1)
    before = {name: [size + 1 for size in weight.shape]}
    _, report = compact(masked.replace(record=replace(masked.record, **first, dense_shapes=before)))
    assert (report.dense_params, report.dense_macs) == (999_999, 888_888)
    _, report = compact(masked.replace(record=replace(masked.record, **first)))
    assert report.dense_macs == compact(masked)[1].dense_macs, "while nothing was removed MACs are counted anew"
    assert report.compact_macs < compact(masked)[1].dense_macs
