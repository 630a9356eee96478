"""Importers of recurrent layers: their packed weights come apart into the matrices that torch has.

It must never hold a loop: one node is one call, whatever the number of steps.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from compressor.errors import ModelError
from compressor.formats.onnx_import.emitter import Emitter
from compressor.formats.onnx_import.naming import layer_of
from compressor.formats.onnx_import.table import Op, imports, integers
from compressor.formats.onnx_import.values import Const, Traced, Value

aten = torch.ops.aten

_ORDER = {"LSTM": (0, 2, 3, 1), "GRU": (1, 0, 2), "RNN": (0,)}
"""Where the gates that torch wants one after the other are in ONNX: i o f c as i f c o, z r h as r z h."""

_ACTIVATIONS = {"LSTM": ("Sigmoid", "Tanh", "Tanh"), "GRU": ("Sigmoid", "Tanh")}
_DIRECTIONS = {"forward": 1, "reverse": 1, "bidirectional": 2}


@imports("LSTM", "GRU", "RNN")
def recurrent(ctx: Emitter, op: Op) -> tuple[Value, ...]:
    """`lstm`, `gru`, `rnn_tanh` or `rnn_relu` of one layer, a reversed one between two `flip`s.

    Peepholes, clipped or other activations, lengths per sample and a GRU that resets before its product are refused.
    """
    x = ctx.traced(op.needed(0))
    if x.rank != 3:
        raise ModelError(f"steps over an input of {x.rank} dimensions, 3 are needed")
    target = _target(op, x)
    direction = op.get("direction", "forward")
    n_directions = _DIRECTIONS[direction]
    params = _params(ctx, op, n_directions)
    states = _states(ctx, op, x, n_directions)
    given = ctx.call(aten.flip.default, x, [0]) if direction == "reverse" else x
    hx = list(states) if op.kind == "LSTM" else states[0]
    options = (len(params) > 2 * n_directions, 1, 0.0, False, n_directions == 2, False)
    out, *last = ctx.call(target, given, hx, params, *options)
    out = ctx.call(aten.flip.default, out, [0]) if direction == "reverse" else out
    return _by_direction(ctx, out, n_directions), *last


def _target(op: Op, x: Traced) -> object:
    """The ATen operator. Raises: ModelError for what none of them computes."""
    if op.get("layout", 0) or op.get("direction", "forward") not in _DIRECTIONS:
        raise ModelError("has its samples first, or an unknown direction")
    if op.get("clip") is not None or op.get("input_forget", 0) or op.given(7) is not None:
        raise ModelError("clips its gates, couples them or has peepholes, which no layer of torch does")
    if op.kind == "GRU" and not op.get("linear_before_reset", 0):
        raise ModelError("resets its state before the product (linear_before_reset=0), and torch's GRU behind it")
    lengths = op.given(4)
    if lengths is not None and (not isinstance(lengths, Const) or set(integers(lengths)) - set(x.at(0))):
        raise ModelError("has lengths for every sample; give all steps of all samples")
    n_directions = _DIRECTIONS[op.get("direction", "forward")]
    wanted = [kind.lower() for kind in op.get("activations") or ()]
    if op.kind == "RNN":
        if wanted and (len(set(wanted)) > 1 or wanted[0] not in ("tanh", "relu")):
            raise ModelError(f"has the activations {', '.join(wanted)}, torch's layer tanh or relu")
        return aten.rnn_relu.input if wanted and wanted[0] == "relu" else aten.rnn_tanh.input
    if wanted and wanted != [kind.lower() for kind in _ACTIVATIONS[op.kind]] * n_directions:
        raise ModelError(f"has the activations {', '.join(wanted)}, torch's layer {', '.join(_ACTIVATIONS[op.kind])}")
    return aten.lstm.input if op.kind == "LSTM" else aten.gru.input


def _params(ctx: Emitter, op: Op, n_directions: int) -> list[Value]:
    """Both matrices and both biases of each direction, as parameters where the file holds them."""
    matrices = [op.needed(1), op.needed(2)]
    biases = op.given(3)
    if not all(isinstance(value, Const) for value in (*matrices, *([] if biases is None else [biases]))):
        raise ModelError("computes its weights, which is not supported")
    layer = layer_of(op.name, op.kind, _name(matrices[0]))
    params: list[Value] = []
    for direction in range(n_directions):
        suffix = "_l0_reverse" if direction else "_l0"
        parts = [("weight_ih", _sorted(op, matrices[0], direction)), ("weight_hh", _sorted(op, matrices[1], direction))]
        if isinstance(biases, Const):
            halves = biases.tensor[direction].chunk(2)
            both = [_in_order(op, half) for half in halves]
            parts += [(role, Const(b, "", True)) for role, b in zip(("bias_ih", "bias_hh"), both, strict=True)]
        params += [ctx.attached(Const(value.tensor, "", True), role + suffix, layer) for role, value in parts]
    return params


def _name(value: Value) -> str | None:
    return value.name if isinstance(value, Const) else None


def _sorted(op: Op, packed: Value, direction: int) -> Const:
    """Shapes:  (directions, gates x hidden, features) -> (gates x hidden, features)"""
    assert isinstance(packed, Const)
    return Const(_in_order(op, packed.tensor[direction]), packed.name, True)


def _in_order(op: Op, rows: Tensor) -> Tensor:
    gates: Sequence[Tensor] = rows.chunk(len(_ORDER[op.kind]))
    return torch.cat([gates[i] for i in _ORDER[op.kind]])


def _states(ctx: Emitter, op: Op, x: Traced, n_directions: int) -> list[Value]:
    """The states at the start; zeros where none are given.

    Shapes:  -> (directions, N, H) each
    """
    matrix = op.needed(2)
    assert isinstance(matrix, Const)
    n_units = matrix.static(2)
    states: list[Value] = []
    for position in (5, 6) if op.kind == "LSTM" else (5,):
        given = op.given(position)
        if given is None:
            sizes = [n_directions, ctx.size(x, 1), n_units]
            given = ctx.call(aten.zeros.default, sizes, dtype=x.dtype, device=torch.device("cpu"), pin_memory=False)
        states.append(ctx.tensor_of(given))
    return states


def _by_direction(ctx: Emitter, out: Value, n_directions: int) -> Value:
    """Shapes:  (T, N, directions x H) -> (T, directions, N, H)"""
    if n_directions == 1:
        return ctx.call(aten.unsqueeze.default, out, 1)
    apart = ctx.call(aten.unflatten.int, out, 2, [n_directions, -1])
    return ctx.call(aten.permute.default, apart, [0, 2, 1, 3])
