"""An ONNX model in half precision, inputs and outputs as they were; it must never judge how far that is off."""

from __future__ import annotations

import onnx
import onnx_ir as ir
from onnxruntime.transformers.float16 import convert_float_to_float16

from compressor.errors import ModelError, innermost_line
from compressor.exporting.convert import quiet


def to_half(model: onnx.ModelProto) -> onnx.ModelProto:
    """The model with float32 weights and arithmetic turned into float16, casts at inputs and outputs.

    Operators that onnxruntime cannot run in half precision (Resize, NonMaxSuppression …) stay as they are,
    between casts.

    Raises:  ModelError if onnxruntime's converter cannot do it.
    """
    try:
        with quiet():
            converted = convert_float_to_float16(model, keep_io_types=True)
    except Exception as error:  # the converter asserts and raises whatever onnx raises
        raise ModelError(f"--fp16: onnxruntime cannot convert the model: {innermost_line(error)}") from error
    # The converter appends its casts at the end of the list, where the checker does not want an input's.
    sorted_model = ir.from_proto(converted)
    sorted_model.graph.sort()
    return ir.to_proto(sorted_model)
