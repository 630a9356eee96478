"""Transfers of operators that multiply and sum: a sum is known when all that it reads through a non-zero is known.

It must never hold operators that only move data.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.fx import Node

from compressor.compaction.constants import Arguments, Constants, Found, Pair, run, stretch, transfer
from compressor.program import arguments, families

_PASSES_WEIGHTS = families.DROPOUT | families.COPY
_HALF_A_GIGABYTE = 2**27


def reads_of(node: Node, a: Arguments) -> Tensor | None:
    """Which channel of its group each filter reads through some non-zero weight; None if the weight is no constant.

    Shapes:  -> (groups, filters per group, channels per group)
    """
    weight: Constants = a["weight"] if "weight" in a else factors(node, a)[1]
    if not weight.all_known:
        return None
    nonzero = stretch(weight.value, weight.sizes, range(weight.rank)) != 0
    if "weight" not in a:
        return nonzero.movedim(-2, -1)[None]
    if nonzero.dim() > 2:
        nonzero = nonzero.flatten(2).any(2)
    groups = a.get("groups", 1)
    if node.target in families.TRANSPOSED_CONVOLUTIONS:
        return nonzero.reshape(groups, -1, nonzero.shape[1]).movedim(1, 2)
    return nonzero.reshape(groups, -1, nonzero.shape[1])


def channel_dim(node: Node, x: Constants) -> int:
    """The dimension of `x` along which the layer sums."""
    return x.rank - 1 if node.target in families.LINEAR else 1


def known_filters(reads: Tensor, known: Tensor) -> Tensor:
    """Filters of which every channel that they read is known. Shapes: (G, O, I), (G * I,) -> (G * O,)"""
    unknown = ~known.reshape(reads.shape[0], -1)
    return ~torch.cat([part[:, hidden].any(1) for part, hidden in zip(reads, unknown, strict=True)])


@transfer(families.WITH_FILTERS)
def filters(node: Node, a: Arguments, out: Any) -> Found:
    """A filter's output is its bias, if it reads only zeros; if it reads other constants, the operator computes it."""
    x, weight, bias = a["input"], a["weight"], a["bias"]
    dim = channel_dim(node, x)
    reads = reads_of(node, a)
    unbatched = node.target not in families.LINEAR and x.rank != weight.rank
    if reads is None or unbatched or (bias is not None and not bias.all_known):
        return None
    known = known_filters(reads, x.everywhere(dim))
    if not known.any():
        return None
    n_out = len(known)
    shape = [n_out if d == dim else 1 for d in range(x.rank)]
    value = torch.zeros(n_out, dtype=torch.float64) if bias is None else bias.exact
    of_zeros = known_filters(reads, x.zero_everywhere(dim))
    if bool((known & ~of_zeros).any()):
        computed = _computed(node, a, known, dim)
        if computed is None:
            return Pair(value.reshape(shape), of_zeros.reshape(shape))
        return Pair(computed, known.reshape(shape))
    return Pair(value.reshape(shape), known.reshape(shape))


def _computed(node: Node, a: Arguments, known: Tensor, dim: int) -> Tensor | None:
    """The operator on what is known, 0 elsewhere; right in the `known` filters. None where that would take too much."""
    x, weight = a["input"], a["weight"]
    spatial = () if node.target in families.LINEAR else range(2, x.rank)
    value = stretch(x.exact, x.sizes, [dim, *spatial])
    if a.get("groups", 1) > 1 or node.target in families.TRANSPOSED_CONVOLUTIONS:
        if value.numel() + weight.value.numel() > _HALF_A_GIGABYTE // 8:
            return None
        return run(node, a, lambda c: value if c is x else c.exact)
    rows = known.nonzero().flatten()
    columns = x.everywhere(dim).nonzero().flatten()
    if len(rows) * len(columns) > _HALF_A_GIGABYTE:
        return None
    part = weight.value[rows][:, columns].double()
    bias = None if a["bias"] is None else a["bias"].exact[rows]
    small = {**a, "input": value.index_select(dim, columns), "weight": part, "bias": bias}
    made = run(node, small, lambda c: c.exact)
    sizes = [len(known) if d == dim else size for d, size in enumerate(made.shape)]
    return torch.zeros(sizes, dtype=torch.float64).index_copy(dim, rows, made)


