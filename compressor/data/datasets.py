"""Batches from a user's own pair of torch data sets, returned by a function of theirs.

It must never hold a file format, nor leave the global random number generator changed.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves
from torch.utils.data import default_collate

from compressor.data.digests import digest_of, file_digest
from compressor.data.order import mixed_seed
from compressor.data.passes import NumberedSource, Pass
from compressor.data.source import Batch
from compressor.errors import DataError, first_line
from compressor.reference import load_reference, resolve_path, split_reference

_SAMPLES, _TRIES = 32, 3


@dataclass(frozen=True, eq=False)
class DatasetSource(NumberedSource):
    """A DataSource over two map-style data sets whose items are (input, ..., target).

    `augment` is the data set's own affair and ignored here; what it draws from torch's generator in `train`
    is seeded per position, so it is the same for every batch size and number of processes.
    """

    ref: str
    train: Any
    val: Any
    n_classes: int | None
    input_shapes: tuple[tuple[int, ...], ...]

    @property
    def augments(self) -> bool:
        return False

    @property
    def n_train(self) -> int:
        return len(self.train)

    @property
    def n_val(self) -> int:
        return len(self.val)

    def content_digest(self) -> str:
        """See `identity.identity_of_data`: the code, the counts, and a spread of validation samples.

        Not the training samples, which their data set may draw anew each time.
        """
        source = split_reference(self.ref)
        code = "" if source is None or not source[0].endswith(".py") else file_digest(Path(source[0]))
        return digest_of(code, self.n_train, self.n_val, self.n_classes, self.input_shapes, *self._lasting())

    def _lasting(self) -> list[Any]:
        """Leaves of samples over the whole split; none where fetching one again gives something else."""
        found: list[Any] = []
        for i in range(0, self.n_val, -(-self.n_val // _SAMPLES)):
            with torch.random.fork_rng(devices=[]):
                tries = [list(filter(_is_value, tree_leaves(self.val[i]))) for _ in range(_TRIES)]
            if any(digest_of(*other) != digest_of(*tries[0]) for other in tries[1:]):
                return []
            found += tries[0]
        return found

    def fetched(self, asked: Pass) -> Iterator[Batch]:
        """Targets may be any structure of tensors."""
        dataset, order = self.train if asked.split == "train" else self.val, asked.order
        for part in asked.slices:
            items: list[Any] = []
            with torch.random.fork_rng(devices=[]):
                pairs = zip(order.sample_N[part].tolist(), order.position_N[part].tolist(), strict=True)
                for sample, position in pairs:
                    # Not torch.manual_seed, which reseeds the accelerators too, and with them dropout.
                    torch.default_generator.manual_seed(mixed_seed("sample", asked.seed, asked.epoch, position))
                    items.append(dataset[sample])
            yield _to_device(_as_batch(_collated(items, self.ref), self.ref), asked.device)


def _collated(items: list[Any], ref: str) -> Any:
    """Raises:  DataError for items that make no batch: the data set's own fault."""
    try:
        return default_collate(items)
    except (RuntimeError, TypeError) as error:
        shapes = [[tuple(x.shape) for x in tree_leaves(item) if isinstance(x, Tensor)] for item in items]
        other = next((i for i, shape in enumerate(shapes) if shape != shapes[0]), None)
        if other is None:
            raise DataError(f"{ref}: items of its data set make no batch: {first_line(error)}") from error
        raise DataError(
            f"{ref}: items of its data set have different sizes, {shapes[0]} and {shapes[other]}, and make no batch\n"
            f"let it return tensors of one size: pad texts (with a mask as an input), resize images"
        ) from error


def _is_value(leaf: object) -> bool:
    """Not an object whose text says where it lies in memory."""
    return isinstance(leaf, (Tensor, bool, int, float, str))


def open_function(ref: str, base: Path | None, *, trust_code: bool) -> DatasetSource:
    """The two data sets that the function named by `ref` returns.

    Raises:  UntrustedCodeError without `trust_code`; DataError if it cannot be loaded or called, or returns no pair of
             map-style data sets.
    """
    function = load_reference(ref, field="data", trust_code=trust_code, base=base, error=DataError)
    if not callable(function):
        raise DataError(f"{ref}: not a function but a {type(function).__name__}")
    try:
        pair = function()
    except Exception as cause:
        raise DataError(f"{ref}: calling it raised {type(cause).__name__}: {cause}") from cause
    if not isinstance(pair, tuple | list) or len(pair) != 2:
        raise DataError(f"{ref}: must return two data sets (train, val), got {type(pair).__name__}")
    train, val = pair
    for name, dataset in (("train", train), ("val", val)):
        if not (hasattr(dataset, "__len__") and hasattr(dataset, "__getitem__")):
            raise DataError(f"{ref}: the {name} data set needs __len__ and __getitem__ (no iterable data sets)")
        if len(dataset) == 0:
            raise DataError(f"{ref}: the {name} data set is empty")
    with torch.random.fork_rng(devices=[]):
        first = _as_batch(_collated([train[0]], ref), ref)
    shapes = tuple(tuple(x.shape[1:]) for x in first.inputs)
    classes = getattr(train, "classes", None)
    return DatasetSource(_absolute(ref, base), train, val, len(classes) if classes else None, shapes)


def _absolute(ref: str, base: Path | None) -> str:
    parts = split_reference(ref)
    if parts is None or not parts[0].endswith(".py"):
        return ref
    return f"{resolve_path(parts[0], base)}:{parts[1]}"


def _as_batch(collated: Any, ref: str) -> Batch:
    if not isinstance(collated, tuple | list) or len(collated) < 2:
        raise DataError(f"{ref}: an item must be a tuple (input, ..., target)")
    *inputs, target = collated
    if len(inputs) == 1 and isinstance(inputs[0], tuple | list):
        inputs = list(inputs[0])
    if not all(isinstance(x, Tensor) for x in inputs):
        kinds = ", ".join(type(x).__name__ for x in inputs)
        raise DataError(f"{ref}: inputs must be tensors or numbers, got {kinds}")
    return Batch(tuple(inputs), target)


def _to_device(batch: Batch, device: str) -> Batch:
    return Batch(tuple(x.to(device) for x in batch.inputs), _moved(batch.target, device))


def _moved(target: Any, device: str) -> Any:
    if isinstance(target, Tensor):
        return target.to(device)
    if isinstance(target, dict):
        return {key: _moved(value, device) for key, value in target.items()}
    if isinstance(target, tuple | list):
        return [_moved(value, device) for value in target]
    return target
