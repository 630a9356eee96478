"""Small programs that hold one form of one layer, for a stopwatch; it must never hold how time is taken."""

from __future__ import annotations

import torch
from torch.fx import Node

from compressor.compaction.lowering_forms import Form
from compressor.compaction.lowering_plan import Candidate
from compressor.program import Excerpt, Program, TensorShape, arguments, families

aten = torch.ops.aten

_FRAME_CHANNELS = 16
_PASSES_LAYOUT = families.ACTIVATIONS | families.DROPOUT | families.BATCH_NORM | families.POOLS | families.ADD


def trial_program(program: Program, candidate: Candidate, form: Form) -> Program:
    """One layer in one of its forms, with the input that it has in the network.

    Where a convolution stands behind the input, a thin 1x1 convolution and a ReLU stand there in the trial: the
    runtime passes values between convolutions in a layout of its own, which a dense form can read as it is and a
    gather cannot. It is the same for every form.
    """
    bound, own = arguments(candidate.node), program.module.tensors()
    shape = program.shapes[bound["input"].name]
    assert isinstance(shape, TensorShape)
    channels, *space = shape.sizes[1:]
    framed = candidate.geometry is not None and _follows_convolution(bound["input"])
    trial = Excerpt((None, _FRAME_CHANNELS if framed else channels, *space))
    x = trial.input
    if framed:
        frame = trial.tensor("frame.weight", torch.full((channels, _FRAME_CHANNELS, 1, 1), 0.01))
        x = trial.call(aten.relu.default, trial.call(aten.conv2d.default, x, frame))
    weight = trial.tensor("layer.weight", form.weight(own[candidate.layer.weight]))
    bias = trial.tensor("layer.bias", own[str(bound["bias"].target)]) if isinstance(bound["bias"], Node) else None
    indices = {end: trial.tensor(f"layer.{end}", index) for end, index in form.indices.items()}
    return trial.program(form.write(trial.call, x, weight, bias, indices))


def _follows_convolution(source: Node) -> bool:
    """Whether only operators that keep the runtime's own layout stand between the value and a convolution."""
    while source.target in _PASSES_LAYOUT and source.args and isinstance(source.args[0], Node):
        source = source.args[0]
    return source.target in families.CONV2D
