"""What a network of transformers returns as plain tensors: all that its task has, and nothing on the way to it.

These networks return an object with a cache, hidden states and more. Whatever a parameter shows in must be kept, or its
head would be left out of the program; it must never know an architecture by name.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from compressor.errors import ModelError

_ON_THE_WAY = re.compile(
    r"loss|hidden_states?$|attentions?$|past_|cache|^mems$"
    r"|^(encoder|decoder|enc|dec|intermediate|init|auxiliary|aux|denoising|router)_"
)
_BASE = "last_hidden_state"
"""What a network without a task returns."""
_BESIDE_BASE = frozenset({"pooler_output"})


def return_tensors(module: nn.Module) -> None:
    """Lets the module return the tensor of its task, or a dictionary of several by name, instead of the library's
    object."""
    module.forward = _task_forward(module.forward)


def _task_forward(of_library: Callable[..., Any], more: Sequence[str] = ()) -> Callable[..., Any]:
    """A function, as torch's exporter wants it; `more` are outputs beside those of the task."""

    def plain_forward(*arguments: Any, **named: Any) -> Any:
        outputs = of_library(*arguments, **named, return_dict=True)
        found = {name: outputs[name] for name in (*_of_task(outputs), *more)}
        return next(iter(found.values())) if len(found) == 1 else found

    plain_forward.__signature__ = inspect.signature(of_library)
    plain_forward.of_library = of_library  # type: ignore[attr-defined]
    return plain_forward


def keep_every_head(module: nn.Module, names: Sequence[str], inputs: Sequence[Tensor]) -> None:
    """Lets the module return, beside the outputs of its task, every other that a parameter shows in and they do not.

    Nothing for a module that is not transformers', or does not run on these inputs.

    Raises:  ModelError for a parameter that shows in nothing that could be an output.
    """
    of_library = getattr(module.forward, "of_library", None)
    if of_library is None:
        return
    known = set(names) <= set(inspect.signature(of_library).parameters)
    try:
        with torch.enable_grad():
            given = {"return_dict": True, **(dict(zip(names, inputs, strict=True)) if known else {})}
            outputs = of_library(*(() if known else inputs), **given)
    except Exception:  # whoever captures it calls it again, and says what is wrong
        return
    behind = {name: parameters_behind([value]) for name, value in _tensors(outputs)}
    seen = set[int]().union(*(behind[name] for name in _of_task(outputs)))
    more: list[str] = []
    for name, parameters in behind.items():
        if not parameters <= seen:
            more.append(name)
            seen |= parameters
    lost = parameters_behind(pytree.tree_leaves(dict(outputs))) - seen
    if lost:
        named = [name for name, parameter in module.named_parameters() if id(parameter) in lost]
        raise ModelError(
            f"{named[0]}{f' and {len(named) - 1} more' if named[1:] else ''}: show in no output of the network that is "
            f"a tensor\ngive the part of it that is needed, or an architecture of its own (--arch net.py:Net)"
        )
    if more:
        module.forward = _task_forward(of_library, more)


def _tensors(outputs: Mapping[str, Any]) -> Iterator[tuple[str, Tensor]]:
    return ((name, value) for name, value in outputs.items() if isinstance(value, Tensor))


def _of_task(outputs: Mapping[str, Any]) -> list[str]:
    """Names of the outputs of the task; of the base where there is none."""
    names = [name for name, _ in _tensors(outputs) if not _ON_THE_WAY.search(name)]
    if set(names) <= _BESIDE_BASE and isinstance(outputs.get(_BASE), Tensor):
        return [_BASE, *names]
    return names or [name for name, _ in _tensors(outputs)][:1]


def parameters_behind(values: Iterable[Any]) -> set[int]:
    """Identities of the parameters that autograd knows behind the values."""
    waiting = [value.grad_fn for value in values if isinstance(value, Tensor) and value.grad_fn is not None]
    found: set[int] = set()
    seen = set(waiting)
    while waiting:
        step = waiting.pop()
        if (variable := getattr(step, "variable", None)) is not None:
            found.add(id(variable))
        for after, _ in step.next_functions:
            if after is not None and after not in seen:
                seen.add(after)
                waiting.append(after)
    return found
