"""The module that a program is captured from, as it answers when it is called; it must never know of graphs.

Every call starts from the state that the module was given in: its buffers, and the attributes that its code set.
"""

from __future__ import annotations

import copy
import inspect
import math
from collections import OrderedDict, defaultdict, deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.parameter import is_lazy

from compressor.errors import ModelError
from compressor.narrowing import is_dict
from compressor.program.calls import Answer, ask, difference
from compressor.program.likely_inputs import likely_input, shown
from compressor.program.precision import default_type
from compressor.program.refusals import of_inputs, refuse_sparse
from compressor.program.spec import InputSpec, other_lengths
from compressor.typed_torch import named_modules

_BATCHES = (1, 3)
"""Sizes at which module and program are compared; the trace is made at another one."""
_EVEN_BATCHES = (2, 4)
"""Sizes for a module that refuses one of those: halves of a batch, pairs."""
_N_PYTHON_DRAWS = 32


@dataclass(frozen=True)
class At:
    """The sizes of one call: of the batch, and of free dimensions by name where they differ from the examples'."""

    batch: int
    lengths: tuple[tuple[str, int], ...] = ()

    def __str__(self) -> str:
        return ", ".join([f"batch {self.batch}", *(f"{name} {size}" for name, size in self.lengths)])


class Original:
    """A module with its inputs: what it answers at a batch size, and what else a call does."""

    def __init__(self, module: nn.Module, inputs: Sequence[InputSpec], *, owned: bool = False) -> None:
        refuse_sparse(module)
        self.owned = owned
        self.module, self.inputs = module, tuple(map(_of_any_batch, inputs))
        if any(is_lazy(tensor) for tensor in (*module.parameters(), *module.buffers())):
            ask(module, self.examples(At(_BATCHES[0])))  # makes their sizes; what goes wrong shows again below
        self._start = _State(module)
        self._answers: dict[At, Answer] = {}
        self._changed: tuple[str, ...] = ()
        self.draws = False

    def examples(self, at: At) -> tuple[Tensor, ...]:
        """Random inputs, in the module's own floating type."""
        lengths = dict(at.lengths)
        made = (spec.example(at.batch, at.batch + i, lengths) for i, spec in enumerate(self.inputs))
        return tuple(map(self._fitting, self.inputs, made))

    def elements(self, at: At) -> int:
        """Elements of all inputs at these sizes."""
        return sum(math.prod(spec.concrete(at.batch, dict(at.lengths))) for spec in self.inputs)

    def answer(self, at: At) -> Answer:
        """What the module returns for `examples(at)`."""
        if at not in self._answers:
            found = self._call(at)
            if found.draws and not self.draws:
                self.draws = True
                found = replace(self._call(at), draws_python=found.draws_python)
            self._answers[at] = found
        return self._answers[at]

    @property
    def batches(self) -> tuple[int, ...]:
        """The batch sizes to compare a program at that takes any.

        Raises:  ModelError if the module runs at none.
        """
        refused = [batch for batch in _BATCHES if self.answer(At(batch)).error is not None]
        sizes = (*_BATCHES, *_EVEN_BATCHES) if refused else _BATCHES
        if all(self.answer(At(batch)).error is not None for batch in sizes):
            given = ", ".join(shown(spec, bare=len(self.inputs) == 1) for spec in self.inputs)
            raise ModelError(
                f"--input {given}: the model does not run on that: {self._refusal(sizes[0])}\n"
                f"{self._meant() or 'say what it takes with --input, without the batch'}"
                f"{of_inputs(self.answer(At(sizes[0])).error or '')}"
            )
        return sizes

    @property
    def other_lengths(self) -> tuple[At, ...]:
        """Sizes that free dimensions have beside those of the trace, at other batches than that."""
        lengths = other_lengths(self.inputs)
        return tuple(At(1 + 2 * (i % 2), tuple(one.items())) for i, one in enumerate(lengths))

    def at_one_length(self) -> Original:
        """The same module, no dimension of its inputs free but the batch."""
        self.restore()
        return Original(self.module, [spec.fixed(spec.lengths) for spec in self.inputs], owned=self.owned)

    @property
    def own_limit(self) -> str | None:
        """Why the module itself runs with one sample only, in its own words; None if it runs with more.

        Raises:  ModelError if another shape is likelier, with which it runs with any: the batch was its channels.
        """
        errors = [self.answer(At(batch)).error for batch in self.batches if batch != 1]
        if any(error is None for error in errors):
            return None
        if meant := self._meant():
            given = ", ".join(shown(spec, bare=len(self.inputs) == 1) for spec in self.inputs)
            raise ModelError(f"--input {given}: the model takes one sample of that only: {errors[0]}\n{meant}")
        return f"the model itself takes no other: {errors[0]}"

    def _refusal(self, batch: int) -> str:
        """What is wrong with the call: the number of inputs, or what the module raised."""
        error, signature = self.answer(At(batch)).error or "", inspect.signature(self.module.forward)
        try:
            signature.bind(*self.inputs)
        except TypeError:
            takes = [
                f"{p.name} (optional)" if p.default is not p.empty else p.name for p in signature.parameters.values()
            ]
            return f"it takes {', '.join(takes)}; give --input once for each"
        return error

    def _meant(self) -> str | None:
        meant = likely_input(self.inputs, self._would_run)
        return None if meant is None else f"did you mean --input {meant}?"

    def _would_run(self, inputs: Sequence[InputSpec]) -> bool:
        """Whether the module gives as many results as there are samples."""
        for batch in _BATCHES:
            self._start.restore()
            examples = [self._fitting(spec, spec.example(batch)) for spec in inputs]
            answer = ask(self.module, examples)
            if answer.error is not None or not any(v.dim() and len(v) == batch for v in answer.values):
                return False
        return True

    def exact_answer(self, at: At) -> Answer:
        """The same computed in float64."""
        self._start.restore()
        tensors = {**dict(self.module.named_parameters()), **dict(self.module.named_buffers())}
        double = {name: t.detach().double() if t.is_floating_point() else t.clone() for name, t in tensors.items()}
        inputs = [x.double() if x.is_floating_point() else x for x in self.examples(at)]
        with default_type(torch.float64):
            return ask(lambda *given: functional_call(self.module, double, given), inputs, equal_draws=self.draws)

    def check_repeatable(self) -> None:
        """Nothing, when what the module returns depends on its inputs alone, or on torch's random numbers.

        Raises:  ModelError if it depends on other random numbers or on earlier calls.
        """
        batch = next(at for at in map(At, self.batches) if self.answer(at).error is None)
        first = self.answer(batch)
        if first.draws_python:
            others = (self._call(batch, python_seed=1 + i) for i in range(_N_PYTHON_DRAWS))
            if any(difference(first, other) for other in others):
                raise ModelError(
                    "the model draws random numbers of Python or NumPy in evaluation, and a graph holds one outcome\n"
                    "switch that off in evaluation, or draw with torch.rand"
                )
        if self._changed:
            self._call(batch)
        if difference(first, self._call(batch, afresh=not self._changed)):
            written = f" (it writes {', '.join(self._changed[:3])})" if self._changed else ""
            raise ModelError(
                f"the model returns another result when it is called again with the same inputs{written}, and a graph "
                f"holds no state\nlet forward take the state as an input and return it, or do not use it in evaluation"
            )

    @property
    def keeps_state(self) -> bool:
        """Whether a call left anything of the module changed, as far as can be seen, or drew numbers of Python."""
        return bool(self._changed) or self.draws_python

    @property
    def draws_python(self) -> bool:
        """Whether a call drew random numbers of Python or NumPy."""
        return any(answer.draws_python for answer in self._answers.values())

    @property
    def counted(self) -> tuple[str, ...]:
        """Attributes that are numbers and that a call changes."""
        return tuple(name for name in self._changed if self._start.is_number(name))

    def restore(self) -> None:
        """Leave the module as it was given."""
        self._start.restore()

    def _call(self, at: At, *, python_seed: int = 0, afresh: bool = True) -> Answer:
        if afresh:
            self._start.restore()
        answer = ask(self.module, self.examples(at), equal_draws=self.draws, python_seed=python_seed)
        self._changed = self._start.changed() or self._changed
        return answer

    def _fitting(self, spec: InputSpec, example: Tensor) -> Tensor:
        own = next((p.dtype for p in self.module.parameters() if p.is_floating_point()), spec.torch_dtype)
        return example.to(own) if spec.torch_dtype.is_floating_point else example


