"""Layers that a run leaves as they are while others train; it must never hold masks or run the loop."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from compressor.errors import UsageError
from compressor.program import Program, find_layers
from compressor.sparsity import matching_layers
from compressor.training import BaseHook


class FreezeHook(BaseHook):
    """Holds the layers that one of the globs matches: weights, biases, and the statistics of a batch norm.

    A gradient is taken away altogether: a zero would still let momentum and weight decay move the weight. So this hook
    comes after all that read gradients. What is cut meanwhile is cut, frozen or not.

    Raises:  UsageError if a glob matches no layer, or nothing is left to train.
    Source:  Han et al. 2015, sec. 5: fully connected layers pruned and retrained with convolutions fixed, then the
             reverse.
    """

    def __init__(self, program: Program, globs: Sequence[str]) -> None:
        layers = find_layers(program)
        names = matching_layers(layers, globs, "--freeze")
        held = {tensor for layer in layers if layer.name in names for tensor in layer.tensors}
        parameters = dict(program.module.named_parameters())
        self._parameters = [p for name, p in parameters.items() if name in held]
        if len(self._parameters) == len(parameters):
            raise UsageError(f"--freeze {' '.join(globs)}: freezes every layer; leave one to train")
        buffers = [b for name, b in program.module.named_buffers() if name in held]
        self._buffers: list[tuple[Tensor, Tensor]] = [(buffer, buffer.detach().clone()) for buffer in buffers]

    def on_gradients(self) -> None:
        for parameter in self._parameters:
            parameter.grad = None

    @torch.no_grad()
    def on_update(self) -> None:
        for buffer, kept in self._buffers:
            buffer.copy_(kept)
