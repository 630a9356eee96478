"""Pruning by somebody else's training function, phase by phase: the course of `prune`, with the user's code where the
tool's own training would be.

It must never hold a loop, a loss or data.
"""

from __future__ import annotations

import contextlib
import sys
import traceback
from collections.abc import Callable
from typing import Literal

import torch
from torch import nn

from compressor.asking import PruneSettings
from compressor.asking.prune import SEARCHING
from compressor.cost import Stopwatch
from compressor.errors import CompressError, TrainingError, UsageError, named_line
from compressor.program import Program
from compressor.progress import Progress, Silent
from compressor.pruning.live import LiveReport, Pruner
from compressor.pruning.pruned import PruneReport, StageRow
from compressor.pruning.reporting import report_of
from compressor.pruning.run import Clock
from compressor.units import Params

PhaseName = Literal["search", "round", "retrain"]
_NEVER = 2**62
"""Steps over which rounds are spread that are cut between two calls of the function, and at no step."""


class Loop:
    """What a training function is given beside the network: its phase, and what rides on its optimizer.

        def train(model, loop):
            optimizer = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9)
            loop.attach(optimizer, steps=len(loader) * 10)
            ...                             # your loop, as it was

    `phase` is `search` (the weights are drawn, nothing is cut yet), `round` (cut, with more to come) or `retrain` (the
    last one, under the masks); `number` counts the calls from 1. `device` is where the tool was told to compute.
    """

    def __init__(self, phase: PhaseName, number: int, device: str, start: Callable[[int], Pruner]) -> None:
        self.phase, self.number, self.device = phase, number, device
        self._start, self._pruner = start, None
        self.is_attached = False

    _pruner: Pruner | None

    def attach(self, optimizer: torch.optim.Optimizer, *, steps: int = 0) -> None:
        """Masks and pull ride on the optimizer from now on; `steps` are those that the search has (only it needs them).

        Raises:  UsageError for a search without steps, or an optimizer that does not train the network.
        """
        if self.phase == "search" and steps < 1:
            raise UsageError(
                "loop.attach: a search must know its length; give steps=, the optimizer steps of this call, such as"
                " len(loader) * epochs"
            )
        self._pruner = self._start(steps)
        self._pruner.attach(optimizer)
        self.is_attached = True

    def follow(self, *modules: nn.Module) -> None:
        """Masks averaged copies of the network too.

        Raises:  UsageError before `attach`; ModelError for something else than a copy.
        """
        if self._pruner is None:
            raise UsageError("loop.follow: attach the optimizer first")
        self._pruner.follow(*modules)

    def report(self) -> LiveReport:
        """Where the pruning stands. Raises:  UsageError before `attach`."""
        if self._pruner is None:
            raise UsageError("loop.report: attach the optimizer first")
        return self._pruner.report()


_NOT_THE_USERS = ("/compressor/", "/torch/", "<")
"""Parts of the names of files in which no code of the user's stands; a graph's own code has no file."""

TrainFunction = Callable[[nn.Module, Loop], object]


def prune_in_your_loop(
    program: Program,
    model: nn.Module | None,
    settings: PruneSettings,
    train: TrainFunction,
    *,
    name: str = "train",
    progress: Progress | None = None,
    stopwatch: Stopwatch | None = None,
) -> tuple[Program, PruneReport]:
    """The pruned program and its report, as `prune` gives them; `train` is called once for every phase.

    `model` is the module that `program` was captured from; without one a copy of the program's own module trains.
    Methods that search have one phase for that, magnitude and random one for each of `settings.steps`; the last phase
    is `retrain`, under the masks. The network is in training mode when a phase begins.

    Raises:  UsageError if a search was not attached, or settings are for the tool's own loop; TrainingError if the
             function raises, or gave cut weights values again.
    """
    run = _Course(program, program.clone().module if model is None else model, settings, train, name, stopwatch)
    run.progress = progress or Silent()
    if settings.of == "latency":
        run.progress.note("the ratio is that of the sum of the layers' times; the whole network is not timed here")
    pruned = run.execute()
    dense = run.dense
    report = report_of(
        dense, pruned, run.pruner.units, run.pruner.selector, settings, tuple(run.stages), run.clock.seconds, None
    )
    return pruned, report


