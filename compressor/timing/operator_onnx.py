"""Small programs of a few operators as ONNX models, written in milliseconds; it must never take whole networks.

torch's exporter needs a second or two for any model, which is too long for hundreds of trials. The nodes are those
that it would write.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper
from torch.fx import Node

from compressor.errors import ModelError
from compressor.program import Program, TensorShape, arguments, families
from compressor.program.family import OperatorTable

OPSET, IR_VERSION = 20, 10
_LAST = 2**62

Bound: TypeAlias = dict[str, Any]
Write: TypeAlias = "Callable[[OperatorModel, Node, Bound], None]"

WRITERS: OperatorTable[Write] = OperatorTable("a writer")
"""How the operators that trials consist of are written."""


class OperatorModel:
    """An ONNX graph in the making: a value has its node's name."""

    def __init__(self, program: Program) -> None:
        self.program = program
        self.nodes: list[onnx.NodeProto] = []
        self.constants: list[onnx.TensorProto] = []

    def add(self, operator: str, inputs: list[str], output: str, **attributes: Any) -> None:
        self.nodes.append(helper.make_node(operator, inputs, [output], name=output, **attributes))

    def constant(self, name: str, values: Any) -> str:
        self.constants.append(numpy_helper.from_array(np.asarray(values), name))
        return name

    def rank(self, node: Node) -> int:
        shape = self.program.shapes[node.name]
        assert isinstance(shape, TensorShape)
        return len(shape.sizes)


def operator_model(program: Program, batch: int) -> bytes:
    """The program as a serialised ONNX model with its batch fixed.

    Raises:  ModelError for an operator that trials do not consist of.
    """
    model = OperatorModel(program)
    tensors = program.module.tensors()
    inputs, outputs = [], []
    specs = iter(program.inputs)
    for node in program.module.graph.nodes:
        if node.op == "placeholder":
            inputs.append(helper.make_tensor_value_info(node.name, TensorProto.FLOAT, next(specs).concrete(batch)))
        elif node.op == "get_attr":
            value = tensors[str(node.target)].detach().cpu()
            model.constant(node.name, (value.float() if value.is_floating_point() else value).numpy())
        elif node.op == "call_function":
            write = WRITERS.get(node.target)
            if write is None:
                raise ModelError(f"{node.target} is no operator of a trial")
            write(model, node, arguments(node))
        else:
            (result,) = node.args[0] if isinstance(node.args[0], (tuple, list)) else (node.args[0],)
            outputs.append(helper.make_tensor_value_info(result.name, TensorProto.FLOAT, [None] * model.rank(result)))
    graph = helper.make_graph(model.nodes, "trial", inputs, outputs, model.constants)
    imports = [helper.make_opsetid("", OPSET)]
    return helper.make_model(graph, opset_imports=imports, ir_version=IR_VERSION).SerializeToString()


def _names(*nodes: Node | None) -> list[str]:
    return [node.name for node in nodes if node is not None]


@WRITERS.register(families.CONVOLUTIONS, families.TRANSPOSED_CONVOLUTIONS)
def _convolution(model: OperatorModel, node: Node, a: Bound) -> None:
    operator = "ConvTranspose" if "output_padding" in a else "Conv"
    more: dict[str, Any] = {"output_padding": list(a["output_padding"])} if "output_padding" in a else {}
    if a["padding"] == "same":
        more["auto_pad"] = "SAME_UPPER"  # the odd one behind, as torch does
    elif a["padding"] != "valid":
        more["pads"] = [*a["padding"], *a["padding"]]
    model.add(
        operator, _names(a["input"], a["weight"], a["bias"]), node.name, strides=list(a["stride"]),
        dilations=list(a["dilation"]), group=a["groups"], **more,
    )  # fmt: skip


@WRITERS.register(families.LINEAR)
def _linear(model: OperatorModel, node: Node, a: Bound) -> None:
    if model.rank(a["input"]) == 2:
        model.add("Gemm", _names(a["input"], a["weight"], a["bias"]), node.name, transB=1)
        return
    weight = model.program.module.tensors()[str(a["weight"].target)].detach().float().T.contiguous()
    transposed = model.constant(f"{node.name}.T", weight.numpy())
    if a["bias"] is None:
        model.add("MatMul", [a["input"].name, transposed], node.name)
    else:
        model.add("MatMul", [a["input"].name, transposed], f"{node.name}.product")
        model.add("Add", [f"{node.name}.product", a["bias"].name], node.name)


@WRITERS.register(families.INDEX_SELECT)
def _index_select(model: OperatorModel, node: Node, a: Bound) -> None:
    model.add("Gather", _names(a["self"], a["index"]), node.name, axis=a["dim"])


@WRITERS.register(families.PAD)
def _pad(model: OperatorModel, node: Node, a: Bound) -> None:
    """torch names the last dimension first, each as (before, after); ONNX all befores, then all afters."""
    rank, amounts = model.rank(a["self"]), a["pad"]
    before, after = [0] * rank, [0] * rank
    for pair in range(len(amounts) // 2):
        before[rank - 1 - pair], after[rank - 1 - pair] = amounts[2 * pair], amounts[2 * pair + 1]
    pads = model.constant(f"{node.name}.pads", np.array([*before, *after], dtype=np.int64))
    model.add("Pad", [a["self"].name, pads], node.name)


@WRITERS.register(families.SLICE)
def _slice(model: OperatorModel, node: Node, a: Bound) -> None:
    end = _LAST if a["end"] is None else min(a["end"], _LAST)
    values = (("starts", a["start"] or 0), ("ends", end), ("axes", a["dim"]), ("steps", a["step"]))
    given = [model.constant(f"{node.name}.{name}", np.array([value], dtype=np.int64)) for name, value in values]
    model.add("Slice", [a["self"].name, *given], node.name)


@WRITERS.register(families.RESHAPE)
def _reshape(model: OperatorModel, node: Node, a: Bound) -> None:
    shape = model.constant(f"{node.name}.shape", np.array(a["shape"], dtype=np.int64))
    model.add("Reshape", [a["self"].name, shape], node.name)


@WRITERS.register(families.CAT)
def _cat(model: OperatorModel, node: Node, a: Bound) -> None:
    model.add("Concat", _names(*a["tensors"]), node.name, axis=a["dim"])


@WRITERS.register(families.RELU)
def _relu(model: OperatorModel, node: Node, a: Bound) -> None:
    model.add("Relu", [a["self"].name], node.name)
