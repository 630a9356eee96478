"""Small programs that hold one form of one layer, for a stopwatch; it must never hold how time is taken."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.fx import Node

from compressor.compaction.lowering_forms import Form
from compressor.compaction.lowering_plan import Candidate
from compressor.program import InputSpec, Program, ProgramModule, TensorShape, arguments, families

aten = torch.ops.aten

_FRAME_CHANNELS = 16
_PASSES_LAYOUT = families.ACTIVATIONS | families.DROPOUT | families.BATCH_NORM | families.POOLS | families.ADD


def trial_program(program: Program, candidate: Candidate, form: Form) -> Program:
    """One layer in one of its forms, with the input that it has in the network.

    Where a convolution stands behind the input, a thin 1x1 convolution and a ReLU stand there in the trial: the
    runtime passes values between convolutions in a layout of its own, which a dense form can read as it is and a
    gather cannot. It is the same for every form.
    """
    bound = arguments(candidate.node)
    tensors: dict[str, Tensor] = {}
    graph = fx.Graph()

    def parameter(name: str, value: Tensor) -> Node:
        tensors[name] = nn.Parameter(value.detach().clone(), requires_grad=False)
        return graph.get_attr(name)

    def call(target: Any, *args: Any) -> Node:
        return graph.call_function(target, args)

    shape = program.shapes[bound["input"].name]
    assert isinstance(shape, TensorShape)
    sizes = list(shape.sizes[1:])
    x = graph.placeholder("x")
    if candidate.geometry is not None and _follows_convolution(bound["input"]):
        frame = parameter("frame.weight", torch.full((sizes[0], _FRAME_CHANNELS, 1, 1), 0.01))
        x = call(aten.relu.default, call(aten.conv2d.default, x, frame))
        sizes[0] = _FRAME_CHANNELS
    own = program.module.tensors()
    weight = parameter("layer.weight", form.weight(own[candidate.layer.weight]))
    bias = parameter("layer.bias", own[str(bound["bias"].target)]) if isinstance(bound["bias"], Node) else None
    indices: dict[str, Node] = {}
    for end, index in form.indices.items():
        tensors[f"layer.{end}"] = index
        indices[end] = graph.get_attr(f"layer.{end}")
    graph.output((form.write(call, x, weight, bias, indices),))
    return Program(ProgramModule(tensors, graph), (InputSpec("x", (None, *sizes)),))


def _follows_convolution(source: Node) -> bool:
    """Whether only operators that keep the runtime's own layout stand between the value and a convolution."""
    while source.target in _PASSES_LAYOUT and source.args and isinstance(source.args[0], Node):
        source = source.args[0]
    return source.target in families.CONV2D
