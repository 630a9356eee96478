"""Batches from a user's own pair of map-style torch data sets, as a function of theirs returns it.

It must never hold a file format, nor leave the global random number generator changed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves, tree_map

from compressor.data.digests import digest_of, file_digest
from compressor.data.items import Wanted, as_batch, choose_inputs, named_inputs
from compressor.data.order import mixed_seed
from compressor.data.passes import NumberedSource, Pass
from compressor.data.source import Batch, Split
from compressor.errors import DataError, first_line
from compressor.reference import split_reference
from compressor.typed_torch import forked_cpu_rng, to_integers
from compressor.users_code import called, line_of

_SAMPLES, _TRIES = 32, 3


@dataclass(frozen=True, eq=False)
class DatasetSource(NumberedSource):
    """A DataSource over two map-style data sets whose items are (input, ..., target), or dictionaries.

    `augment` is the data set's own affair and ignored here; what it draws from torch's generator in `train`
    is seeded per position, so it is the same for every batch size and number of processes. `collate` makes a batch of
    a list of items, one for each split; `chosen` names the inputs, where these have names.
    """

    ref: str
    train: Any
    val: Any
    collate: tuple[Callable[[list[Any]], Any], Callable[[list[Any]], Any]]
    n_classes: int | None
    input_shapes: tuple[tuple[int, ...], ...]
    chosen: tuple[str, ...] | None = None

    @property
    def augments(self) -> bool:
        return False

    @property
    def n_train(self) -> int:
        return len(self.train)

    @property
    def n_val(self) -> int:
        return len(self.val)

    def fitted(self, wanted: Sequence[Wanted]) -> DatasetSource:
        """The same with the inputs that a model takes, in its order, where they have names.

        Raises:  DataError if there is no telling which these are.
        """
        known = self.named("train")
        if not known:
            return self
        chosen = choose_inputs(known, wanted, self.ref)
        return replace(self, chosen=chosen, input_shapes=tuple(tuple(known[name].shape[1:]) for name in chosen))

    def named(self, split: Split) -> dict[str, Tensor]:
        """The inputs of the first sample, as a batch of one, where they have names."""
        return named_inputs(self.collated(split, [0]), self.ref)

    def content_digest(self) -> str:
        """See `identity.identity_of_data`: the code, the counts, and a spread of validation samples.

        Not the training samples, which their data set may draw anew each time.
        """
        counts = (self.n_train, self.n_val, self.n_classes, self.input_shapes)
        return digest_of(code_digest(self.ref), *counts, *self._lasting())

    def _lasting(self) -> list[Any]:
        """Leaves of samples over the whole split; none where fetching one again gives something else."""
        found: list[Any] = []
        for i in range(0, self.n_val, -(-self.n_val // _SAMPLES)):
            with forked_cpu_rng():
                tries = [list(filter(_is_value, tree_leaves(self._item("val", i)))) for _ in range(_TRIES)]
            if any(digest_of(*other) != digest_of(*tries[0]) for other in tries[1:]):
                return []
            found += tries[0]
        return found

    def fetched(self, asked: Pass) -> Iterator[Batch]:
        """Targets may be any structure of tensors."""
        order = asked.order
        for part in asked.slices:
            items: list[Any] = []
            numbers = to_integers(order.sample_N[part])
            with forked_cpu_rng():
                for sample, position in zip(numbers, to_integers(order.position_N[part]), strict=True):
                    # Not torch.manual_seed, which reseeds the accelerators too, and with them dropout.
                    torch.default_generator.manual_seed(mixed_seed("sample", asked.seed, asked.epoch, position))
                    items.append(self._item(asked.split, sample))
            collated = self._made_one(asked.split, items, numbers)
            yield to_device(as_batch(collated, self.ref, self.chosen), asked.device)

    def _item(self, split: Split, number: int) -> Any:
        with called(f"{self.ref}: sample {number:,} of the {split} data set", DataError):
            return (self.train if split == "train" else self.val)[number]

    def collated(self, split: Split, numbers: list[int]) -> Any:
        """Items as the data set and its `collate` give them."""
        with forked_cpu_rng():
            return self._made_one(split, [self._item(split, number) for number in numbers], numbers)

    def _made_one(self, split: Split, items: list[Any], numbers: list[int]) -> Any:
        return collated_by(self.collate[split == "val"], items, f"{self.ref}: {split} samples {_some(numbers)}")


def collated_by(collate: Callable[[list[Any]], Any], items: list[Any], what: str) -> Any:
    """One structure of all items.

    Raises:  DataError naming the samples, and the user's line if it is their function that cannot.
    """
    try:
        return collate(items)
    except Exception as error:
        line = line_of(error)
        if not line and (sizes := _unlike(items)) is not None:
            raise DataError(
                f"{what} have different sizes, {sizes[0]} and {sizes[1]}, and make no batch\n"
                "let the data set return tensors of one size: pad texts (with a mask as an input), resize images"
            ) from error
        told = f"do not make a batch: {type(error).__name__}: {first_line(error)}"
        advice = f"in {line}" if line else "return tensors or numbers, of one size for all samples"
        raise DataError(f"{what} {told}\n{advice}") from error


def _unlike(items: list[Any]) -> tuple[Any, Any] | None:
    """Sizes of the tensors in the first item, and in another one where they differ."""
    shapes = [[tuple(x.shape) for x in tree_leaves(item) if isinstance(x, Tensor)] for item in items]
    return next(((shapes[0], shape) for shape in shapes if shape != shapes[0]), None)


def code_digest(ref: str) -> str:
    """Of the file that a reference names."""
    source = split_reference(ref)
    return "" if source is None or not source[0].endswith(".py") else file_digest(Path(source[0]))


def to_device(batch: Batch, device: str) -> Batch:
    """The batch with all its tensors there."""

    def there(value: Any) -> Any:
        return value.to(device) if isinstance(value, Tensor) else value

    moved = tree_map(there, batch.target)
    return Batch(tuple(x.to(device) for x in batch.inputs), moved)


def _is_value(leaf: object) -> bool:
    """Not an object whose text says where it lies in memory."""
    return isinstance(leaf, (Tensor, bool, int, float, str))


def _some(numbers: list[int]) -> str:
    return ", ".join(map(str, numbers[:4])) + (" …" if len(numbers) > 4 else "")
