"""A data set as a model takes it: images of its size, inputs in its order; it must never know what a model is."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from compressor.data.datasets import DatasetSource
from compressor.data.folders import FolderSource
from compressor.data.items import Wanted
from compressor.data.source import DataSource
from compressor.data.streams import StreamSource


def first_inputs(data: DataSource) -> dict[str, Tensor]:
    """The first validation sample, as a batch of one; under the names that its inputs have, else under numbers."""
    if isinstance(data, (DatasetSource, StreamSource)) and (named := data.named("val")):
        return named
    batch = next(iter(data.batches("val", 1, limit=1)))
    return {str(i): value for i, value in enumerate(batch.inputs)}


def fitted(data: DataSource, wanted: Sequence[Wanted]) -> DataSource:
    """The data for a model with these inputs; what can be given in one way only stays as it is.

    Raises:  DataError if inputs have names and there is no telling which of them the model takes.
    """
    if isinstance(data, FolderSource):
        return data.fitted(tuple(spec.shape for spec in wanted))
    if isinstance(data, (DatasetSource, StreamSource)):
        return data.fitted(wanted)
    return data
