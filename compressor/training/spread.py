"""Weights spread over the processes that train together, by FSDP2: each holds a part of every tensor, of its gradient
and of what the optimizer keeps of it. Whole tensors come together for a forward and a backward pass, for the choice of
what is cut, and for a checkpoint, which is that of one process.

torch spreads and gathers, accelerate says that it should. It must never know of masks or of what a hook does.
"""

from __future__ import annotations

import importlib
import math
from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from compressor.errors import UsageError
from compressor.narrowing import is_mapping, is_row
from compressor.training.processes import Processes, open_processes


class Spread(nn.Module):
    """Called in place of a network whose parameters it spread; states go in and out whole, by the network's names.

    A number alone is no tensor with rows: every process keeps those, and their gradients are averaged (`settle`).
    """

    def __init__(self, network: nn.Module, processes: Processes) -> None:
        super().__init__()
        self.network = network
        fsdp: Any = importlib.import_module("torch.distributed.fsdp")
        meshes: Any = importlib.import_module("torch.distributed.device_mesh")
        numbers = {parameter for parameter in network.parameters() if parameter.dim() == 0}
        mesh = meshes.init_device_mesh(processes.device.type, (processes.world,))
        fsdp.fully_shard(self, mesh=mesh, ignored_params=numbers, **processes.how_to_spread())

    def forward(self, *inputs: Any) -> Any:
        return self.network(*inputs)

    def named_parameters(
        self, prefix: str = "", recurse: bool = True, remove_duplicate: bool = True
    ) -> Iterator[tuple[str, nn.Parameter]]:
        """Those of the network, under its names."""
        return self.network.named_parameters(prefix, remove_duplicate=remove_duplicate) if recurse else iter(())

    def state_dict(self, *args: Any, **kwargs: Any) -> Any:
        """Whole tensors; every process must ask."""
        network: Any = self.network
        state: Mapping[str, Tensor] = network.state_dict(*args, **kwargs)
        return {name: gathered(tensor) for name, tensor in state.items()}

    @torch.no_grad()
    def load_state_dict(self, state_dict: Mapping[str, Any], strict: bool = True, assign: bool = False) -> Any:
        """Takes whole tensors."""
        for name, tensor in self.network.state_dict().items():
            held(tensor).copy_(own_part(state_dict[name], tensor))

    def come_together(self) -> None:
        """The network has plain parameters again, on the CPU."""
        _fsdp(self).reshard()
        for name, parameter in list(self.network.named_parameters()):
            owner, _, last = name.rpartition(".")
            whole = nn.Parameter(gathered(parameter.detach()).to("cpu"), parameter.requires_grad)
            setattr(self.network.get_submodule(owner), last, whole)


@contextmanager
def spread(network: nn.Module, device: str | torch.device) -> Generator[Spread | None]:
    """The network with its parameters spread, for the block; None where the launcher asks for nothing of the kind."""
    processes = open_processes(device)
    if not processes.spreads:
        yield None
        return
    found = Spread(network, processes)
    yield found
    found.come_together()


def refuse_spread(what: str) -> UsageError:
    """What does not go with weights that are spread."""
    return UsageError(f"{what} does not go with weights that are spread over processes; launch without --use_fsdp")


@contextmanager
def whole(module: nn.Module) -> Generator[None]:
    """For the block the parameters are whole, so that each process may call the network as often as it likes."""
    if not isinstance(module, Spread):
        yield
        return
    state = _fsdp(module)
    state.unshard()
    yield
    state.reshard()


def is_spread(tensor: Tensor) -> bool:
    """Whether this process holds a part of it only."""
    return hasattr(tensor, "to_local")


def held(tensor: Tensor) -> Tensor:
    """What this process holds of it, sharing its memory."""
    part: Any = tensor
    return part.detach().to_local() if is_spread(tensor) else tensor


