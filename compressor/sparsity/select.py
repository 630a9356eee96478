"""The selector of a pattern, by its name; it must never hold how a pattern chooses.

The same selector serves every method: magnitude gives it the weights, ADMM gives it W + U, and what comes back is in
both cases what ranks highest at that budget. Within one layer of single weights, a window or a tile that is the nearest
point of the set; between layers and units it is what the allocation prefers, not what is nearest.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from compressor.asking.pattern import LAYER, Pattern, parse_pattern
from compressor.asking.prune import Cut
from compressor.axes import Block, UnitMap, find_units
from compressor.errors import PatternError
from compressor.program import Layer, Program, find_layers
from compressor.sparsity.budget import Budget
from compressor.sparsity.choice import Choice, Selector, matching_layers
from compressor.sparsity.columns import find_columns
from compressor.sparsity.cut_blocks import cut_blocks
from compressor.sparsity.select_blocks import BlockSelector, block_selector
from compressor.sparsity.select_experts import expert_selector
from compressor.sparsity.select_shape import ShapeSelector
from compressor.sparsity.select_units import budget_of, free_units, unit_selector
from compressor.sparsity.select_weights import weight_selector
from compressor.sparsity.select_window import window_selector
from compressor.sparsity.unweighted import read_without_weights


def make_selector(program: Program, units: UnitMap, choice: Choice) -> Selector:
    """The selector of a pattern.

    Raises:  UsageError if --scope or --keep name no layer; PatternError if nothing in scope can
             be pruned.
    """
    asked, pattern = choice.asked, choice.asked.pattern
    layers = find_layers(program)
    scoped = matching_layers(layers, asked.scope, "--scope")
    kept = matching_layers(layers, asked.keep, "--keep")

    def plain(left: Program, own: UnitMap) -> Selector:
        return _plain_selector(left, own, scoped, kept, choice)

    def count(left: Program, own: UnitMap) -> Budget:
        own_layers = find_layers(left)
        return budget_of(left, own, own_layers, scoped & {layer.name for layer in own_layers}, choice)

    if pattern.blocks:
        inner = None if pattern.units is None else plain
        return block_selector(program, units, layers, scoped, kept, choice, count, inner)
    cut = cut_blocks(program)
    return BlockSelector(program, units, choice, cut, (), count, plain) if cut else plain(program, units)


def block_prices(program: Program, asked: Cut, blocks: tuple[Block, ...] | None = None) -> dict[Block, float]:
    """The residual blocks that the request may take, and what goes with each alone, as its ratio counts; of `blocks`,
    where not all may go alone.

    Raises:  as `make_selector`.
    """
    alone = replace(asked, pattern=parse_pattern(LAYER))
    selector = make_selector(program, find_units(program, asked.walk), Choice(alone, blocks=blocks))
    assert isinstance(selector, BlockSelector)
    return selector.prices(program.masks)


def _plain_selector(program: Program, units: UnitMap, scoped: set[str], kept: set[str], choice: Choice) -> Selector:
    """The selector of what a pattern cuts but whole blocks, for a program that may lack some of the layers."""
    pattern, layers = choice.asked.pattern, find_layers(program)
    names = {layer.name for layer in layers}
    scoped, kept = scoped & names, kept & names
    if pattern.weights == "shape":
        return _shape_selector(program, units, layers, scoped, kept, choice, pattern)
    if pattern.weights == "n:m":
        return window_selector(program, layers, scoped, kept, choice, pattern)
    if pattern.weights is not None:
        return weight_selector(program, layers, scoped, kept, choice, pattern)
    inner = None
    if pattern.units is not None:
        inner = unit_selector(program, units, layers, scoped, kept, choice, pattern.units)
    if pattern.experts:
        return expert_selector(program, units, layers, scoped, kept, choice, inner)
    assert inner is not None
    return inner


def _shape_selector(
    program: Program, units: UnitMap, layers: Sequence[Layer], scoped: set[str], kept: set[str], choice: Choice,
    pattern: Pattern,
) -> ShapeSelector:  # fmt: skip
    """Raises:  PatternError if no layer in scope has columns to cut."""
    inner = None
    if pattern.units is not None:
        inner = unit_selector(program, units, layers, scoped, kept, choice, pattern.units)
    removable = free_units(units, layers, scoped, kept) & ~read_without_weights(program, units)
    columns = find_columns(
        program, units, layers, budget_of(program, units, layers, scoped, choice), grain=pattern.grain,
        may_cut=scoped - kept, counted=scoped, of=choice.asked.of, removable=removable,
    )  # fmt: skip
    if not any(layer.free for layer in columns.layers):
        raise PatternError(
            f"--pattern {pattern.text}: no weight in scope has columns that can be left out; "
            "two-dimensional convolutions and linear layers do, where no other layer shares their weight"
        )
    return ShapeSelector(program, columns, choice, inner)
