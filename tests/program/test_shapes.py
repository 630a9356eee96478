"""Shapes without computing: integers at one batch size, and errors that name the node."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from compressor.errors import ModelError
from compressor.program import InputSpec, ProgramModule, TensorShape, capture, infer_shapes, shapes


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


@pytest.mark.parametrize("overload", list(shapes._LIKE_FIRST), ids=str)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16], ids=str)
def test_the_result_is_like_the_first_operand_where_that_is_taken_for_granted(
    overload: Any, dtype: torch.dtype
) -> None:
    x = torch.empty(2, 3, 4, 5, dtype=dtype, device="meta")
    given: dict[str, Any] = {"p": 0.5, "train": False, "training": False, "momentum": 0.1, "eps": 1e-5}
    given |= {"cudnn_enabled": False}
    given |= dict.fromkeys(("weight", "bias", "running_mean", "running_var"), x[0, :, 0, 0])
    named = {a.name: given[a.name] for a in overload._schema.arguments[1:] if a.name in given}
    made = overload(x, **named)
    assert (made.shape, made.dtype) == (x.shape, x.dtype)


def operands_of_two_types(overload: Any) -> list[Tensor]:
    """Operands that would fit but for their element types, for an operator that multiplies."""
    name = overload._schema.name.removeprefix("aten::")
    n = next((n for n in (1, 2, 3) if f"{n}d" in name), 0)
    batch = () if name in ("mm", "mv", "addmm", "linear") else (2,)
    x, y = torch.empty(*batch, 4, 4), torch.empty(*batch, 4, 4, dtype=torch.float64)
    if n:
        x, y = torch.empty(2, 4, *[3] * n), torch.empty(4, 4, *[3] * n, dtype=torch.float64)
    x, y = (x, y[..., 0]) if name == "mv" else (x[0, 0], y[0, 0]) if name == "dot" else (x, y)
    return [x.clone(), x, y] if "add" in name else [x, y]


@pytest.mark.parametrize("overload", list(shapes._ONE_TYPE), ids=str)
def test_a_product_of_two_types_is_refused(overload: Any) -> None:
    """torch refuses it when the network runs; the shapes must not say that it fits."""
    operands = operands_of_two_types(overload)
    specs = tuple(
        InputSpec(f"x{i}", tuple(x.shape), str(x.dtype).removeprefix("torch.")) for i, x in enumerate(operands)
    )
    graph = torch.fx.Graph()
    graph.output(graph.call_function(overload, tuple(graph.placeholder(spec.name) for spec in specs)))
    with pytest.raises(ModelError, match=r"does not fit its inputs: it takes one type, not float32, float64"):
        infer_shapes(ProgramModule({}, graph), specs, 2)
    with pytest.raises(RuntimeError):
        overload(*operands)


def test_a_missing_input_specification_is_an_error() -> None:
    program = capture(Net(), [InputSpec("x", (None, 3, 4, 4))])
    with pytest.raises(ModelError, match=r"the graph has an input .* that the input specification lacks"):
        infer_shapes(program.module, (), 2)


def test_elements_are_counted() -> None:
    assert TensorShape((2, 3, 4), torch.float32).numel == 24 and TensorShape((), torch.float32).numel == 1
