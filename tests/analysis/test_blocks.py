"""Rows of residual blocks: what goes with each alone is what the network without it lacks."""

from __future__ import annotations

import pytest

from compressor.analysis.blocks import block_rows
from compressor.axes import find_blocks, without_blocks
from compressor.cost import count_macs
from tests.axes.residual_networks import NETWORKS, residual_program


@pytest.mark.parametrize("name", NETWORKS)
def test_a_row_counts_what_goes_with_the_block(name: str) -> None:
    program = residual_program(name)
    rows = {row.name: row for row in block_rows(program)}
    found = find_blocks(program)
    for block in found.free:
        left = without_blocks(program, [block])
        row = rows[block.name]
        assert row.params == program.n_parameters - left.n_parameters > 0
        assert row.macs == count_macs(program) - count_macs(left) > 0
        assert row.layers == block.layers and row.pinned is None
    assert {row.name for row in rows.values() if row.pinned is not None} == {one.name for one in found.pinned}
