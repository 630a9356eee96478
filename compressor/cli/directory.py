"""Directories of transformers as the output of a command; it must never hold how one is written."""

from __future__ import annotations

import os
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from compressor.asking import PruneSettings
from compressor.asking.gates import Gates
from compressor.cli.session import Session
from compressor.cli.streams import Target, Written
from compressor.errors import OutputError, UsageError

if TYPE_CHECKING:
    from compressor.data.source import DataSource
    from compressor.data.task import Task
    from compressor.exporting.exported import ExportReport
    from compressor.program import Program


class _NotMet(Exception):
    """The gates are not met by the size of what was written."""


def is_directory(output: str | None) -> bool:
    """Whether `-o` names a directory: `NAME/`."""
    return output is not None and output.endswith(("/", os.sep))


def directory_target(path: str, force: bool) -> Target:
    """Where a directory goes.

    Raises:  OutputError if something is there, unless `force`, or it has no place.
    """
    target = Target(Path(path), force)
    if Path(path).exists() and not force:
        raise OutputError(f"{path} exists; give another -o DIRECTORY, or --force")
    if not Path(os.path.abspath(path)).parent.is_dir():
        raise OutputError(f"{path}: there is no directory {Path(os.path.abspath(path)).parent}; create it first")
    return target


def check_goal(settings: PruneSettings) -> None:
    """Raises:  UsageError for a cut after which the smaller network has to be trained before it is of use."""
    if settings.through_norm == "rescale":
        raise UsageError(
            "--through-norm rescale: the smaller network must be retrained behind compact before it is written\n"
            "give -o a checkpoint; then compact, retrain, and compress export -o NAME/"
        )


def write_directory(
    program: Program,
    target: Target,
    data: DataSource | None,
    task: Task | None,
    session: Session,
    gates: Gates,
    values: Mapping[str, float | None],
) -> Written:
    """Removes what was cut and writes what is left as transformers reads it, if `values` and its size meet the gates.

    Raises:  VerificationError if either step gives another network; nothing is written then.
    """
    from compressor.compaction import compact
    from compressor.exporting import export_huggingface

    verdicts = gates.judge(values)
    if not session.is_main or target.path is None:
        return Written(target.name, None, verdicts)
    size = 0

    def accept(report: ExportReport) -> None:
        nonlocal size, verdicts
        size, verdicts = report.size_bytes, gates.judge({**values, "size": float(report.size_bytes)})
        if not verdicts.passed:
            raise _NotMet

    with session.working("removing what was cut, and checking what transformers opens"):
        smaller, _ = compact(program, data=data, task=task, masks_only=True)
        with suppress(_NotMet):
            export_huggingface(smaller, target.path, force=target.force, data=data, accept=accept)
    return Written(target.name, size, verdicts) if verdicts.passed else Written(None, None, verdicts)