def own_part(value: Tensor, like: Tensor) -> Tensor:
    """What belongs to this process of a whole tensor that lies as `like` does."""
    if not is_spread(like):
        return value
    spread_like: Any = like
    tensors: Any = importlib.import_module("torch.distributed.tensor")
    mesh, placements = spread_like.device_mesh, spread_like.placements
    there = value.to(spread_like.device).contiguous()
    return tensors.distribute_tensor(there, mesh, placements, src_data_rank=None).to_local()


def gathered(tensor: Tensor, like: Tensor | None = None) -> Tensor:
    """The whole of it: of what is spread, or of a part that lies as `like` does. Every process must ask."""
    found: Any = tensor
    if is_spread(tensor):
        return found.full_tensor()
    if like is None or not is_spread(like):
        return tensor
    spread_like: Any = like
    tensors: Any = importlib.import_module("torch.distributed.tensor")
    return tensors.DTensor.from_local(
        tensor, spread_like.device_mesh, spread_like.placements, run_check=False, shape=like.shape, stride=like.stride()
    ).full_tensor()


def all_gathered(value: Any) -> Any:
    """A state with every tensor in it whole."""
    if isinstance(value, Tensor):
        return gathered(value)
    if is_mapping(value):
        return {key: all_gathered(entry) for key, entry in value.items()}
    return type(value)(all_gathered(entry) for entry in value) if is_row(value) else value


def placed(state: Mapping[str, Any], optimizer: torch.optim.Optimizer) -> dict[str, Any]:
    """An optimizer's state with what belongs to this process, where its parameters are spread."""
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    entries: dict[int, Any] = {}
    for number, entry in state["state"].items():
        like = parameters[number]
        entries[number] = {
            name: _as_spread(value, like) if isinstance(value, Tensor) and value.dim() else value
            for name, value in entry.items()
        }
    return {**state, "state": entries}


def total(value: float, tensors: Sequence[Tensor]) -> float:
    """The sum over all processes of what each has of these tensors; itself where none is spread."""
    first = next((tensor for tensor in tensors if is_spread(tensor)), None)
    if first is None:
        return value
    distributed: Any = importlib.import_module("torch.distributed")
    summed = torch.tensor([value], dtype=torch.float32 if first.device.type == "mps" else torch.float64)
    summed = summed.to(first.device)
    distributed.all_reduce(summed)
    return float(summed)


def settle(parameters: Sequence[Tensor], processes: Processes) -> None:
    """Averages the gradients of parameters that every process keeps beside spread ones."""
    if processes.spreads:
        distributed: Any = importlib.import_module("torch.distributed")
        for parameter in parameters:
            if not is_spread(parameter) and parameter.grad is not None:
                distributed.all_reduce(parameter.grad)
                parameter.grad /= processes.world


def clip_gradients(parameters: Sequence[Tensor], longest: float) -> None:
    """`clip_grad_norm_` that also takes spread gradients beside others."""
    if not any(map(is_spread, parameters)):
        nn.utils.clip_grad_norm_(parameters, longest)
        return
    parts = [(held(p.grad), is_spread(p)) for p in parameters if p.grad is not None]
    squares = {True: 0.0, False: 0.0}
    for gradient, is_part in parts:
        squares[is_part] += float(gradient.float().square().sum())
    length = math.sqrt(total(squares[True], parameters) + squares[False])
    if length > longest:
        for gradient, _ in parts:
            gradient.mul_(longest / (length + 1e-6))


def _as_spread(value: Tensor, like: Tensor) -> Tensor:
    if not is_spread(like):
        return value
    spread_like: Any = like
    tensors: Any = importlib.import_module("torch.distributed.tensor")
    part = own_part(value, like)
    return tensors.DTensor.from_local(
        part, spread_like.device_mesh, spread_like.placements, run_check=False, shape=like.shape, stride=like.stride()
    )


def _fsdp(module: nn.Module) -> Any:
    """The module as what torch made of it, which its stubs do not know."""
    return module
