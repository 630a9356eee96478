"""A call of a network as its users make it, and how far the answers of two calls are apart.

It must never know what is called: a module or the program that was captured from it.
"""

from __future__ import annotations

import contextlib
import random
from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils import _pytree as pytree
from torch.utils._python_dispatch import TorchDispatchMode

from compressor.errors import named_line
from compressor.program.agreement import Evidence, judge
from compressor.program.runs import seeded
from compressor.units import format_dtype

LIMIT = 1e-5
"""Share of its largest value by which an output may be off. A program runs the kernels of its module: most come out bit
for bit equal, and what is written otherwise (the window of a response normalisation) leaves 1e-7."""

_SEED = 0


@dataclass(frozen=True)
class Answer:
    """What one call returned: tensors and numbers, in order; or why it returned nothing.

    `draws` says whether torch's random numbers were used, `draws_python` the same of Python's and NumPy's.
    """

    values: tuple[Tensor, ...] = ()
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


def difference(expected: Answer, got: Answer) -> str | None:
    """What is different between two answers, in words; None where they are the same to rounding."""
    if len(expected.values) == len(got.values) and all(map(_same, expected.values, got.values)):
        return None
    for k, (a, b) in enumerate(zip(expected.values, got.values, strict=False)):
        if a.is_floating_point() != b.is_floating_point():
            return f"output {k} is {format_dtype(b.dtype)} where the model's is {format_dtype(a.dtype)}"
    found = judge([Evidence(expected.values, got.values)], LIMIT)
    return None if found.passed else found.fault or f"it is off by {found.max_rel:.2g} of its largest output"


def _same(a: Tensor, b: Tensor) -> bool:
    """Whether two values are equal bit by bit, NaN included."""
    return a.dtype == b.dtype and a.shape == b.shape and bool(((a == b) | ((a != a) & (b != b))).all())


def _values(returned: Any) -> Iterator[Tensor]:
    for leaf in pytree.tree_leaves(returned):
        if isinstance(leaf, Tensor):
            yield leaf.detach().clone()
        elif isinstance(leaf, (bool, int, float)):
            yield torch.tensor(leaf)


class _EqualDraws(TorchDispatchMode):
    """Starts the random numbers anew in front of every operator that draws some."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if torch.Tag.nondeterministic_seeded in func.tags:
            torch.default_generator.manual_seed(_SEED)
        return func(*args, **(kwargs or {}))


@contextlib.contextmanager
def _plain_attention() -> Generator[None]:
    """Without the fused kernels of torch's own transformer layers, which no trace takes."""
    was = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        yield
    finally:
        torch.backends.mha.set_fastpath_enabled(was)


@contextlib.contextmanager
def _seeded(python_seed: int) -> Generator[Callable[[], tuple[bool, bool]]]:
    """Seeds all random numbers and puts them back afterwards; gives a function that says which were drawn so far:
    torch's, and those of Python or NumPy."""
    before = random.getstate(), np.random.get_state()
    with seeded(_SEED):
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
