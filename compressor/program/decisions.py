"""Results that a rounding, chance or saturation decides, and whether another was as good; it must never run a network.

A `topk` orders two scores that differ by one rounding either way, and what follows then differs by all there is. Such
results are taken over from the other side and judged by what they were chosen from: exchanging two scores that are
nearly equal costs nearly nothing, and a place that was never near costs more than rounding explains. Of a sigmoid's
result next to 0 only the steps of its rounding may be left: it is taken over too, and its operand is compared.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal, TypeAlias

import torch
from torch import Tensor
from torch.fx import Node

from compressor.program import families
from compressor.program.arguments import arguments
from compressor.typed_torch import schema_of

Kind: TypeAlias = Literal["order", "extreme", "comparison", "rounding", "random", "saturation"]

_MIXING = ("conv", "linear", "matmul", "mm", "bmm", "addmm", "baddbmm", "einsum", "scaled_dot", "lstm", "gru", "rnn")
"""How the names of operators begin that mix all values, so that what lies before is no longer seen in an output."""

_FEWEST_DRAWS = 16
_LARGEST_Z = 8.0
"""Standard errors by which what was drawn may be off: 6 are passed by chance once in 5e8."""


def kind_of(node: Node) -> Kind | None:
    """What decides the node's result; None if rounding moves it only as far as its operands."""
    target = node.target
    if node.op != "call_function":
        return None
    if target in families.ORDERING or target in families.EXTREMES:
        returns_values = len(schema_of(target).returns) == 2
        if returns_values and not any(user.args[1] == 1 and user.users for user in node.users):
            return None
        return "order" if target in families.ORDERING else "extreme"
    if target in families.COMPARISONS:
        return "comparison"
    if target in families.ROUNDINGS:
        return "rounding"
    return "random" if target in families.DRAWS else None


def saturated(nodes: Sequence[Node]) -> frozenset[str]:
    """Names of the sigmoids and softmaxes that outputs are made of without anything that mixes values in between."""
    found: set[str] = set()
    seen: set[Node] = set()
    left = [node for node in nodes if node.op == "output"]
    while left:
        node = left.pop()
        if node in seen:
            continue
        seen.add(node)
        if node.target in families.SATURATING:
            found.add(node.name)
        elif node.op == "output" or not _mixes(node):
            left += node.all_input_nodes
    return frozenset(found)


def _mixes(node: Node) -> bool:
    schema = getattr(node.target, "_schema", None)
    return schema is not None and schema.name.removeprefix("aten::").startswith(_MIXING)


def decides(kind: Kind, node: Node, given: Mapping[str, Any]) -> bool:
    """Whether, with these operands, rounding or chance has a say: whole numbers are compared and divided exactly."""
    if kind == "random":
        return True
    operands = [value for name in ("self", "other") if isinstance(value := given.get(name), Tensor)]
    if not any(value.is_floating_point() for value in operands):
        return False
    if node.target in families.CASTS:
        return given["dtype"] is not None and not given["dtype"].is_floating_point
    return given.get("rounding_mode", "") is not None


