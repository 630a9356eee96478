"""What goes into a network that says so itself, and calling it by those names; it must never hold data."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

from torch import nn


class InputHint(NamedTuple):
    """One input of an architecture. Shapes: shape without N. `high` bounds integer values (exclusive); `free` names the
    dimensions of the shape that take any size, "" for others."""

    name: str
    shape: tuple[int, ...]
    dtype: str = "float32"
    high: int | None = None
    free: tuple[str, ...] = ()


@contextmanager
def taking_by_name(module: nn.Module, names: Sequence[str]) -> Generator[None]:
    """As `takes_by_name`, for the block only: the module is somebody else's."""
    own = vars(module).get("forward")
    takes_by_name(module, names)
    try:
        yield
    finally:
        if own is not None:
            module.forward = own
        else:
            vars(module).pop("forward", None)


def takes_by_name(module: nn.Module, names: Sequence[str]) -> None:
    """Lets the module take its inputs in the order of `names`, where these are parameters of its `forward`.

    So `attention_mask` can be given without what `forward` has between it and `input_ids`.
    """
    forward: Callable[..., Any] = module.forward
    parameters = inspect.signature(forward).parameters
    if list(parameters)[: len(names)] == list(names) or not all(name in parameters for name in names):
        return

    def named_forward(*inputs: Any) -> Any:
        return forward(**dict(zip(names, inputs, strict=True)))

    named_forward.__signature__ = inspect.Signature(
        [inspect.Parameter(name, inspect.Parameter.POSITIONAL_OR_KEYWORD) for name in names]
    )
    module.forward = named_forward
