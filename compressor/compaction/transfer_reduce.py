"""Transfers of reductions, poolings, normalisations and constants that a graph makes itself.

It must never hold operators with weights to contract. Whatever mixes samples of a batch is unknown.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.fx import Node

from compressor.compaction.constants import Arguments, Constants, Found, Pair, run, stretch, transfer
from compressor.program import families

_OF_EQUALS = frozenset({"mean", "amax", "amin", "max", "min", "median", "any", "all"})
"""Reductions that leave one of many equal values as it is."""

_SAY_WHERE = frozenset({"max", "min", "median"})
"""Reductions whose second result is the position of the first: of equal values any, as the kernel at hand likes."""


@transfer(families.REDUCTIONS)
def reduction(node: Node, a: Arguments, out: Any) -> Found:
    """Known where everything that is reduced is; of many equal values the one that was taken is not."""
    x = a["self"]
    dims = x.normal_dims(a.get("dim"))
    if not x.any_known or set(dims) & x.batch:
        return None
    name = families.operator_name(node.target)
    kept = bool(a.get("keepdim", False))
    unknown = _reduced(~x.known, dims, kept)
    over = () if name in _OF_EQUALS and all(x.value.shape[dim] == 1 for dim in dims) else dims
    made = run(node, a, lambda c: stretch(c.exact, c.sizes, over))
    if isinstance(made, Tensor):
        return Pair(made, ~unknown)
    return [Pair(part, ~unknown) if i == 0 or name not in _SAY_WHERE else None for i, part in enumerate(made)]


def _reduced(flags: Tensor, dims: tuple[int, ...], keepdim: bool) -> Tensor:
    reduced = flags.double().amax(dims, keepdim=keepdim) if dims else flags
    return reduced > 0


@transfer(families.SCANS)
def over_one(node: Node, a: Arguments, out: Any) -> Found:
    """Known where everything along the dimension is."""
    x = a["self"]
    dim = x.normal_dim(a["dim"])
    if not x.any_known or dim in x.batch:
        return None
    unknown = _reduced(~x.known, (dim,), True)
    return Pair(run(node, a, lambda c: stretch(c.exact, c.sizes, [dim])), ~unknown)


@transfer(families.WINDOWS)
def window(node: Node, a: Arguments, out: Any) -> Found:
    """Known in channels that are; a value that is the same everywhere stays itself unless zeros are averaged in.

    Where an operator says as well at which position it found the value, that is not known.
    """
    x: Constants = a["self"] if "self" in a else a["input"]
    if not x.any_known:
        return None
    spatial = tuple(range(x.rank - families.spatial_rank(node.target), x.rank))
    known = ~_reduced(~x.known, spatial, True)
    value = torch.where(known, x.exact, torch.zeros_like(x.exact))
    if all(value.shape[dim] == 1 for dim in spatial) and not _averages_zeros(a):
        return [Pair(value, known), None] if isinstance(out, tuple) else Pair(value, known)
    whole = stretch(value, x.sizes, spatial)
    made = run(node, a, lambda c: whole)
    return Pair(made, known) if isinstance(made, Tensor) else [Pair(made[0], known), None]


def _averages_zeros(a: Arguments) -> bool:
    padded = any(a["padding"]) if isinstance(a.get("padding"), (list, tuple)) else bool(a.get("padding"))
    return bool((a.get("count_include_pad") and padded) or a.get("divisor_override"))


@transfer(families.BATCH_NORM)
def batch_norm(node: Node, a: Arguments, out: Any) -> Found:
    """Known in channels that are, and where the weight is 0; with statistics of its own only there."""
    x, weight, bias = a["input"], a["weight"], a["bias"]
    scales = [a[name] for name in ("weight", "bias", "running_mean", "running_var") if a[name] is not None]
    if a["training"] or a["running_mean"] is None or not all(scale.all_known for scale in scales):
        return _where_scaled_by_zero(x, weight, bias, (1,))
    silent = _silent(x, weight, (1,))
    if not x.any_known and not silent.any():
        return None
    made = run(node, a, lambda c: stretch(c.exact, c.sizes, [1]) if c is x else c.exact)
    return Pair(made, stretch(x.known, x.sizes, [1]) | silent)


@transfer(families.FEATURE_NORMS)
def layer_norm(node: Node, a: Arguments, out: Any) -> Found:
    """Known where the weight is 0."""
    x, n = a["input"], len(a["normalized_shape"])
    return _where_scaled_by_zero(x, a["weight"], a.get("bias"), tuple(range(x.rank - n, x.rank)))


@transfer(families.GROUP_NORM, families.INSTANCE_NORM)
def group_norm(node: Node, a: Arguments, out: Any) -> Found:
    """Known where the weight is 0, and in groups of channels that are all 0: these are as far from their mean."""
    x: Constants = a["input"]
    return _where_scaled_by_zero(x, a["weight"], a["bias"], (1,), _zero_groups(x, a))


def _zero_groups(x: Constants, a: Arguments) -> Tensor:
    """The channels of groups that hold only zeros, at the rank of `x`."""
    zero = x.zero_everywhere(1)
    whole = zero.reshape(a.get("num_groups", x.sizes[1]), -1).all(1, keepdim=True)
    is_centred = a.get("use_input_stats", True) and a["eps"] > 0
    return _placed(whole.expand(-1, x.sizes[1] // len(whole)), x, (1,)) & bool(is_centred)


def _silent(x: Constants, weight: Constants | None, dims: tuple[int, ...]) -> Tensor:
    """Where a weight of 0 hides whatever is normalised, at the rank of `x`."""
    if weight is None or not weight.all_known:
        return torch.zeros((1,) * x.rank, dtype=torch.bool)
    return _placed(weight.value == 0, x, dims)


def _placed(tensor: Tensor, x: Constants, dims: tuple[int, ...]) -> Tensor:
    return tensor.reshape([x.sizes[dim] if dim in dims else 1 for dim in range(x.rank)])


def _where_scaled_by_zero(
    x: Constants, weight: Constants | None, bias: Constants | None, dims: tuple[int, ...], also: Tensor | None = None
) -> Found:
    silent = _silent(x, weight, dims)
    silent = silent if also is None else silent | also
    if not silent.any() or (bias is not None and not bias.all_known):
        return None
    value = torch.zeros(silent.shape, dtype=torch.float64) if bias is None else _placed(bias.exact, x, dims)
    return Pair(value, silent)


@transfer(families.FILLED, families.NUMBERS)
def made(node: Node, a: Arguments, out: Any) -> Found:
    """What a graph makes from numbers is a constant."""
    tensor = run(node, a, lambda c: c.exact)
    return Pair(tensor, torch.ones((1,) * tensor.dim(), dtype=torch.bool))
