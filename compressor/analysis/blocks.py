"""The residual blocks of a network as rows: what goes with each, or why it stays; it must never remove any."""

from __future__ import annotations

from compressor.analysis.findings import BlockRow
from compressor.axes import find_blocks, needed_without
from compressor.cost import dense_cost, mac_terms
from compressor.program import Program
from compressor.units import Macs, Params


def block_rows(program: Program) -> tuple[BlockRow, ...]:
    """Those that may go in graph order, then those that may not."""
    found = find_blocks(program)
    sizes = {name: parameter.numel() for name, parameter in program.parameters.items()}
    macs = [(term.owner, dense_cost(program, term)) for term in mac_terms(program)] if found.free else []
    rows: list[BlockRow] = []
    for block in found.free:
        needed = needed_without(program, [block])
        params = sum(size for name, size in sizes.items() if name not in needed)
        work = sum(cost for owner, cost in macs if owner not in needed)
        rows.append(BlockRow(block.name, block.layers, Params(params), Macs(round(work))))
    return (*rows, *(BlockRow(one.name, (), Params(0), Macs(0), one.reason) for one in found.pinned))