def bound(node: Node, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> dict[str, Any]:
    """The operands of a call by schema name."""
    names = {name: value for name, value in arguments(node).items() if not isinstance(value, Node)}
    return {**names, **dict(zip((a.name for a in schema_of(node.target).arguments), args, strict=False)), **kwargs}


def decision(result: Any) -> Tensor:
    """The part of a result that was decided: the places, not the values found there."""
    return result if isinstance(result, Tensor) else result[1]


def fitted(kind: Kind, given: Mapping[str, Any], result: Any, decided: Tensor) -> Tensor | None:
    """The decision in the shape of the result's: the first places of an order with all others behind them.

    None if it is another operator's.
    """
    own = decision(result)
    if decided.shape == own.shape:
        return decided
    if kind != "order" or decided.dim() != own.dim():
        return None
    dim: int = given["dim"]
    n_more = own.shape[dim] - decided.shape[dim]
    if (
        n_more < 0
        or own.shape != given["self"].shape
        or (*decided.shape[:dim], own.shape[dim], *decided.shape[dim:][1:]) != (*own.shape,)
    ):
        return None
    taken = torch.zeros_like(own, dtype=torch.bool).scatter(
        dim, decided.to(torch.int64).clamp(0, own.shape[dim] - 1), True
    )
    behind = taken.gather(dim, own).to(torch.int64).argsort(dim=dim, stable=True).narrow(dim, 0, n_more)
    return torch.cat([decided, own.gather(dim, behind).to(decided.dtype)], dim)


def redecided(kind: Kind, given: Mapping[str, Any], result: Any, decided: Tensor) -> Any:
    """The result that the operator would have had with that decision; places outside become the last one."""
    if kind in ("order", "extreme"):
        values: Tensor = given["self"]
        along: int | None = given["dim"]
        decided = decided.clamp(0, (values.numel() if along is None else values.shape[along]) - 1)
    if isinstance(result, Tensor):
        return decided.to(result.dtype)
    places, dim = decided.to(torch.int64), int(given["dim"] or 0)
    if kind == "order" or given["keepdim"]:
        return given["self"].gather(dim, places), places
    return given["self"].gather(dim, places.unsqueeze(dim)).squeeze(dim), places


def compared(kind: Kind, node: Node, given: Mapping[str, Any], result: Any, decided: Tensor) -> tuple[Tensor, Tensor]:
    """What the operator would have chosen from, and what that decision chose: equal but for near-ties.

    For a rounding and a comparison it is the operand, and the nearest one that gives that decision. The second is NaN
    where no operand gives it: a place outside, or taken twice.
    """
    if kind == "random":
        chances = given["self"] if node.target in families.COIN_FLIPS else None
        return _draws_compared(result, decided, chances)
    if kind == "comparison":
        margin = given["self"] - given["other"]
        return margin, torch.where(decided.to(torch.bool) == result, margin, torch.zeros_like(margin))
    if kind == "rounding":
        return _roundings_compared(node, given, decided)
    values: Tensor = given["self"]
    dim = int(given["dim"] or 0)
    places = decided.to(torch.int64)
    if given["dim"] is None:
        values, places = values.flatten(), places.reshape(1)
    elif kind == "extreme" and not given["keepdim"]:
        places = places.unsqueeze(dim)
    own = decision(result).reshape(places.shape)
    best = values.gather(dim, own)
    n = values.shape[dim]
    fits = (places >= 0) & (places < n)
    taken = values.gather(dim, places.clamp(0, n - 1)).where(fits, float("nan"))
    if kind == "order":
        best, taken = _in_order(best, taken, places, dim, given)
    return best, taken


def _in_order(best: Tensor, taken: Tensor, places: Tensor, dim: int, given: Mapping[str, Any]) -> tuple[Tensor, Tensor]:
    """Both with NaN where a place was taken twice, and sorted where no order was asked for."""
    sorted_places = places.sort(dim).values
    n = places.shape[dim]
    twice = sorted_places.narrow(dim, 1, n - 1) == sorted_places.narrow(dim, 0, n - 1) if n > 1 else None
    if twice is not None and bool(twice.any()):
        taken = taken.masked_fill(twice.any(dim, keepdim=True), float("nan"))
    if given.get("sorted", True):
        return best, taken
    return best.sort(dim).values, taken.sort(dim).values


def _roundings_compared(node: Node, given: Mapping[str, Any], decided: Tensor) -> tuple[Tensor, Tensor]:
    operand, target = given["self"], node.target
    if target in families.WHOLE_DIVISIONS:
        operand = operand / given["other"]
    whole = decided.to(operand.dtype)
    name = given.get("rounding_mode") or schema_of(target).name.removeprefix("aten::")
    if decided.dtype == torch.bool:
        return operand, torch.where(decided == (operand != 0), operand, torch.zeros_like(operand))
    zero = torch.zeros_like(whole)
    if name == "sign":
        infinite = torch.full_like(whole, float("inf"))
        low, high = torch.where(whole < 0, -infinite, zero), torch.where(whole > 0, infinite, zero)
    elif name == "round":
        step = 10.0 ** -given.get("decimals", 0)
        low, high = whole - step / 2, whole + step / 2
    elif name in ("floor", "floor_divide"):
        low, high = whole, whole + 1
    elif name == "ceil":
        low, high = whole - 1, whole
    else:  # towards zero
        low, high = torch.where(whole > 0, whole, whole - 1), torch.where(whole < 0, whole, whole + 1)
    return operand, torch.minimum(torch.maximum(operand, low), high)


def _draws_compared(own: Tensor, other: Tensor, chances: Tensor | None) -> tuple[Tensor, Tensor]:
    """A pair of zeros, or of zero and NaN if the two are not draws from one distribution.

    Told by mean and spread; and where each number has a chance of its own, by what goes together with that.
    """
    a, b = own.to(torch.float64).flatten(), other.to(torch.float64).flatten()
    alike = bool(b.isfinite().all())
    if alike and a.numel() >= _FEWEST_DRAWS:
        alike = _within_chance(a - b) and _within_chance((a - a.mean()).square() - (b - b.mean()).square())
    if alike and chances is not None:
        p = chances.to(torch.float64).flatten()
        alike = bool(((b == 0) & (p < 1) | (b == 1) & (p > 0)).all()) and _within_chance((b - p) * (p - p.mean()))
    zero = torch.zeros(1, dtype=torch.float64)
    return zero, zero if alike else zero + float("nan")


def _within_chance(values: Tensor) -> bool:
    """Whether a mean of 0 explains these numbers."""
    error = values.std() / values.numel() ** 0.5 if values.numel() > 1 else values.abs()
    return bool(values.mean().abs() <= _LARGEST_Z * error)
