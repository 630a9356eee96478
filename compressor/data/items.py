"""From what a user's data set gives to a batch: which parts go in, which is the target; and batches cut and joined.

It must never fetch anything.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from compressor.data.source import Batch
from compressor.errors import DataError
from compressor.narrowing import is_mapping, is_row

TARGETS = ("target", "targets", "label", "labels", "y")
"""What the target is called in an item that is a dictionary."""


class Wanted(NamedTuple):
    """An input that a model takes. Shapes: shape without N; None where the model takes any size."""

    name: str
    shape: tuple[int | None, ...]
    is_floating: bool


def as_batch(collated: Any, where: str, chosen: Sequence[str] | None = None) -> Batch:
    """The batch in collated items: `(input, ..., target)`, or a dictionary of inputs by name and a target.

    `chosen` are the names of the inputs in their order, where inputs have names.

    Raises:  DataError if there is no telling which part is what, or an input is no tensor.
    """
    inputs, target = _parted(collated, where)
    if is_mapping(inputs):
        missing = [name for name in chosen or () if name not in inputs]
        if missing:
            raise DataError(f"{where}: an item lacks {missing[0]}, which the first item has")
        tensors = {str(name): value for name, value in inputs.items() if isinstance(value, Tensor)}
        inputs = [inputs[name] for name in chosen] if chosen is not None else list(tensors.values())
    if not inputs or not all(isinstance(x, Tensor) for x in inputs):
        kinds = ", ".join(type(x).__name__ for x in inputs) or "none"
        raise DataError(f"{where}: inputs must be tensors or numbers, got {kinds}")
    return Batch(tuple(inputs), target)


def named_inputs(collated: Any, where: str) -> dict[str, Tensor]:
    """Inputs by name; none where items are no dictionaries."""
    inputs, _ = _parted(collated, where)
    if not is_mapping(inputs):
        return {}
    return {str(name): value for name, value in inputs.items() if isinstance(value, Tensor)}


def choose_inputs(known: Mapping[str, Tensor], wanted: Sequence[Wanted], where: str) -> tuple[str, ...]:
    """Which of the named inputs the model takes, in its order: those of its names, else the ones of its sizes.

    Raises:  DataError if neither tells them apart.
    """
    if all(spec.name in known for spec in wanted):
        return tuple(spec.name for spec in wanted)
    if len(known) == len(wanted):
        return tuple(known)
    fitting = [[name for name, value in known.items() if _fits(value, spec)] for spec in wanted]
    if all(len(names) == 1 for names in fitting) and len({names[0] for names in fitting}) == len(wanted):
        return tuple(names[0] for names in fitting)
    takes = ", ".join(spec.name for spec in wanted)
    raise DataError(
        f"{where}: an item has the inputs {', '.join(known)}, but the model takes {takes};\n"
        "give them the model's names, or leave out what is no input"
    )


def _fits(value: Tensor, spec: Wanted) -> bool:
    sizes = zip(value.shape[1:], spec.shape, strict=False)
    same = value.dim() - 1 == len(spec.shape) and all(size in (given, None) for given, size in sizes)
    return same and value.is_floating_point() == spec.is_floating


def _parted(collated: Any, where: str) -> tuple[Any, Any]:
    """Inputs, as a list or by name, and the target."""
    if is_mapping(collated):
        found = [name for name in collated if str(name).lower() in TARGETS]
        if len(found) != 1:
            named = ", ".join(map(str, collated))
            told = f"two targets, {' and '.join(map(str, found[:2]))}" if found else "no target"
            raise DataError(
                f"{where}: an item that is a dictionary ({named}) has {told}; call one of it {', '.join(TARGETS)}"
            )
        return {name: value for name, value in collated.items() if name != found[0]}, collated[found[0]]
    if not is_row(collated) or len(collated) < 2:
        raise DataError(
            f"{where}: an item must be a tuple (input, ..., target) or a dictionary with a "
            f"{' or '.join(TARGETS[::2])}, got {_kind(collated)}"
        )
    *inputs, target = collated
    if len(inputs) == 1 and (is_row(inputs[0]) or is_mapping(inputs[0])):
        return inputs[0], target
    return inputs, target


def _kind(value: Any) -> str:
    return f"{len(value)} value" if is_row(value) else f"a {type(value).__name__}"


def part_of(batch: Batch, part: slice) -> Batch:
    """Some of its samples."""
    n = len(batch.inputs[0])
    return Batch(tuple(x[part] for x in batch.inputs), _part(batch.target, part, n))


def joined(batches: Sequence[Batch], where: str) -> Batch:
    """All of their samples.

    Raises:  DataError if they have different sizes.
    """
    if len(batches) == 1:
        return batches[0]
    try:
        inputs = tuple(torch.cat(tensors) for tensors in zip(*(batch.inputs for batch in batches), strict=True))
        sizes = [len(batch.inputs[0]) for batch in batches]
        return Batch(inputs, _join([batch.target for batch in batches], sizes))
    except (RuntimeError, ValueError, KeyError, TypeError) as error:
        raise DataError(f"{where}: samples of different sizes do not make a batch: {error}") from error


def _part(target: Any, part: slice, n: int) -> Any:
    if isinstance(target, Tensor):
        return target[part]
    if is_mapping(target):
        return {name: _part(value, part, n) for name, value in target.items()}
    if is_row(target):
        return list(target)[part] if _is_by_sample(target, n) else [_part(value, part, n) for value in target]
    raise DataError(f"a target that is a {type(target).__name__} cannot be cut into samples; return tensors")


def _join(targets: Sequence[Any], sizes: Sequence[int]) -> Any:
    first = targets[0]
    if isinstance(first, Tensor):
        return torch.cat(list(targets))
    if is_mapping(first):
        return {name: _join([target[name] for target in targets], sizes) for name in first}
    if is_row(first):
        if all(_is_by_sample(target, n) for target, n in zip(targets, sizes, strict=True)):
            return [sample for target in targets for sample in target]
        return [_join(list(parts), sizes) for parts in zip(*targets, strict=True)]
    raise DataError(f"targets that are {type(first).__name__} cannot be joined; return tensors")


def _is_by_sample(target: Sequence[Any], n: int) -> bool:
    """Whether a list has an entry for each of `n` samples, as of boxes, and not one for each part of all samples."""
    parts = [value for value in target if isinstance(value, Tensor)]
    whole = len(parts) == len(target) and all(value.dim() and len(value) == n for value in parts)
    nested = any(isinstance(value, Mapping | tuple | list) for value in target)
    return len(target) == n and (nested or not whole)
