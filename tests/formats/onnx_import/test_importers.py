"""Every importer against onnxruntime, alone, at the opsets where its operator has another form."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto

from compressor.axes import find_units
from compressor.errors import ModelError
from compressor.formats import from_bytes, to_bytes
from compressor.formats.onnx_import.table import IMPORTERS
from tests.formats.onnx_import.building import agrees, imported, numbers, one_node

i64 = np.int64
Case = tuple[str, str, tuple[Any, ...], list[Any], dict[str, Any]]

W = numbers(6, 4, 3, 2)
AXES = np.array([1, 2], i64)
IMAGE = ("N", 4, 6, 7)
FLAT = ("N", 8)
SEQUENCE = ("N", 5, 8)


def vector(*values: float, dtype: Any = i64) -> np.ndarray:
    return np.array(values, dtype)


CASES: list[Case] = [
    ("conv", "Conv", IMAGE, [W, numbers(6)], {"pads": [1, 0, 1, 0]}),
    ("conv grouped", "Conv", IMAGE, [numbers(6, 2, 3, 3)], {"group": 2, "strides": [2, 1]}),
    ("conv depthwise", "Conv", IMAGE, [numbers(4, 1, 3, 3), numbers(4)], {"group": 4, "dilations": [2, 2]}),
    ("conv uneven", "Conv", IMAGE, [W], {"pads": [1, 0, 2, 1]}),
    ("conv 1d", "Conv", ("N", 4, 9), [numbers(6, 4, 3)], {"strides": [2]}),
    ("conv 3d", "Conv", ("N", 2, 5, 6, 7), [numbers(3, 2, 2, 3, 2)], {"pads": [0, 1, 0, 1, 1, 0]}),
    ("conv same", "Conv", IMAGE, [W], {"auto_pad": "SAME_UPPER", "strides": [2, 2]}),
    ("conv same lower", "Conv", IMAGE, [W], {"auto_pad": "SAME_LOWER"}),
    ("conv valid", "Conv", IMAGE, [W], {"auto_pad": "VALID"}),
    ("conv opset 9", "Conv", IMAGE, [W], {"opset": 9}),
    ("conv opset 22", "Conv", IMAGE, [W], {"opset": 22}),
    ("transposed", "ConvTranspose", IMAGE, [numbers(4, 3, 3, 3), numbers(3)],
     {"strides": [2, 2], "pads": [1, 1, 1, 1]}),
    ("transposed output padding", "ConvTranspose", IMAGE, [numbers(4, 3, 3, 3)],
     {"strides": [2, 2], "output_padding": [1, 1]}),
    ("transposed uneven", "ConvTranspose", IMAGE, [numbers(4, 3, 3, 3)], {"pads": [0, 1, 1, 2]}),
    ("transposed to shape", "ConvTranspose", IMAGE, [numbers(4, 3, 3, 3)],
     {"strides": [2, 2], "output_shape": [12, 14]}),
    ("transposed same", "ConvTranspose", IMAGE, [numbers(4, 3, 3, 3)], {"strides": [2, 2], "auto_pad": "SAME_UPPER"}),
    ("transposed grouped 1d", "ConvTranspose", ("N", 4, 6), [numbers(4, 2, 3)], {"group": 2}),
    ("transposed 3d", "ConvTranspose", ("N", 2, 3, 4, 5), [numbers(2, 3, 2, 2, 2)], {}),
    ("gemm", "Gemm", FLAT, [numbers(8, 5), numbers(5)], {}),
    ("gemm transposed", "Gemm", FLAT, [numbers(5, 8), numbers(5)], {"transB": 1, "alpha": 0.5, "beta": 2.0}),
    ("gemm scalar", "Gemm", FLAT, [numbers(8, 5), numbers(1)], {}),
    ("gemm row", "Gemm", FLAT, [numbers(8, 5), numbers(1, 5)], {}),
    ("gemm bare", "Gemm", FLAT, [numbers(8, 5)], {"opset": 11}),
    ("matmul", "MatMul", SEQUENCE, [numbers(8, 3)], {}),
    ("matmul batched", "MatMul", ("N", 3, 5, 8), [numbers(3, 8, 2)], {}),
    ("matmul vector", "MatMul", SEQUENCE, [numbers(8)], {}),
    ("einsum", "Einsum", SEQUENCE, [numbers(8, 3)], {"equation": "nti,io->nto"}),
    ("einsum of both cases", "Einsum", SEQUENCE, [numbers(8, 3)], {"equation": "nTt,to->nTo"}),
    ("einsum of the rest", "Einsum", SEQUENCE, [numbers(8, 3)], {"equation": "...t,to"}),
    ("einsum implicit", "Einsum", SEQUENCE, [numbers(8, 3)], {"equation": "bti,io"}),
    ("batch norm", "BatchNormalization", IMAGE,
     [numbers(4), numbers(4, seed=1), numbers(4, seed=2), np.abs(numbers(4)) + 0.5], {"epsilon": 1e-3}),
    ("batch norm 9", "BatchNormalization", IMAGE,
     [numbers(4), numbers(4, seed=1), numbers(4, seed=2), np.abs(numbers(4)) + 0.5], {"opset": 9}),
    ("batch norm 14", "BatchNormalization", FLAT, [numbers(8), numbers(8), numbers(8), np.abs(numbers(8)) + 0.5],
     {"opset": 14, "momentum": 0.8}),
    ("instance norm", "InstanceNormalization", IMAGE, [numbers(4), numbers(4, seed=1)], {}),
    ("group norm", "GroupNormalization", IMAGE, [numbers(4), numbers(4, seed=1)], {"num_groups": 2, "opset": 21}),
    ("layer norm", "LayerNormalization", SEQUENCE, [numbers(8), numbers(8, seed=1)], {"epsilon": 1e-6}),
    ("layer norm axis", "LayerNormalization", SEQUENCE, [numbers(5, 8)], {"axis": 1}),
    ("layer norm broadcast", "LayerNormalization", SEQUENCE, [numbers(8)], {"axis": -2}),
    ("lp norm", "LpNormalization", SEQUENCE, [], {"axis": -1, "p": 2}),
    ("lrn", "LRN", IMAGE, [], {"size": 3, "alpha": 0.1, "beta": 0.6, "bias": 1.5}),
    ("lrn wide", "LRN", IMAGE, [], {"size": 5}),
    ("max pool", "MaxPool", IMAGE, [], {"kernel_shape": [3, 3], "strides": [2, 2], "pads": [1, 1, 1, 1]}),
    ("max pool ceil", "MaxPool", IMAGE, [], {"kernel_shape": [3, 2], "strides": [2, 2], "ceil_mode": 1}),
    ("max pool uneven", "MaxPool", IMAGE, [], {"kernel_shape": [2, 2], "pads": [0, 0, 1, 1]}),
    ("max pool dilated", "MaxPool", IMAGE, [], {"kernel_shape": [2, 2], "dilations": [2, 3]}),
    ("max pool same", "MaxPool", IMAGE, [], {"kernel_shape": [3, 3], "strides": [2, 2], "auto_pad": "SAME_UPPER"}),
    ("max pool 1d", "MaxPool", ("N", 4, 9), [], {"kernel_shape": [3], "opset": 9}),
    ("max pool 3d", "MaxPool", ("N", 2, 5, 6, 7), [], {"kernel_shape": [2, 2, 2]}),
    ("average pool", "AveragePool", IMAGE, [], {"kernel_shape": [3, 3], "strides": [2, 2], "pads": [1, 1, 1, 1]}),
    ("average pool counted", "AveragePool", IMAGE, [],
     {"kernel_shape": [3, 3], "pads": [1, 1, 1, 1], "count_include_pad": 1}),
    ("average pool uneven", "AveragePool", IMAGE, [], {"kernel_shape": [3, 2], "pads": [0, 1, 1, 0]}),
    ("average pool uneven counted", "AveragePool", IMAGE, [],
     {"kernel_shape": [3, 2], "pads": [0, 1, 1, 0], "count_include_pad": 1}),
    ("average pool same", "AveragePool", IMAGE, [],
     {"kernel_shape": [3, 3], "strides": [2, 2], "auto_pad": "SAME_UPPER"}),
    ("average pool ceil", "AveragePool", IMAGE, [], {"kernel_shape": [2, 2], "strides": [2, 2], "ceil_mode": 1}),
    ("average pool 1d", "AveragePool", ("N", 4, 9), [], {"kernel_shape": [2], "pads": [1, 0]}),
    ("average pool 3d", "AveragePool", ("N", 2, 5, 6, 7), [], {"kernel_shape": [2, 2, 2]}),
    ("lp pool", "LpPool", IMAGE, [], {"kernel_shape": [2, 2], "p": 2}),
    ("global average", "GlobalAveragePool", IMAGE, [], {}),
    ("global average 1d", "GlobalAveragePool", ("N", 4, 9), [], {}),
    ("global max", "GlobalMaxPool", IMAGE, [], {}),
    ("global lp", "GlobalLpPool", IMAGE, [], {"p": 2}),
    ("reduce mean", "ReduceMean", IMAGE, [], {"axes": [2, 3], "keepdims": 0}),
    ("reduce mean 18", "ReduceMean", IMAGE, [AXES], {"opset": 18}),
    ("reduce mean all", "ReduceMean", ("N", 4), [], {"keepdims": 0}),
    ("reduce mean noop", "ReduceMean", IMAGE, [], {"opset": 18, "noop_with_empty_axes": 1}),
    ("reduce sum 13", "ReduceSum", IMAGE, [AXES], {"opset": 13}),
    ("reduce sum 11", "ReduceSum", IMAGE, [], {"opset": 11, "axes": [-1]}),
    *[(kind, kind, IMAGE, [], {"axes": [1, -1], "keepdims": 1}) for kind in
      ("ReduceMax", "ReduceMin", "ReduceProd", "ReduceL1", "ReduceL2", "ReduceLogSumExp", "ReduceSumSquare")],
    ("arg max", "ArgMax", IMAGE, [], {"axis": 1, "keepdims": 0, "out": "int64"}),
    ("arg min", "ArgMin", IMAGE, [], {"axis": -1, "out": "int64"}),
    ("softmax", "Softmax", IMAGE, [], {"axis": 1}),
    ("softmax 11", "Softmax", IMAGE, [], {"axis": 1, "opset": 11}),
    ("softmax 11 last", "Softmax", FLAT, [], {"opset": 11}),
    ("log softmax", "LogSoftmax", SEQUENCE, [], {}),
    ("cumsum", "CumSum", SEQUENCE, [vector(1)[0]], {}),
    ("cumsum backwards", "CumSum", SEQUENCE, [vector(2)[0]], {"reverse": 1, "exclusive": 1}),
    ("triu", "Trilu", ("N", 5, 5), [vector(1)[0]], {}),
    ("tril", "Trilu", ("N", 5, 5), [], {"upper": 0}),
    *[(kind, kind, SEQUENCE, [], {}) for kind in
      ("Abs", "Atan", "Ceil", "Cos", "Erf", "Exp", "Floor", "HardSwish", "Neg", "Relu", "Round", "Sigmoid", "Sign",
       "Sin", "Sinh", "Cosh", "Tan", "Tanh", "Softplus", "Softsign", "Identity", "Asinh", "LeakyRelu", "Elu", "Celu",
       "Selu", "ThresholdedRelu", "HardSigmoid", "Shrink", "Reciprocal")],
    ("mish", "Mish", SEQUENCE, [], {"opset": 18}),
    ("gelu", "Gelu", SEQUENCE, [], {"opset": 20}),
    ("gelu tanh", "Gelu", SEQUENCE, [], {"opset": 20, "approximate": "tanh"}),
    ("hard sigmoid of torch", "HardSigmoid", SEQUENCE, [], {"alpha": 1 / 6, "beta": 0.5}),
    ("hard sigmoid almost", "HardSigmoid", SEQUENCE, [], {"alpha": 0.1667, "beta": 0.5}),
    ("selu of its own", "Selu", SEQUENCE, [], {"alpha": 1.5, "gamma": 1.1}),
    ("shrink soft", "Shrink", SEQUENCE, [], {"lambd": 0.3, "bias": 0.3}),
    ("shrink biased", "Shrink", SEQUENCE, [], {"lambd": 0.3, "bias": 0.1}),
    ("leaky", "LeakyRelu", SEQUENCE, [], {"alpha": 0.3}),
    ("prelu", "PRelu", IMAGE, [numbers(4, 1, 1)], {}),
    ("prelu single", "PRelu", IMAGE, [numbers(1)], {}),
    ("prelu last", "PRelu", SEQUENCE, [numbers(8)], {}),
    ("clip", "Clip", SEQUENCE, [np.float32(-0.5), np.float32(0.5)], {}),
    ("clip above", "Clip", SEQUENCE, [None, np.float32(0.5)], {}),
    ("clip 9", "Clip", SEQUENCE, [], {"opset": 9, "min": 0.0, "max": 6.0}),
    ("clip 6", "Clip", SEQUENCE, [np.float32(0), np.float32(6)], {"opset": 12}),
    ("add", "Add", SEQUENCE, [numbers(8)], {}),
    ("add number", "Add", SEQUENCE, [np.float32(2)], {}),
    ("sum", "Sum", SEQUENCE, [numbers(8), numbers(5, 1)], {}),
    ("mean", "Mean", SEQUENCE, [numbers(8), numbers(5, 1)], {}),
    ("sub", "Sub", SEQUENCE, [numbers(1, 5, 8)], {}),
    ("mul", "Mul", SEQUENCE, [numbers(1)], {}),
    ("div", "Div", SEQUENCE, [np.abs(numbers(8)) + 1], {}),
    ("div integers", "Div", SEQUENCE, [vector(3)], {"dtype": "int64", "out": "int64"}),
    ("mod", "Mod", SEQUENCE, [np.abs(numbers(8)) + 1], {"fmod": 1}),
    ("pow square", "Pow", SEQUENCE, [np.float32(2)], {}),
    ("pow cube", "Pow", SEQUENCE, [np.full(8, 3, np.float32)], {}),
    ("max", "Max", SEQUENCE, [numbers(8)], {}),
    ("min number", "Min", SEQUENCE, [np.float32(0.2)], {}),
    ("greater", "Greater", SEQUENCE, [np.float32(0.2)], {"out": "bool"}),
    ("less or equal", "LessOrEqual", SEQUENCE, [numbers(8)], {"out": "bool"}),
    ("equal", "Equal", SEQUENCE, [vector(1)], {"dtype": "int64", "out": "bool"}),
    ("cast", "Cast", SEQUENCE, [], {"to": TensorProto.DOUBLE, "out": "float64"}),
    ("cast down", "Cast", SEQUENCE, [], {"to": TensorProto.INT64, "out": "int64"}),
    ("dropout", "Dropout", SEQUENCE, [], {}),
    ("dropout 10", "Dropout", SEQUENCE, [], {"opset": 10, "ratio": 0.3}),
    ("reshape", "Reshape", IMAGE, [vector(0, 2, 2, -1)], {}),
    ("reshape open batch", "Reshape", IMAGE, [vector(-1, 4 * 42)], {}),
    ("reshape split", "Reshape", SEQUENCE, [vector(0, 0, 2, 4)], {}),
    ("flatten", "Flatten", IMAGE, [], {}),
    ("flatten 2", "Flatten", IMAGE, [], {"axis": 2}),
    ("flatten 0", "Flatten", IMAGE, [], {"axis": 0}),
    ("transpose", "Transpose", IMAGE, [], {"perm": [0, 2, 3, 1]}),
    ("transpose all", "Transpose", SEQUENCE, [], {}),
    ("squeeze", "Squeeze", ("N", 1, 5, 1), [vector(1)], {}),
    ("squeeze 11", "Squeeze", ("N", 1, 5, 1), [], {"opset": 11, "axes": [-1, 1]}),
    ("unsqueeze", "Unsqueeze", SEQUENCE, [vector(1, -1)], {}),
    ("unsqueeze 11", "Unsqueeze", SEQUENCE, [], {"opset": 11, "axes": [0, 2]}),
    ("concat", "Concat", ("N", 4), [], {"axis": 1}),
    ("slice", "Slice", IMAGE, [vector(1, -3), vector(3, 2**62), vector(1, 3)], {}),
    ("slice 9", "Slice", IMAGE, [], {"opset": 9, "starts": [1], "ends": [3], "axes": [2]}),
    ("slice steps", "Slice", IMAGE, [vector(0, 0), vector(99, 99), vector(2, 3), vector(2, 3)], {}),
    ("slice backwards", "Slice", IMAGE, [vector(-1), vector(-99), vector(2), vector(-1)], {}),
    ("slice backwards two", "Slice", IMAGE, [vector(4), vector(0), vector(2), vector(-2)], {}),
    ("expand", "Expand", ("N", 1, 5), [vector(1, 4, 1)], {}),
    ("expand front", "Expand", ("N", 5), [vector(3, 1, 5)], {}),
    ("tile", "Tile", SEQUENCE, [vector(1, 2, 3)], {}),
    ("pad", "Pad", IMAGE, [vector(0, 0, 1, 2, 0, 0, 0, 1)], {}),
    ("pad channels", "Pad", IMAGE, [vector(0, 2, 0, 0, 0, 1, 0, 0), np.float32(1.5)], {}),
    ("pad 9", "Pad", IMAGE, [], {"opset": 9, "pads": [0, 0, 1, 2, 0, 0, 0, 1], "value": 2.0}),
    ("pad 18", "Pad", IMAGE, [vector(1, 2), None, vector(3)], {"opset": 18}),
    ("pad crop", "Pad", IMAGE, [vector(0, 0, -1, 0, 0, 0, -1, 2)], {}),
    ("pad reflect", "Pad", IMAGE, [vector(0, 0, 1, 2, 0, 0, 0, 1)], {"mode": "reflect"}),
    ("pad edge", "Pad", IMAGE, [vector(0, 0, 1, 0, 0, 0, 2, 0)], {"mode": "edge"}),
    ("pad wrap", "Pad", IMAGE, [vector(0, 0, 1, 0, 0, 0, 2, 0)], {"mode": "wrap", "opset": 19}),
    ("gather one", "Gather", SEQUENCE, [np.int64(2)], {"axis": 1}),
    ("gather run", "Gather", SEQUENCE, [vector(1, 2, 3)], {"axis": 2}),
    ("gather any", "Gather", SEQUENCE, [vector(3, -1, 0)], {"axis": 1}),
    ("gather matrix", "Gather", SEQUENCE, [np.array([[0, 1], [4, 2]], i64)], {"axis": 1}),
    ("gather nd", "GatherND", (5, 4), [np.array([[0, 1], [4, 2]], i64)], {}),
    ("depth to space", "DepthToSpace", ("N", 8, 2, 3), [], {"blocksize": 2}),
    ("depth to space crd", "DepthToSpace", ("N", 8, 2, 3), [], {"blocksize": 2, "mode": "CRD"}),
    ("space to depth", "SpaceToDepth", ("N", 3, 4, 6), [], {"blocksize": 2}),
    ("resize nearest", "Resize", IMAGE, [None, vector(1, 1, 2, 2, dtype=np.float32)],
     {"coordinate_transformation_mode": "asymmetric", "nearest_mode": "floor"}),
    ("resize nearest half pixel", "Resize", IMAGE, [None, vector(1, 1, 1.7, 0.6, dtype=np.float32)], {}),
    ("resize nearest ceil", "Resize", IMAGE, [None, vector(1, 1, 1.5, 3, dtype=np.float32)],
     {"coordinate_transformation_mode": "align_corners", "nearest_mode": "ceil"}),
    ("resize linear", "Resize", IMAGE, [None, vector(1, 1, 2, 2, dtype=np.float32)], {"mode": "linear"}),
    ("resize linear aligned", "Resize", IMAGE, [None, vector(1, 1, 2, 3, dtype=np.float32)],
     {"mode": "linear", "coordinate_transformation_mode": "align_corners"}),
    ("resize linear scale", "Resize", IMAGE, [None, vector(1, 1, 1.3, 1.3, dtype=np.float32)],
     {"mode": "linear", "coordinate_transformation_mode": "pytorch_half_pixel"}),
    ("resize cubic", "Resize", IMAGE, [None, vector(1, 1, 2, 2, dtype=np.float32)], {"mode": "cubic"}),
    ("resize 10", "Resize", IMAGE, [vector(1, 1, 2, 2, dtype=np.float32)], {"opset": 10}),
    *((f"resize linear {how} {shown}", "Resize", IMAGE, [None, vector(1, 1, *by, dtype=np.float32)],
       {"mode": "linear", "coordinate_transformation_mode": how})
      for how in ("asymmetric", "half_pixel_symmetric", "pytorch_half_pixel")
      for shown, by in (("up", (2, 3)), ("odd", (1.5, 0.6)), ("to one", (0.2, 0.15)))),
    *((f"resize {mode} aligned to {sizes}", "Resize", ("N", 2, 6, 7), [None, None, vector(*sizes)],
       {"mode": mode, "coordinate_transformation_mode": "align_corners", "axes": [2, 3], "opset": 18})
      for mode in ("linear", "cubic") for sizes in ((11, 5), (13, 13), (3, 20))),
    *((f"resize {mode} aligned by {by}", "Resize", ("N", 2, 7, 9), [None, vector(1, 1, *by, dtype=np.float32)],
       {"mode": mode, "coordinate_transformation_mode": "align_corners"})
      for mode in ("nearest", "linear", "cubic") for by in ((1.5, 0.6), (0.3, 2.7), (0.15, 1.0))),
    ("resize linear of some dimensions", "Resize", IMAGE, [None, vector(2.5, 0.5, dtype=np.float32)],
     {"mode": "linear", "axes": [3, 2], "opset": 18}),
    ("resize linear to sizes of some dimensions", "Resize", IMAGE, [None, None, vector(13, 4)],
     {"mode": "linear", "axes": [3, 2], "opset": 19}),
    ("resize 10 linear", "Resize", IMAGE, [vector(1, 1, 2, 1.5, dtype=np.float32)], {"opset": 10, "mode": "linear"}),
    ("upsample 9 linear", "Upsample", IMAGE, [vector(1, 1, 2, 3, dtype=np.float32)], {"opset": 9, "mode": "linear"}),
    *((f"pad {mode} of dimension {dim}", "Pad", ("N", 5, 6), [vector(*before, *after)], {"mode": mode})
      for mode in ("reflect", "edge") for dim, before, after in
      ((1, (0, 2, 0), (0, 1, 0)), (2, (0, 0, 2), (0, 0, 3)), ("1 and 2", (0, 1, 2), (0, 2, 0)))),
    ("pad reflect of features", "Pad", FLAT, [vector(0, 3, 0, 2)], {"mode": "reflect"}),
    ("pad wrap", "Pad", IMAGE, [vector(0, 0, 1, 2, 0, 0, 2, 1)], {"mode": "wrap", "opset": 19}),
    ("upsample 9", "Upsample", IMAGE, [vector(1, 1, 2, 3, dtype=np.float32)], {"opset": 9}),
    ("shape", "Shape", SEQUENCE, [], {"out": "int64"}),
    ("shape part", "Shape", SEQUENCE, [], {"out": "int64", "start": 0, "end": 2}),
    ("size", "Size", SEQUENCE, [], {"out": "int64"}),
    ("is nan", "IsNaN", SEQUENCE, [], {"out": "bool"}),
    ("is inf", "IsInf", SEQUENCE, [], {"out": "bool"}),
    ("eye", "EyeLike", (5, 4), [], {}),
]  # fmt: skip


@pytest.mark.parametrize(
    ("kind", "shape", "constants", "attributes"), [c[1:] for c in CASES], ids=[c[0] for c in CASES]
)
def test_an_operator_computes_what_onnxruntime_does(
    kind: str, shape: tuple[Any, ...], constants: list[Any], attributes: dict[str, Any]
) -> None:
    program = agrees(one_node(kind, shape, constants, **attributes), tolerance=2e-5)
    assert program.has_dynamic_batch == (shape[0] == "N")
    assert find_units(program).walk.unknown == {}
    assert from_bytes(to_bytes(program)).shapes == program.traced


@pytest.mark.parametrize("kind", ["Sqrt", "Log", "Acosh"])
def test_operators_of_positive_numbers(kind: str) -> None:
    model = one_node(kind, ("N", 5))
    model.graph.node[0].input[0] = "p"
    model.graph.node.insert(0, onnx.helper.make_node("Add", ["x", "k"], ["p"]))
    model.graph.initializer.append(onnx.numpy_helper.from_array(np.float32(9), "k"))
    assert agrees(model).has_dynamic_batch


@pytest.mark.parametrize("kind", ["Acos", "Asin", "Atanh"])
def test_operators_of_small_numbers(kind: str) -> None:
    model = one_node(kind, ("N", 5))
    model.graph.node[0].input[0] = "p"
    model.graph.node.insert(0, onnx.helper.make_node("Tanh", ["x"], ["p"]))
    assert agrees(model).has_dynamic_batch


@pytest.mark.parametrize(
    ("model", "told"),
    [
        (lambda: one_node("AveragePool", kernel_shape=[2, 2], dilations=[2, 2], opset=19),
         "averages over a dilated window"),
        (lambda: one_node("Resize", constants=[None, np.float32([1, 1, 2, 2])], mode="cubic",
                          coordinate_transformation_mode="asymmetric"), "is not what torch computes"),
        (lambda: one_node("Resize", constants=[None, np.float32([1, 2, 1, 1])]), "resizes the batch or the channels"),
        (lambda: one_node("Resize", constants=[None, np.float32([1, 1, 0.1, 1])]), "resizes to nothing"),
        (lambda: one_node("ArgMax", out="int64", select_last_index=1), "last of equal positions"),
        (lambda: one_node("MaxPool", n_outputs=2, kernel_shape=[2, 2]), "further output y1 is not supported"),
        (lambda: one_node("BatchNormalization", constants=[numbers(4)] * 4, training_mode=1), "evaluation mode"),
        (lambda: one_node("Conv", constants=[numbers(6, 4, 3)]), "convolves over 2 dimensions with a weight of 3"),
        (lambda: one_node("Conv", constants=[numbers(6, 5, 3, 3)]), "Conv node: does not fit its inputs"),
        (lambda: one_node("Reshape", constants=[vector(0, 5, -1)]), "cannot reshape"),
        (lambda: one_node("Squeeze", constants=[vector(1)]), "not of size 1"),
    ],
)  # fmt: skip
def test_what_cannot_be_imported_is_said(model: Callable[[], onnx.ModelProto], told: str) -> None:
    with pytest.raises(ModelError, match=told):
        imported(model())


def test_a_wrong_importer_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    agrees(one_node("Relu", ("N", 8)))
    monkeypatch.setitem(IMPORTERS, "Relu", lambda ctx, op: op.needed(0))
    with pytest.raises(ModelError, match="Relu node: at batch 1 it differs from onnxruntime"):
        agrees(one_node("Relu", ("N", 8)))


def test_every_importer_is_in_a_test() -> None:
    """The others are in the tests of whole graphs: they read several traced inputs or none."""
    elsewhere = {
        "And", "Or", "Xor", "Not", "BitwiseAnd", "BitwiseOr", "BitwiseXor", "BitwiseNot", "Where", "CastLike",
        "Constant", "ConstantOfShape", "Range", "Split", "TopK", "GatherElements", "ScatterElements", "ScatterND",
        "GreaterOrEqual", "LSTM", "GRU", "RNN",
        "Less", "ReduceLogSum", "RMSNormalization", "Swish",
    }  # fmt: skip
    tested = {case[1] for case in CASES} | {"Sqrt", "Log", "Acosh", "Acos", "Asin", "Atanh"}
    assert set(IMPORTERS) - tested == elsewhere
