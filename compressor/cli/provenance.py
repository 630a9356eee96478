"""The step that a command adds to a checkpoint's history; it must never hold anything about its content."""

from __future__ import annotations

import os
import platform
from collections.abc import Mapping
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

from compressor.cli.declared import values_of

if TYPE_CHECKING:
    from compressor.cli.options import RunOptions
    from compressor.cli.streams import Source
    from compressor.program import Program, Step

_ABOUT_THE_RUN = (
    *(
        "model",
        "models",
        "output",
        "config",
        "allow_config",
        "trust_code",
        "json",
        "quiet",
        "verbose",
        "force",
        "resume",
        "dry_run",
        "report",
        "table",
        "no_latency",
    ),
)
"""Options that say where and how is told, not what comes out."""

_HAVE_THEIR_OWN_PLACE = ("seed", "data", "task")
"""In the step or the record already; the record keeps paths relative, so that no home directory is told."""

_REFERENCES = ("arch", "teacher", "plugin", "train", "sensitivity", "adopt")
"""Options that may name a file: told as seen from the working directory."""

_LIBRARIES = ("torch", "numpy", "onnx", "onnxruntime")


def make_step(command: str, options: RunOptions, source: Source, metrics: Mapping[str, Any]) -> Step:
    """One line of history: what was asked in full, by which versions, from which file, with what result."""
    from compressor.program import Step

    return Step(
        command=command,
        options=canonical_options(options),
        metrics=dict(metrics),
        seed=options.seed,
        parent_sha256=source.sha256,
        versions=versions(),
        time_utc=_now(),
    )


def remember(program: Program, step: Step, **changes: Any) -> Program:
    """The program with one more step in its record."""
    return program.replace(record=program.record.after(step, **changes))


def canonical_options(options: RunOptions) -> dict[str, Any]:
    """Every option that has a say in the result, defaults too, by its long name; what is off is left out."""
    return {
        name.replace("_", "-"): _told(name, value)
        for name, value in values_of(options).items()
        if name not in (*_ABOUT_THE_RUN, *_HAVE_THEIR_OWN_PLACE)
        and value is not None
        and value is not False
        and value != ()
    }


def _told(name: str, value: Any) -> Any:
    if name in _REFERENCES and isinstance(value, str):
        from compressor.data import relocate

        return relocate(value, start=Path.cwd())
    return list(value) if isinstance(value, tuple) else value


def versions() -> dict[str, str]:
    """Versions of this tool and of what computes."""
    from compressor import __version__

    return {
        "compressor": __version__,
        "python": platform.python_version(),
        **{name: metadata.version(name) for name in _LIBRARIES},
    }


def _now() -> str:
    # https://reproducible-builds.org/specs/source-date-epoch: the same run gives the same bytes.
    epoch = os.environ.get("SOURCE_DATE_EPOCH", "")
    moment = datetime.fromtimestamp(int(epoch), UTC) if epoch.isdigit() else datetime.now(UTC)
    return moment.isoformat(timespec="seconds")
