"""What the values of one call must be to each other where the kernels trust their caller; found without computing.

It must never hold what shape inference finds out by itself. Each rule here stands for a kernel that crashed, or read
what is not its own, on values whose shapes its meta form had let pass.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

import torch
from torch import fx
from torch.fx.node import map_arg

from compressor.errors import ModelError
from compressor.formats.allowed import target_text
from compressor.formats.divisors import Tensors, never_minus_one
from compressor.program import arguments, families
from compressor.program.shapes import Shapes, TensorShape

Given: TypeAlias = Mapping[str, Any]
Contract: TypeAlias = "Callable[[Given], str | None]"
"""Arguments by schema name, shapes in place of tensors -> what is wrong, None for nothing."""

_NEVER_MINUS_ONE = "never -1"
"""Under this the arguments hold the names of those whose values are proven not to be -1."""

_MOST_TIMES = 64

_BY_NAME: dict[str, Contract] = {}


def _contract(*names: str) -> Callable[[Contract], Contract]:
    def enter(function: Contract) -> Contract:
        for name in names:
            if name in _BY_NAME:
                raise ValueError(f"{name} has two contracts")
            _BY_NAME[name] = function
        return function

    return enter


def check_contracts(graph: fx.Graph, shapes: Shapes, tensors: Tensors) -> None:
    """Nothing, when every call may be run on values of these shapes; `tensors` are those that the graph reads.

    Raises:  ModelError naming the first that may not, and why.
    """
    looked_up: Any = shapes  # map_arg is typed for nodes only
    for node in graph.nodes:
        found = _BY_NAME.get(families.operator_name(node.target).removesuffix("_"))
        if found is None:
            continue
        given = arguments(node)
        proven = frozenset(name for name, value in given.items() if never_minus_one(value, tensors))
        wrong = found({**map_arg(given, lambda n: looked_up.get(n.name)), _NEVER_MINUS_ONE: proven})
        if wrong is not None:
            raise ModelError(f"{node.name}: {target_text(node.target)}: {wrong}")


@_contract("div", "divide")
def _division(given: Given) -> str | None:
    """The smallest whole number has no negative: the processor ends a program that divides it by -1."""
    operands = [given["self"], given["other"]]
    types = {operand.dtype for operand in operands if isinstance(operand, TensorShape)}
    divides_fractions = any(kind.is_floating_point or kind.is_complex for kind in types) or isinstance(
        operands[1], float
    )
    if given.get("rounding_mode") != "trunc" or divides_fractions or not types & {torch.int32, torch.int64}:
        return None
    if "other" in given[_NEVER_MINUS_ONE]:
        return None
    return "whole numbers are divided by what may be -1, rounded towards 0; divide by a number, or round down"


@_contract("_weight_norm", "_weight_norm_interface")
def _weight_norm(given: Given) -> str | None:
    v, g, dim = given["v"], given["g"], given["dim"]
    if v.dtype != g.dtype or not v.dtype.is_floating_point or not -1 <= dim < len(v.sizes):
        return "the norms must be of the type of the weight, and along one of its dimensions"
    if dim == -1:  # one norm of the whole
        return None if g.numel == 1 else f"the norm must be one number, not {list(g.sizes)}"
    wanted = [size if i == dim else 1 for i, size in enumerate(v.sizes)]
    return None if list(g.sizes) == wanted else f"the norms must be {wanted}, not {list(g.sizes)}"


@_contract("_native_batch_norm_legit_no_training", "native_batch_norm", "batch_norm", "instance_norm")
def _per_channel(given: Given) -> str | None:
    x = given["input"]
    names = [n for n in ("weight", "bias", "running_mean", "running_var") if given[n] is not None]
    if len(x.sizes) < 2:
        return "there is no dimension of channels"
    wrong = [name for name in names if given[name].sizes != x.sizes[1:2]]
    return f"{wrong[0]} must have a value for each of {x.sizes[1]} channels" if wrong else None


@_contract("native_group_norm", "group_norm")
def _per_group(given: Given) -> str | None:
    x = given["input"]
    channels = given["C"] if "C" in given else x.sizes[1] if len(x.sizes) > 1 else 0
    groups = given["group"] if "group" in given else given["num_groups"]
    if len(x.sizes) < 2 or groups < 1 or channels != x.sizes[1] or channels % groups:
        return "the channels must be a multiple of the groups"
    if "C" in given and (given["N"] != x.sizes[0] or given["HxW"] * channels * x.sizes[0] != x.numel):
        return "its sizes must be those of its input"
    wrong = [n for n in ("weight", "bias") if given[n] is not None and given[n].sizes != (channels,)]
    return f"{wrong[0]} must have a value for each of {channels} channels" if wrong else None


@_contract("diff", "matrix_power", "linalg_matrix_power")
def _repeated(given: Given) -> str | None:
    """One pass over the operand for each time; a network says a handful."""
    if abs(given["n"]) > _MOST_TIMES:
        return f"it is repeated {given['n']:,} times; more than {_MOST_TIMES} are not read"
    return None


@_contract("select", "select_scatter", "slice_scatter", "diagonal_scatter")
@_contract("softmax", "special_softmax", "_softmax", "sort", "argsort")
def _along(given: Given) -> str | None:
    """Dimensions that the meta form takes for others."""
    rank = max(len(given["self"].sizes), 1)
    dims = [given[name] for name in ("dim", "dim1", "dim2") if type(given.get(name)) is int]
    wrong = [dim for dim in dims if not -rank <= dim < rank]
    return f"there is no dimension {wrong[0]} of {rank}" if wrong else None


@_contract("channel_shuffle", "native_channel_shuffle")
def _shuffled(given: Given) -> str | None:
    sizes, groups = given["self"].sizes, given["groups"]
    if len(sizes) < 3 or groups < 1 or sizes[1] % groups:
        return "the channels must be a multiple of the groups"
    return None
