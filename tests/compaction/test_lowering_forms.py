"""Every form of a column-sparse layer computes what the dense one does: integers in float64, no tolerance."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, fx

from compressor.compaction.lowering_forms import (
    Box,
    Dense,
    Features,
    Form,
    Geometry,
    bounding_box,
    equal_channels,
    equal_columns,
)
from compressor.compaction.lowering_plan import conv_forms


def run(form: Form, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """The calls of a form on real tensors; a call stands for its own result."""

    def call(target: Any, *args: Any) -> Any:
        return target(*args)

    indices: Any = dict(form.indices)
    given: Any = (x, form.weight(weight), bias)
    return form.write(call, *given, indices)  # type: ignore[return-value]


@dataclass(frozen=True)
class Sample:
    """A geometry with integer weights, some columns of which are zero."""

    geometry: Geometry
    x: Tensor
    weight: Tensor
    bias: Tensor | None

    def expected(self) -> Tensor:
        top, bottom, left, right = self.geometry.pads
        g = self.geometry
        return F.conv2d(
            F.pad(self.x, (left, right, top, bottom)), self.weight, self.bias, g.stride, 0, g.dilation, g.groups
        )

    def used(self) -> np.ndarray:
        alive = (self.weight != 0).numpy()
        return np.stack(np.split(alive, self.geometry.groups)).any(axis=1)

    def forms(self) -> tuple[Form, ...]:
        return conv_forms(self.geometry, self.used())


@st.composite
def samples(draw: st.DrawFn) -> Sample:
    groups = draw(st.sampled_from([1, 1, 2, 4]))
    per_group, filters = draw(st.integers(1, 6)), groups * draw(st.integers(1, 3))
    kernel = draw(st.tuples(st.integers(1, 4), st.integers(1, 4)))
    dilation = draw(st.tuples(st.integers(1, 2), st.integers(1, 2)))
    stride = draw(st.tuples(st.integers(1, 3), st.integers(1, 3)))
    pads = draw(st.tuples(*(st.integers(0, 3) for _ in range(4))))
    least = [max(1, dilation[d] * (kernel[d] - 1) + 1 - pads[2 * d] - pads[2 * d + 1]) for d in (0, 1)]
    size = (least[0] + draw(st.integers(0, 5)), least[1] + draw(st.integers(0, 5)))
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**20)))

    def integers(*shape: int) -> Tensor:
        return torch.randint(-3, 4, shape, generator=generator).double()

    geometry = Geometry(groups * per_group, size, kernel, stride, dilation, pads, groups)
    weight = integers(filters, per_group, *kernel)
    weight *= torch.rand(weight.shape[1:], generator=generator) < draw(st.sampled_from([0.05, 0.3, 0.8]))
    if draw(st.booleans()):
        weight[:, :, draw(st.integers(0, kernel[0] - 1))] = 0
    if draw(st.booleans()):
        weight[:, :, :, draw(st.integers(0, kernel[1] - 1))] = 0
    bias = integers(filters) if draw(st.booleans()) else None
    return Sample(geometry, integers(2, groups * per_group, *size), weight, bias)


@settings(max_examples=150)
@given(samples())
def test_every_form_computes_the_convolution(sample: Sample) -> None:
    expected = sample.expected()
    assert tuple(expected.shape[2:]) == sample.geometry.out_size
    for form in sample.forms():
        assert torch.equal(run(form, sample.x, sample.weight, sample.bias), expected), form


def one(geometry: Geometry) -> Sample:
    generator = torch.Generator().manual_seed(0)
    per_group = geometry.channels // geometry.groups
    weight = torch.randint(1, 4, (4, per_group, *geometry.kernel), generator=generator).double()
    weight[:, :, 0] = 0
    weight[:, 1] = 0
    weight[:, 0, 1, 1] = 0
    x = torch.randint(-3, 4, (2, geometry.channels, *geometry.size), generator=generator).double()
    return Sample(geometry, x, weight, None)


PLAIN = Geometry(4, (6, 5), (3, 3), (1, 1), (1, 1), (1, 1, 1, 1), 1)


@pytest.mark.parametrize("name", ["gather", "box", "gather+box", "columns"])
def test_a_form_with_a_wrong_place_is_found_out(name: str) -> None:
    """The twin: the comparison above fails when a form reads one place beside."""
    sample = one(PLAIN)
    form = next(form for form in sample.forms() if form.name == name)
    assert torch.equal(run(form, sample.x, sample.weight, None), sample.expected())
    beside = form
    if isinstance(form, Box):
        channels = tuple(tuple((c + 1) % 4 for c in group) for group in form.channels)
        beside = replace(form, channels=channels, box=(0, 2, 0, 3) if name == "box" else form.box)
    else:
        beside = replace(form, geometry=replace(PLAIN, pads=(1, 1, 0, 2)))  # type: ignore[type-var]
    assert not torch.equal(run(beside, sample.x, sample.weight, None), sample.expected())


def test_the_forms_of_a_plain_case() -> None:
    sample = one(PLAIN)
    assert [form.name for form in sample.forms()] == ["dense", "gather", "box", "gather+box", "columns"]
    sample.weight[:, 0, 1, 1] = 1
    assert [form.name for form in sample.forms()][-1] == "gather+box"


def test_a_box_pads_by_what_is_left_and_crops_what_was_never_read() -> None:
    used = np.zeros((1, 4, 3, 3), dtype=bool)
    used[..., 2, 2] = True
    box = next(form for form in conv_forms(PLAIN, used) if form.name == "box")
    calls: list[Any] = []
    graph = fx.Graph()

    def call(target: Any, *args: Any) -> Any:
        calls.append((target, args[1:]))
        return graph.call_function(target, args)

    x, weight = graph.placeholder("x"), graph.placeholder("w")
    box.write(call, x, weight, None, {})
    assert [target._schema.name for target, _ in calls] == ["aten::slice", "aten::slice", "aten::pad", "aten::conv2d"]
    assert calls[0][1] == (2, 1, 6) and calls[2][1] == ([0, 1, 0, 1],)


def test_groups_get_equally_many_channels_and_columns() -> None:
    used = np.zeros((2, 5, 1, 3), dtype=bool)
    used[0, [1, 3], 0, 0] = True
    used[1, 4, 0, 2] = True
    assert equal_channels(used) == ((1, 3), (0, 4))
    assert equal_channels(used, 4) == ((0, 1, 2, 3), (0, 1, 2, 4))
    columns = equal_columns(used, np.ones((1, 3), dtype=bool))
    assert columns == (((1, 0, 0), (3, 0, 0)), ((0, 0, 0), (4, 0, 2)))


def test_columns_that_fill_up_are_never_such_that_read_padding_only() -> None:
    used = np.zeros((2, 2, 1, 3), dtype=bool)
    used[0, :, 0, 1] = True
    used[1, 0, 0, 1] = True
    columns = equal_columns(used, np.array([[False, True, False]]))
    assert columns[1] == ((0, 0, 1), (1, 0, 1))


def test_the_box_is_tight() -> None:
    used = np.zeros((1, 2, 5, 4), dtype=bool)
    used[0, 0, 1, 2] = used[0, 1, 3, 2] = True
    assert bounding_box(used) == (1, 4, 2, 3)


def test_a_linear_layer_reads_the_features_it_uses() -> None:
    weight = torch.tensor([[1.0, 0, 2, 0], [0, 0, 3, 0]])
    x = torch.arange(8.0).reshape(2, 4)
    form = Features((0, 2), 1)
    assert torch.equal(run(form, x, weight, None), x @ weight.T)
    assert torch.equal(run(Dense(), x, weight, None), x @ weight.T)


def test_a_mask_moves_like_its_weight() -> None:
    sample = one(PLAIN)
    mask = sample.weight != 0
    for form in sample.forms():
        assert torch.equal(form.weight(mask), form.weight(sample.weight) != 0), form.name
