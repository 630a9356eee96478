"""Which layers have unused columns, and the forms that each of them could take; it must never choose between forms.

What a layer is refused for is an answer too: it comes back as a reason in words.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.fx import Node

from compressor.compaction.lowering_forms import (
    Box,
    Columns,
    Dense,
    Features,
    Form,
    Geometry,
    Used,
    bounding_box,
    equal_channels,
    equal_columns,
)
from compressor.program import (
    Layer,
    Program,
    TensorShape,
    arguments,
    find_layers,
    measured_arguments,
    why_columns_stay,
)

_MULTIPLES = (1, 4, 16)
"""Widths that a gather is rounded up to: onnxruntime's blocked kernels want input channels in fours, and fill blocks
of 8 or 16. Which one pays is measured."""


@dataclass(frozen=True)
class Candidate:
    """A layer with unused columns. `forms` begins with the dense one; with only that, `reason` says why."""

    layer: Layer
    node: Node
    n_used: int
    n_columns: int
    geometry: Geometry | None
    forms: tuple[Form, ...]
    reason: str | None = None


def find_candidates(
    program: Program, *, masks_only: bool = False, filled: Mapping[str, Tensor] | None = None
) -> tuple[Candidate, ...]:
    """Every convolution and linear layer that has a column of zeros (of masks, if `masks_only`), in graph order.

    Columns that a mask of `filled` cuts altogether were put there to fill a width, and do not count.
    """
    layers = find_layers(program)
    nodes = {node.name: node for node in program.module.graph.nodes}
    parameters = program.parameters
    found: list[Candidate] = []
    for layer in layers:
        weight = parameters.get(layer.weight)
        if weight is None or not layer.kind.startswith(("conv", "linear")):
            continue
        alive = program.masks.get(layer.weight, torch.ones(weight.shape, dtype=torch.bool)).cpu()
        if not masks_only:
            alive = alive & (weight.detach() != 0).cpu()
        if filled is not None and layer.weight in filled:
            alive = alive | ~filled[layer.weight].any(dim=layer.out_dim, keepdim=True)
        if bool(alive.any(dim=layer.out_dim).all()):
            continue
        found.append(_candidate(program, layer, nodes[layer.node], alive.numpy(), layers))
    return tuple(found)


def _candidate(program: Program, layer: Layer, node: Node, alive: Any, layers: Sequence[Layer]) -> Candidate:
    columns = alive.any(axis=layer.out_dim)
    used, total = int(columns.sum()), int(columns.size)
    reason = _refusal(program, layer, node, used, layers)
    if reason is not None:
        return Candidate(layer, node, used, total, None, (), reason)
    if layer.kind == "linear":
        dim = len(_sizes(program, arguments(node)["input"])) - 1
        features = Features(tuple(int(i) for i in np.flatnonzero(columns)), dim)
        return Candidate(layer, node, used, total, None, (Dense(), features))
    geometry = _geometry(program, node)
    of_groups: Any = np.stack(np.split(alive, geometry.groups, axis=0)).any(axis=1)
    if not (of_groups & _readable(geometry)).any():
        return Candidate(layer, node, used, total, geometry, (), "all that it uses is padding")
    forms = conv_forms(geometry, of_groups)
    shares = int(of_groups.sum()), int(of_groups.size)
    return Candidate(layer, node, *shares, geometry, forms)


def _refusal(program: Program, layer: Layer, node: Node, n_used: int, layers: Sequence[Layer]) -> str | None:
    if n_used == 0:
        return "all of its weights are zero"
    if (reason := why_columns_stay(layer, layers)) is not None:
        return reason
    if layer.kind == "conv2d" and len(_sizes(program, arguments(node)["input"])) != 4:
        return "its input has no batch dimension"
    return None


def _sizes(program: Program, node: Any) -> tuple[int, ...]:
    shape = program.shapes[node.name]
    assert isinstance(shape, TensorShape)
    return shape.sizes


def _geometry(program: Program, node: Node) -> Geometry:
    bound = measured_arguments(node, program.shapes)
    channels, *size = _sizes(program, bound["input"])[1:]
    kernel = _sizes(program, bound["weight"])[2:]
    stride, dilation = _pair(bound["stride"]), _pair(bound["dilation"])
    pads = _pads(bound["padding"], kernel, dilation)
    return Geometry(channels, (size[0], size[1]), (kernel[0], kernel[1]), stride, dilation, pads, bound["groups"])


def _pair(given: Sequence[int]) -> tuple[int, int]:
    return (given[0], given[-1])


def _pads(given: Any, kernel: Sequence[int], dilation: Sequence[int]) -> tuple[int, int, int, int]:
    """Top, bottom, left, right; "same" puts the odd one behind, as torch does."""
    if given == "valid":
        return 0, 0, 0, 0
    if given == "same":
        height, width = (dilation[d] * (kernel[d] - 1) for d in (0, 1))
        return height // 2, height - height // 2, width // 2, width - width // 2
    vertical, horizontal = _pair(given)
    return vertical, vertical, horizontal, horizontal


def _readable(geometry: Geometry) -> Used:
    """Which kernel positions ever read anything but padding. Shapes: -> (Kh, Kw)"""
    inside = []
    for d in (0, 1):
        place = np.arange(geometry.kernel[d])[:, None] * geometry.dilation[d] - geometry.pads[2 * d]
        read = place + np.arange(geometry.out_size[d]) * geometry.stride[d]
        inside.append(((read >= 0) & (read < geometry.size[d])).any(axis=1))
    return inside[0][:, None] & inside[1]


def conv_forms(geometry: Geometry, used: Used) -> tuple[Form, ...]:
    """The dense form and every other one that leaves something out, each once. Shapes: used (groups, I, Kh, Kw)"""
    forms: list[Form] = [Dense(geometry)]
    readable = _readable(geometry)
    used = used & readable
    if not used.any():
        return (Dense(geometry),)
    whole, tight = (0, geometry.kernel[0], 0, geometry.kernel[1]), bounding_box(used)
    per_group = used.shape[1]
    everything = equal_channels(np.ones_like(used))
    seen = {(everything, whole)}
    for multiple in _MULTIPLES:
        channels = equal_channels(used, multiple) if per_group > 1 else everything
        rounded = f" to {multiple}" if multiple > 1 else ""
        named = (("gather", channels, whole), ("box", everything, tight), ("gather+box", channels, tight))
        for name, of_groups, box in named:
            if (of_groups, box) not in seen and _keeps_input(geometry, box):
                seen.add((of_groups, box))
                forms.append(Box(geometry, name if name == "box" else name + rounded, of_groups, box))
    columns = equal_columns(used, readable)
    boxes = (len(form.channels[0]) * _area(form.box) for form in forms if isinstance(form, Box))
    if geometry.kernel != (1, 1) and len(columns[0]) < min(boxes, default=used[0].size):
        forms.append(Columns(geometry, columns))
    return tuple(forms)


def _area(box: tuple[int, int, int, int]) -> int:
    return (box[1] - box[0]) * (box[3] - box[2])


def _keeps_input(geometry: Geometry, box: tuple[int, int, int, int]) -> bool:
    """Whether anything of the input is left where the box crops it: a kernel row may read nothing but padding."""
    for d in (0, 1):
        before = geometry.pads[2 * d] - geometry.dilation[d] * box[2 * d]
        after = geometry.pads[2 * d + 1] - geometry.dilation[d] * (geometry.kernel[d] - box[2 * d + 1])
        if geometry.size[d] + min(before, 0) + min(after, 0) < 1:
            return False
    return True
