"""One process or several that train together; it must never import accelerate for one alone."""

from __future__ import annotations

import importlib
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

import torch
from torch import nn

from compressor.errors import ProviderError
from compressor.training.devices import resolve_device

T = TypeVar("T")


class Accelerator(Protocol):
    """What is used of accelerate's class of that name, which comes without types."""

    device: torch.device
    process_index: int
    num_processes: int

    def prepare_model(self, model: nn.Module) -> nn.Module: ...


@dataclass(frozen=True)
class Processes:
    """This process's device and place among those that train together; one alone has no accelerator.

    With `spreads` each is to hold a part of the weights (`spread`), not all of them.
    """

    device: torch.device
    rank: int = 0
    world: int = 1
    accelerator: Accelerator | None = None
    spreads: bool = False

    @property
    def is_main(self) -> bool:
        return self.rank == 0

    @property
    def shard(self) -> tuple[int, int]:
        return self.rank, self.world

    def wrap(self, module: nn.Module) -> nn.Module:
        """What to call in place of `module` so that gradients are averaged over all processes."""
        return module if self.accelerator is None or self.spreads else self.accelerator.prepare_model(module)

    def how_to_spread(self) -> dict[str, Any]:
        """What `accelerate launch` was told of it, as arguments of torch's `fully_shard`.

        Raises:  ProviderError if parts are to lie on the CPU while the device computes.
        """
        plugin = importlib.import_module("accelerate").FullyShardedDataParallelPlugin()
        if type(plugin.cpu_offload).__name__ == "CPUOffloadPolicy":
            raise ProviderError("--fsdp_offload_params: weights that are spread stay on the device here; leave it out")
        return {"reshard_after_forward": plugin.reshard_after_forward}

    def gather(self, value: T) -> list[T]:
        """The value of every process, in the order of ranks; every process must call it."""
        if self.accelerator is None:
            return [value]
        return importlib.import_module("accelerate.utils").gather_object([value])

    def share_buffers(self, module: nn.Module) -> None:
        """Gives every process the first one's buffers: running statistics saw different batches on each."""
        self.share(module.buffers())

    @torch.no_grad()
    def share(self, tensors: Iterable[torch.Tensor]) -> None:
        """Gives every process the first one's values, in place; the tensors lie on this process's device."""
        if self.accelerator is not None:
            broadcast = importlib.import_module("accelerate.utils").broadcast
            for tensor in tensors:
                tensor.copy_(broadcast(tensor.detach().clone()))


def share_state(module: nn.Module, device: str | torch.device) -> None:
    """Gives every process the first one's parameters and buffers; the module ends on the CPU.

    What is computed on every process alike (a least-squares fit on a GPU) can still differ in its last bit.
    """
    processes = open_processes(device)
    if processes.accelerator is not None:
        module.to(processes.device)
        processes.share([*module.parameters(), *module.buffers()])
        module.to("cpu")


def share_masks(masks: Mapping[str, torch.Tensor], device: str | torch.device) -> dict[str, torch.Tensor]:
    """The first process's masks, on the CPU, for every process."""
    processes = open_processes(device)
    if processes.accelerator is None:
        return dict(masks)
    bits = {name: mask.to(processes.device, torch.uint8) for name, mask in masks.items()}
    processes.share(bits.values())
    return {name: mask.bool().cpu() for name, mask in bits.items()}


def open_processes(device: str | torch.device) -> Processes:
    """This process's place, from the WORLD_SIZE that `torchrun` and `accelerate launch` set.

    Raises:  ProviderError if the device is not there, accelerate is not where there are several, or weights are to be
             spread in another way than that of FSDP2.
    """
    found = resolve_device(str(device))
    if int(os.environ.get("WORLD_SIZE", "1")) <= 1:
        return Processes(found)
    try:
        accelerate = importlib.import_module("accelerate")
    except ImportError as error:
        raise ProviderError(
            f"training in several processes needs accelerate: pip install accelerate ({error})"
        ) from error

    spreads = os.environ.get("ACCELERATE_USE_FSDP", "").lower() in ("true", "1")
    if spreads and os.environ.get("FSDP_VERSION", "1") != "2":
        raise ProviderError("weights are spread by FSDP2 only: accelerate launch --use_fsdp --fsdp_version 2")
    # Precision is the loop's own matter: accelerate would patch the module's forward for it.
    accelerator: Accelerator = accelerate.Accelerator(cpu=found.type == "cpu", mixed_precision="no")
    # It calls the CPU cpu:0, and what is moved there from cpu is copied: away from under those who hold the tensor.
    device = found if found.type == "cpu" else accelerator.device
    return Processes(device, accelerator.process_index, accelerator.num_processes, accelerator, spreads)
