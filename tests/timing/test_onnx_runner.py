"""ONNX files in onnxruntime: inputs made to fit, wrong files refused, no fall-back."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import pytest
import torch
from onnx import TensorProto, helper

from compressor.errors import ModelError, ProviderError, UsageError
from compressor.program import InputSpec
from compressor.timing.onnx_runner import OnnxRunner
from compressor.timing.providers import find_provider

CPU = find_provider("cpu")
Write = Callable[..., Path]


def test_a_block_runs_and_takes_time(onnx_file: Write) -> None:
    runner = OnnxRunner(onnx_file(), CPU, 1)
    runner.prepare(3, seed=0)
    assert 0 < runner.block(1) < 60
    assert runner.specs == (InputSpec("x", (None, 4)),)
    assert runner.fixed_batch is None


def test_outputs_are_those_of_the_network(onnx_file: Write) -> None:
    x = torch.arange(8.0).reshape(2, 4) - 4
    (y,) = OnnxRunner(onnx_file(), CPU, 1).outputs([x])
    np.testing.assert_allclose(y, np.maximum(x.numpy().sum(1, keepdims=True), 0).repeat(3, 1))


@pytest.mark.parametrize(
    ("element", "dtype"),
    [
        (TensorProto.DOUBLE, "float64"),
        (TensorProto.FLOAT16, "float16"),
        (TensorProto.INT64, "int64"),
        (TensorProto.INT32, "int32"),
        (TensorProto.BOOL, "bool"),
        (TensorProto.UINT8, "uint8"),
    ],
)
def test_inputs_of_every_type_are_made(onnx_file: Write, element: int, dtype: str) -> None:
    runner = OnnxRunner(onnx_file(element=element), CPU, 1)
    runner.prepare(2, seed=0)
    assert runner.specs[0].dtype == dtype and runner.block(1) > 0


def test_an_input_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    info = helper.make_tensor_value_info
    graph = helper.make_graph(
        [helper.make_node("Identity", ["text"], ["same"])],
        "strings",
        [info("text", TensorProto.STRING, [1])],
        [info("same", TensorProto.STRING, [1])],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)
    onnx.save(model, str(tmp_path / "s.onnx"))
    with pytest.raises(ModelError, match=r"s\.onnx: input text is a tensor\(string\)"):
        OnnxRunner(tmp_path / "s.onnx", CPU, 1)


def test_a_fixed_batch_is_kept(onnx_file: Write) -> None:
    runner = OnnxRunner(onnx_file(dims=[2, 4]), CPU, 1)
    assert runner.fixed_batch == 2
    runner.prepare(2, seed=0)
    with pytest.raises(UsageError, match=r"--batch 16: .*fixed at 2"):
        runner.prepare(16, seed=0)


def test_open_dimensions_need_a_size(onnx_file: Write) -> None:
    path = onnx_file(dims=["batch", "tokens", 4])
    with pytest.raises(ModelError, match=r"leaves dimension 1 \(tokens\) open; .*--input x:float32:128"):
        OnnxRunner(path, CPU, 1)
    runner = OnnxRunner(path, CPU, 1, inputs=[InputSpec("x", (None, 7, 4))])
    assert runner.specs[0].shape == (None, 7, 4)


def test_files_that_onnxruntime_cannot_open(tmp_path: Path, onnx_file: Write) -> None:
    whole = onnx_file().read_bytes()
    for name, content in (("cut.onnx", whole[:-9]), ("text.onnx", b"hello"), ("empty.onnx", b"")):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(ModelError, match=rf"{name}: onnxruntime cannot open it") as caught:
            OnnxRunner(tmp_path / name, CPU, 1)
        assert len(str(caught.value).splitlines()) <= 3


def test_a_model_that_fails_when_run_is_a_model_error(onnx_file: Write) -> None:
    path = onnx_file(dims=["batch", "width"])
    runner = OnnxRunner(path, CPU, 1, inputs=[InputSpec("x", (None, 5))])
    with pytest.raises(ModelError, match=r"cannot run it at batch 1"):
        runner.prepare(1, seed=0)


def test_a_silent_fall_back_is_an_error(onnx_file: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    genuine = ort.InferenceSession

    def falls_back(path: str, options: Any, providers: list[str]) -> ort.InferenceSession:
        assert providers == ["CUDAExecutionProvider"]
        return genuine(path, options, providers=["CPUExecutionProvider"])

    there = ["CUDAExecutionProvider", "CPUExecutionProvider"]
    monkeypatch.setattr(ort, "get_available_providers", lambda: there)
    monkeypatch.setattr(ort, "InferenceSession", falls_back)
    with pytest.raises(ProviderError, match=r"fell back to CPUExecutionProvider\n.*onnxruntime-gpu") as caught:
        OnnxRunner(onnx_file(), find_provider("cuda"), 1)
    assert len(str(caught.value).splitlines()) <= 3


def test_a_provider_that_is_not_there_is_refused(onnx_file: Write) -> None:
    with pytest.raises(ProviderError, match="has no QNNExecutionProvider"):
        OnnxRunner(onnx_file(), find_provider("qnn"), 1)


def test_session_has_the_settings_that_were_asked_for(onnx_file: Write) -> None:
    options = OnnxRunner(onnx_file(), CPU, 2, oversubscribed=True).session.get_session_options()
    assert (options.intra_op_num_threads, options.inter_op_num_threads) == (2, 1)
    assert options.get_session_config_entry("session.intra_op.allow_spinning") == "0"
    assert options.get_session_config_entry("session.force_spinning_stop") == "1"


def test_the_copies_of_a_device_are_measured_apart(onnx_file: Write) -> None:
    runner = OnnxRunner(onnx_file(), CPU, 1)
    runner.prepare(3, seed=0)
    assert runner.block_with_copies(2) > 0 and not runner.has_own_memory


def test_nodes_that_run_elsewhere_are_counted(onnx_file: Write) -> None:
    class Part:
        def __init__(self, ep_name: str, n: int) -> None:
            self.ep_name, self.n = ep_name, n

        def get_nodes(self) -> list[int]:
            return [0] * self.n

    class Session:
        def get_provider_graph_assignment_info(self) -> list[Part]:
            return [Part("CUDAExecutionProvider", 5), Part("CPUExecutionProvider", 2), Part("CPUExecutionProvider", 1)]

    runner = OnnxRunner(onnx_file(), CPU, 1)
    assert runner.elsewhere() == {}
    runner._provider, runner.session = find_provider("cuda"), Session()  # type: ignore[assignment]
    assert runner.elsewhere() == {"CPUExecutionProvider": 3} and runner.has_own_memory
    runner.session = object()  # type: ignore[assignment]
    assert runner.elsewhere() == {}  # an onnxruntime that cannot tell


@pytest.mark.gpu
def test_cuda_keeps_inputs_on_the_device(onnx_file: Write) -> None:
    if "CUDAExecutionProvider" not in ort.get_available_providers() or not torch.cuda.is_available():
        pytest.skip("needs an NVIDIA GPU and onnxruntime-gpu")
    runner = OnnxRunner(onnx_file(), find_provider("cuda"), 1)
    runner.prepare(4, seed=0)
    assert runner.block(10) > 0


@pytest.mark.parametrize("declared", [["N", 4], ["N", 2, 9], ["N"], [3, 1, 4]], ids=str)
def test_a_file_that_declares_other_sizes_than_it_gives_is_timed_all_the_same(tmp_path: Path, declared: Any) -> None:
    """onnxruntime runs it; only outputs that are written again it holds against the declaration."""
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 4])
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, declared)
    axes = helper.make_tensor("axes", TensorProto.INT64, [1], [1])
    nodes = [helper.make_node("Relu", ["x"], ["r"]), helper.make_node("Unsqueeze", ["r", "axes"], ["y"])]
    graph = helper.make_graph(nodes, "g", [x], [y], initializer=[axes])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    (tmp_path / "m.onnx").write_bytes(model.SerializeToString())
    runner = OnnxRunner(tmp_path / "m.onnx", CPU, 1)
    for batch in (2, 3):
        runner.prepare(batch, seed=0)
        assert runner.block(5) > 0
    assert runner.outputs([torch.ones(2, 4)])[0].shape == (2, 1, 4)
