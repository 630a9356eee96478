"""Windows, reshapes, slices and paddings with attributes at random, against onnxruntime."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnxruntime as ort
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from tests.formats.onnx_import.building import agrees, numbers, one_node

FEW = settings(max_examples=25)
i64 = np.int64


def runs(model: Any) -> bool:
    """Whether onnxruntime takes the attributes at all."""
    options = ort.SessionOptions()
    options.log_severity_level = 4
    try:
        session = ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
        (x,) = session.get_inputs()
        session.run(None, {x.name: np.zeros([1, *x.shape[1:]], np.float32)})
    except Exception:
        return False
    return True


def pairs(low: int, high: int) -> st.SearchStrategy[list[int]]:
    return st.lists(st.integers(low, high), min_size=2, max_size=2)


@FEW
@given(
    kernel=pairs(1, 3), strides=pairs(1, 3), dilations=pairs(1, 2), sizes=pairs(5, 8),
    pads=st.lists(st.integers(0, 2), min_size=4, max_size=4), mode=st.sampled_from(["NOTSET", "SAME_UPPER", "VALID"]),
    group=st.sampled_from([1, 2, 4]),
)  # fmt: skip
def test_convolutions(
    kernel: list[int],
    strides: list[int],
    dilations: list[int],
    sizes: list[int],
    pads: list[int],
    mode: str,
    group: int,
) -> None:
    attributes: dict[str, Any] = {"strides": strides, "group": group}
    if mode == "SAME_UPPER":
        dilations = [1, 1]
    attributes |= {"dilations": dilations, **({"pads": pads} if mode == "NOTSET" else {"auto_pad": mode})}
    agrees(one_node("Conv", ("N", 4, *sizes), [numbers(4, 4 // group, *kernel), numbers(4)], **attributes))


@FEW
@given(
    kernel=pairs(1, 3), strides=pairs(1, 3), sizes=pairs(4, 7),
    pads=st.lists(st.integers(0, 2), min_size=4, max_size=4), extra=pairs(0, 1), group=st.sampled_from([1, 2]),
)  # fmt: skip
def test_transposed_convolutions(
    kernel: list[int], strides: list[int], sizes: list[int], pads: list[int], extra: list[int], group: int
) -> None:
    assume(all(e < s for e, s in zip(extra, strides, strict=True)))
    out = [s * (n - 1) + k + e for s, n, k, e in zip(strides, sizes, kernel, extra, strict=True)]
    assume(all(n - pads[i] - pads[i + 2] > 0 for i, n in enumerate(out)))
    weight = numbers(4, 2, *kernel)
    model = one_node(
        "ConvTranspose", ("N", 4, *sizes), [weight], strides=strides, pads=pads, output_padding=extra, group=group
    )
    assume(runs(model))
    agrees(model)


@FEW
@given(
    kind=st.sampled_from(["MaxPool", "AveragePool"]), kernel=pairs(1, 4), strides=pairs(1, 3), sizes=pairs(5, 8),
    pads=st.lists(st.integers(0, 3), min_size=4, max_size=4), counted=st.booleans(),
    mode=st.sampled_from(["NOTSET", "SAME_UPPER", "SAME_LOWER"]),
)  # fmt: skip
def test_poolings(
    kind: str, kernel: list[int], strides: list[int], sizes: list[int], pads: list[int], counted: bool, mode: str
) -> None:
    assume(all(pads[i] < kernel[i] and pads[i + 2] < kernel[i] for i in range(2)))
    attributes: dict[str, Any] = {"kernel_shape": kernel, "strides": strides}
    attributes |= {"pads": pads} if mode == "NOTSET" else {"auto_pad": mode}
    if kind == "AveragePool":
        attributes["count_include_pad"] = int(counted)
    model = one_node(kind, ("N", 2, *sizes), **attributes)
    assume(runs(model))
    agrees(model)


@FEW
@given(kernel=pairs(1, 3), strides=pairs(1, 3), sizes=pairs(4, 9), pad=st.integers(0, 1))
def test_poolings_that_round_up(kernel: list[int], strides: list[int], sizes: list[int], pad: int) -> None:
    assume(all(pad <= k // 2 for k in kernel))
    model = one_node(
        "MaxPool", ("N", 2, *sizes), kernel_shape=kernel, strides=strides, pads=[pad] * 4, ceil_mode=1, opset=22
    )
    assume(runs(model))
    agrees(model)


@FEW
@given(data=st.data())
def test_reshapes(data: st.DataObject) -> None:
    sizes = data.draw(st.sampled_from([(4, 6), (2, 3, 4), (24,), (8, 3)]))
    target = data.draw(st.permutations(data.draw(st.sampled_from([[2, 12], [24], [4, 3, 2], [1, 24], [6, 1, 4]]))))
    open_at = data.draw(st.integers(-1, len(target) - 1))
    shape = [-1 if i == open_at else n for i, n in enumerate(target)]
    batch = 0 if open_at >= 0 else data.draw(st.sampled_from([0, -1]))
    agrees(one_node("Reshape", ("N", *sizes), [np.array([batch, *shape], i64)]))


@FEW
@given(
    start=st.integers(-9, 9), end=st.integers(-9, 9), step=st.sampled_from([1, 2, 3, -1, -2]), axis=st.integers(-2, 2)
)
def test_slices(start: int, end: int, step: int, axis: int) -> None:
    assume(axis not in (0,) and len(range(7)[start:end:step]) > 0)
    arrays = [np.array([n], i64) for n in (start, end, axis, step)]
    agrees(one_node("Slice", ("N", 7, 7), arrays))


@FEW
@given(
    pads=st.lists(st.integers(-2, 3), min_size=4, max_size=4), mode=st.sampled_from(["constant", "reflect", "edge"]),
    value=st.sampled_from([0.0, -1.5]),
)  # fmt: skip
def test_paddings(pads: list[int], mode: str, value: float) -> None:
    if mode != "constant":
        pads = [abs(n) for n in pads]
    amounts = np.array([0, 0, *pads[:2], 0, 0, *pads[2:]], i64)
    agrees(one_node("Pad", ("N", 2, 5, 6), [amounts, np.float32(value)], mode=mode))


@FEW
@given(
    scales=st.lists(st.sampled_from([0.5, 1.0, 1.3, 2.0, 2.7, 3.0]), min_size=2, max_size=2),
    coordinates=st.sampled_from(["half_pixel", "asymmetric", "align_corners"]),
    rounding=st.sampled_from(["floor", "ceil", "round_prefer_floor", "round_prefer_ceil"]),
)
def test_nearest_resizes(scales: list[float], coordinates: str, rounding: str) -> None:
    factors = np.array([1, 1, *scales], np.float32)
    attributes = {"coordinate_transformation_mode": coordinates, "nearest_mode": rounding}
    agrees(one_node("Resize", ("N", 2, 4, 6), [None, factors], **attributes))


@FEW
@given(sizes=pairs(3, 12), coordinates=st.sampled_from(["half_pixel", "align_corners", "pytorch_half_pixel"]))
def test_linear_resizes(sizes: list[int], coordinates: str) -> None:
    scales = np.array([1, 1, sizes[0] / 4, sizes[1] / 6], np.float32)
    model = one_node(
        "Resize", ("N", 2, 4, 6), [None, scales], mode="linear", coordinate_transformation_mode=coordinates
    )
    agrees(model, tolerance=1e-4)
