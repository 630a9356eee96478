"""A program run as a yardstick: in its own precision, in float64, with roundings or foreign decisions put in.

Every run draws the same random numbers, so that a network that is random in evaluation can be compared with itself. It
must never hold how large a difference may be.
"""

from __future__ import annotations

import contextlib
import copy
import math
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from compressor.errors import ModelError, innermost_line
from compressor.program.agreement import Agreement, Evidence, Outputs, judge, leaves, structure_fault
from compressor.program.decisions import kind_of, saturated
from compressor.program.module import ProgramModule
from compressor.program.precision import default_type, writes_in_place
from compressor.program.program import Program
from compressor.program.replay import Decided, Replay
from compressor.program.spec import all_lengths, other_lengths
from compressor.typed_torch import forked_cpu_rng

Decisions = Mapping[str, Decided]
"""Decisions by the name of the operator's node."""

_MOST_PRODUCTS = 1 << 34
"""Parameters times positions of one sample up to which the examples of a specification are used: 130 M at 128."""
_LEAST_LENGTH = 8


@dataclass(frozen=True)
class Other:
    """One batch of inputs and what another computation of the network made of it.

    `again` computes the outputs in another way that should not matter. `deciding` gives outputs and what was decided on
    the way to them, by the names of the program's nodes; it is told what the program decided. `precision` is what it
    computes in, where that is coarser than the program's own; int8 for what was quantised.
    """

    inputs: Sequence[Tensor]
    outputs: Outputs
    again: Callable[[], Outputs] | None = None
    deciding: Callable[[Decisions], tuple[Outputs, Mapping[str, Tensor]]] | None = None
    precision: torch.dtype | None = None

    @property
    def is_quantised(self) -> bool:
        """Whether its roundings are those of whole numbers, of which no run of the program is a measure."""
        return self.precision is not None and not self.precision.is_floating_point


@contextlib.contextmanager
def seeded(seed: int = 0) -> Generator[None]:
    """torch's random numbers from `seed` on; afterwards the caller's own go on as if nothing had been drawn."""
    with forked_cpu_rng():
        torch.default_generator.manual_seed(seed)
        yield


