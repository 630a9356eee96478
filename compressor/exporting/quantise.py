"""An ONNX file with 8-bit weights, by onnxruntime's own quantisation; it must never judge how far that is off."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
import onnx
from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_dynamic, quantize_static

from compressor.data.source import DataSource
from compressor.errors import ModelError, innermost_line
from compressor.exporting.convert import quiet, to_numpy

_BATCH = 32


def quantise(model: onnx.ModelProto, data: DataSource | None, n_samples: int, batch: int | None) -> onnx.ModelProto:
    """The model with int8 weights per output channel.

    With `data`, activations are int8 too, their ranges those of the first `n_samples` training samples, as
    QuantizeLinear and DequantizeLinear pairs that onnxruntime fuses into integer kernels. Without, each
    activation is measured while the network runs. `batch` is the model's where it is fixed.

    Raises:  ModelError if onnxruntime cannot quantise it.
    """
    # Shapes of initializers that are recorded beside them would contradict the transposed ones that the
    # quantiser puts in their place.
    del model.graph.value_info[:]
    with tempfile.TemporaryDirectory(prefix="compress-") as folder:
        plain, quantised = Path(folder, "plain.onnx"), Path(folder, "int8.onnx")
        onnx.save(model, str(plain))
        try:
            with quiet():
                if data is None:
                    quantize_dynamic(plain, quantised, per_channel=True, weight_type=QuantType.QInt8)
                else:
                    quantize_static(
                        plain,
                        quantised,
                        Calibration(model, data, n_samples, batch),
                        quant_format=QuantFormat.QDQ,
                        per_channel=True,
                        activation_type=QuantType.QUInt8,
                        weight_type=QuantType.QInt8,
                    )
        except Exception as error:  # the quantiser raises whatever onnx, numpy and onnxruntime raise
            raise ModelError(f"--int8: onnxruntime cannot quantise the model: {innermost_line(error)}") from error
        return onnx.load(str(quantised))


class Calibration(CalibrationDataReader):
    """Training inputs, batch by batch, in the types that the file reads."""

    def __init__(self, model: onnx.ModelProto, data: DataSource, n_samples: int, batch: int | None) -> None:
        types = {
            value.name: onnx.helper.tensor_dtype_to_np_dtype(value.type.tensor_type.elem_type)
            for value in model.graph.input
        }
        self._feeds = _feeds(types, data, n_samples, batch)

    def get_next(self) -> dict[str, np.ndarray] | None:
        """The next batch by input name, None after the last."""
        return next(self._feeds, None)


def _feeds(
    types: Mapping[str, np.dtype], data: DataSource, n_samples: int, batch: int | None
) -> Iterator[dict[str, np.ndarray]]:
    size = batch or _BATCH
    for given in data.batches("train", size, limit=min(n_samples, data.n_train)):
        if batch is not None and len(given.inputs[0]) != batch:
            continue  # a file with a fixed batch cannot take the last, short one
        yield {name: to_numpy(x).astype(types[name]) for name, x in zip(types, given.inputs, strict=True)}
