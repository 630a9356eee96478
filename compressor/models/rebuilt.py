"""The network that a file remembers, made anew by the library that it names: for its code, not for its weights.

It must never run code of anybody's but that library's, nor build more than the weights that are there account for.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from compressor.architectures import is_code
from compressor.errors import ModelError
from compressor.models.budget import Budget, counted
from compressor.models.hf_directory import new_network
from compressor.models.registry import build
from compressor.models.task_outputs import return_tensors

_LARGEST = 4096
"""What numbers among the arguments may come to where no weight has such a size: sides of images, counts of layers."""


def rebuilt(
    arch: str | None, arch_args: Mapping[str, object], configuration: Mapping[str, Any], weights: Mapping[str, Tensor]
) -> nn.Module | None:
    """The module of a library, with initial weights; None for an architecture that is bundled, unknown or code.

    Raises:  ModelError and relatives if the library is missing, fails, or would build something larger than the
             weights account for.
    """
    prefix, colon, _ = (arch or "").partition(":")
    if arch is None or not colon or is_code(arch):
        return None
    largest = max([_LARGEST, *(size for tensor in weights.values() for size in tensor.shape)])
    for name, value in arch_args.items():
        if isinstance(value, (int, float)) and abs(value) > largest:
            raise ModelError(f"--arch-arg {name}={value}: is remembered, and larger than any weight that is there")
    with counted(arch, Budget.of_weights(weights)):
        if prefix != "transformers":
            return build(arch, arch_args, seed=0, trust_code=False).module
        if not configuration:
            return None
        module = new_network(configuration)
    return_tensors(module)
    return module
