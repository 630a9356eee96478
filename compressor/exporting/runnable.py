"""A program as an ONNX model that is only to be timed, in a fraction of a second; it must never be given to anybody.

torch's exporter takes three to ten seconds for networks of some hundred operators; its predecessor, while there is one,
takes a fifth of that and writes what runs as fast. Nothing is checked here: `export` is what writes files.
"""

from __future__ import annotations

import io

import numpy as np
import onnx_ir as ir
import torch

from compressor.errors import ModelError
from compressor.exporting.convert import input_dtype, quiet, to_onnx
from compressor.exporting.host import host_module, in_runtime_type
from compressor.program import Program

MOST_BYTES = 2**30
"""Weights of models larger than this would have to go into files of their own."""


def feeds_of(program: Program, batch: int = 1) -> list[np.ndarray]:
    """Random inputs of the runnable model, in its order."""
    return [example.numpy() for example in program.example_inputs(batch, dtype=input_dtype(program))]


def to_runnable(program: Program, batch: int = 1) -> bytes:
    """The program in evaluation mode at one batch size, as a serialised ONNX model.

    Raises:  ModelError if it is too large or has no ONNX form.
    """
    size = sum(tensor.nbytes for tensor in program.module.tensors().values())
    if size > MOST_BYTES:
        raise ModelError(f"its weights take {size / 2**30:.1f} GiB")
    program, _ = in_runtime_type(program)
    module = host_module(program)
    return _by_tracing(program, module, batch) or _by_exporting(program, module, batch)


def _by_tracing(program: Program, module: torch.nn.Module, batch: int) -> bytes | None:
    """None where torch has no such exporter any more, or where it does not know an operator."""
    written = io.BytesIO()
    examples = program.example_inputs(batch, dtype=input_dtype(program))
    try:
        with quiet(), torch.no_grad():
            torch.onnx.export(module, examples, written, dynamo=False)  # pyright: ignore[reportArgumentType]
    except Exception:  # whatever it raises, the exporter of today is asked next, and says what is wrong
        return None
    return written.getvalue() or None


def _by_exporting(program: Program, module: torch.nn.Module, batch: int) -> bytes:
    model = to_onnx(program, module, None, batch)
    return ir.serde.serialize_model(model).SerializeToString()
