"""How an ONNX file computes and what it takes: precision, batch; it must never run or change it."""

from __future__ import annotations

import onnx
from onnx import TensorProto

from compressor.asking.export import Precision
from compressor.program import layer_name

_DYNAMIC_OPERATORS = frozenset({"DynamicQuantizeLinear", "ConvInteger", "MatMulInteger"})
_STATIC_OPERATORS = frozenset({"QuantizeLinear", "DequantizeLinear", "QLinearConv", "QLinearMatMul"})


def precision_of(model: onnx.ModelProto, program_is_half: bool) -> Precision:
    """How a file computes, told from its operators and its weights, whoever wrote it."""
    operators = {node.op_type for node in model.graph.node}
    if operators & _DYNAMIC_OPERATORS:
        return "int8 dynamic"
    if operators & _STATIC_OPERATORS:
        return "int8 static"
    is_half = any(tensor.data_type == TensorProto.FLOAT16 and len(tensor.dims) for tensor in model.graph.initializer)
    return "fp16" if is_half and not program_is_half else "unchanged"


def kept_norms(model: onnx.ModelProto) -> tuple[str, ...]:
    """Batch norms that are operators of their own in a file, named by their running means; the others are folded."""
    return tuple(layer_name(node.input[3]) for node in model.graph.node if node.op_type == "BatchNormalization")


def fixed_batch(model: onnx.ModelProto) -> int | None:
    """The size of the first input's first dimension, None where it is open."""
    first = next(iter(model.graph.input), None)
    dims = first.type.tensor_type.shape.dim if first is not None else []
    return dims[0].dim_value if dims and dims[0].HasField("dim_value") else None