class _State:
    """What a module held at one moment: attributes, buffers, what is in its lists and dictionaries."""

    def __init__(self, module: nn.Module) -> None:
        self._held = [(name, now, dict(now)) for name, part in named_modules(module) for now in _entries(part)]
        values = {id(value): value for _, _, before in self._held for value in before.values()}
        tensors = {key: value for key, value in values.items() if isinstance(value, Tensor)}
        self._versions = {key: _version(t) for key, t in tensors.items() if isinstance(t, nn.Parameter)}
        self._copies = {key: (t, t.detach().clone()) for key, t in tensors.items() if key not in self._versions}
        own = {id(now) for _, now, _ in self._held}
        containers = {k: v for k, v in values.items() if type(v) in _CONTAINERS and k not in own}
        self._contents = {key: (value, copy.copy(value)) for key, value in containers.items()}

    def changed(self) -> tuple[str, ...]:
        """Names of what is not as it was."""
        return tuple(dict.fromkeys(self._changes()))

    def _changes(self) -> Iterator[str]:
        for prefix, now, before in self._held:
            for key in dict.fromkeys((*before, *now)):
                if key not in before or key not in now or self._is_other(before[key], now[key]):
                    yield f"{prefix}.{key}" if prefix else key

    def _is_other(self, before: Any, now: Any) -> bool:
        if isinstance(before, (bool, int, float, str)):
            return type(now) is not type(before) or now != before
        if now is not before:
            return True
        if isinstance(before, nn.Parameter):
            return _version(now) != self._versions[id(now)]
        if isinstance(before, Tensor):  # batch norm writes without a new version
            return not torch.equal(now, self._copies[id(now)][1])
        return id(now) in self._contents and _items(now) != _items(self._contents[id(now)][1])

    def is_number(self, name: str) -> bool:
        """Whether an attribute of that name was a number."""
        owner, _, key = name.rpartition(".")
        found = [before[key] for prefix, _, before in self._held if prefix == owner and key in before]
        return key != "training" and any(isinstance(value, (int, float)) for value in found)

    def restore(self) -> None:
        """Put back every attribute, every tensor that is no parameter, and what lists and dictionaries held."""
        for _, now, before in self._held:
            _refill(now, before)
        for container, held in self._contents.values():
            _refill(container, held)
        with torch.no_grad():
            for tensor, copied in self._copies.values():
                if not torch.equal(tensor, copied):
                    tensor.copy_(copied)


