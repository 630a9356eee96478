"""Axis rules of recurrent layers and cells; it must never hold rules of other operators.

A hidden unit is one row in every gate of both matrices and of both biases, one column of the recurrent matrix, one
position of the states and of the output. The states of a stack are one tensor, so its layers and directions have one
width: a unit is the same position in all of them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from torch.fx import Node

from compressor.axes.ids import Ids
from compressor.axes.labels import Label, Value, Walked
from compressor.axes.meeting import ids_along, join
from compressor.axes.table import Arguments, Context, rule
from compressor.narrowing import is_row
from compressor.program import families

_N_GATES = {"lstm": 4, "gru": 3}
"""Of those that have several: their rows lie one after another in each matrix. Such a layer carries its state on."""

_STEPS = "a recurrent layer steps along this dimension, or keeps its samples apart along it"


@dataclass(frozen=True)
class _Features:
    """Ids of the features of a value, None where it has none, and whether a removed one is 0 in the masked model."""

    ids: Ids | None
    zero: bool


@rule(families.RECURRENT)
def recurrent(ctx: Context, node: Node, a: Arguments) -> Walked:
    """w.O of all gates = b.O = w_hh.I (or w_hr.I) = h.H = c.H, in all layers and directions alike; x.F = w_ih.I."""
    x: Value = a["data"] if "data" in a else a["input"]
    hidden, cell = _states(a["hx"])
    n_directions = 2 if a["bidirectional"] else 1
    params = list(a["params"])
    per_cell = len(params) // (a["num_layers"] * n_directions)
    cells = [params[i : i + per_cell] for i in range(0, len(params), per_cell)]
    ctx.pin(x.apart_from([x.rank - 1]), _STEPS)
    below, outer, inner = _features(ctx, x), list[_Features](), list[_Features]()
    for i in range(0, len(cells), n_directions):
        made = [_cell(ctx, node, below, weights, bool(a["has_biases"])) for weights in cells[i : i + n_directions]]
        outer += [out for out, _ in made]
        inner += [unit for _, unit in made]
        below = _side_by_side([_Features(out.ids, False) for out, _ in made])
    out, unit = _with_states(ctx, node, _tied(ctx, outer), _tied(ctx, inner), hidden, cell)
    output, *last = ctx.out
    values = [_labelled(ctx, output.sizes, _side_by_side([out] * n_directions))]
    values += [_labelled(ctx, shape.sizes, part) for shape, part in zip(last, (out, unit), strict=False)]
    return tuple(values)


@rule(families.RECURRENT_CELL)
def recurrent_cell(ctx: Context, node: Node, a: Arguments) -> Walked:
    """The row of a recurrent layer, for one step."""
    x: Value = a["input"]
    hidden, cell = _states(a["hx"])
    ctx.pin(x.apart_from([x.rank - 1]), _STEPS)
    weights = [a[name] for name in ("w_ih", "w_hh", "b_ih", "b_hh") if a.get(name) is not None]
    out, unit = _cell(ctx, node, _features(ctx, x), weights, len(weights) > 2)
    out, unit = _with_states(ctx, node, out, unit, hidden, cell)
    if is_row(ctx.out):
        return tuple(_labelled(ctx, shape.sizes, part) for shape, part in zip(ctx.out, (out, unit), strict=True))
    return _labelled(ctx, ctx.out.sizes, out)


def _n_gates(node: Node) -> int:
    return _N_GATES.get(families.operator_name(node.target).removesuffix("_cell"), 1)


def _states(given: Value | Sequence[Value]) -> tuple[Value, Value | None]:
    """The state that comes out, and the cell's own."""
    if isinstance(given, Value):
        return given, None
    return given[0], (given[1] if len(given) > 1 else None)


def _features(ctx: Context, x: Value) -> _Features:
    last = x.rank - 1
    return _Features(ids_along(ctx, x, last), all(label.zero for label in x.along(last)))


