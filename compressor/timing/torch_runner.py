"""A program ready to run in torch, as it is or compiled; it must never leave torch's own settings changed."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from compressor.errors import ModelError, ProviderError, UsageError, first_line
from compressor.program import Program
from compressor.timing.providers import Provider, require_torch


class TorchRunner:
    """The program's module on the provider's device, in evaluation mode, with inputs that stay there.

    The number of threads is torch's, for the whole process: whoever measures sets it.
    """

    def __init__(self, program: Program, provider: Provider, name: str) -> None:
        self._device = require_torch(provider)
        self._name, self._program = name, program
        self._compiles = provider.torch_compile
        self._module = program.module.clone().to(self._device).eval()
        self._call: Callable[..., Any] = self._module
        self._inputs: tuple[Tensor, ...] = ()

    def prepare(self, batch: int, seed: int) -> None:
        """Makes random inputs of that batch size and runs once (which compiles, if that was asked for).

        Raises:  UsageError if the program has its batch fixed at another size; ModelError if it cannot run;
                 ProviderError if torch.compile cannot work here.
        """
        if not self._program.has_dynamic_batch and batch != 1:
            raise UsageError(f"--batch {batch}: {self._name} has its batch fixed at 1; bench it at --batch 1")
        floating = next((p.dtype for p in self._module.parameters() if p.is_floating_point()), None)
        examples = self._program.example_inputs(batch, seed=seed, dtype=floating)
        self._inputs = tuple(x.to(self._device) for x in examples)
        if self._compiles:
            self._call = torch.compile(self._module, dynamic=False)
        try:
            self.block(1)
        except Exception as error:  # torch raises anything from IndexError to its compiler's own errors here
            if self._compiles:
                raise ProviderError(
                    f"--provider torch-compile: {self._name} did not compile: {first_line(error)}\n"
                    "torch.compile needs a C++ compiler; --provider cpu runs without"
                ) from error
            raise ModelError(f"{self._name}: torch cannot run it at batch {batch}: {first_line(error)}") from error

    def block(self, n_inner: int) -> float:
        """Seconds of `n_inner` inferences; on CUDA by the device's own clock."""
        return self._block_cuda(n_inner) if self._device.type == "cuda" else self._block_cpu(n_inner)

    @property
    def has_own_memory(self) -> bool:
        """Whether inputs and outputs of a block are in a memory that the CPU does not have."""
        return self._device.type == "cuda"

    def block_with_copies(self, n_inner: int) -> float:
        """The same with the inputs from main memory and the outputs back into it, every time."""
        call, inputs = self._call, tuple(x.cpu() for x in self._inputs)
        with torch.inference_mode():
            started = time.perf_counter()
            for _ in range(n_inner):
                outputs = call(*(x.to(self._device) for x in inputs))
                pytree.tree_map(lambda leaf: leaf.cpu() if isinstance(leaf, Tensor) else leaf, outputs)
            return time.perf_counter() - started

    def elsewhere(self) -> dict[str, int]:
        """Nothing: torch moves no operator to another device by itself."""
        return {}

    def _block_cpu(self, n_inner: int) -> float:
        call, inputs = self._call, self._inputs
        with torch.inference_mode():
            started = time.perf_counter()
            for _ in range(n_inner):
                call(*inputs)
            return time.perf_counter() - started

    def _block_cuda(self, n_inner: int) -> float:
        call, inputs = self._call, self._inputs
        begin, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        with torch.inference_mode():
            torch.cuda.synchronize(self._device)
            begin.record()
            for _ in range(n_inner):
                call(*inputs)
            end.record()
            end.synchronize()
        return begin.elapsed_time(end) / 1e3
