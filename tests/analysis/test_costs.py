"""What layers cost, dense and under masks."""

from __future__ import annotations

from compressor.analysis import layer_costs
from compressor.axes import find_units
from compressor.compaction import compact
from compressor.models import build
from compressor.program import InputSpec, Program, capture
from compressor.sparsity import apply_masks, make_selector
from tests.choices import choice_of


def lenet() -> Program:
    return capture(build("lenet5", {}, seed=0).module, [InputSpec("x", (None, 1, 28, 28))])


def test_a_dense_network_keeps_everything() -> None:
    costs = layer_costs(lenet())
    assert [(c.name, c.params, c.macs) for c in costs][:2] == [("conv1", 520, 288_000), ("conv2", 25_050, 1_600_000)]
    assert all((c.kept_params, c.kept_macs) == (c.params, c.macs) for c in costs)


def test_what_masks_leave_is_what_compaction_leaves() -> None:
    program = lenet()
    selector = make_selector(program, find_units(program), choice_of("channel"))
    masks = selector.select(program.parameters, 5.0).masks
    apply_masks(program.module, masks)
    masked = program.replace(masks=masks)
    small, _ = compact(masked)
    left = [(c.name, c.kept_params, c.kept_macs) for c in layer_costs(masked)]
    assert left == [(c.name, c.params, c.macs) for c in layer_costs(small)]
    assert left != [(c.name, c.params, c.macs) for c in layer_costs(masked)]
