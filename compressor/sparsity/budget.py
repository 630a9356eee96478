"""What a choice of units costs, fast enough to be asked a hundred times; it must never choose.

Costs are sums of products of kept counts (`cost.terms`); here the counts are bound to the units that decide them.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from compressor.axes import Ids, Keep, UnitMap, Value
from compressor.cost import Factor, Term, mac_terms, parameter_terms
from compressor.program import Program, find_layers


@dataclass(frozen=True)
class Budget:
    """Cost as a function of which units stay.

    `flat` holds the units along every axis on which some may go, one after another, `starts` where each begins;
    `factors` lists for each term the rows of those counts, padded with the last row, which is 1. Lengths that never
    change are in `coefficients`. `crossed` are rows of which `flat` knows one line only: of values on which units vary
    along several dimensions at once. `owners` are the tensors or operators that the terms are the cost of.
    """

    units: UnitMap
    flat: Ids
    starts: Ids
    factors: Ids
    coefficients: NDArray[np.float64]
    crossed: tuple[tuple[int, Value, int], ...] = ()
    owners: tuple[str, ...] = ()

    def of_needed(self, needed: Collection[str]) -> Budget:
        """The same with what is not among the `needed` tensors and operators at no cost."""
        alive = np.array([owner in needed for owner in self.owners], dtype=np.float64)
        return replace(self, coefficients=self.coefficients * alive)

    def cost(self, keep: Keep) -> float:
        """Parameters (or MACs) that stay. Shapes: keep (n_units,)."""
        kept = np.append(keep, True)[self.flat]
        counts = np.append(np.add.reduceat(kept.astype(np.float64), self.starts), 1.0)
        for row, value, dim in self.crossed:
            counts[row] = self.units.kept_positions(keep, value, dim).sum()
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
        """Multiply-adds for one sample of what multiplies with the named layers' tensors (default: all operators)."""
        owners = None if layers is None else _tensors_of(program, set(layers))
        terms = [term for term in mac_terms(program) if owners is None or term.tensor in owners]
        return _bind(program, units, terms)


def _tensors_of(program: Program, layers: set[str]) -> set[str]:
    return {tensor for layer in find_layers(program) if layer.name in layers for tensor in layer.tensors}


def _bind(program: Program, units: UnitMap, terms: Sequence[Term]) -> Budget:
    rows: dict[Factor, int] = {}
    arrays: list[Ids] = []
    crossed: list[tuple[int, Value, int]] = []
    coefficients = np.array([term.coefficient for term in terms])
    factors: list[list[int]] = [[] for _ in terms]
    for i, factor in ((i, factor) for i, term in enumerate(terms) for factor in term.factors):
        if factor not in rows:
            along, value = _units_along(program, units, factor)
            if (along < 0).all() and value is None:
                coefficients[i] *= len(along)
                continue
            rows[factor] = len(arrays)
            if value is not None:
                crossed.append((len(arrays), value, factor.dim))
            arrays.append(along)
        factors[i].append(rows[factor])
    width = max((len(found) for found in factors), default=1)
    padded = np.full((len(terms), max(width, 1)), len(arrays), dtype=np.int64)
    for i, found in enumerate(factors):
        padded[i, : len(found)] = found
    starts = np.cumsum([0, *(len(a) for a in arrays)])[:-1].astype(np.int64)
    flat = np.concatenate(arrays) if arrays else np.zeros(0, dtype=np.int64)
    return Budget(
        units, flat, starts, padded, coefficients, tuple(crossed), tuple(term.owner for term in terms)
    )  # fmt: skip


def _units_along(program: Program, units: UnitMap, factor: Factor) -> tuple[Ids, Value | None]:
    """The unit of each position along a factor's axis; and the value, if other dimensions have a say in what stays."""
    if factor.is_tensor:
        return units.axes[factor.name, factor.dim], None
    value = units.walk.values[factor.name]
    assert isinstance(value, Value)
    labels = [label for label in value.along(factor.dim) if (units.of_ids(label.ids) >= 0).any()]
    if not labels:
        return np.full(value.sizes[factor.dim], -1, dtype=np.int64), None
    first = labels[0]
    one_line = tuple(slice(None) if dim == factor.dim else 0 for dim in first.dims)
    alone = len(labels) == 1 and first.dims == (factor.dim,)
    return units.of_ids(first.ids[one_line]), None if alone else value