@transfer(families.PRODUCTS, families.ADDED_PRODUCTS)
def products(node: Node, a: Arguments, out: Any) -> Found:
    """Known where for every product both factors are known, or one is known to be 0; a softmax's add up to 1."""
    x, y = factors(node, a)
    if _is_softmax(node.args[0]) and y.rank == len(out.sizes) > 1:
        return _mean_of_equals(y)
    if not (x.any_known or y.any_known) or (x.rank - 1) in x.batch:
        return None
    x_value, x_known = x.along([x.rank - 1])
    y_value, y_known = y.along([max(y.rank - 2, 0)])
    x_open, y_open = (~x_known).double(), (~y_known).double()
    x_counts, y_counts = x_open + (x_value != 0), y_open + (y_value != 0)
    open_sums = torch.matmul(x_open, y_counts) + torch.matmul(x_counts, y_open)
    known, value = open_sums == 0, torch.matmul(x_value.double(), y_value.double())
    if "beta" not in a:
        return Pair(value, known)
    added: Constants = a["self"]
    lifted = (1,) * (len(out.sizes) - added.rank)
    extra = added.exact.reshape(lifted + tuple(added.value.shape))
    return Pair(a["beta"] * extra + a["alpha"] * value, known & added.known.reshape(lifted + tuple(added.known.shape)))


def _is_softmax(node: Any) -> bool:
    """Whether the last dimension of a value holds weights that add up to 1."""
    while isinstance(node, Node) and node.target in _PASSES_WEIGHTS and not arguments(node).get("train", False):
        node = node.args[0]
    return isinstance(node, Node) and node.target in families.SOFTMAX and arguments(node)["dim"] == -1


def factors(node: Node, a: Arguments) -> tuple[Constants, Constants]:
    """The two operands that are multiplied."""
    first, second = families.operands_of(node.target)
    return a[first], a[second]


@transfer(families.ATTENTION)
def attention(node: Node, a: Arguments, out: Any) -> Found:
    """A feature of the values that is the same for every key is a mean of equals: itself."""
    value, mask = a["value"], a["attn_mask"]
    found = _mean_of_equals(value)
    if found is None:
        return None
    first, same = found
    if mask is not None and not _attends_somewhere(mask):
        same = same & (first == 0)
    if a.get("enable_gqa"):
        heads = value.rank - 3
        times = a["query"].sizes[heads] // value.sizes[heads]
        first, same = (t.repeat_interleave(times, heads) if t.shape[heads] > 1 else t for t in (first, same))
    return Pair(first, same)


def _mean_of_equals(value: Constants) -> Pair | None:
    """What weights that add up to 1 make of values (..., keys, features) that are the same for every key."""
    keys = value.rank - 2
    if not value.any_known:
        return None
    first = value.exact.narrow(keys, 0, 1)
    return Pair(first, value.known.all(keys, keepdim=True) & (value.exact == first).all(keys, keepdim=True))


def _attends_somewhere(mask: Constants) -> bool:
    """Whether every query is let see some key: one that sees none is 0, or not a number."""
    if not mask.all_known:
        return False
    seen = mask.value if mask.value.dtype == torch.bool else mask.value > -torch.inf
    return bool(seen.any(-1).all())


@transfer(families.EMBEDDING)
def embedding(node: Node, a: Arguments, out: Any) -> Found:
    """A feature that is the same for every word."""
    weight = a["weight"]
    if not weight.all_known:
        return None
    rows_VD = stretch(weight.value, weight.sizes, [0, 1])
    same = (rows_VD == rows_VD[:1]).all(0)
    shape = (*(1 for _ in out.sizes[:-1]), -1)
    return Pair(rows_VD[0].double().reshape(shape), same.reshape(shape))
