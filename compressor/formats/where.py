"""References to data and task files in a record: relative in a file, absolute in memory.

It must never open what they name: a reference to data that is gone is no error until the data is needed.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from compressor.data import KINDS, relocate
from compressor.program import Record
from compressor.reference import split_reference


def made_relative(record: Record, folder: Path | None) -> Record:
    """The record for a file in `folder`; absolute paths for a stream, which lies nowhere."""
    if folder is None:
        return made_absolute(record, Path.cwd())
    data = record.data if record.data is None else relocate(record.data, start=folder)
    task = record.task
    if task is not None and _source_file(task) is not None:
        task = relocate(task, start=folder)
    return replace(record, data=data, task=task)


def made_absolute(record: Record, folder: Path | None) -> Record:
    """The record with paths that exist below `folder` made absolute; others stay as they are."""
    if folder is None:
        return record
    data = record.data if record.data is None else absolute(record.data, folder)
    task = record.task if record.task is None or _source_file(record.task) is None else absolute(record.task, folder)
    return replace(record, data=data, task=task)


def absolute(ref: str, folder: Path) -> str:
    """The reference with its path below `folder`, if there is one."""
    kind, colon, rest = ref.partition(":")
    if colon and kind in KINDS:
        return f"{kind}:{_found(rest, folder)}"
    source = _source_file(ref)
    if source is not None:
        return f"{_found(source, folder)}{ref[len(source) :]}"
    return _found(ref, folder)


def _source_file(ref: str) -> str | None:
    """`net.py` of `net.py:Task`."""
    parts = split_reference(ref)
    return parts[0] if parts is not None and parts[0].endswith(".py") else None


def _found(text: str, folder: Path) -> str:
    path = folder / Path(text).expanduser()
    try:
        return str(path.absolute()) if path.exists() else text
    except OSError:  # a name too long, or a null byte: it is no path here
        return text
    except ValueError:
        return text
