"""Chains that are one operator: recognised in every order, and left alone where they are not quite it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx import helper

from compressor.asking import WalkOptions
from compressor.axes import find_units
from compressor.program import Program, infer_shapes
from tests.formats.onnx_import.building import agrees, model_of, numbers

aten = torch.ops.aten
node = helper.make_node
HALF, ONE, ROOT = np.float32(0.5), np.float32(1), np.float32(2**0.5)


def targets(program: Program) -> list[Any]:
    return [n.target for n in program.module.graph.nodes if n.op == "call_function"]


def fused(nodes: Sequence[onnx.NodeProto], constants: dict[str, np.ndarray], shape: Sequence[int | str]) -> list[Any]:
    program = agrees(model_of(nodes, {"x": shape}, constants))
    assert infer_shapes(program.module, program.inputs, 2) == program.traced
    return targets(program)


ERF = [node("Div", ["x", "root"], ["s"]), node("Erf", ["s"], ["e"]), node("Add", ["e", "one"], ["t"])]
GELUS = {
    "torchscript": [*ERF, node("Mul", ["x", "t"], ["p"]), node("Mul", ["p", "half"], ["y"])],
    "half first": [*ERF, node("Mul", ["x", "half"], ["h"]), node("Mul", ["h", "t"], ["y"])],
    "half beside": [*ERF, node("Mul", ["t", "half"], ["h"]), node("Mul", ["h", "x"], ["y"])],
    "inverse": [node("Mul", ["x", "inverse"], ["s"]), *ERF[1:], node("Mul", ["t", "x"], ["p"]),
                node("Div", ["p", "two"], ["y"])],
}  # fmt: skip
NUMBERS = {"root": ROOT, "one": ONE, "half": HALF, "inverse": ONE / ROOT, "two": np.float32(2)}


@pytest.mark.parametrize("nodes", GELUS.values(), ids=GELUS)
def test_gelu(nodes: Sequence[onnx.NodeProto]) -> None:
    assert fused(nodes, NUMBERS, ("N", 8)) == [aten.gelu.default]


@pytest.mark.parametrize("wrong", ["root", "one", "half"])
def test_what_is_not_quite_gelu_stays(wrong: str) -> None:
    constants = {**NUMBERS, wrong: np.float32(1.1)}
    assert aten.gelu.default not in fused(GELUS["torchscript"], constants, ("N", 8))


def test_a_value_that_others_read_stays_for_them() -> None:
    nodes = [*GELUS["torchscript"][:-1], node("Mul", ["p", "half"], ["g"]), node("Sub", ["g", "t"], ["y"])]
    found = fused(nodes, NUMBERS, ("N", 8))
    assert aten.gelu.default not in found and aten.erf.default in found


def test_silu_and_hardswish() -> None:
    nodes = [node("Sigmoid", ["x"], ["g"]), node("Mul", ["g", "x"], ["y"])]
    assert fused(nodes, {}, ("N", 8)) == [aten.silu.default]
    nodes = [node("HardSigmoid", ["x"], ["g"], alpha=1 / 6), node("Mul", ["x", "g"], ["y"])]
    assert fused(nodes, {}, ("N", 8)) == [aten.hardswish.default]
    nodes = [node("Sigmoid", ["x"], ["g"]), node("Mul", ["g", "k"], ["y"])]
    assert fused(nodes, {"k": numbers(8)}, ("N", 8)) == [aten.sigmoid.default, aten.mul.Tensor]


def layer_norm(*, axes: Sequence[int] = (-1,), square: str = "Pow", divide: bool = True) -> list[onnx.NodeProto]:
    squared = node("Pow", ["d", "two"], ["q"]) if square == "Pow" else node("Mul", ["d", "d"], ["q"])
    divided = (
        [node("Div", ["d", "r"], ["n"])]
        if divide
        else [node("Reciprocal", ["r"], ["i"]), node("Mul", ["i", "d"], ["n"])]
    )
    return [
        node("ReduceMean", ["x"], ["m"], axes=list(axes)), node("Sub", ["x", "m"], ["d"]), squared,
        node("ReduceMean", ["q"], ["v"], axes=list(axes)), node("Add", ["v", "epsilon"], ["a"]),
        node("Sqrt", ["a"], ["r"]), *divided, node("Mul", ["n", "w"], ["s"]), node("Add", ["s", "b"], ["y"]),
    ]  # fmt: skip


AFFINE = {"two": np.float32(2), "epsilon": np.float32(1e-5), "w": numbers(8), "b": numbers(8, seed=1)}


@pytest.mark.parametrize("square", ["Pow", "Mul"])
@pytest.mark.parametrize("divide", [True, False])
def test_layer_norm(square: str, divide: bool) -> None:
    found = fused(layer_norm(square=square, divide=divide), AFFINE, ("N", 5, 8))
    assert found == [aten.layer_norm.default]


def test_a_mean_over_other_dimensions_is_no_layer_norm() -> None:
    assert aten.layer_norm.default not in fused(layer_norm(axes=[1]), AFFINE, ("N", 5, 8))
    constants = {**AFFINE, "w": numbers(5, 8), "b": numbers(5, 8, seed=1)}
    assert fused(layer_norm(axes=[1, 2]), constants, ("N", 5, 8)) == [aten.layer_norm.default]


def test_a_scale_that_is_not_the_norms_stays_behind_it() -> None:
    constants = {**AFFINE, "w": numbers(5, 8)}
    assert fused(layer_norm(), constants, ("N", 5, 8)) == [aten.layer_norm.default, aten.mul.Tensor, aten.add.Tensor]


def test_rms_norm() -> None:
    nodes = [
        node("Mul", ["x", "x"], ["q"]), node("ReduceMean", ["q"], ["v"], axes=[-1]),
        node("Add", ["v", "epsilon"], ["a"]), node("Sqrt", ["a"], ["r"]), node("Div", ["one", "r"], ["i"]),
        node("Mul", ["x", "i"], ["n"]), node("Mul", ["w", "n"], ["y"]),
    ]  # fmt: skip
    constants = {**AFFINE, "one": ONE}
    assert fused(nodes, constants, ("N", 5, 8)) == [aten.rms_norm.default]


def group_norm(n_groups: int) -> tuple[list[onnx.NodeProto], dict[str, np.ndarray]]:
    nodes = [
        node("Reshape", ["x", "rows"], ["g"]), node("InstanceNormalization", ["g", "ones", "zeros"], ["i"]),
        node("Shape", ["x"], ["shape"]), node("Reshape", ["i", "shape"], ["n"]),
        node("Mul", ["n", "w"], ["s"]), node("Add", ["s", "b"], ["y"]),
    ]  # fmt: skip
    constants = {"rows": np.array([0, n_groups, -1]), "w": numbers(8, 1, 1), "b": numbers(8, 1, 1, seed=1)}
    return nodes, constants


@pytest.mark.parametrize("form", ["constants", "initializers"])
def test_group_norm(form: str) -> None:
    nodes, constants = group_norm(2)
    plain = {"ones": np.ones(2, np.float32), "zeros": np.zeros(2, np.float32)}
    if form == "constants":
        made = [onnx.numpy_helper.from_array(value) for value in plain.values()]
        nodes = [
            *(helper.make_node("Constant", [], [name], value=one) for name, one in zip(plain, made, strict=True)),
            *nodes,
        ]
    else:
        constants |= plain
    program = agrees(model_of(nodes, {"x": ("N", 8, 3, 4)}, constants))
    assert targets(program) == [aten.group_norm.default]
    assert {tuple(p.shape) for p in program.parameters.values()} == {(8,)}
    assert infer_shapes(program.module, program.inputs, 2) == program.traced


@pytest.mark.parametrize(("read", "second_bias", "fused"), [("half", "b", 2), ("w", "b", 0), ("b2", "b2", 0)])
def test_a_norm_at_two_places_has_one_scale(read: str, second_bias: str, fused: int) -> None:
    """Both become group norms, or none: what else reads a scale needs it in the shape that it has."""
    nodes, constants = group_norm(2)
    constants |= {"ones": np.ones(2, np.float32), "zeros": np.zeros(2, np.float32)}
    constants |= {"half": np.array(0.5, np.float32), "b2": numbers(8, 1, 1, seed=2)}
    again = [onnx.NodeProto.FromString(one.SerializeToString()) for one in nodes]
    names = {"x": "y", "b": second_bias, **{name: f"{name}_2" for name in ("g", "i", "shape", "n", "s", "y")}}
    for one in again:
        one.input[:] = [names.get(name, name) for name in one.input]
        one.output[:] = [names[name] for name in one.output]
    last = node("Mul", ["y_2", read], ["z"])
    program = agrees(model_of([*nodes, *again, last], {"x": ("N", 8, 3, 4)}, constants, outputs=("z",)))
    assert targets(program).count(aten.group_norm.default) == fused
    assert targets(program).count(aten.instance_norm.default) == 2 - fused


def test_scales_of_whole_groups_stay_what_they_are() -> None:
    nodes, constants = group_norm(2)
    constants |= {"ones": numbers(2), "zeros": np.zeros(2, np.float32)}
    program = agrees(model_of(nodes, {"x": ("N", 8, 3, 4)}, constants))
    assert aten.instance_norm.default in targets(program)


def test_a_fused_norm_lets_units_through_that_a_chain_would_not() -> None:
    nodes = [
        node("MatMul", ["x", "first"], ["h"]), *layer_norm(), node("MatMul", ["y", "u"], ["z"]),
    ]  # fmt: skip
    for n in nodes[1:]:
        n.input[:] = ["h" if name == "x" else name for name in n.input]
    model = model_of(nodes, {"x": ("N", 4)}, {**AFFINE, "first": numbers(4, 8), "u": numbers(8, 3)}, outputs=("z",))
    program = agrees(model)
    assert find_units(program).n_units == 0
    assert find_units(program, WalkOptions(through_norm="exact")).n_units == 8
