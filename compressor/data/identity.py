"""Digests of a data set's content and of a task: a run that goes on must know whether they are those it began with.

It must never depend on where the data lie: a run may go on elsewhere.
"""

from __future__ import annotations

from compressor.data.digests import digest_of, source_digest
from compressor.data.source import DataSource
from compressor.data.task import Task


def identity_of_data(source: DataSource) -> str:
    """The digest in hexadecimal; a source that has no `content_digest` is told by its name, counts and shapes."""
    digest = getattr(source, "content_digest", None)
    if callable(digest):
        return str(digest())
    return digest_of(source.ref, source.n_train, source.n_val, source.input_shapes)


def identity_of_task(task: Task) -> str:
    """The same of name and metric, and of the file that its class is written in."""
    return digest_of(task.name, task.primary, source_digest(type(task)))
