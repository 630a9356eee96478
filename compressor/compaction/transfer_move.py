"""Transfers of operators that only move data: the operator itself, run on the values and on what is unknown.

It must never hold index arithmetic of its own.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.fx import Node

from compressor.axes.labels import reshape_steps
from compressor.compaction.constants import Arguments, Constants, Found, Pair, run, stretch, transfer
from compressor.program import families


@transfer(families.VIEWS)
def view(node: Node, a: Arguments, out: Any) -> Found:
    """Reshaped; only the runs of dimensions along which something differs are expanded."""
    x = a["self"]
    return _each(x, lambda t: _reshape(t, x.sizes, out.sizes))


def _reshape(tensor: Tensor, before: Sequence[int], after: Sequence[int]) -> Tensor:
    expanded, result = reshape_steps(tensor.shape, before, after)
    return tensor.expand(expanded).reshape(result)


def _each(x: Constants, move: Callable[[Tensor], Tensor]) -> Found:
    return Pair(move(x.exact), move(x.known)) if x.any_known else None


@transfer(families.TRANSPOSE, families.FLIP, families.ROTATE)
def rearrange(node: Node, a: Arguments, out: Any) -> Found:
    """The operator on tensors of size 1 where nothing differs."""
    return _each(a["self"], lambda t: node.target(**{**a, "self": t}))  # type: ignore[operator]


@transfer(families.EXPAND, families.EXPAND_AS)
def expand(node: Node, a: Arguments, out: Any) -> Found:
    """Nothing differs along a stretched dimension."""
    x = a["self"]
    return _each(x, lambda t: t.reshape((1,) * (len(out.sizes) - x.rank) + tuple(t.shape)))


@transfer(families.REPEAT)
def repeat(node: Node, a: Arguments, out: Any) -> Found:
    """Repeated along the dimensions where something differs."""
    x, rank = a["self"], len(out.sizes)
    times = list(a["repeats"] if "repeats" in a else a["dims"])
    times = [1] * (rank - len(times)) + times

    def repeated(tensor: Tensor) -> Tensor:
        lifted = tensor.reshape((1,) * (rank - x.rank) + tuple(tensor.shape))
        return lifted.repeat([n if lifted.shape[dim] > 1 else 1 for dim, n in enumerate(times)])

    return _each(x, repeated)


@transfer(
    families.PARTS, families.REPEAT_INTERLEAVE, families.CHANNEL_SHUFFLE, families.PIXEL_SHUFFLE, families.INDEX_SELECT
)
def along_some(node: Node, a: Arguments, out: Any) -> Found:
    """The operator on tensors that have their full size along the dimensions it works on."""
    x = a["self"]
    if not x.any_known or ("index" in a and isinstance(a["index"], Constants) and not a["index"].all_known):
        return None
    if node.target in families.CHANNEL_SHUFFLE:
        dims: Sequence[int] = [1]
    elif "dim" in a:
        dims = x.normal_dims(a["dim"])
    else:
        dims = range(x.rank - 3, x.rank)
    values = run(node, a, lambda c: stretch(c.exact, c.sizes, dims) if c is x else c.along(range(c.rank)).value)
    unknown = run(node, a, lambda c: _unknown(c, dims) if c is x else c.along(range(c.rank)).value)
    if isinstance(values, Tensor):
        return Pair(values, unknown == 0)
    return [Pair(value, part == 0) for value, part in zip(values, unknown, strict=True)]


def _unknown(x: Constants, dims: Sequence[int]) -> Tensor:
    """1 where something depends on the input: operators that pad with zeros then say by themselves what is known."""
    return stretch(~x.known, x.sizes, dims).double()


@transfer(families.DISPLACE, families.TO_COLUMNS)
def displace(node: Node, a: Arguments, out: Any) -> Found:
    """The operator on tensors of full size."""
    x = a["self"]
    if not x.any_known:
        return None
    every = range(x.rank)
    return Pair(run(node, a, lambda c: c.along(every).value), run(node, a, lambda c: _unknown(c, every)) == 0)


@transfer(families.CAT, families.STACK)
def concatenate(node: Node, a: Arguments, out: Any) -> Found:
    """Concatenated; a part of which nothing is known stays unknown."""
    rank = len(out.sizes)
    dim = a["dim"] % rank
    parts: list[Constants] = list(a["tensors"])
    if not any(part.any_known for part in parts):
        return None
    if node.target in families.STACK:
        pairs = [Pair(part.exact.unsqueeze(dim), part.known.unsqueeze(dim)) for part in parts]
    else:
        pairs = [part.along([dim]) for part in parts if part.rank == rank]
    return Pair(_joined([p.value for p in pairs], dim), _joined([p.known for p in pairs], dim))


def _joined(parts: Sequence[Tensor], dim: int) -> Tensor:
    sizes = [max(sizes) for sizes in zip(*(part.shape for part in parts), strict=True)]
    kind = parts[0].dtype if all(part.dtype == parts[0].dtype for part in parts) else torch.float64
    return torch.cat([p.to(kind).expand([*sizes[:dim], p.shape[dim], *sizes[dim + 1 :]]) for p in parts], dim)


@transfer(families.PAD)
def pad(node: Node, a: Arguments, out: Any) -> Found:
    """A constant padding is known; copies are known where what they copy is."""
    if a.get("mode", "constant") != "constant":
        return displace(node, a, out)
    x, amounts = a["self"], list(a["pad"])
    padded = [x.rank - 1 - i // 2 for i, amount in enumerate(amounts) if amount]
    amounts = [amount if x.rank - 1 - i // 2 in padded else 0 for i, amount in enumerate(amounts)]
    value, known = x.along(padded)
    fill = a.get("value") or 0.0
    return Pair(F.pad(value, amounts, value=fill), F.pad((~known).double(), amounts) == 0)


@transfer(families.INDEX)
def index(node: Node, a: Arguments, out: Any) -> Found:
    """The operator with the constant indices it has."""
    x, indices = a["self"], [i for i in a["indices"] if i is not None]
    if not x.any_known or not all(i.all_known for i in indices):
        return None
    every = range(x.rank)
    values = run(node, a, lambda c: c.along(range(c.rank)).value)
    return Pair(values, run(node, a, lambda c: _unknown(c, every) if c is x else c.along(range(c.rank)).value) == 0)
