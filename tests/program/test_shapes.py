"""Shapes without computing: integers at one batch size, and errors that name the node."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from compressor.errors import ModelError
from compressor.program import InputSpec, ProgramModule, TensorShape, capture, infer_shapes


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv, self.fc = nn.Conv2d(3, 4, 3), nn.Linear(16, 5)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        y = self.conv(x)
        a, b = y.split((1, 3), 1)
        return self.fc(y.reshape(y.shape[0], -1)), (torch.cat((b, a), 1) > 0)


def test_shapes_follow_the_batch() -> None:
    program = capture(Net(), [InputSpec("x", (None, 3, 4, 4))])
    for batch in (1, 5):
        shapes = infer_shapes(program.module, program.inputs, batch)
        found = [s for s in shapes.values() if isinstance(s, TensorShape)]
        assert TensorShape((batch, 5), torch.float32) in found
        assert TensorShape((batch, 4, 2, 2), torch.bool) in found
        assert (
            TensorShape((batch, 1, 2, 2), torch.float32),
            TensorShape((batch, 3, 2, 2), torch.float32),
        ) in shapes.values()
        assert all(type(size) is int for shape in found for size in shape.sizes)


def test_what_a_capture_traced_is_what_is_inferred() -> None:
    program = capture(Net(), [InputSpec("x", (None, 3, 4, 4))])
    assert dict(program.shapes) == dict(infer_shapes(program.module, program.inputs, program.sampled_batch))


def test_an_edited_program_is_not_taken_for_the_traced_one() -> None:
    program = capture(Net(), [InputSpec("x", (None, 3, 4, 4))])
    tensors = dict(program.module.tensors())
    tensors["fc.weight"] = nn.Parameter(torch.zeros(5, 17))
    edited = program.replace(module=ProgramModule(tensors, program.module.graph))
    with pytest.raises(ModelError, match=r"linear: aten\.linear\.default does not fit its inputs: "):
        _ = edited.shapes


def test_a_missing_input_specification_is_an_error() -> None:
    program = capture(Net(), [InputSpec("x", (None, 3, 4, 4))])
    with pytest.raises(ModelError, match=r"the graph has an input .* that the input specification lacks"):
        infer_shapes(program.module, (), 2)


def test_elements_are_counted() -> None:
    assert TensorShape((2, 3, 4), torch.float32).numel == 24 and TensorShape((), torch.float32).numel == 1
