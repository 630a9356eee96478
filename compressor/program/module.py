"""The runnable form of a program: an `nn.Module` whose `train()` and `eval()` reach into the graph.

It must never hold masks or anything else that a plain training loop would not expect of a module.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.fx import Node

from compressor.errors import ModelError, first_line
from compressor.program import families
from compressor.program.arguments import arguments, set_argument
from compressor.program.precision import cast_reads, recast, writes_in_place

_linalg: Any = torch.linalg  # its stubs do not know the error
_REFUSALS: tuple[type[Exception], ...] = (
    RuntimeError, IndexError, ValueError, TypeError, NotImplementedError, _linalg.LinAlgError,
)  # fmt: skip
"""What operators raise; a subclass of one says more (out of memory, a question of torch.export's) and passes."""


class ProgramModule(fx.GraphModule):
    """A GraphModule that keeps the original tensor names and switches between training and inference.

    `torch.export` writes the training flag of batch norm and dropout into the graph as an argument, so `train()` and
    `eval()` set that argument. Batch norm without running statistics always uses those of the batch and is left alone.
    """

    def __init__(self, tensors: Mapping[str, Tensor], graph: fx.Graph) -> None:
        super().__init__(dict(tensors), graph, class_name="ProgramModule")

    def __call__(self, *inputs: Any, **named: Any) -> Any:
        """What the graph returns.

        Raises:  ModelError where an operator refuses the values that it is given: shapes are known beforehand, an index
                 beyond its table is not.
        """
        try:
            return super().__call__(*inputs, **named)
        except _REFUSALS as error:
            if type(error) not in _REFUSALS or "allocate memory" in str(error):
                raise
            raise ModelError(f"the network cannot be run on these values: {first_line(error)}") from error

    def train(self, mode: bool = True) -> ProgramModule:
        super().train(mode)
        changed = [_set_mode(node, mode) for node in self.graph.nodes if node.op == "call_function"]
        if any(changed):
            self.recompile()
        return self

    def tensors(self) -> dict[str, Tensor]:
        """Parameters and buffers by name: the very objects, not copies."""
        return {**dict(self.named_parameters()), **dict(self.named_buffers())}

    def clone(self, dtype: torch.dtype | None = None) -> ProgramModule:
        """An independent copy of graph and tensors; floating ones, and types the graph names, in `dtype` if given."""
        graph = copy.deepcopy(self.graph)
        if dtype is not None:
            recast(graph, dtype)
        copied = ProgramModule({name: _copy(tensor, dtype) for name, tensor in self.tensors().items()}, graph)
        copied.training = self.training
        return copied

    def in_precision(self, dtype: torch.dtype, instead: Mapping[str, Tensor] | None = None) -> ProgramModule:
        """The same network computing in `dtype`, with the tensors `instead` in place of those of the same names.

        Only to be run, and under `default_type`: tensors are shared, and cast one by one where they are read, so that
        no second copy of the network is ever held. One that writes in place could write into them; it gets copies.
        """
        tensors = {**self.tensors(), **(instead or {})}
        if writes_in_place(self.graph):
            tensors = {name: _copy(tensor, dtype) for name, tensor in tensors.items()}
        graph = copy.deepcopy(self.graph)
        recast(graph, dtype)
        cast_reads(graph, tensors, dtype)
        module = ProgramModule(tensors, graph)
        module.training = self.training
        return module


def switches_to_training(node: Node) -> bool | None:
    """Whether an operator is in training mode, None for one that is the same in both."""
    name = _mode_argument(node)
    bound = arguments(node) if name is not None else {}
    if name is None or ("running_mean" in bound and bound["running_mean"] is None):
        return None
    return bool(bound[name])


def _mode_argument(node: Node) -> str | None:
    """The argument by which an operator does in training what it does not in evaluation."""
    family = families.family_of(node.target)
    return None if family is None else family.mode


def _set_mode(node: Node, mode: bool) -> bool:
    name = _mode_argument(node)
    if name is None or switches_to_training(node) is not (not mode):
        return False
    set_argument(node, name, mode)
    return True


def of_same_kind(value: Tensor, model: Tensor) -> Tensor:
    """`value` as what `model` is: a parameter that training changes, one that it does not, or a buffer."""
    value = value.detach()
    return nn.Parameter(value, model.requires_grad) if isinstance(model, nn.Parameter) else value


def is_learned(tensor: Tensor) -> bool:
    """Whether training changes a tensor of a program."""
    return isinstance(tensor, nn.Parameter) and tensor.requires_grad


def _copy(tensor: Tensor, dtype: torch.dtype | None) -> Tensor:
    target = dtype if dtype is not None and tensor.is_floating_point() else tensor.dtype
    return of_same_kind(tensor.detach().to(dtype=target, copy=True), tensor)
