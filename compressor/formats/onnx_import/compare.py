"""An imported program beside the file it was imported from, run in onnxruntime at several batches.

It must never change either, nor hold what difference is allowed beyond the plain limit: `program.agreement` judges.
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, fx

from compressor.errors import ModelError, first_line
from compressor.formats.onnx_import import plan
from compressor.formats.onnx_import.build import Built
from compressor.formats.onnx_import.locate import Trace, described, first_difference
from compressor.formats.onnx_import.source import NotRunError, Source
from compressor.formats.onnx_import.values import Const, Value
from compressor.program import Program
from compressor.program.agreement import Evidence, judge, leaves
from compressor.program.interface import Interface
from compressor.program.runs import Yardstick
from compressor.program.shapes import TensorShape
from compressor.typed_torch import split

LIMIT = 1e-5
"""Largest difference that is not looked into, relative to the largest |output|: what torch and onnxruntime left on
deep networks with random statistics (resnet50: 1e-5). A wrong import shows at 1e-3 and above.
"""

_MOST_VALUES = 2**28
"""Elements of all values that are looked at together: they must not fill the memory."""

_DEPENDS = "what it computes for a sample would depend on the others in its batch ({})"


class DiffersError(ModelError):
    """The program computes something else than the file."""


class _ZeroDivisorError(NotRunError):
    """A runtime may end the whole process by a quotient that these inputs ask for."""


@dataclass
class Comparison:
    """What was compared: batches that agreed, and batches that could not be, with the reason."""

    agreed: list[int] = field(default_factory=list[int])
    failed: dict[int, str] = field(default_factory=dict[int, str])
    by_operator: bool = False

    def note(self, parts: str) -> str:
        """One line for the record."""
        reason = next(iter(self.failed.values()), "its values are too large")
        if not self.agreed:
            return f"not compared with the file: {reason}"
        told = f"agrees with the file in onnxruntime at {_listed(self.agreed)}{parts}"
        told += ", operator by operator" if self.by_operator else ""
        return told + (f"; at {_listed(list(self.failed))} {reason}" if self.failed else "")


def _listed(batches: Sequence[int]) -> str:
    return ("batch " if len(batches) == 1 else "batches ") + ", ".join(map(str, batches))


def compare(built: Built, source: Source, opened: int | None, growing: Interface | None = None) -> str:
    """A note on the comparison of the program with the file; `opened` is the batch that the file fixes and it does not.

    `growing` is the file's interface where the program leaves its sizes open: larger inputs are compared too.

    Each batch runs in both; where the file fixes its batch, once for every part of that size. What differs by more than
    the plain limit and is not explained by rounding is looked for operator by operator.

    Raises:  DiffersError naming the first operator that computes something else.
    """
    program = built.program
    found, pair = Comparison(), _Pair(program, source, built.traces, opened, built.divisions)
    for batch in plan.batches(program, opened):
        try:
            found.by_operator |= _checked(pair, program.example_inputs(batch, seed=batch))
        except NotRunError as error:
            found.failed[batch] = str(error)
        else:
            found.agreed.append(batch)
    for inputs in plan.further_inputs(program, found.agreed, positive=found.by_operator):
        with contextlib.suppress(NotRunError):  # whole numbers that mean something may not be any that there are
            found.by_operator |= _checked(pair, inputs)
    if growing is not None:
        _check_grown(pair, growing)
    if opened is not None and not found.agreed:
        if not found.failed:
            raise DiffersError("its values are too large to look whether samples depend on each other")
        pair.check_alone(program.example_inputs(2 * opened))
    return found.note("" if opened is None else f", {opened} at a time")


def _checked(pair: _Pair, inputs: tuple[Tensor, ...]) -> bool:
    """`pair.check`, with ones in place of zeros where whole numbers of the inputs are divisors."""
    try:
        return pair.check(inputs)
    except _ZeroDivisorError:
        whole = [not (x.is_floating_point() or x.dtype == torch.bool) for x in inputs]
        if not any(whole):
            raise
        return pair.check(tuple(x.masked_fill(x == 0, 1) if w else x for x, w in zip(inputs, whole, strict=True)))


def _check_grown(pair: _Pair, interface: Interface) -> None:
    """Nothing, when the program computes what the file does for other sizes than those that it was imported with.

    Raises:  DiffersError if it does not, or where that cannot be seen.
    """
    n_samples = pair.opened or pair.program.fixed_batch or 1
    larger = list(plan.grown_inputs(pair.program, interface, n_samples))
    if not larger:
        raise DiffersError("it is too expensive to be compared at other sizes")
    for inputs in larger:
        try:
            _checked(pair, inputs)
        except NotRunError as error:
            raise DiffersError(f"the file does not take other sizes: {error}") from error
        except DiffersError as error:
            raise DiffersError(f"computes something else for other sizes: {error}") from error


@dataclass(frozen=True)
class _Pair:
    """A program and its source. Where the program opened the source's batch, that runs on so many samples at a time."""

    program: Program
    source: Source
    traces: Mapping[str, tuple[Trace, ...]]
    opened: int | None
    divisions: tuple[tuple[Value, Value], ...] = ()

    @cached_property
    def _yardstick(self) -> Yardstick:
        return Yardstick(self.program)

    def check(self, inputs: tuple[Tensor, ...]) -> bool:
        """Whether it took a look at every operator to see that both compute the same.

        Raises:  DiffersError if they do not; NotRunError if onnxruntime cannot run the source.
        """
        why, own = None, list[Tensor]()
        try:
            own = self._yardstick.own(inputs)
        except ModelError as error:
            why = str(error)
        self._check_quotients(inputs)
        parts = [leaves(self.source.run(part)) for part in self._parts(inputs)]
        if why is not None:
            self._check_operators(inputs, why)
            raise DiffersError(why)
        differs = self._why_apart(inputs, own, parts, optimised=self.opened is None)
        if differs is not None:
            self._check_operators(inputs, differs)
        return differs is not None

    def _check_quotients(self, inputs: tuple[Tensor, ...]) -> None:
        """Raises:  NotRunError where a quotient of whole numbers does not exist, which ends a runtime's process."""
        if not self.divisions:
            return
        seen = _Seen(self.program.module)
        try:
            with torch.no_grad():
                seen.run(*inputs)
        except Exception as error:  # the program cannot be run at all, which is told elsewhere
            raise NotRunError(f"it divides whole numbers, and its values are not known: {first_line(error)}") from error
        for values in self.divisions:
            x, y = (_value_of(value, seen) for value in values)
            if x is None or y is None or bool(((x == torch.iinfo(x.dtype).min) & (y == -1)).any()):
                raise NotRunError("it divides the smallest whole number by -1")
            if bool((y == 0).any()):
                raise _ZeroDivisorError("it divides whole numbers by 0 for random inputs")

    def check_alone(self, inputs: tuple[Tensor, ...]) -> None:
        """The same for a source that cannot be run: samples together against samples alone. Raises: DiffersError."""
        try:
            own = self._yardstick.own(inputs)
            parts = [self._yardstick.own(part) for part in self._parts(inputs)]
        except ModelError as error:
            raise DiffersError(str(error)) from error
        if (why := self._why_apart(inputs, own, parts, optimised=False)) is not None:
            raise DiffersError(_DEPENDS.format(why))

    def _parts(self, inputs: tuple[Tensor, ...]) -> list[tuple[Tensor, ...]]:
        if self.opened is None:
            return [inputs]
        return list(zip(*(split(x, self.opened) for x in inputs), strict=True))

    def _why_apart(
        self, inputs: tuple[Tensor, ...], own: list[Tensor], parts: Sequence[list[Tensor]], *, optimised: bool
    ) -> str | None:
        """How the program's outputs differ from those of the parts of the batch; None if they do not."""
        measure = self._yardstick
        other = [_joined(of_output, mine) for mine, *of_output in zip(own, *parts, strict=True)]
        for mine, theirs in zip(own, other, strict=True):
            if (mine.dtype, mine.shape) != (theirs.dtype, theirs.shape):
                return f"an output is {described(mine)}, {described(theirs)} in the file"
        again = (lambda: leaves(self.source.run_optimised(inputs))) if optimised else None
        evidence = Evidence(own, other, lambda: measure.exact(inputs), lambda: measure.shaken(inputs), again)
        agreement = judge([evidence], LIMIT)
        return None if agreement.passed else str(agreement)

    def _check_operators(self, inputs: tuple[Tensor, ...], why: str) -> None:
        """Raises:  DiffersError if one differs, or where samples were run apart, so that none can be looked at."""
        if self.opened not in (None, len(inputs[0])):
            raise DiffersError(_DEPENDS.format(why))
        names = [trace.value for traces in self.traces.values() for trace in traces]
        shapes = [self.program.shapes.get(node) for node in self.traces]
        n_elements = sum(shape.numel for shape in shapes if isinstance(shape, TensorShape))
        if n_elements * len(inputs[0]) > _MOST_VALUES * self.program.sampled_batch:
            raise DiffersError(
                f"its outputs are not those of the file: {why}; it is too large to look at every operator"
            )
        try:
            values = self.source.values(names, inputs)
        except NotRunError as error:
            raise DiffersError(f"its outputs are not those of the file: {why}; {error}") from error
        outputs = [value.name for value in self.source.model.graph.output]
        found = first_difference(self.program, self.traces, inputs, values, outputs)
        if found is not None:
            batch = len(inputs[0])
            raise DiffersError(
                f"{found.trace.operator}: at batch {batch} it differs from onnxruntime: {found.agreement}"
            )


class _Seen(fx.Interpreter):
    """Runs a graph and keeps every value."""

    def __init__(self, module: fx.GraphModule) -> None:
        super().__init__(module)
        self.values: dict[str, Tensor] = {}

    def run_node(self, n: fx.Node) -> object:
        found = super().run_node(n)
        if isinstance(found, Tensor):
            self.values[n.name] = found
        return found


def _joined(parts: Sequence[Tensor], whole: Tensor) -> Tensor:
    """An output of the parts of a batch as one of the whole; one that no sample is in is the same for every part."""
    alike = all(torch.equal(part, parts[0]) for part in parts[1:])
    if len(parts) == 1 or (alike and parts[0].shape == whole.shape) or not parts[0].dim():
        return parts[0]
    return torch.cat(list(parts))


def _value_of(value: Any, seen: _Seen) -> Tensor | None:
    return value.tensor if isinstance(value, Const) else seen.values.get(value.node.name)
