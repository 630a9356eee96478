"""`compress prune --train file.py:function`: the user's code where the tool's own training would be.

It must never hold a method.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, cast

from compressor.errors import UsageError
from compressor.reference import load_reference

if TYPE_CHECKING:
    from torch import nn

    from compressor.asking import PruneSettings
    from compressor.cli.session import Session
    from compressor.cost import Stopwatch
    from compressor.data import DataSource, Task
    from compressor.program import Program
    from compressor.pruning import PruneReport, TrainFunction


@dataclass(frozen=True)
class YourTraining:
    """The function that --train names; `modules` receives the one that the program was captured from."""

    ref: str
    train: TrainFunction
    modules: list[nn.Module] = field(default_factory=list)

    @classmethod
    def named(cls, ref: str, session: Session) -> YourTraining:
        """Runs the user's code.

        Raises:  UsageError if it is no function; UntrustedCodeError where a configuration file named it that was only
                 found.
        """
        found = load_reference(ref, field="train", **session.origin("train", ref)._asdict())
        if not callable(found):
            raise UsageError(f"--train {ref}: is {type(found).__name__}, not a function of the network and a loop")
        return cls(ref, cast("TrainFunction", found))

    def cut(
        self, program: Program, settings: PruneSettings, session: Session, *,
        data: DataSource | None, task: Task, stopwatch: Stopwatch | None,
    ) -> tuple[Program, PruneReport]:  # fmt: skip
        """As `prune`; measured before and after where there are data."""
        from compressor.pruning import prune_in_your_loop
        from compressor.training import evaluate

        model = next(iter(self.modules), None)
        if model is None:
            session.note(f"--train {self.ref}: there is no code of the network here, so its evaluation graph trains")
        with session.progress() as progress:
            pruned, report = prune_in_your_loop(
                program, model, settings, self.train, name=self.ref, progress=progress, stopwatch=stopwatch
            )
        if data is None:
            return pruned, report
        first, *between, last = report.stages
        before, after = (evaluate(p.module, data, task, device=settings.device) for p in (program, pruned))
        stages = (replace(first, metrics=before), *between, replace(last, metrics=after))
        return pruned, replace(report, stages=stages)
