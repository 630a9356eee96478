"""A file made and checked aside, then moved to its name or copied to a stream; it must never know what is in it."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import BinaryIO

from compressor.atomic import atomic_write
from compressor.errors import OutputError
from compressor.exporting.exported import ExportReport

Build = Callable[[Path], ExportReport]
"""Writes and checks the file at a path."""


def data_file(path: Path) -> Path:
    """Where the weights of a model above 2 GB go."""
    return path.with_name(path.name + ".data")


def publish(
    build: Build,
    target: str | Path | BinaryIO,
    force: bool,
    suffix: str,
    beside: Callable[[Path], Path] = data_file,
) -> ExportReport:
    """What `build` reports, its file at `target` or its bytes in it; `beside` names a second one with the weights.

    Raises:  OutputError if the target cannot be written; whatever `build` raises, and then there is no file.
    """
    if isinstance(target, str | os.PathLike):
        return _to_path(build, Path(target), force, beside)
    return _to_stream(build, target, suffix)


def _to_path(build: Build, target: Path, force: bool, beside: Callable[[Path], Path]) -> ExportReport:
    final = Path(os.path.realpath(target))
    # Checked in a directory of its own, under its final name: a model knows the file of its external data by
    # name.
    with (
        atomic_write(final, force=force) as temporary,
        tempfile.TemporaryDirectory(dir=temporary.parent, prefix=f".{final.name[:50]}-") as stage,
    ):
        staged = Path(stage, final.name)
        report = build(staged)
        os.replace(staged, temporary)
        if report.external_data:
            with atomic_write(beside(final), force=force) as temporary_data:
                os.replace(beside(staged), temporary_data)
    return replace(report, path=str(target))


def _to_stream(build: Build, target: BinaryIO, suffix: str) -> ExportReport:
    with tempfile.TemporaryDirectory(prefix="compress-") as stage:
        staged = Path(stage, "model" + suffix)
        report = build(staged)
        if report.external_data:
            raise OutputError("the model is above 2 GB and needs a second file for its weights; give -o PATH, not -")
        with open(staged, "rb") as file:
            shutil.copyfileobj(file, target)
    return replace(report, path=None)