class _Course:
    def __init__(
        self, program: Program, model: nn.Module, settings: PruneSettings, train: TrainFunction, name: str,
        stopwatch: Stopwatch | None,
    ) -> None:  # fmt: skip
        self.dense, self.model, self.settings = program, model.to(settings.device), settings
        self._train, self._name = train, name
        self.stages: list[StageRow] = []
        self.clock, self.progress = Clock(), Silent()
        self.n_calls = 0
        n_steps = 1 if settings.method in SEARCHING else _NEVER
        self.pruner = Pruner.of(self.model, program, settings, steps=n_steps, stopwatch=stopwatch)

    progress: Progress

    def execute(self) -> Program:
        self._record("dense", 0.0)
        if self.settings.method in SEARCHING:
            self._phase("search", self.settings.method, self.pruner.over, 1.0)
            self.pruner.finish()
            self._record("hard prune", 0.0)
        else:
            for done in range(1, self.settings.steps):
                ratio = self.pruner.cut_next()
                self._phase("round", f"step {done}/{self.settings.steps}", lambda _: self.pruner, ratio)
            self.pruner.finish()
        self._phase("retrain", "retrain", lambda _: self.pruner, self.settings.ratio)
        self.model.cpu()
        return self.pruner.program()

    def _phase(self, phase: PhaseName, name: str, start: Callable[[int], Pruner], ratio: float) -> None:
        clock = Clock()
        self.n_calls += 1
        loop = Loop(phase, self.n_calls, self.settings.device, start)
        self.progress.note(f"{self._name}: {name}")
        self.model.train()
        with contextlib.redirect_stdout(sys.stderr):  # standard output is for results
            self._call(loop)
        self.pruner.detach()
        if phase == "search" and not loop.is_attached:
            raise UsageError(
                f"--train {self._name}: did not attach in the search, so nothing is drawn\n"
                "call loop.attach(optimizer, steps=…) before the first step"
            )
        self._refuse_revived(name)
        residual = self.pruner.report().residual
        self._record(name, clock.seconds, {} if residual is None else {"residual": residual})

    def _call(self, loop: Loop) -> None:
        try:
            self._train(self.model, loop)
        except CompressError:
            raise
        except Exception as error:  # a user's code raises anything
            raise TrainingError(f"--train {self._name}: raised {named_line(error)}{_place(error)}") from error

    def _refuse_revived(self, phase: str) -> None:
        """Raises:  TrainingError if what is cut is not 0: somebody trained without the loop."""
        own = dict(self.model.named_parameters(remove_duplicate=False))
        n = sum(
            int((own[name].detach()[~mask.to(own[name].device)] != 0).sum())
            for name, mask in self.pruner.masks.items()
            if name in own
        )
        if n:
            raise TrainingError(
                f"--train {self._name}: {n:,} cut weights came back in {phase}; attach every optimizer that steps: "
                "loop.attach(optimizer)"
            )

    def _record(self, name: str, seconds: float, extra: dict[str, float] | None = None) -> None:
        cut = sum(int((~mask).sum()) for mask in self.pruner.masks.values())
        kept = Params(self.dense.n_parameters - cut)
        self.stages.append(StageRow(name, self.pruner.report().got, kept, 0, seconds, None, extra or {}))


def _place(error: Exception) -> str:
    """` (file.py:12 the line)` of the user's code that raised."""
    frames = traceback.extract_tb(error.__traceback__)
    own = [f for f in frames if not any(part in f.filename for part in _NOT_THE_USERS)]
    if not own:
        return ""
    last = own[-1]
    return f" ({last.filename.rpartition('/')[2]}:{last.lineno} {last.line or ''})"[:160]
