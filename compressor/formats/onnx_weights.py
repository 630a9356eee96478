"""How many weights an ONNX file holds, whatever they are stored as; it must never read their values."""

from __future__ import annotations

import math

import onnx
from onnx import TensorProto

_FLOATS = frozenset({TensorProto.FLOAT, TensorProto.DOUBLE, TensorProto.FLOAT16, TensorProto.BFLOAT16})
QUANTISED_SUFFIX = "_quantized"
"""What onnxruntime's quantiser puts behind the name of a weight."""

_SCALE_SUFFIX = "_scale"


def count_onnx_parameters(model: onnx.ModelProto) -> int:
    """Elements of the weights, sparse ones in full and int8 ones too; single numbers, scales and zero points
    are constants of the graph, not parameters."""
    dense = sum(math.prod(t.dims) for t in model.graph.initializer if _is_weight(t))
    sparse = sum(math.prod(entry.dims) for entry in model.graph.sparse_initializer)
    return dense + sparse


def _is_weight(tensor: TensorProto) -> bool:
    if not len(tensor.dims) or tensor.name.endswith(_SCALE_SUFFIX):
        return False
    return tensor.data_type in _FLOATS or tensor.name.endswith(QUANTISED_SUFFIX)