def with_short_examples(program: Program) -> Program:
    """The program with texts as short as its size asks for: what is checked on 128 tokens of a small network is checked
    on fewer of a large one, at as many other lengths and batches, in the same time. Of images many networks take no
    smaller ones, so they stay as they are."""
    lengths = all_lengths(program.inputs)
    if any(spec.lengths and spec.torch_dtype.is_floating_point for spec in program.inputs):
        return program
    short: dict[str, int] = dict(lengths)
    while short and math.prod(short.values()) * program.n_parameters > _MOST_PRODUCTS:
        halved = {name: max(size // 2, min(size, _LEAST_LENGTH)) for name, size in short.items()}
        if halved == short:
            break
        short = halved
    if short == lengths:
        return program
    return program.replace(inputs=tuple(spec.at(short) for spec in program.inputs))


def examples_at_other_lengths(
    program: Program, batches: Sequence[int], dtype: torch.dtype | None = None
) -> Iterator[tuple[Tensor, ...]]:
    """Random inputs whose free dimensions are not as long as the specification's, at batch sizes in turn; without those
    lengths that the program does not run at, such as more than it has positions for."""
    for i, lengths in enumerate(other_lengths(program.inputs)):
        inputs = program.example_inputs(batches[i % len(batches)], seed=i, dtype=dtype, lengths=lengths)
        try:
            with seeded(), torch.no_grad():
                program.module(*inputs)
        except Exception:  # torch raises anything there
            continue
        yield inputs


@dataclass(frozen=True)
class Yardstick:
    """A program that others are compared with; it runs in evaluation mode and shares the program's tensors.

    `precision` is what it computes in; None leaves that to the types of its tensors. `instead` holds tensors that count
    in place of those of the same names.
    """

    program: Program
    precision: torch.dtype | None = None
    instead: Mapping[str, Tensor] | None = None

    @property
    def has_decisions(self) -> bool:
        """Whether rounding, chance or saturation may decide something on the way to the outputs."""
        nodes = list(self.program.module.graph.nodes)
        return any(kind_of(node) is not None for node in nodes) or bool(saturated(nodes))

    def own(self, inputs: Sequence[Tensor]) -> list[Tensor]:
        """The outputs in the program's own precision."""
        return _run(self._own, inputs, self.precision)

    def exact(self, inputs: Sequence[Tensor]) -> list[Tensor]:
        """The outputs in float64, by the same tensors."""
        return _run(self._exact, inputs, torch.float64)

    def shaken(self, inputs: Sequence[Tensor], rounding: float = 2.0**-24) -> list[Tensor]:
        """The float64 outputs with one rounding (float32's if not given), up or down at random, after each operator."""
        return _run(Replay(self._exact, rounding=rounding).run, inputs, torch.float64)

    def agreement(
        self, others: Sequence[Other], limit: float, *, least_share: float = 0.0, own: Sequence[Outputs] = ()
    ) -> Agreement:
        """How the others agree with the program, as `judge` sees it; `own` are its outputs, if they are known already.

        Where rounding or chance decides something, the others' decisions are taken over: they are compared by what they
        were chosen from, and the outputs with those that follow from them.
        """
        known = own or [self.own(other.inputs) for other in others]
        plain = [Evidence(mine, other.outputs) for mine, other in zip(known, others, strict=True)]
        if self.has_decisions and structure_fault(plain) is None:
            found = judge(plain, limit, least_share=least_share)
            return found if found.passed else self._redecided(others, limit, least_share)
        measured = [self._measured(*pair) for pair in zip(plain, others, strict=True)]
        return judge(measured, limit, least_share=least_share)

    def _measured(self, plain: Evidence, other: Other) -> Evidence:
        rounding = self._rounding(plain.own, other)
        exact, shaken = (lambda: self.exact(other.inputs)), (lambda: self.shaken(other.inputs, rounding))
        return Evidence(plain.own, plain.other, exact, shaken, other.again, rounding=rounding)

    def _redecided(self, others: Sequence[Other], limit: float, least_share: float) -> Agreement:
        """The agreement with all that was decided alike; where the others do not tell, as in the program's own run."""
        evidence, differing = list[Evidence](), dict[str, None]()
        for other in others:
            outputs, own = self.run_and_decisions(other.inputs)
            if not own:
                evidence.append(self._measured(Evidence(outputs, other.outputs), other))
                continue
            outputs, foreign = (other.outputs, dict[str, Tensor]()) if other.deciding is None else other.deciding(own)
            decided = {name: part.value for name, part in own.items() if part.kind != "saturation"} | dict(foreign)
            differing |= dict.fromkeys(name for name in own if name in decided and _differ(decided[name], own[name]))
            evidence.append(self._with_decisions(replace(other, outputs=outputs), decided, tuple(foreign)))
        found = judge(evidence, limit, least_share=least_share)
        return replace(found, decisions=tuple(differing))

    def _with_decisions(self, other: Other, decided: Mapping[str, Tensor], foreign: Sequence[str]) -> Evidence:
        """The outputs that follow from the decisions; and what each foreign one was chosen from, and what it chose."""

        def run(module: ProgramModule, dtype: torch.dtype | None, rounding: float = 0.0) -> tuple[list[Tensor], Replay]:
            steps = Replay(module, decided, rounding)
            return _run(steps.run, other.inputs, dtype), steps

        def in_float64(rounding: float) -> list[Tensor]:
            exact, steps = run(self._exact, torch.float64, rounding)
            return [*exact, *(steps.best[name] for name in chosen)]

        own, steps = run(self._own, self.precision)
        chosen = [name for name in foreign if name in steps.best]
        names = [f"output {k}" for k in range(len(own))] + chosen
        rounding = self._rounding(own, other)
        return Evidence(
            [*own, *(steps.best[name] for name in chosen)],
            [*other.outputs, *(steps.taken[name] for name in chosen)],
            exact=lambda: in_float64(0.0),
            shaken=lambda: in_float64(rounding),
            names=tuple(names),
            rounding=rounding,
            n_chosen=0 if other.is_quantised else len(chosen),
        )

    def run_and_decisions(self, inputs: Sequence[Tensor]) -> tuple[list[Tensor], dict[str, Decided]]:
        """The outputs in the program's own precision, and what rounding or chance decided on the way."""
        steps = Replay(self._own)
        return _run(steps.run, inputs, self.precision), steps.decided

    def _rounding(self, own: Outputs, other: Other) -> float:
        """The rounding of 1 in the coarsest precision that either side computes in."""
        inside = [t.dtype for t in self.program.module.parameters()] if self.precision is None else [self.precision]
        found = {*inside, other.precision, *(x.dtype for x in (*own, *other.outputs))}
        floating = [dtype for dtype in found if dtype is not None and dtype.is_floating_point]
        return max((torch.finfo(dtype).eps / 2 for dtype in floating), default=torch.finfo(torch.float32).eps / 2)

    @cached_property
    def _own(self) -> ProgramModule:
        if self.precision is not None:
            return self._in_precision(self.precision)
        module = self.program.module
        if writes_in_place(module.graph):
            return module.clone().eval()
        return ProgramModule(module.tensors(), copy.deepcopy(module.graph)).eval()

    @cached_property
    def _exact(self) -> ProgramModule:
        return self._in_precision(torch.float64)

    def _in_precision(self, dtype: torch.dtype) -> ProgramModule:
        stored, instead = self.program.module.tensors(), self.instead or {}
        fitting = {
            name: value for name, value in instead.items() if name in stored and stored[name].shape == value.shape
        }
        return self.program.module.in_precision(dtype, fitting).eval()


@torch.no_grad()
def _run(run: Callable[..., Any], inputs: Sequence[Tensor], dtype: torch.dtype | None) -> list[Tensor]:
    """The outputs for these inputs, floating ones given in `dtype`.

    Raises:  ModelError if torch cannot run it.
    """
    given = [x.to(dtype) if dtype is not None and x.is_floating_point() else x for x in inputs]
    try:
        with seeded(), default_type(dtype or torch.get_default_dtype()):
            return leaves(run(*given))
    except Exception as error:  # torch raises anything from IndexError to its own C++ errors here
        batch = f" at batch {len(inputs[0])}" if inputs and inputs[0].dim() else ""
        raise ModelError(f"torch cannot run the model{batch}: {innermost_line(error)}") from error


def _differ(foreign: Tensor, own: Decided) -> bool:
    """Whether something else was decided; a saturated result always is something else."""
    return own.kind == "saturation" or foreign.shape != own.value.shape or not bool((foreign == own.value).all())
