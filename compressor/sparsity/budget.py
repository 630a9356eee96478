"""What a choice of units costs, fast enough to be asked a hundred times; it must never choose.

Costs are sums of products of kept counts (`cost.terms`); here the counts are bound to the units that decide them.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from compressor.axes import Ids, Keep, UnitMap, Value
from compressor.cost import Factor, Term, mac_terms, parameter_terms
from compressor.program import Program, TensorShape, find_layers


@dataclass(frozen=True)
class Budget:
    """Cost as a function of which units stay.

    `flat` holds the units along every factor's axis one after another, `starts` where each begins; `factors` lists
    for each term the rows of those counts, padded with the last row, which is 1.
    """

    units: UnitMap
    flat: Ids
    starts: Ids
    factors: Ids
    coefficients: NDArray[np.float64]

    def cost(self, keep: Keep) -> float:
        """Parameters (or MACs) that stay. Shapes: keep (n_units,)."""
        kept = np.append(keep, True)[self.flat]
        counts = np.append(np.add.reduceat(kept.astype(np.float64), self.starts), 1.0)
        return float(counts[self.factors].prod(axis=1) @ self.coefficients)

    @property
    def dense(self) -> float:
        return self.cost(np.ones(self.units.n_units, dtype=bool))

    @staticmethod
    def of_params(program: Program, units: UnitMap, layers: Iterable[str] | None = None) -> Budget:
        """Parameters of the named layers (default: all)."""
        owners = None if layers is None else _tensors_of(program, set(layers))
        terms = [term for term in parameter_terms(program) if owners is None or term.owner in owners]
        return _bind(program, units, terms)

    @staticmethod
    def of_macs(program: Program, units: UnitMap, layers: Iterable[str] | None = None) -> Budget:
        """Multiply-adds for one sample of the named layers (default: all operators)."""
        names = None if layers is None else set(layers)
        owners = None if names is None else {x.node for x in find_layers(program) if x.name in names}
        terms = [term for term in mac_terms(program) if owners is None or term.owner in owners]
        return _bind(program, units, terms)


def _tensors_of(program: Program, layers: set[str]) -> set[str]:
    return {tensor for layer in find_layers(program) if layer.name in layers for tensor in layer.tensors}


def _bind(program: Program, units: UnitMap, terms: Sequence[Term]) -> Budget:
    rows: dict[Factor, int] = {}
    arrays: list[Ids] = []
    for factor in (factor for term in terms for factor in term.factors):
        if factor not in rows:
            rows[factor] = len(arrays)
            arrays.append(_units_along(program, units, factor))
    width = max((len(term.factors) for term in terms), default=1)
    one = len(arrays)
    factors = np.full((len(terms), width), one, dtype=np.int64)
    for i, term in enumerate(terms):
        factors[i, : len(term.factors)] = [rows[factor] for factor in term.factors]
    starts = np.cumsum([0, *(len(a) for a in arrays)])[:-1].astype(np.int64)
    flat = np.concatenate(arrays) if arrays else np.zeros(0, dtype=np.int64)
    return Budget(units, flat, starts, factors, np.array([term.coefficient for term in terms]))


def _units_along(program: Program, units: UnitMap, factor: Factor) -> Ids:
    if factor.is_tensor:
        return units.axes[factor.name, factor.dim]
    value = units.walk.values[factor.name]
    if isinstance(value, Value):
        for label in value.along(factor.dim):
            if label.dims == (factor.dim,):
                return units.of_ids(label.ids)
    shape = program.shapes[factor.name]
    assert isinstance(shape, TensorShape)
    return np.full(shape.sizes[factor.dim], -1, dtype=np.int64)
