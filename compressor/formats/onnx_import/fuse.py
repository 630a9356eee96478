"""Chains of ONNX operators that are one ATen operator: older opsets have no layer norm, group norm, gelu, silu.

It must never change what is computed: every number in a chain must be the one that the operator's formula has, and a
value between its ends that others read as well stays for them.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor, fx
from torch.fx import Node

from compressor.program.arguments import arguments
from compressor.program.module import of_same_kind

aten = torch.ops.aten

_CLOSE = 1e-5
_GATES: dict[Any, Any] = {aten.sigmoid.default: aten.silu.default, aten.hardsigmoid.default: aten.hardswish.default}
"""f -> the operator that is x · f(x)."""


class _Deviation(NamedTuple):
    """1 / sqrt(mean(x²) + eps), of which x, and where the mean is taken."""

    squared: Node
    dims: tuple[int, ...]
    epsilon: float
    inverse: bool


def fuse(graph: fx.Graph, tensors: dict[str, Tensor]) -> int:
    """How many chains were replaced (edits graph and tensors in place).

    Needs the size of every value at `node.meta["val"]`, and puts it there for what it makes.
    """
    n_fused, of_channels = 0, dict[Node, None]()
    for node in list(graph.nodes):
        for attempt in (_gelu, _gated, _layer_norm, _rms_norm, _group_norm):
            made = attempt(node, tensors) if node.op == "call_function" and node.users else None
            if made is not None:
                last, target, args = made
                _replace(graph, last, target, args)
                n_fused += 1
                if target is aten.group_norm.default:
                    of_channels.update(dict.fromkeys(scale for scale in args[2:4] if scale is not None))
                break
    for scale in of_channels:
        _flatten(scale, tensors)
    return n_fused


_MOST_PLACES = 64
"""Calls of one norm that may share its scale: heads on a pyramid are called some five times."""

_Made = tuple[Node, Any, tuple[Any, ...]]


def _replace(graph: fx.Graph, last: Node, target: Any, args: tuple[Any, ...]) -> None:
    """Puts the operator where the chain ended; what the chain computed before is left without readers."""
    with graph.inserting_before(last):
        new = graph.call_function(target, args)
    new.meta = dict(last.meta)
    last.replace_all_uses_with(new)
    chain, erased = [last], set[fx.Node]()
    while chain:
        node = chain.pop()
        if not node.users and node.op == "call_function" and node not in erased:
            chain.extend(node.all_input_nodes)
            graph.erase_node(node)
            erased.add(node)


def _only_reader(node: Node) -> Node | None:
    """The one node that reads this one, once."""
    readers = list(node.users)
    return readers[0] if len(readers) == 1 else None


def _is(node: Any, *targets: Any) -> bool:
    return isinstance(node, Node) and node.op == "call_function" and node.target in targets


def _other(node: Node, one: Any) -> Any:
    """The other operand of a sum or product."""
    bound = arguments(node)
    return bound["other"] if bound["self"] is one else bound["self"]


def _times(node: Any, factor: float) -> Node | None:
    """x, where the node is x · factor."""
    if not _is(node, aten.mul.Tensor, aten.div.Tensor):
        return None
    bound = arguments(node)
    number = bound["other"]
    if not isinstance(number, (int, float)) or number == 0:
        return None
    got = number if node.target is aten.mul.Tensor else 1 / number
    return bound["self"] if math.isclose(got, factor, rel_tol=_CLOSE) else None


def _plus(node: Any) -> tuple[Any, float] | None:
    """(x, number), where the node is x + number."""
    if not _is(node, aten.add.Tensor):
        return None
    bound = arguments(node)
    if not isinstance(bound["other"], (int, float)) or bound["alpha"] != 1:
        return None
    return bound["self"], float(bound["other"])


def _gelu(erf: Node, tensors: Mapping[str, Tensor]) -> _Made | None:
    """x / 2 · (1 + erf(x / √2)), the factors in any order."""
    if not _is(erf, aten.erf.default):
        return None
    x = _times(arguments(erf)["self"], 1 / math.sqrt(2))
    one = _only_reader(erf)
    if x is None or one is None or _plus(one) != (erf, 1.0):
        return None
    product = _only_reader(one)
    if not _is(product, aten.mul.Tensor):
        return None
    assert product is not None
    beside = _other(product, one)
    if _times(beside, 0.5) is x:
        return product, aten.gelu.default, (x,)
    last = _only_reader(product)
    halved = beside is x and last is not None and _times(last, 0.5) is product
    is_product = last is not None and _is(last, aten.mul.Tensor)
    scaled = _times(product, 0.5) is one and last is not None and is_product and _other(last, product) is x
    return (last, aten.gelu.default, (x,)) if last is not None and (halved or scaled) else None


def _gated(gate: Node, tensors: Mapping[str, Tensor]) -> _Made | None:
    """x · sigmoid(x), x · hardsigmoid(x)."""
    if gate.target not in _GATES:
        return None
    x, product = arguments(gate)["self"], _only_reader(gate)
    if not _is(product, aten.mul.Tensor) or product is None or _other(product, gate) is not x:
        return None
    return product, _GATES[gate.target], (x,)


def _deviation(node: Any) -> _Deviation | None:
    """What a root of a mean of squares is taken of; `inverse` where the node is 1 over it."""
    inverse = _is(node, aten.reciprocal.default)
    root = arguments(node)["self"] if inverse else node
    if not _is(root, aten.sqrt.default):
        return None
    found = _plus(arguments(root)["self"])
    if found is None or not _is(found[0], aten.mean.dim):
        return None
    mean = arguments(found[0])
    square, dims = mean["self"], mean["dim"]
    if not mean["keepdim"] or dims is None:
        return None
    if _is(square, aten.pow.Tensor_Scalar) and arguments(square)["exponent"] == 2:
        return _Deviation(arguments(square)["self"], tuple(dims), found[1], inverse)
    if _is(square, aten.mul.Tensor) and arguments(square)["self"] is arguments(square)["other"]:
        return _Deviation(arguments(square)["self"], tuple(dims), found[1], inverse)
    return None


def _standardised(node: Node) -> _Deviation | None:
    """The deviation, where the node divides by it what it was taken of."""
    if _is(node, aten.div.Tensor):
        bound = arguments(node)
        found = _deviation(bound["other"])
        return found if found is not None and not found.inverse and bound["self"] is found.squared else None
    if _is(node, aten.mul.Tensor):
        for inverse in (arguments(node)["self"], arguments(node)["other"]):
            found = _deviation(inverse)
            if found is not None and found.inverse and _other(node, inverse) is found.squared:
                return found
    return None


def _layer_norm(node: Node, tensors: Mapping[str, Tensor]) -> _Made | None:
    """d / sqrt(mean(d²) + eps) · weight + bias with d = x − mean(x), over the last dimensions."""
    found = _standardised(node)
    if found is None or not _is(found.squared, aten.sub.Tensor):
        return None
    bound = arguments(found.squared)
    x, mean = bound["self"], bound["other"]
    if not _is(mean, aten.mean.dim) or bound["alpha"] != 1 or not isinstance(x, Node):
        return None
    taken = arguments(mean)
    shape = _trailing(x, found.dims)
    if taken["self"] is not x or tuple(taken["dim"]) != found.dims or not taken["keepdim"] or shape is None:
        return None
    last, weight, bias = _scaled(node, shape, tensors, biased=True)
    return last, aten.layer_norm.default, (x, shape, weight, bias, found.epsilon, False)


def _rms_norm(node: Node, tensors: Mapping[str, Tensor]) -> _Made | None:
    """x / sqrt(mean(x²) + eps) · weight over the last dimensions."""
    found = _standardised(node)
    shape = None if found is None else _trailing(found.squared, found.dims)
    if found is None or shape is None:
        return None
    last, weight, _ = _scaled(node, shape, tensors, biased=False)
    return last, aten.rms_norm.default, (found.squared, shape, weight, found.epsilon)


def _trailing(x: Node, dims: tuple[int, ...]) -> list[int] | None:
    """The sizes of the dimensions, where they are the last ones."""
    sizes = x.meta["val"].shape
    places = sorted(dim % len(sizes) for dim in dims)
    return [int(n) for n in sizes[places[0] :]] if places == list(range(places[0], len(sizes))) else None


def _scaled(
    node: Node, shape: list[int], tensors: Mapping[str, Tensor], *, biased: bool
) -> tuple[Node, Node | None, Node | None]:
    """The end of the chain, with the weight that it is multiplied by and the bias that is added."""

    def parameter(reader: Node | None, target: Any, one: Node) -> Node | None:
        if reader is None or not _is(reader, target):
            return None
        other = _other(reader, one)
        fits = isinstance(other, Node) and other.op == "get_attr" and list(tensors[str(other.target)].shape) == shape
        return other if fits else None

    product = _only_reader(node)
    weight = parameter(product, aten.mul.Tensor, node)
    if weight is None or product is None:
        return node, None, None
    total = _only_reader(product) if biased else None
    bias = parameter(total, aten.add.Tensor, product)
    return (product, weight, None) if bias is None or total is None else (total, weight, bias)


def _group_norm(norm: Node, tensors: dict[str, Tensor]) -> _Made | None:
    """An instance norm over groups of channels that a reshape made rows of, with the scale per channel behind it.

    The scale is (C, 1, 1) until `fuse` is done: a norm that is called at several places has one for all.
    """
    made = _grouped(norm, tensors)
    scales = () if made is None else made[2][2:4]
    return made if all(_is_of_norms(one, scales, tensors) for one in scales if one is not None) else None


def _is_of_norms(scale: Node, scales: tuple[Node | None, ...], tensors: Mapping[str, Tensor]) -> bool:
    """Whether nothing but group norms with these scales reads one of them: made already, or still chains."""
    if any(_is(reader, aten.group_norm.default) for reader in scale.users):
        return True  # the first one was made because all others can be
    return len(scale.users) <= _MOST_PLACES and all(_takes_channels(one, scales, tensors) for one in scale.users)


def _grouped(norm: Node, tensors: Mapping[str, Tensor]) -> _Made | None:
    if not _is(norm, aten.instance_norm.default) or not _scales_nothing(norm, tensors):
        return None
    rows, back = arguments(norm)["input"], _only_reader(norm)
    if not _is(rows, aten.reshape.default) or not _is(back, aten.reshape.default) or back is None:
        return None
    x = arguments(rows)["self"]
    sizes, groups = x.meta["val"].shape, rows.meta["val"].shape
    if back.meta["val"].shape != sizes or len(groups) != 3 or groups[0] != sizes[0] or sizes[1] % groups[1]:
        return None
    last, weight, bias = _scaled(back, [int(sizes[1]), *[1] * (len(sizes) - 2)], tensors, biased=True)
    return last, aten.group_norm.default, (x, int(groups[1]), weight, bias, arguments(norm)["eps"], False)


def _takes_channels(reader: Node, scales: tuple[Node | None, ...], tensors: Mapping[str, Tensor]) -> bool:
    """Whether what reads one of these scales is at the end of a chain that becomes a group norm with both."""
    node = reader
    while _is(node, aten.mul.Tensor) or _is(node, aten.add.Tensor):
        others = [one for one in node.all_input_nodes if one.op != "get_attr"]
        if len(others) != 1:
            return False
        node = others[0]
    made = _grouped(arguments(node)["self"], tensors) if _is(node, aten.reshape.default) else None
    return made is not None and scales == made[2][2:4] and (reader is made[0] or reader in made[0].all_input_nodes)


def _scales_nothing(norm: Node, tensors: Mapping[str, Tensor]) -> bool:
    """Whether a norm has no scale and shift of its own: exporters write 1 and 0, some as if they were trained."""
    given = ((arguments(norm)[name], neutral) for name, neutral in (("weight", 1), ("bias", 0)))
    return all(one is None or (one.op == "get_attr" and (tensors[one.target] == to).all()) for one, to in given)


def _flatten(scale: Node, tensors: dict[str, Tensor]) -> None:
    """A scale of (C, 1, 1) as (C,)."""
    name = str(scale.target)
    flat = tensors[name].detach().reshape(-1)
    tensors[name] = of_same_kind(flat, tensors[name])
    scale.meta["val"] = torch.empty_like(flat, device="meta")
