"""Names from files cannot become anything but names."""

from __future__ import annotations

import pytest

from compressor.errors import ModelError
from compressor.formats.names import check_node_name, check_tensor_names


@pytest.mark.parametrize("name", ["x", "conv2d_1", "_log_softmax", "layer1_0_conv1_weight"])
def test_plain_node_names(name: str) -> None:
    assert check_node_name(name) == name


@pytest.mark.parametrize(
    "name",
    ["", "1x", "a.b", "a b", "a\n", "x):\n  import os", "ｘ", "a;b", "class", "None", 3, None, "x" * 600],
)
def test_other_node_names(name: object) -> None:
    with pytest.raises(ModelError, match="cannot be the name of a node"):
        check_node_name(name)


@pytest.mark.parametrize(
    "name", ["w", "layer1.0.conv1.weight", "_blocks.0._bn", "onnx::Conv_1", "/layer/Conv@2+3", "a-b.w"]
)
def test_plain_tensor_names(name: str) -> None:
    assert check_tensor_names([name]) is None


@pytest.mark.parametrize(
    ("names", "message"),
    [
        ([""], "cannot be the name of a tensor"),
        (["a..b"], "cannot be the name of a tensor"),
        (['a") or exit("'], "cannot be the name of a tensor"),
        (["a\\"], "cannot be the name of a tensor"),
        (["a\n"], "cannot be the name of a tensor"),
        (["a.class.w"], "cannot be the name of a tensor"),
        (["ａ.w"], "cannot be the name of a tensor"),
        (["x" * 600], "cannot be the name of a tensor"),
        (["__class__.forward"], "which every module has"),
        (["forward"], "which every module has"),
        (["graph"], "which every module has"),
        (["_parameters.w"], "which every module has"),
        (["train.__func__.w"], "which every module has"),
        (["conv.__dict__.w"], "which every module has"),
        (["conv._buffers"], "which every module has"),
        (["conv.weight", "conv.weight.data.w"], "lies inside the tensor conv.weight|which every module has"),
        (["conv.weight", "conv.weight.w"], "lies inside the tensor conv.weight"),
    ],
)
def test_other_tensor_names(names: list[str], message: str) -> None:
    with pytest.raises(ModelError, match=message):
        check_tensor_names(names)
