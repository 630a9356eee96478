"""A network up to layers that the user names: what they return is its output; it must never change weights.

Code behind them may be such that no graph can hold it (decoding, suppression of boxes); it is not run at all.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.fx.experimental.proxy_tensor import get_proxy_mode

from compressor.errors import ModelError, UsageError, first_line
from compressor.nearest import did_you_mean
from compressor.typed_torch import named_modules


class _Reached(BaseException):
    """Every layer has returned: no error, so code of the network that catches all errors does not catch it."""


@contextmanager
def ending_at(module: nn.Module, layers: Sequence[str], examples: Sequence[Tensor]) -> Generator[None]:
    """For the time of the block, a `forward` that ends when the last of the layers has returned, and returns what they
    did: the value itself for one layer that is called once, else a dictionary by the layers' names.

    How often each is called is seen in a call of the whole network with the examples, which may fail behind them.

    Raises:  UsageError for a name that no layer has; ModelError where the network does not call it.
    """
    if not layers:
        yield
        return
    parts = _parts(module, layers)
    whole: Callable[..., Any] = module.forward
    had_own, n_calls = "forward" in vars(module), _calls(module, parts, examples)

    def up_to_layers(*given: Any, **named: Any) -> Any:
        found: dict[str, list[Any]] = {name: [] for name in parts}

        def keep(name: str, result: Any) -> None:
            found[name].append(result)
            if all(len(results) >= n_calls[layer] for layer, results in found.items()):
                raise _Reached

        with _watched(parts, keep), _modules_left():
            try:
                whole(*given, **named)
            except _Reached:
                return _as_output(found)
        raise ModelError(f"--until {', '.join(layers)}: called less often here than for the example inputs")

    up_to_layers.__signature__ = inspect.signature(whole)
    module.forward = up_to_layers  # type: ignore[method-assign]
    try:
        yield
    finally:
        if had_own:
            module.forward = whole  # type: ignore[method-assign]
        else:
            vars(module).pop("forward", None)


def _parts(module: nn.Module, layers: Sequence[str]) -> dict[str, nn.Module]:
    known = {name: part for name, part in named_modules(module, remove_duplicate=False) if name}
    for name in layers:
        if name not in known:
            hint = did_you_mean(name, list(known)) or "`compress analyze` lists the layers of a network that opens"
            raise UsageError(f"--until {name}: the network has no such layer; {hint}")
    return {name: known[name] for name in layers}


def _calls(module: nn.Module, parts: dict[str, nn.Module], examples: Sequence[Tensor]) -> dict[str, int]:
    """How often each layer returns in one call of the network.

    Raises:  ModelError where one never does.
    """
    n_calls, stopped = dict.fromkeys(parts, 0), ""

    def count(name: str, _: Any) -> None:
        n_calls[name] += 1

    with _watched(parts, count), torch.no_grad():
        try:
            module(*examples)
        except Exception as error:  # random inputs may not do for what follows the layers
            stopped = f"; the network stops before, with {type(error).__name__}: {first_line(error)}"
    for name, n in n_calls.items():
        if not n:
            raise ModelError(
                f"--until {name}: the network does not call that layer{stopped or ' for such inputs'}\n"
                "name a layer that it calls, and inputs that it takes with --input"
            )
    return n_calls


@contextmanager
def _watched(parts: dict[str, nn.Module], told: Callable[[str, Any], None]) -> Generator[None]:
    """Tells the name of every layer that returns, and what."""
    handles = [
        part.register_forward_hook(lambda _, __, result, name=name: told(name, result)) for name, part in parts.items()
    ]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


@contextmanager
def _modules_left() -> Generator[None]:
    """While torch.export traces, takes the modules off its stack that the block went into and did not return from: it
    does so itself only where a call returns."""
    mode: Any = get_proxy_mode()
    entered: dict[str, Any] = {} if mode is None else mode.tracer.module_stack
    before = set(entered)
    yield
    for key in [key for key in entered if key not in before]:
        del entered[key]


def _as_output(found: dict[str, list[Any]]) -> Any:
    if [len(results) for results in found.values()] == [1]:
        return next(iter(found.values()))[0]
    return {
        name.replace(".", "_") + (f"_{i}" if len(results) > 1 else ""): result
        for name, results in found.items()
        for i, result in enumerate(results)
    }