_CONTAINERS = (list, dict, set, deque, OrderedDict, defaultdict)
"""Types whose content can be put back; one that inherits from them may have its own ideas."""
_OWN_ENTRIES = ("_parameters", "_buffers", "_modules")
"""Where `nn.Module` keeps what it takes out of its attributes."""


def _entries(part: nn.Module) -> Iterator[dict[str, Any]]:
    """The dictionaries that hold a module's tensors, modules and other attributes: the very objects."""
    if isinstance(part, torch.jit.ScriptModule):  # its attributes live in C++
        return
    yield from (vars(part)[name] for name in _OWN_ENTRIES)
    yield vars(part)


def _items(container: Any) -> list[int]:
    """The identity of everything in a container, in order."""
    return [id(part) for part in (*container, *(container.values() if is_dict(container) else ()))]


def _refill(container: Any, held: Any) -> None:
    """Give a container back what it held, and touch it only where that is something else."""
    if _items(container) != _items(held):
        container.clear()
        container.update(held) if hasattr(container, "update") else container.extend(held)


def _version(tensor: Tensor) -> int:
    return 0 if tensor.is_inference() else tensor._version


def _of_any_batch(spec: InputSpec) -> InputSpec:
    """The input with its first dimension open, unless that is 1: what a caller fixes there is an example."""
    return spec if not spec.shape or spec.shape[0] in (None, 1) else replace(spec, shape=(None, *spec.shape[1:]))
