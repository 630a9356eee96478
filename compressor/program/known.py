"""What a network's code knows while it is traced: the values of tensors that neither inputs, the batch nor training
change, so that a number read out of one (`stride[0].item()`, `if flag:`, `range(n)`) is that number.

It must never change what the code computes: a value that is not certain is unknown, and torch goes on as it would.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Generator, Iterator
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor, nn
from torch._ops import OperatorBase
from torch.nn.modules import batchnorm
from torch.overrides import TorchFunctionMode
from torch.utils import _python_dispatch
from torch.utils import _pytree as pytree
from torch.utils.weak import WeakIdKeyDictionary

from compressor.program.module import is_learned

_batchnorm: Any = batchnorm
_modes: Any = _python_dispatch
"""Modules of which names are used that no stub gives away."""

_MOST_ELEMENTS = 2**12
"""Of a tensor whose value is kept: numbers are read out of strides and sizes, not out of weights."""

_MAKERS = frozenset({"tensor", "as_tensor", "asarray", "scalar_tensor", "arange", "linspace", "zeros", "ones", "full"})
"""Functions whose result follows from plain numbers."""
_MAKERS_OF_A_TENSOR = frozenset({"new_tensor", "new_zeros", "new_ones", "new_full"})
"""Methods that take nothing but its type from their tensor."""


def constants_of(module: nn.Module) -> dict[str, Tensor]:
    """The named tensors of a module that stay what they are: fixed parameters, and buffers but running statistics."""
    norms = [part for part in module.modules() if isinstance(part, _batchnorm._NormBase)]
    statistics = {id(b) for norm in norms for b in norm.buffers(recurse=False)}
    named = [*module.named_parameters(remove_duplicate=False), *module.named_buffers(remove_duplicate=False)]
    return {name: t for name, t in named if not is_learned(t) and id(t) not in statistics}


@contextlib.contextmanager
def reading_constants(module: nn.Module) -> Generator[None]:
    """For the time of the block, a traced call of the module gets numbers where it reads them out of constants."""
    mode = _KnownValues()
    real = {name: tensor for name, tensor in constants_of(module).items() if tensor.numel() <= _MOST_ELEMENTS}

    def name_them(traced: nn.Module, *_: Any) -> None:
        for name, tensor in (*traced.named_parameters(), *traced.named_buffers()):
            if name in real:
                mode.know(tensor, real[name])

    handle = module.register_forward_pre_hook(name_them)
    try:
        with mode:
            yield
    finally:
        handle.remove()


class _KnownValues(TorchFunctionMode):
    """Beside every tensor that a trace computes from constants alone, its value."""

    def __init__(self) -> None:
        super().__init__()
        self._values: Any = WeakIdKeyDictionary()

    def know(self, tensor: Tensor, value: Tensor) -> None:
        """A copy, because the code may write into it."""
        with _modes._disable_current_modes():
            self._values[tensor] = value.detach().clone()

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        called: object = func
        if isinstance(called, OperatorBase):  # torch's own work under a call of the code
            return func(*args, **kwargs)
        name = getattr(func, "__name__", "")
        if name == "__get__" and getattr(func.__self__, "__name__", "") not in ("T", "mT", "data"):
            return func(*args, **kwargs)
        value = self._value_of(func, name, args, kwargs)
        if value is not _UNKNOWN and _is_plain(value):
            return value
        result = func(*args, **kwargs)
        if value is _UNKNOWN:
            if _writes(name, kwargs):
                self._forget(args[0] if args else None, kwargs.get("out"))
            return result
        if isinstance(result, Iterator):
            result, value = list(cast("Iterator[Any]", result)), list(value)
        self._keep(result, value)
        return iter(result) if name == "__iter__" else result

    def _value_of(self, func: Callable[..., Any], name: str, args: Any, kwargs: Any) -> Any:
        """What the call returns, where all that goes into it is known."""
        if name in _MAKERS_OF_A_TENSOR and args and isinstance(args[0], Tensor):
            args = (args[0].dtype, *args[1:])
            func = _of_type(name)
        leaves, structure = pytree.tree_flatten((args, kwargs))
        if any(isinstance(leaf, (torch.SymInt, torch.SymFloat, torch.SymBool)) for leaf in leaves):
            return _UNKNOWN
        tensors = [leaf for leaf in leaves if isinstance(leaf, Tensor)]
        makes = name in _MAKERS or name in _MAKERS_OF_A_TENSOR
        if not (tensors or makes) or "out" in kwargs or not all(map(self._is_known, tensors)):
            return _UNKNOWN
        own = [self._values[leaf] if isinstance(leaf, Tensor) else leaf for leaf in leaves]
        given_args, given_kwargs = pytree.tree_unflatten(own, structure)
        with _modes._disable_current_modes(), torch.no_grad():
            before = torch.get_rng_state()
            try:
                value = func(*given_args, **given_kwargs)
                draws = not torch.equal(before, torch.get_rng_state())
            except Exception:  # the call itself comes next, and raises it where the user's code asked for it
                return _UNKNOWN
            if draws:
                torch.set_rng_state(before)
        return _UNKNOWN if draws else value

    def _is_known(self, tensor: Tensor) -> bool:
        """Whether there is a value; that of a tensor which no trace has seen is itself."""
        if tensor in self._values:
            return True
        plain = type(tensor) is Tensor and tensor.device.type == "cpu" and not is_learned(tensor)
        if not plain or tensor.numel() > _MOST_ELEMENTS:
            return False
        self.know(tensor, tensor)
        return True

    def _keep(self, result: Any, value: Any) -> None:
        made, values = pytree.tree_leaves(result), pytree.tree_leaves(value)
        for tensor, known in zip(made, values, strict=False):
            if isinstance(tensor, Tensor) and isinstance(known, Tensor) and known.numel() <= _MOST_ELEMENTS:
                self._values[tensor] = known

    def _forget(self, *written: Any) -> None:
        """All that shares memory with what is written from something unknown."""
        for tensor in pytree.tree_leaves(written):
            if isinstance(tensor, Tensor) and tensor in self._values:
                place = self._values[tensor].untyped_storage().data_ptr()
                same = [t for t, value in self._values.items() if value.untyped_storage().data_ptr() == place]
                for other in same:
                    del self._values[other]


_UNKNOWN = object()


def _of_type(name: str) -> Callable[..., Tensor]:
    """A method that makes a tensor, called with a type in place of the tensor whose type it takes."""

    def make(dtype: torch.dtype, *args: Any, **kwargs: Any) -> Tensor:
        return getattr(torch.empty(0, dtype=dtype), name)(*args, **kwargs)

    return make


def _writes(name: str, kwargs: Any) -> bool:
    """Whether a function may write into its first argument: `add_`, `+=`, `x[0] = …`, `out=`."""
    if name.endswith("__"):
        return name == "__setitem__" or (name.startswith("__i") and name not in _READING_DUNDERS)
    return "out" in kwargs or name.endswith("_")


_READING_DUNDERS = frozenset({"__index__", "__int__", "__iter__", "__invert__"})


def _is_plain(value: Any) -> bool:
    """Whether a call gave numbers: the read of a value, or a question that a trace answers likewise."""
    if isinstance(value, np.ndarray):
        return True
    leaves = pytree.tree_leaves(value)
    return bool(leaves) and all(isinstance(leaf, (bool, int, float, complex)) for leaf in leaves)
