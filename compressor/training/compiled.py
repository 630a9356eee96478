"""The training step through torch.compile; it must never be what runs where nobody asked for it."""

from __future__ import annotations

from collections.abc import Callable, Generator
from contextlib import contextmanager
from types import FunctionType
from typing import Any

import torch

from compressor.errors import TrainingError, first_line

_torch: Any = torch  # its stubs leave options of compile out


def compiled(function: Callable[..., Any], device: torch.device) -> Any:
    """What to call in place of the function: kernels are fused at the first call, on the same parameters.

    On an NVIDIA GPU they are recorded as CUDA graphs too, forward and backward one launch each: small networks spend
    their time launching.
    """
    return _torch.compile(_of_its_own(function), mode="reduce-overhead" if device.type == "cuda" else None)


def _of_its_own(function: Callable[..., Any]) -> Callable[..., Any]:
    """The function under a code object that no other call has: the compiler counts what it made of each code, and
    leaves a program that trains many times uncompiled from the ninth time on."""

    def call(*given: Any) -> Any:
        return function(*given)

    return FunctionType(call.__code__.replace(), call.__globals__, call.__name__, None, call.__closure__)


def step_begins(device: torch.device, is_compiled: bool) -> None:
    """Tells recorded graphs that nobody reads the results of the step before any more."""
    if is_compiled and device.type == "cuda":
        torch.compiler.cudagraph_mark_step_begin()


@contextmanager
def compiler_named() -> Generator[None]:
    """For the time of the block, what the compiler cannot do is an error of the option that asked for it.

    Raises:  TrainingError.
    """
    from torch._dynamo.exc import TorchDynamoException

    try:
        yield
    except TorchDynamoException as error:
        raise TrainingError(
            f"--compile: torch.compile cannot compile this training step: {first_line(error)}\n"
            "it needs a C++ compiler, on a GPU Triton; without --compile the step runs as it is"
        ) from error
