"""A file is what its bytes say, whatever its name; what is no model is named."""

from __future__ import annotations

import io
import random
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
import safetensors.torch
import torch
from onnx import TensorProto, helper
from torch import nn

from compressor.errors import ModelError
from compressor.formats.detect import Kind, detect, is_onnx


def onnx_bytes() -> bytes:
    node = helper.make_node("Relu", ["x"], ["y"])
    values = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["N", 3]) for name in ("x", "y")]
    graph = helper.make_graph([node], "g", values[:1], values[1:])
    model = helper.make_model(graph, producer_name="test")
    helper.set_model_props(model, {"origin": "here"})
    return model.SerializeToString()


def torch_bytes(legacy: bool = False) -> bytes:
    buffer = io.BytesIO()
    torch.save({"w": torch.zeros(2)}, buffer, _use_new_zipfile_serialization=not legacy)
    return buffer.getvalue()


def exported_bytes() -> bytes:
    buffer = io.BytesIO()
    torch.export.save(torch.export.export(nn.ReLU(), (torch.zeros(2, 3),)), buffer)
    return buffer.getvalue()


def npz_bytes() -> bytes:
    buffer = io.BytesIO()
    np.savez(buffer, x_train=np.zeros(3))
    return buffer.getvalue()


def zip_bytes(name: str, content: bytes, method: int = zipfile.ZIP_STORED) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", method) as archive:
        archive.writestr(name, content)
    return buffer.getvalue()


def torchscript_bytes() -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name in ("net/data.pkl", "net/code/__torch__.py", "net/constants.pkl"):
            archive.writestr(name, b"x")
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("content", "kind"),
    [
        (torch_bytes, Kind.TORCH),
        (lambda: torch_bytes(legacy=True), Kind.TORCH),
        (lambda: safetensors.torch.save({"w": torch.zeros(2)}), Kind.SAFETENSORS),
        (onnx_bytes, Kind.ONNX),
        (exported_bytes, Kind.EXPORTED),
        (torchscript_bytes, Kind.TORCHSCRIPT),
    ],
)
def test_kinds(content: Callable[[], bytes], kind: Kind) -> None:
    file = io.BytesIO(content())
    file.seek(3)
    assert detect(file, "file") is kind
    assert file.tell() == 0


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is empty .0 bytes."),
        (b"epoch,loss\n1,2\n", "a text file, not a model"),
        ("Größe: 3 µm ".encode() * 100, "a text file, not a model"),
        (b"version https://git-lfs.github.com/spec/v1\noid", "run git lfs pull"),
        (b"<!DOCTYPE html><html>", "a web page"),
        (b"\x1f\x8b\x08\x00", "unpack it first"),
        (b"\x80\x04\x95\x00", "a pickle that torch.save did not write"),
        (b"\x89HDF\r\n", "HDF5"),
        (bytes(257) + b"ustar", "a tar archive"),
        (b"\x28\xb5\x2f\xfd" + bytes(20), "compressed with zstd; unpack it first"),
        (b"GGUF\x03" + bytes(20), r"llama\.cpp \(GGUF\); give the directory of transformers"),
        (b"\x1c\x00\x00\x00TFL3" + bytes(20), "TensorFlow Lite; export the network"),
        (b"\x18\x00\x00\x00ORTM" + bytes(20), r"onnxruntime's own format; give the \.onnx file"),
        (b"ftrt" + bytes(20), "engine of TensorRT"),
        (b"7767517\n75 83\nInput data 0 1 data\n", "ncnn"),
        (b'<?xml version="1.0"?>\n<net name="m" version="11">', "OpenVINO"),
        (b"\x00" * 1000, "no model that is known here"),
        (b"\x08", "no model that is known here"),
        (onnx_bytes()[:-5], "a cut-off ONNX model .*copy or download it again"),
        (b"PK\x03\x04 and no more", "damaged or cut-off archive"),
        (torch_bytes()[:-100], "damaged or cut-off archive"),
        (npz_bytes(), "data is given with --data"),
        (zip_bytes("word/document.xml", b"<a/>"), "zip archive without a model"),
        (zip_bytes("model.weights.h5", b"h"), "archive of Keras; export the model to ONNX"),
        (zip_bytes("MAR-INF/MANIFEST.json", b"{}"), "archive of TorchServe; unpack it"),
        (zip_bytes("m.mlpackage/Data/com.apple.CoreML/", b""), "package of Core ML"),
        (zip_bytes("results/best.onnx", b"o"), r"zip archive; unpack it and give results/best\.onnx in it"),
        (zip_bytes("a/data.pkl", bytes(10**6), zipfile.ZIP_DEFLATED), "declares more data than it holds"),
    ],
)
def test_what_is_no_model_is_named(content: bytes, message: str) -> None:
    with pytest.raises(ModelError, match=f"^file: .*{message}"):
        detect(io.BytesIO(content), "file")


def test_random_bytes_are_no_model() -> None:
    for length in (1, 7, 100, 5000):
        with pytest.raises(ModelError, match=r"^file: "):
            detect(io.BytesIO(b"\xff" + random.Random(length).randbytes(length)), "file")


def test_is_onnx_goes_by_content(tmp_path: Path) -> None:
    for name, content, expected in (
        ("a.pt", onnx_bytes(), True),
        ("b.onnx", torch_bytes(), False),
        ("c.onnx", b"", False),
        ("d.onnx", onnx_bytes()[:-1], False),
        ("e.onnx", b"\x08\x08", False),
    ):
        (tmp_path / name).write_bytes(content)
        assert is_onnx(tmp_path / name) is expected, name
    assert not is_onnx(tmp_path)
    assert not is_onnx(tmp_path / "missing.onnx")


def test_is_onnx_knows_every_field_of_the_format() -> None:
    fields = {f.number for f in onnx.ModelProto.DESCRIPTOR.fields}
    from compressor.formats.detect import _ONNX_FIELDS

    assert fields <= _ONNX_FIELDS.keys()
