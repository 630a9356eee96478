"""The training step through torch.compile; it must never be what runs where nobody asked for it."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

from compressor.errors import TrainingError, first_line

_torch: Any = torch  # its stubs leave options of compile out


def compiled(module: nn.Module) -> Any:
    """What to call in place of the module: kernels are fused at the first call, on the same parameters."""
    return _torch.compile(module)


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