def _cell(
    ctx: Context, node: Node, below: _Features, weights: Sequence[Value], has_biases: bool
) -> tuple[_Features, _Features]:
    """What one layer of one direction puts out and its hidden units; the same but for a projection."""
    w_ih, w_hh = weights[:2]
    n_gates = _n_gates(node)
    n_units = w_ih.sizes[0] // n_gates
    rows = [w_ih, w_hh, *(weights[2:4] if has_biases else ())]
    projection = weights[2 + 2 * has_biases] if len(weights) > 2 + 2 * has_biases else None
    join(ctx, below.ids, ids_along(ctx, w_ih, 1))
    if not below.zero and not all(label.zero for label in w_ih.along(1)):
        ctx.pin(w_ih.along(1), "is summed over where a removed position would not be 0")
    unit = _gates(ctx, rows, n_gates, n_units)
    if projection is None:
        join(ctx, unit.ids, ids_along(ctx, w_hh, 1))
        return unit, unit
    join(ctx, unit.ids, ids_along(ctx, projection, 1))
    out = _Features(ids_along(ctx, projection, 0), all(label.zero for label in projection.along(0)))
    join(ctx, out.ids, ids_along(ctx, w_hh, 1))
    if out.ids is not None and unit.ids is not None:
        ctx.unequal.append((unit.ids, out.ids))
    return out, unit


def _gates(ctx: Context, rows: Sequence[Value], n_gates: int, n_units: int) -> _Features:
    """Rows of all gates, matrices and biases of each hidden unit as one."""
    found = [ids_along(ctx, value, 0) for value in rows]
    for ids in found[1:]:
        join(ctx, found[0], ids)
    if found[0] is None:
        return _Features(None, False)
    per_gate = found[0].reshape(n_gates, n_units)
    ctx.unite(per_gate[:1], per_gate)
    if n_units == 1:
        ctx.ids.pin(per_gate, "the only hidden unit", ctx.node)
        return _Features(None, False)
    return _Features(per_gate[0], all(label.zero for value in rows for label in value.along(0)))


def _tied(ctx: Context, parts: Sequence[_Features]) -> _Features:
    """Layers and directions as one width."""
    for part in parts[1:]:
        join(ctx, parts[0].ids, part.ids)
    return _Features(parts[0].ids, all(part.zero for part in parts))


def _side_by_side(parts: Sequence[_Features]) -> _Features:
    known = [part.ids for part in parts if part.ids is not None]
    ids = np.concatenate(known) if len(known) == len(parts) else None
    return _Features(ids, all(part.zero for part in parts))


def _with_states(
    ctx: Context, node: Node, out: _Features, unit: _Features, hidden: Value, cell: Value | None
) -> tuple[_Features, _Features]:
    """Output and units united with the initial states.

    With gates of zeros an LSTM halves its cell in every step and a GRU its state: 0 stays 0, anything else does not.
    """
    zeros = [_meet_state(ctx, part, state) for part, state in ((out, hidden), (unit, cell)) if state is not None]
    if cell is not None:
        unit = _Features(unit.ids, unit.zero and zeros[1])
        return (_Features(out.ids, out.zero) if _is_projected(out, unit) else unit), unit
    kept = out.zero and (zeros[0] or not _n_gates(node) > 1)
    return _Features(out.ids, kept), unit


def _is_projected(out: _Features, unit: _Features) -> bool:
    return out.ids is not unit.ids


def _meet_state(ctx: Context, part: _Features, state: Value) -> bool:
    """Unite a width with the last dimension of a state; whether a removed position of that is 0."""
    last = state.rank - 1
    ctx.pin(state.apart_from([last]), _STEPS)
    if state.uniform or state.sizes[last] == 1:
        return False
    join(ctx, part.ids, ids_along(ctx, state, last))
    return all(label.zero for label in state.along(last))


def _labelled(ctx: Context, sizes: tuple[int, ...], features: _Features) -> Value:
    if features.ids is None:
        return Value(sizes)
    shape = [-1 if dim == len(sizes) - 1 else 1 for dim in range(len(sizes))]
    labels: tuple[Label, ...] = ctx.label_of(features.ids.reshape(shape), features.zero, "a single unit")
    return Value(sizes, labels)
