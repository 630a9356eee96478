"""A program's history: where it came from, what was done to it, which data it was measured on.

It must never hold tensors; everything in it is plain JSON.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field, replace
from typing import Any

from compressor.errors import ModelError
from compressor.program.interface import Interface
from compressor.schema import read_as


@dataclass(frozen=True)
class Step:
    """One command that made this program out of its parent."""

    command: str
    options: dict[str, Any] = field(default_factory=dict[str, Any])
    metrics: dict[str, Any] = field(default_factory=dict[str, Any])
    seed: int | None = None
    parent_sha256: str | None = None
    versions: dict[str, str] = field(default_factory=dict[str, str])
    time_utc: str = ""


@dataclass(frozen=True)
class Record:
    """What a program remembers.

    `dense_shapes` and `kept` describe a compacted program: the original size of each sliced parameter axis and the
    positions that were kept, by `name` and `axis`. `walk` holds the options that units were found with when the
    program was pruned (`axes.WalkOptions`); its masks mean those units. `preprocessing` is how the data set that it was
    last measured on made its inputs: what a program that serves the model has to do too. `configuration` is what the
    transformers library built the dense network from. `interface` is what the ONNX file that it came from promises to
    those who use it, and an export keeps. `until` are the layers that the user ended the network at.
    """

    arch: str | None = None
    arch_args: dict[str, Any] = field(default_factory=dict[str, Any])
    data: str | None = None
    task: str | None = None
    dense_params: int | None = None
    dense_macs: int | None = None
    steps: tuple[Step, ...] = ()
    notes: tuple[str, ...] = ()
    dense_shapes: dict[str, list[int]] = field(default_factory=dict[str, list[int]])
    kept: dict[str, dict[str, list[int]]] = field(default_factory=dict[str, dict[str, list[int]]])
    walk: dict[str, Any] = field(default_factory=dict[str, Any])
    preprocessing: dict[str, Any] = field(default_factory=dict[str, Any])
    configuration: dict[str, Any] = field(default_factory=dict[str, Any])
    interface: Interface | None = None
    until: tuple[str, ...] = ()

    def after(self, step: Step, **changes: Any) -> Record:
        """The record with one more step."""
        return replace(self, steps=(*self.steps, step), **changes)

    def kept_along(self, name: str, dim: int, size: int) -> list[int]:
        """The positions in the first dense program of the `size` that an axis of a parameter has now.

        Raises:  ModelError if others are remembered than the axis has.
        """
        kept = self.kept.get(name, {}).get(str(dim)) or list(range(size))
        if len(kept) != size:
            raise ModelError(f"{name}: {len(kept)} positions are remembered along axis {dim}, which has {size}")
        return kept

    def to_mapping(self) -> dict[str, Any]:
        lists = {"notes": list(self.notes), "until": list(self.until)}
        return {**asdict(self), "steps": [asdict(step) for step in self.steps], **lists}

    @staticmethod
    def from_mapping(entry: object) -> Record:
        """Raises:  ModelError if the entry is not a record; keys of a newer version are ignored."""
        record = read_as(Record, entry, ModelError, "the checkpoint's history")
        for name in ("dense_params", "dense_macs"):
            count = getattr(record, name)
            if count is not None and count < 0:
                raise ModelError(f"the checkpoint's history cannot be read: {name}: a count below 0")
        return record
