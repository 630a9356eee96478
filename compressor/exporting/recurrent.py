"""Recurrent layers on their way to ONNX with any number of steps; it must never hold what one computes.

torch.export takes these layers apart to see what they measure, step by step, and so fixes the number of steps. Behind
an operator of ours, which says what it measures, they stay whole; ONNX has each of them as one operator.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from typing import Any

import torch
from onnxscript import opset18
from onnxscript.function_libs.torch_lib.ops import core
from torch import Tensor, nn

from compressor.program import ProgramModule, families
from compressor.program.arguments import has_argument

op: Any = opset18  # its stubs know no lists of numbers

_OURS = "compress"
_OF_TENSORS = frozenset(target for target in families.RECURRENT if has_argument(target, "batch_first"))
"""Those of samples of one length each; others are of packed sequences."""

_library = torch.library.Library(_OURS, "FRAGMENT")


def stepping_openly(module: nn.Module) -> nn.Module:
    """The module with its recurrent layers as operators of ours; the very module where it has none."""
    if not isinstance(module, ProgramModule) or not any(n.target in _OF_TENSORS for n in module.graph.nodes):
        return module
    graph = copy.deepcopy(module.graph)
    for node in graph.nodes:
        if node.target in _OF_TENSORS:
            node.target = _ours(node.target)
    return ProgramModule(module.tensors(), graph).eval()


def translations() -> Mapping[Any, Callable[..., Any]]:
    """The ONNX forms of our operators."""
    forms = {"lstm": core.aten_lstm, "gru": core.aten_gru, "rnn_tanh": _rnn_tanh, "rnn_relu": _rnn_relu}
    return {_ours(target): forms[_name(target)] for target in _OF_TENSORS}


def _name(target: Any) -> str:
    return families.operator_name(target)


@cache
def _ours(target: Any) -> Any:
    """An operator that computes what that one does, and measures it by its arguments alone."""
    name, schema = _name(target), str(target._schema)
    _library.define(f"{name}{schema[schema.index('(') :]}")
    _library.impl(name, target, "CompositeExplicitAutograd")
    torch.library.register_fake(f"{_OURS}::{name}", _measured, lib=_library)
    return getattr(getattr(torch.ops, _OURS), name).default


def _measured(
    input: Tensor, hx: Tensor | Sequence[Tensor], params: Sequence[Tensor], has_biases: bool, num_layers: int,
    dropout: float, train: bool, bidirectional: bool, batch_first: bool,
) -> tuple[Tensor, ...]:  # fmt: skip
    """Shapes:  input (N, L, F) or (L, N, F), hx (D·layers, N, H) -> (N, L, D·H) or (L, N, D·H), states as hx"""
    states = [hx] if isinstance(hx, Tensor) else list(hx)
    width = states[0].shape[2] * (2 if bidirectional else 1)
    out = input.new_empty((input.shape[0], input.shape[1], width))
    return (out, *(state.new_empty(state.shape) for state in states))


def _rnn_tanh(input: Any, hx: Any, params: Sequence[Any], has_biases: bool, num_layers: int, dropout: float,
              train: bool, bidirectional: bool, batch_first: bool) -> Any:  # fmt: skip
    """`RNN`, one after the other."""
    return _rnn("Tanh", input, hx, params, has_biases, num_layers, bidirectional, batch_first)


def _rnn_relu(input: Any, hx: Any, params: Sequence[Any], has_biases: bool, num_layers: int, dropout: float,
              train: bool, bidirectional: bool, batch_first: bool) -> Any:  # fmt: skip
    """`RNN` with relu, one after the other."""
    return _rnn("Relu", input, hx, params, has_biases, num_layers, bidirectional, batch_first)


def _rnn(activation: str, x: Any, hx: Any, params: Sequence[Any], has_biases: bool, num_layers: int,
         bidirectional: bool, batch_first: bool) -> Any:  # fmt: skip
    """Shapes:  x (N, L, F) or (L, N, F), hx (D·layers, N, H) -> the results and the last states"""
    n_directions = 2 if bidirectional else 1
    n_parameters = 4 if has_biases else 2
    x = op.Transpose(x, perm=[1, 0, 2]) if batch_first else x
    states = []
    for layer in range(num_layers):
        first = layer * n_directions
        weights, recurrent, biases = [], [], []
        for direction in range(n_directions):
            own = params[(first + direction) * n_parameters :][:n_parameters]
            weights.append(op.Unsqueeze(own[0], [0]))
            recurrent.append(op.Unsqueeze(own[1], [0]))
            biases += [op.Unsqueeze(op.Concat(own[2], own[3], axis=0), [0])] if has_biases else []
        y, state = op.RNN(
            x, _joined(weights), _joined(recurrent), _joined(biases) if biases else None, None,
            op.Slice(hx, [first], [first + n_directions], [0]), activations=[activation] * n_directions,
            direction="bidirectional" if bidirectional else "forward", hidden_size=hx.shape[2],
        )  # fmt: skip
        # (L, D, N, H) -> (L, N, D·H)
        x = op.Reshape(op.Transpose(y, perm=[0, 2, 1, 3]), [0, 0, -1])
        states.append(state)
    return (op.Transpose(x, perm=[1, 0, 2]) if batch_first else x), _joined(states)


def _joined(parts: Sequence[Any]) -> Any:
    return parts[0] if len(parts) == 1 else op.Concat(*parts, axis=0)
