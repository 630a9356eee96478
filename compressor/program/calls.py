"""A call of a network as its users make it, and how far the answers of two calls are apart.

It must never know what is called: a module or the program that was captured from it.
"""

from __future__ import annotations

import contextlib
import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils import _pytree as pytree
from torch.utils._python_dispatch import TorchDispatchMode

from compressor.errors import named_line

LIMIT = 1e-5
"""Largest `distance` of two answers that count as the same. A program runs the kernels of its module: most come out bit
for bit equal, and what is written otherwise (the window of a response normalisation) leaves 1e-7."""

_SEED = 0


@dataclass(frozen=True)
class Answer:
    """What one call returned: tensors and numbers, in order; or why it returned nothing.

    `draws` says whether torch's random numbers were used, `draws_python` the same of Python's and NumPy's.
    """

    values: tuple[Tensor | float, ...] = ()
    error: str | None = None
    draws: bool = False
    draws_python: bool = False


def ask(
    network: Callable[..., Any], inputs: Sequence[Tensor], *, equal_draws: bool = False, python_seed: int = _SEED
) -> Answer:
    """The answer to copies of the inputs, without gradients; random numbers start the same at every call.

    With `equal_draws` every random operator draws the same numbers, however many others there were before it: a program
    leaves out draws that nobody reads, and the ones after them would come out of another place of the stream.
    """
    draws_equally = _EqualDraws() if equal_draws else contextlib.nullcontext()
    with torch.no_grad(), _plain_attention(), _seeded(python_seed) as drawn:
        try:
            with draws_equally:
                returned = network(*(x.clone() for x in inputs))
            values, error = tuple(_values(returned)), None
        except Exception as cause:  # a user's code raises anything
            values, error = (), named_line(cause)
        draws, draws_python = drawn()
    return Answer(values, error, draws, draws_python)


def distance(expected: Answer, got: Answer) -> float:
    """Largest difference of two answers, relative to the largest number of the value that it is in.

    Infinite where number, shape or type of the values differ, or where one is not finite and the other not the same.
    """
    if len(expected.values) != len(got.values):
        return float("inf")
    return max((_apart(a, b) for a, b in zip(expected.values, got.values, strict=True)), default=0.0)


def _values(returned: Any) -> Iterator[Tensor | float]:
    for leaf in pytree.tree_leaves(returned):
        if isinstance(leaf, Tensor):
            yield leaf.detach().clone()
        elif isinstance(leaf, (bool, int, float)):
            yield float(leaf)


def _apart(expected: Tensor | float, got: Tensor | float) -> float:
    if isinstance(expected, Tensor) != isinstance(got, Tensor):
        return float("inf")
    a, b = torch.as_tensor(expected), torch.as_tensor(got)
    if a.shape != b.shape or a.dtype.is_floating_point != b.dtype.is_floating_point:
        return float("inf")
    if torch.equal(a, b) or not a.numel():
        return 0.0
    a, b = (x.to(torch.complex128 if x.is_complex() else torch.float64) for x in (a, b))
    finite = torch.isfinite(a)
    same = torch.isfinite(b[finite]).all() and torch.equal(torch.nan_to_num(a[~finite]), torch.nan_to_num(b[~finite]))
    if not same or not torch.equal(torch.isnan(a), torch.isnan(b)):
        return float("inf")
    if not finite.any():
        return 0.0
    largest = float(a[finite].abs().max())
    away = float((a[finite] - b[finite]).abs().max())
    return away / largest if largest else (0.0 if away == 0.0 else float("inf"))


class _EqualDraws(TorchDispatchMode):
    """Starts the random numbers anew in front of every operator that draws some."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if torch.Tag.nondeterministic_seeded in func.tags:
            torch.default_generator.manual_seed(_SEED)
        return func(*args, **(kwargs or {}))


@contextlib.contextmanager
def _plain_attention() -> Iterator[None]:
    """Without the fused kernels of torch's own transformer layers, which no trace takes."""
    was = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        yield
    finally:
        torch.backends.mha.set_fastpath_enabled(was)


@contextlib.contextmanager
def _seeded(python_seed: int) -> Iterator[Callable[[], tuple[bool, bool]]]:
    """Seeds all random numbers and puts them back afterwards; gives a function that says which were drawn so far:
    torch's, and those of Python or NumPy."""
    before = random.getstate(), np.random.get_state()
    with torch.random.fork_rng(devices=[]):
        # Not torch.manual_seed, which reseeds the accelerators too, and fork_rng would not restore those.
        torch.default_generator.manual_seed(_SEED)
        random.seed(python_seed)
        np.random.seed(python_seed)
        start = torch.get_rng_state(), random.getstate(), _plain(np.random.get_state())

        def drawn() -> tuple[bool, bool]:
            python = random.getstate() != start[1] or _plain(np.random.get_state()) != start[2]
            return not torch.equal(torch.get_rng_state(), start[0]), python

        try:
            yield drawn
        finally:
            random.setstate(before[0])
            np.random.set_state(before[1])


def _plain(state: Any) -> tuple[Any, ...]:
    """NumPy's state with bytes in place of its array, so that two can be compared."""
    return (state[0], state[1].tobytes(), *state[2:])
