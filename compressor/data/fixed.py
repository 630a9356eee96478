"""A data set in batches of the one size that a network takes; it must never change what is in it or its order."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, TypeVar

from compressor.data.source import Batch, DataSource, Split

_Data = TypeVar("_Data", DataSource, DataSource | None)


class FixedBatches:
    """The same data, in batches of `size` whatever size is asked for; a rest that does not fill one is left out."""

    def __init__(self, source: DataSource, size: int) -> None:
        self._source, self._size = source, size

    def __getattr__(self, name: str) -> Any:
        return getattr(self._source, name)

    def batches(self, split: Split, batch_size: int, **options: Any) -> Iterator[Batch]:
        """Batches as DataSource.batches describes."""
        for batch in self._source.batches(split, self._size, **options):
            if len(batch.inputs[0]) == self._size:
                yield batch


def in_batches_of(data: _Data, size: int | None) -> _Data:
    """The data as a network takes it that fixes its batch at `size`; None takes any."""
    return data if data is None or size is None else FixedBatches(data, size)  # type: ignore[return-value]
