"""What a user's function returns, as a data source: data sets, loaders, iterables; it must never read a format."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, NamedTuple, cast

from torch.utils.data import (
    BatchSampler,
    DataLoader,
    IterableDataset,
    RandomSampler,
    SequentialSampler,
)

from compressor.data.datasets import DatasetSource
from compressor.data.items import as_batch
from compressor.data.source import Split
from compressor.data.streams import Stream, StreamSource, count
from compressor.errors import DataError
from compressor.narrowing import is_mapping, is_row
from compressor.reference import load_reference, resolve_path, split_reference
from compressor.typed_torch import default_collate
from compressor.users_code import called

_VALIDATION = ("val", "validation", "valid", "test")
Collate = Callable[[list[Any]], Any]


class _Part(NamedTuple):
    """One split as it was returned: its data set if samples have numbers, else None; the object itself."""

    dataset: Any
    given: Any
    collate: Collate


def open_function(ref: str, base: Path | None, *, trust_code: bool) -> DatasetSource | StreamSource:
    """The training and the validation data that the function named by `ref` returns.

    A loader in an ordinary order is taken as its data set, for batches are made here; one with a sampler of its own is
    gone through.

    Raises:  UntrustedCodeError without `trust_code`; DataError if it cannot be loaded or called, or returns no pair of
             data.
    """
    function = load_reference(ref, field="data", trust_code=trust_code, base=base, error=DataError)
    if not callable(function):
        raise DataError(f"{ref}: not a function but a {type(function).__name__}")
    with called(f"{ref}: calling it", DataError):
        returned = function()
    pair = _pair(returned, ref)
    train, val = (_part(given, f"{ref}: the {name} data") for name, given in zip(("train", "val"), pair, strict=True))
    classes = getattr(getattr(train.given, "dataset", train.given), "classes", None)
    n_classes = len(classes) if classes else None
    name = _absolute(ref, base)
    if train.dataset is None or val.dataset is None:
        return _streamed(name, (train, val), function, n_classes)
    found = DatasetSource(name, train.dataset, val.dataset, (train.collate, val.collate), n_classes, ())
    first = as_batch(found.collated("train", [0]), ref)
    shapes = tuple(tuple(x.shape[1:]) for x in first.inputs)
    return DatasetSource(name, train.dataset, val.dataset, (train.collate, val.collate), n_classes, shapes)


def _pair(returned: Any, ref: str) -> tuple[Any, Any]:
    if is_mapping(returned):
        val = [name for name in _VALIDATION if name in returned]
        if "train" in returned and val:
            return returned["train"], returned[val[0]]
    if not is_row(returned) or len(returned) != 2:
        raise DataError(f"{ref}: must return two data sets or loaders (train, val), got {type(returned).__name__}")
    return returned[0], returned[1]


def _part(given: Any, where: str) -> _Part:
    if _is_loader(given):
        ordinary = type(given.batch_sampler) is BatchSampler and _is_ordinary(given.sampler)
        if ordinary and _has_numbers(given.dataset):
            return _numbered(given.dataset, given, given.collate_fn, where)
        return _Part(None, given, given.collate_fn)
    if _has_numbers(given):
        return _numbered(given, given, default_collate, where)
    if isinstance(given, Iterable):
        return _Part(None, given, default_collate)
    raise DataError(
        f"{where} needs __len__ and __getitem__, or __iter__; got {type(given).__name__}, which has neither"
    )


def _is_loader(given: object) -> bool:
    return isinstance(given, DataLoader)


def _numbered(dataset: Any, given: Any, collate: Collate, where: str) -> _Part:
    with called(where, DataError):
        n = len(dataset)
    if n == 0:
        raise DataError(f"{where} set is empty")
    return _Part(dataset, given, collate)


def _has_numbers(given: Any) -> bool:
    """Whether samples can be fetched by number; iterable data sets of torch have the method in name only."""
    if isinstance(given, IterableDataset):
        return False
    return hasattr(given, "__len__") and hasattr(given, "__getitem__")


def _is_ordinary(sampler: Any) -> bool:
    if type(sampler) is RandomSampler:
        return not sampler.replacement and sampler.num_samples == len(sampler.data_source)
    return type(sampler) is SequentialSampler


def _streamed(
    name: str, parts: tuple[_Part, _Part], function: Callable[[], Any], n_classes: int | None
) -> StreamSource:
    splits: tuple[Split, Split] = ("train", "val")
    train, val = (_stream(part, function, name, split) for part, split in zip(parts, splits, strict=True))
    n_train = _count(train, parts[0], f"{name}: the train data")
    n_val = _count(val, parts[1], f"{name}: the val data")
    first = as_batch(next(train.passed(f"{name}: the train data", 0, 0)), name)
    shapes = tuple(tuple(x.shape[1:]) for x in first.inputs)
    return StreamSource(name, train, val, n_train, n_val, n_classes, shapes)


def _stream(part: _Part, function: Callable[[], Any], ref: str, split: Split) -> Stream:
    given = part.given
    loads = _is_loader(given) or getattr(given, "batch_size", None) is not None
    in_batches = loads and not (_is_loader(given) and given.batch_sampler is None)

    def begin(epoch: int) -> Iterable[Any]:
        if hasattr(given, "__next__"):  # a generator goes once: the function makes another
            return _pair(function(), ref)[split == "val"]
        if given is part.dataset:  # one that has numbers may know no end
            numbered: Any = given
            return map(numbered.__getitem__, range(len(numbered)))
        for follower in (given, getattr(given, "sampler", None), getattr(given, "dataset", None)):
            if callable(told := getattr(follower, "set_epoch", None)):
                told(epoch)
        return given

    return Stream(begin, in_batches, part.collate if not _is_loader(given) else default_collate)


def _count(stream: Stream, part: _Part, where: str) -> int:
    """Samples of a pass, as the data say themselves, or as it takes a pass to find out."""
    if not stream.in_batches and hasattr(cast("Any", type(part.given)), "__len__"):
        with called(where, DataError):
            n = len(part.given)
        if n:
            return n
    return count(stream, where)


def _absolute(ref: str, base: Path | None) -> str:
    parts = split_reference(ref)
    if parts is None or not parts[0].endswith(".py"):
        return ref
    return f"{resolve_path(parts[0], base)}:{parts[1]}"
