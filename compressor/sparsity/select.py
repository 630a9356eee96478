"""The selector of a pattern, by its name; it must never hold how a pattern chooses.

The same selector serves every method: magnitude gives it the weights, ADMM gives it W + U, and what comes back is in
both cases the Euclidean projection onto the nearest set of the pattern that meets the budget.
"""

from __future__ import annotations

from compressor.axes import UnitMap
from compressor.program import Program, find_layers
from compressor.sparsity.choice import Choice, Selector, matching_layers
from compressor.sparsity.select_units import unit_selector
from compressor.sparsity.select_weights import weight_selector


def make_selector(program: Program, units: UnitMap, choice: Choice) -> Selector:
    """The selector of a pattern.

    Raises:  UsageError if --scope or --keep name no layer; PatternError if nothing in scope can be pruned.
    """
    layers = find_layers(program)
    scoped = matching_layers(layers, choice.scope, "--scope")
    kept = matching_layers(layers, choice.keep, "--keep") if choice.keep else set[str]()
    if choice.pattern == "unstructured":
        return weight_selector(program, layers, scoped, kept, choice)
    return unit_selector(program, units, layers, scoped, kept, choice)
