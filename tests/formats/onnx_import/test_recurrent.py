"""Recurrent layers: every direction and form that torch has computes what onnxruntime does, the others are refused."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest
from onnx import helper

import compressor
from compressor.errors import ModelError
from compressor.formats.checkpoint import to_bytes
from compressor.formats.load import from_bytes
from tests.formats.onnx_import.building import agrees, imported, model_of, numbers

node = helper.make_node
GATES = {"LSTM": 4, "GRU": 3, "RNN": 1}
BEFORE_RESET = {"GRU": {"linear_before_reset": 1}}
HIDDEN, FEATURES = 6, 4


def layer(
    kind: str, direction: str = "forward", *, bias: bool = True, state: bool = False, **attributes: Any
) -> onnx.ModelProto:
    """A layer over 5 steps, with all of its outputs."""
    n = 2 if direction == "bidirectional" else 1
    constants = {"w": numbers(n, GATES[kind] * HIDDEN, FEATURES), "r": numbers(n, GATES[kind] * HIDDEN, HIDDEN, seed=1)}
    names = ["x", "w", "r", "b" if bias else "", "", "h" if state else ""]
    constants |= {"b": numbers(n, 2 * GATES[kind] * HIDDEN, seed=2)} if bias else {}
    inputs: dict[str, tuple[Any, ...]] = {"x": (5, 3, FEATURES)}
    inputs |= {"h": (n, 3, HIDDEN)} if state else {}
    outputs = ("y", "yh", "yc") if kind == "LSTM" else ("y", "yh")
    options = {**BEFORE_RESET.get(kind, {}), **attributes}
    made = node(kind, names, list(outputs), hidden_size=HIDDEN, direction=direction, **options)
    return model_of([made], inputs, constants, outputs=outputs)


@pytest.mark.parametrize("kind", GATES)
@pytest.mark.parametrize("direction", ["forward", "reverse", "bidirectional"])
@pytest.mark.parametrize("form", [{}, {"bias": False}, {"state": True}], ids=["bias", "no bias", "state"])
def test_a_layer_computes_what_onnxruntime_does(kind: str, direction: str, form: dict[str, bool]) -> None:
    program = agrees(layer(kind, direction, **form))
    assert from_bytes(to_bytes(program)).n_parameters == program.n_parameters > 0


def test_relu_is_a_layer_of_its_own() -> None:
    agrees(layer("RNN", activations=["Relu"]))


@pytest.mark.parametrize(
    ("model", "told"),
    [
        (lambda: layer("GRU", linear_before_reset=0), "linear_before_reset"),
        (lambda: layer("LSTM", clip=1.0), "clips its gates"),
        (lambda: layer("LSTM", input_forget=1), "couples them"),
        (lambda: layer("LSTM", activations=["HardSigmoid", "Tanh", "Tanh"]), "has the activations hardsigmoid"),
        (lambda: layer("RNN", activations=["Affine"]), "tanh or relu"),
        (lambda: layer("LSTM", layout=1), "samples first"),
    ],
)
def test_what_no_layer_of_torch_computes_is_said(model: Any, told: str) -> None:
    with pytest.raises(ModelError, match=told):
        imported(model())


def test_lengths_of_samples_are_taken_where_they_are_all() -> None:
    def with_lengths(*lengths: int) -> onnx.ModelProto:
        model = layer("LSTM")
        model.graph.node[0].input[4] = "n"
        model.graph.initializer.append(onnx.numpy_helper.from_array(np.array(lengths, np.int32), "n"))
        return model

    agrees(with_lengths(5, 5, 5))
    with pytest.raises(ModelError, match="lengths for every sample"):
        imported(with_lengths(5, 3, 5))


@pytest.mark.parametrize("kind", GATES)
def test_convolutions_before_a_layer_are_pruned(kind: str) -> None:
    """Whatever its batch, as a network that reads lines of text has it."""
    rows = GATES[kind] * HIDDEN
    constants = {
        "k": numbers(16, 3, 3), "k2": numbers(FEATURES, 16, 3), "w": numbers(1, rows, FEATURES),
        "b": numbers(1, 2 * rows), "r": numbers(1, rows, HIDDEN, seed=1), "one": np.array([1]), "v": numbers(HIDDEN, 3),
    }  # fmt: skip
    nodes = [
        node("Conv", ["x", "k"], ["a"], pads=[1, 1]), node("Relu", ["a"], ["c"]), node("Conv", ["c", "k2"], ["d"]),
        node("Transpose", ["d"], ["t"], perm=[2, 0, 1]),
        node(kind, ["t", "w", "r", "b"], ["h"], hidden_size=HIDDEN, **BEFORE_RESET.get(kind, {})),
        node("Squeeze", ["h", "one"], ["s"]), node("MatMul", ["s", "v"], ["y"]),
    ]  # fmt: skip
    program = agrees(model_of(nodes, {"x": ("N", 3, 9)}, constants), batches=(1, 2, 5))
    settings = compressor.PruneSettings(ratio=1.2, method="magnitude", scope=("k", "k2"), retrain_recipe=None)
    small, _ = compressor.compact(compressor.prune(program, settings)[0])
    assert small.parameters["k.weight"].shape[0] < 16
