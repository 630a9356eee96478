"""Names of tensors: the exporter's where it left one, the layer's where it made one up."""

from __future__ import annotations

import pytest

from compressor.formats.names import check_tensor_names
from compressor.formats.onnx_import.naming import Names, is_made_up, layer_of


@pytest.mark.parametrize(
    "name", ["onnx::Conv_193", "val_12", "/Constant_output_0", "const_fold_opt__123", "12", "", "layer_output_3"]
)
def test_numbered_names_are_made_up(name: str) -> None:
    assert is_made_up(name)


@pytest.mark.parametrize("name", ["conv1.weight", "resnetv17_conv0_weight", "net/c2/kernel:0", "W", "value_embedding"])
def test_other_names_are_not(name: str) -> None:
    assert not is_made_up(name)


@pytest.mark.parametrize(
    ("node", "weight", "layer"),
    [
        ("/layer1/layer1.0/conv1/Conv", None, "layer1.0.conv1"),
        ("/features/features.3/Conv", "onnx::Conv_3", "features.3"),
        ("/fc/Gemm_1", None, "fc"),
        ("anything", "layer1.0.conv1.weight", "layer1.0.conv1"),
        ("anything", "fc.weight.T", "fc"),
        ("anything", "attention.in_proj_weight", "attention.in_proj"),
        ("anything", "net/c2/kernel:0", "net/c2"),
        ("anything", "norm_bias.running_var", "norm_bias"),
        ("anything", "weight", "weight"),
        ("anything", "model/dense/MatMul/ReadVariableOp:0", "model/dense/MatMul/ReadVariableOp:0"),
        ("", None, "conv"),
    ],
)
def test_layers_are_named_by_their_weight_or_node(node: str, weight: str | None, layer: str) -> None:
    kind = "Gemm" if "Gemm" in node else "Conv"
    assert layer_of(node, kind, weight) == layer


@pytest.mark.parametrize(
    ("stored", "role", "layer", "chosen"),
    [
        ("conv1.weight", "weight", "conv1", "conv1.weight"),
        ("attention.in_proj_weight", "weight", "attention.in_proj", "attention.in_proj_weight"),
        ("onnx::Conv_1", "bias", "layer1.0", "layer1.0.bias"),
        ("net/c2/bias:0", "bias", "net/c2", "net/c2.bias"),
        ("fc.weight.T", "weight", "fc", "fc.weight"),
        ("block.class.weight", "weight", "block.class", "block.class_.weight"),
        ("class.graph.weight", "weight", "class", "class_.graph.weight"),
        ("graph.a", None, None, "graph_.a"),
        ("kernel", "weight", "fc", "kernel.weight"),
        ("net/a.b/kernel:0", "weight", None, "net/a.b.weight"),
        ("W", None, None, "W"),
        ("forward", None, None, "forward_"),
        ("a'b\\n.weight", "weight", "a", "a_b_n.weight"),
        ("val_1", None, None, "constant.value"),
    ],
)
def test_a_name_is_the_stored_one_or_the_layers(stored: str, role: str | None, layer: str | None, chosen: str) -> None:
    assert Names().choose(stored, role, layer) == chosen
    check_tensor_names([chosen])


def test_names_never_meet_nor_lie_inside_each_other() -> None:
    names = Names()
    chosen = [
        names.choose(stored, None, None) for stored in ("a.b", "a", "a.b", "a.b.c", "graph", "forward", "training")
    ]
    assert len(set(chosen)) == len(chosen)
    check_tensor_names(chosen)
    assert Names().choose("fc.weight", "weight", None) == "fc.weight"
    again = Names()
    assert [again.choose("fc.weight", "weight", None) for _ in range(2)] == ["fc.weight", "fc_2.weight"]
    assert [again.choose("table", None, None) for _ in range(2)] == ["table", "table_2"]
    assert [again.choose("net.table", None, None) for _ in range(2)] == ["net.table", "net.table_2"]
