"""A network that is asked and never trained, its weights cast once; it must never change the module that was given.

Autocast forgets a cast weight at the end of its block, so that every step casts all of a teacher's again: of a
ResNet-56 some sixty small kernels, for the same numbers.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from compressor.program import families
from compressor.training.devices import forked_rng
from compressor.typed_torch import DispatchMode


class Teacher:
    """What the module answers; `dtype` is that of the autocast in which it is asked, None where there is none."""

    def __init__(self, module: nn.Module, dtype: torch.dtype | None) -> None:
        self._module, self._dtype = module, dtype
        self._cast: dict[str, Tensor] | None = {} if dtype is None else None

    @torch.no_grad()
    def __call__(self, *inputs: Tensor) -> Any:
        if not self._cast:
            return self._module(*inputs)
        return torch.func.functional_call(self._module, self._cast, inputs, tie_weights=False)

    @torch.no_grad()
    def cast_once(self, inputs: Sequence[Tensor]) -> None:
        """Casts what autocast would cast at every use; it is seen on the first inputs, later calls do nothing.

        A weight that anything else reads as it is stays as it is, so the answers are the same bit for bit.
        """
        if self._cast is not None:
            return
        parameters = dict(self._module.named_parameters())
        watching = _Readers(parameters, self._dtype)
        device = inputs[0].device
        with forked_rng(device), watching:
            self._module(*inputs)
        self._cast = {name: parameters[name].detach().to(self._dtype) for name in watching.cast_only()}


class _Readers(DispatchMode):
    """Sees who reads parameters: casts to `dtype`, and anything else."""

    def __init__(self, parameters: Mapping[str, Tensor], dtype: torch.dtype | None) -> None:
        super().__init__()
        self._names = {id(parameter): name for name, parameter in parameters.items()}
        self._dtype = dtype
        self._cast: set[str] = set()
        self._read: set[str] = set()

    def cast_only(self) -> list[str]:
        return sorted(self._cast - self._read)

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        is_cast = func in families.CASTS and kwargs.get("dtype") == self._dtype
        leaves = tree_leaves((args, kwargs))
        names = {self._names[id(leaf)] for leaf in leaves if id(leaf) in self._names}
        (self._cast if is_cast else self._read).update(names)
        return func(*args, **kwargs)
