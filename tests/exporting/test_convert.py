"""Names that an ONNX file gets."""

from __future__ import annotations

import logging
from collections.abc import Callable

import onnx_ir as ir
import pytest
import torch
from torch import Tensor, nn

from compressor.exporting.convert import innermost_line, output_names, quiet, to_onnx
from compressor.program import InputSpec, Program, capture


def convert(module: nn.Module, *inputs: InputSpec) -> tuple[Program, ir.Model]:
    program = capture(module, inputs)
    return program, to_onnx(program, program.module.clone().eval(), None)


class Nested(nn.Module):
    def forward(self, x: Tensor) -> tuple[Tensor, dict[str, object], None]:
        return x * 2, {"a": x + 1, "b": {"c": x.sum(1), "x": x - 1}}, None


class Returns(nn.Module):
    def __init__(self, make: Callable[[Tensor], object]) -> None:
        super().__init__()
        self.make = make

    def forward(self, x: Tensor) -> object:
        return self.make(x)


@pytest.mark.parametrize(
    ("make", "names"),
    [
        (lambda x: x + 1, ["output"]),
        (lambda x: (x + 1, x + 2), ["output", "output_1"]),
        (lambda x: {"logits": x + 1, "features": x + 2}, ["logits", "features"]),
        (lambda x: {"x": x + 1, "x_output": x + 2}, ["x_output", "x_output_output"]),
    ],
)
def test_outputs_are_named_by_their_place(make: Callable[[Tensor], object], names: list[str]) -> None:
    program, model = convert(Returns(make), InputSpec("x", (None, 4)))
    assert output_names(program) == names
    assert [value.name for value in model.graph.outputs] == names
    assert [value.name for value in model.graph.inputs] == ["x"]


def test_nested_outputs_are_named_by_their_path() -> None:
    program, model = convert(Nested(), InputSpec("x", (None, 4)))
    assert output_names(program) == ["output", "a", "b.c", "b.x"]
    assert len({value.name for value in model.graph.outputs}) == 4


def test_a_value_inside_the_graph_steps_aside_for_an_output_of_its_name() -> None:
    def make(x: Tensor) -> dict[str, Tensor]:
        y = x * 3  # torch calls this value `mul`
        return {"mul_2": y.sigmoid(), "mul": y.tanh(), "val_0": y.relu()}

    _, model = convert(Returns(make), InputSpec("x", (None, 4)))
    inner = [v.name for node in model.graph for v in node.outputs if v not in model.graph.outputs]
    assert [value.name for value in model.graph.outputs] == ["mul_2", "mul", "val_0"]
    assert not set(inner) & {"mul_2", "mul", "val_0"}


def test_every_symbol_of_the_batch_is_called_batch() -> None:
    class Folds(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x.reshape(-1, 2).relu()

    _, model = convert(Folds(), InputSpec("x", (None, 6)))
    dims = [str(value.shape[0]) for value in (*model.graph.inputs, *model.graph.outputs) if value.shape]
    assert dims[0] == "batch"
    assert "batch" in dims[1] and "3" in dims[1]


def test_a_weight_that_is_stored_transposed_keeps_its_name() -> None:
    torch.manual_seed(0)
    _, model = convert(nn.Linear(6, 4), InputSpec("input", (None, 3, 6)))
    assert "weight.T" in model.graph.initializers
    assert {"weight.T", "bias"} == set(model.graph.initializers)


def test_quiet_gives_the_loggers_back() -> None:
    logger = logging.getLogger("onnxscript")
    before = logger.level
    with quiet():
        assert not logger.isEnabledFor(logging.CRITICAL)
    assert logger.level == before


def test_innermost_line_is_one_line_from_the_cause() -> None:
    try:
        try:
            raise KeyError("the cause\nand more")
        except KeyError as inner:
            raise RuntimeError("advice") from inner
    except RuntimeError as error:
        assert innermost_line(error) == "KeyError: 'the cause\\nand more'"
    assert innermost_line(ValueError("")) == "ValueError"
