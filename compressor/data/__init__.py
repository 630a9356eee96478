"""Data sets and tasks: `open_data` and `open_task` are the way in.

It must never hold training, models, or anything that writes.
"""

from compressor.data.fitting import first_inputs, fitted
from compressor.data.fixed import in_batches_of
from compressor.data.identity import identity_of_data, identity_of_task
from compressor.data.items import Wanted
from compressor.data.opening import KINDS, open_data, relocate
from compressor.data.source import Batch, DataSource, Split, has_labels
from compressor.data.task import Classification, LanguageModelling, Task, means_of, open_task

__all__ = [
    "KINDS",
    "Batch",
    "Classification",
    "DataSource",
    "LanguageModelling",
    "Split",
    "Task",
    "Wanted",
    "first_inputs",
    "fitted",
    "has_labels",
    "identity_of_data",
    "identity_of_task",
    "in_batches_of",
    "means_of",
    "open_data",
    "open_task",
    "relocate",
]
