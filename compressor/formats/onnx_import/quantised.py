"""A file whose values are quantised and dequantised again, as the float network that it stands for.

It must never touch arithmetic on whole numbers: what multiplies those is refused by name.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

import numpy as np
import onnx
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import Tensor

from compressor.errors import ModelError

_ROUNDS, _BACK = "QuantizeLinear", "DequantizeLinear"
_CLIP_BY_INPUTS = 11
"""The opset from which on Clip takes its bounds as inputs."""

_SUFFIX = "_quantized"
"""What onnxruntime's quantiser puts behind the name of a weight."""


def without_quantisation(graph: onnx.GraphProto, opset: int, read: Callable[[TensorProto], Tensor], name: str) -> int:
    """How many steps to whole numbers and back it took out of the graph, which it edits; weights become floats.

    One thing is left of a step: it cuts off what the whole numbers do not reach. Quantisers rely on that, and drop the
    activation before it. `read` gives the tensor of an initializer.

    Raises:  ModelError for a weight whose scales are in blocks, or do not fit it.
    """
    made_by = {output: node for node in graph.node for output in node.output}
    held = {tensor.name: tensor for tensor in graph.initializer}
    held |= {n.output[0]: n.attribute[0].t for n in graph.node if n.op_type == "Constant" and _is_tensor(n)}
    outputs = {value.name for value in graph.output}
    instead: dict[str, str] = {}
    taken = {*held, *made_by, *(value.name for value in graph.input)}
    removed: list[int] = []
    n_clipped = 0
    for place, node in enumerate(graph.node):
        if node.op_type != _BACK or node.domain not in ("", "ai.onnx"):
            continue
        source = made_by.get(node.input[0])
        if source is not None and source.op_type == _ROUNDS:
            bounds = _range(node, held, read)
            if bounds is None:
                continue
            node.CopyFrom(_clip(graph, source.input[0], node.output[0], bounds, opset))
            n_clipped += 1
            continue
        elif node.input[0] in held and node.output[0] not in outputs:
            value = _dequantised(node, held, read, name)
            wanted = node.input[0].removesuffix(_SUFFIX)
            wanted = node.output[0] if wanted in taken else wanted
            taken.add(wanted)
            graph.initializer.append(numpy_helper.from_array(value.numpy(), wanted))
            if wanted != node.output[0]:
                instead[node.output[0]] = wanted
        else:
            continue
        removed.append(place)
    for place in reversed(removed):
        del graph.node[place]
    if not removed and not n_clipped:
        return 0
    for node in _all_nodes(graph):
        for i, given in enumerate(node.input):
            node.input[i] = _followed(instead, given)
    _remove_unread(graph)
    return len(removed) + n_clipped


def _range(
    node: onnx.NodeProto, held: Mapping[str, TensorProto], read: Callable[[TensorProto], Tensor]
) -> tuple[float, float] | None:
    """The smallest and the largest number that come back; None where there are several scales, or computed ones."""
    if any(part not in held for part in node.input[1:] if part):
        return None
    scale, *zero = (read(held[part]) for part in node.input[1:] if part)
    if scale.numel() != 1 or any(z.numel() != 1 or z.is_floating_point() for z in zero):
        return None
    kind = torch.iinfo(zero[0].dtype if zero else torch.uint8)
    at = int(zero[0]) if zero else 0
    return (kind.min - at) * float(scale), (kind.max - at) * float(scale)


def _clip(graph: onnx.GraphProto, given: str, made: str, bounds: tuple[float, float], opset: int) -> onnx.NodeProto:
    if opset < _CLIP_BY_INPUTS:
        return helper.make_node("Clip", [given], [made], name=made, min=bounds[0], max=bounds[1])
    names = [f"{made}.{which}" for which in ("low", "high")]
    for name, bound in zip(names, bounds, strict=True):
        graph.initializer.append(numpy_helper.from_array(np.array(bound, np.float32), name))
    return helper.make_node("Clip", [given, *names], [made], name=made)


def _is_tensor(node: onnx.NodeProto) -> bool:
    return len(node.attribute) == 1 and node.attribute[0].type == onnx.AttributeProto.TENSOR


def _followed(instead: Mapping[str, str], name: str) -> str:
    for _ in range(len(instead) + 1):
        if name not in instead:
            return name
        name = instead[name]
    raise ModelError("its quantised values follow from each other in a circle")


def _dequantised(
    node: onnx.NodeProto, held: Mapping[str, TensorProto], read: Callable[[TensorProto], Tensor], name: str
) -> Tensor:
    """(x - zero point) · scale, along an axis where there are several."""
    where = f"{name}: {_BACK} {node.name or node.output[0]}"
    if any(part and part not in held for part in node.input):
        raise ModelError(f"{where}: its scale is computed, which is not supported")
    value, scale, *zero = (read(held[part]) for part in node.input if part)
    options = {entry.name: helper.get_attribute_value(entry) for entry in node.attribute}
    if options.get("block_size"):
        raise ModelError(f"{where}: has a scale for every block, which is not supported; give the float model")
    shape = [1] * value.dim()
    if scale.numel() > 1 and value.dim():
        axis = options.get("axis", 1) % value.dim()
        shape[axis] = scale.numel()
        if value.shape[axis] != scale.numel():
            raise ModelError(f"{where}: has {scale.numel()} scales for {value.shape[axis]} rows")
    shift = zero[0].to(torch.float64) if zero else torch.zeros(scale.shape, dtype=torch.float64)
    if shift.numel() != scale.numel():
        raise ModelError(f"{where}: has {shift.numel()} zero points for {scale.numel()} scales")
    return ((value.double() - shift.reshape(shape)) * scale.double().reshape(shape)).float()


def _remove_unread(graph: onnx.GraphProto) -> None:
    """Rounding nodes that only removed ones read, with the scales and weights that only those did."""
    read = _read_in(graph)
    kept = [node for node in graph.node if node.op_type != _ROUNDS or set(node.output) & read]
    del graph.node[:]
    graph.node.extend(kept)
    read = _read_in(graph)
    unread = [tensor for tensor in graph.initializer if tensor.name not in read]
    for tensor in unread:
        graph.initializer.remove(tensor)


def _read_in(graph: onnx.GraphProto) -> set[str]:
    """Names of all that the graph reads or puts out, in its branches too."""
    return {given for node in _all_nodes(graph) for given in node.input} | _put_out(graph)


def _put_out(graph: onnx.GraphProto) -> set[str]:
    return {value.name for value in graph.output}.union(*(_put_out(inner) for inner in _inner(graph)))


def _all_nodes(graph: onnx.GraphProto) -> Iterator[onnx.NodeProto]:
    yield from graph.node
    for inner in _inner(graph):
        yield from _all_nodes(inner)


def _inner(graph: onnx.GraphProto) -> list[onnx.GraphProto]:
    attributes = (entry for node in graph.node for entry in node.attribute)
    return [entry.g for entry in attributes if entry.type == onnx.AttributeProto.GRAPH]
