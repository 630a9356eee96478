"""A program as a directory that transformers opens by itself; it must never write one that answers otherwise."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from compressor.data.source import DataSource
from compressor.errors import ModelError, OutputError, UsageError, VerificationError, innermost_line
from compressor.exporting.convert import weight_dtype
from compressor.exporting.exported import ExportReport
from compressor.exporting.metadata import properties, refuse_reserved
from compressor.exporting.verify import FileComparison, Run, check_data
from compressor.models import keep_every_head, takes_by_name
from compressor.models.depths import Depth
from compressor.models.hf_directory import (
    depths_of,
    drop_weights,
    fill_network,
    names_of,
    open_directory,
    save_directory,
    widths_of,
)
from compressor.models.widths import Entries, Widths, candidates, name_of
from compressor.program import Program, half_type, has_halves
from compressor.program.agreement import leaves
from compressor.program.runs import Other, seeded

_HOW = "compress prune … --uniform, then compact --masks-only (which removes nothing else), gives one that can"


def export_huggingface(
    program: Program,
    target: str | Path,
    *,
    force: bool = False,
    batch_sizes: Sequence[int] = (1, 2, 5),
    data: DataSource | None = None,
    metadata: Mapping[str, str] | None = None,
    accept: Callable[[ExportReport], None] | None = None,
) -> ExportReport:
    """What was written: `config.json` with the new widths and weights that `from_pretrained` opens, which was opened so
    and run beside the program; with the tokenizer or the processor of the directory that the network is from. The
    metadata go into a file beside them, `compress.json`, with the program's history.

    Raises:  UsageError if the program is not from a directory of transformers; ModelError naming the widths that no
             configuration can say, or if its masks were not removed yet; VerificationError if what is opened disagrees
             (nothing is written then); OutputError if the target is there, unless `force`.
    """
    started = time.perf_counter()
    _check_source(program)
    refuse_reserved(metadata or {})
    if data is not None:
        check_data(program, data)
    final = Path(os.path.abspath(Path(target).expanduser()))
    if final.exists() and not force:
        raise OutputError(f"{target} exists; give another -o DIRECTORY, or --force")
    try:
        with tempfile.TemporaryDirectory(dir=final.parent, prefix=f".{final.name[:50]}-") as stage:
            made = Path(stage, final.name)
            report = _write(program, made, batch_sizes, data)
            known = {**properties(program, data), **(metadata or {})}
            Path(made, "compress.json").write_text(json.dumps(known, indent=1, sort_keys=True) + "\n", encoding="utf-8")
            if accept is not None:
                accept(report)
            if final.exists():
                os.replace(final, Path(stage, "before"))
            os.replace(made, final)
    except OSError as error:
        raise OutputError(f"{target}: cannot be written: {error.strerror or error}") from error
    return replace(report, path=str(target), seconds=time.perf_counter() - started)


def _check_source(program: Program) -> None:
    if not program.record.configuration:
        raise UsageError("--format huggingface: the model is not from a directory of transformers; write ONNX instead")
    if program.n_zeroed:
        raise ModelError(
            "--format huggingface: what its masks cut is still there as zeros; remove it first with compress compact"
        )
    if _kept_type(program) is None:
        raise ModelError(
            "--format huggingface: writes weights of one type, float32, float16 or bfloat16, and the model has others"
        )


def _kept_type(program: Program) -> torch.dtype | None:
    """The one type that all weights have, if transformers opens a network in it."""
    halved = half_type(program.module.parameters())
    return halved or (torch.float32 if weight_dtype(program) == torch.float32 and not has_halves(program) else None)


def _write(program: Program, folder: Path, batch_sizes: Sequence[int], data: DataSource | None) -> ExportReport:
    """The directory, written and checked; the path is for the caller to fill in."""
    trouble: Exception | None = None
    left = _Left.of(program)
    shares = {left.named(name): share for name, share in _smaller_norms(program).items()}
    for entries in _configurations(left):
        try:
            network = fill_network(entries, left.tensors, left.aliases, shares)
            beside = save_directory(network, folder, _original(program))
            n_params = sum(p.numel() for p in network.parameters())
            drop_weights(network)  # what is opened below is a second one
            found = FileComparison(program, _opened(program, folder, entries)).verification(batch_sizes, data)
        except VerificationError as error:
            trouble = error
            shutil.rmtree(folder, ignore_errors=True)
            continue
        return ExportReport.of(
            program,
            sorted(path for path in folder.iterdir() if path.is_file()),
            found,
            n_params=n_params,
            n_nodes=0,
            on_data=data is not None,
            format="huggingface",
            beside=beside,
        )
    assert trouble is not None
    raise VerificationError(f"{trouble}\nnothing was written") from trouble


def _original(program: Program) -> Path | None:
    """The directory that the network is from, where it is still there."""
    prefix, _, folder = (program.record.arch or "").partition(":")
    return Path(folder).expanduser() if prefix == "transformers" and Path(folder).expanduser().is_dir() else None


@dataclass(frozen=True)
class _Left:
    """The tensors that are left of a network under the names that they have in one without the layers that are gone,
    and the configuration of that; `gone` are the entries that count layers with those that are left."""

    entries: Entries
    tensors: Mapping[str, Tensor]
    aliases: Mapping[str, str]
    gone: tuple[tuple[Depth, tuple[int, ...]], ...]

    @classmethod
    def of(cls, program: Program) -> _Left:
        """Raises:  ModelError naming what a layer has lost that a configuration gives every layer."""
        tensors = {name: tensor.detach().cpu() for name, tensor in program.module.tensors().items()}
        entries: Entries = program.record.configuration
        depths, names = depths_of(entries), {*tensors, *program.aliases}
        _refuse_parts(depths, names, names_of(entries))
        gone = tuple((depth, kept) for depth in depths if 0 < len(kept := depth.left(names)) < depth.n)
        for depth, kept in gone:
            entries = depth.without(entries, kept)
        left = cls(entries, {}, {}, gone)
        return replace(
            left,
            tensors={left.named(name): tensor for name, tensor in tensors.items()},
            aliases={left.named(name): left.named(to) for name, to in program.aliases.items()},
        )

    def named(self, name: str) -> str:
        for depth, kept in self.gone:
            name = depth.renamed(name, kept)
        return name


def _refuse_parts(depths: Sequence[Depth], names: Collection[str], dense: Collection[str]) -> None:
    """Nothing, if each layer has either all of its tensors in `dense` that others like it still have, or none.

    Raises:  ModelError naming what a layer has lost.
    """
    for depth in depths:
        parts: dict[tuple[str, int], set[str]] = {}
        for name in names:
            if (place := depth.place(name)) is not None:
                parts.setdefault(place[:2], set()).add(place[2])
        for (stack, number), own in sorted(parts.items()):
            whole = set[str]().union(*(other for (beside, _), other in parts.items() if beside == stack))
            lost = sorted(part for part in whole - own if f"{stack}{number}.{part}" in dense)
            if lost:
                raise ModelError(
                    f"--format huggingface: {stack}{number} has lost {lost[0]} and not all; {name_of(depth.key)} counts"
                    " whole layers\ncompress prune … --pattern layer --uniform takes whole layers"
                )


def _configurations(left: _Left) -> Iterator[Entries]:
    """Configurations whose networks have the shapes that are left, the likeliest first.

    Raises:  ModelError if there is none, naming a tensor that no configuration gives that shape.
    """
    widths = widths_of(left.entries)
    shapes = {name: tuple(tensor.shape) for name, tensor in left.tensors.items()}
    factors = widths.factors_of(shapes)
    fitting = [entries for entries in candidates(widths, factors) if _misfit(widths, entries, shapes) is None]
    if not fitting:
        raise ModelError(f"--format huggingface: {_why_not(widths, factors, shapes)}\n{_HOW}")
    yield from fitting


def _misfit(widths: Widths, entries: Entries, shapes: Mapping[str, tuple[int, ...]]) -> str | None:
    """The first tensor that the network of a configuration has in another shape; None if they are all alike."""
    built = widths.build(entries)
    assert built is not None
    return next((name for name, shape in built.items() if shapes.get(name, shape) != shape), None)


def _why_not(widths: Widths, factors: Mapping[Any, Any], shapes: Mapping[str, tuple[int, ...]]) -> str:
    entries = next(candidates(widths, factors), None)
    if entries is None:
        told = ", ".join(f"{name_of(key)} times {factor}" for key, factor in factors.items() if factor != 1)
        return f"transformers builds no network with {told}"
    name = _misfit(widths, entries, shapes)
    built = widths.build(entries)
    assert name is not None and built is not None
    dim = next(i for i, (a, b) in enumerate(zip(shapes[name], built[name], strict=True)) if a != b)
    of = [name_of(key) for key, axes in widths.removable.items() if (name, dim) in axes]
    entry = f"{of[0]} is one number for all layers, " if of else "no entry is that width, "
    return f"{name} is {shapes[name][dim]} wide along dimension {dim}; {entry}{built[name][dim]} elsewhere"


def _smaller_norms(program: Program) -> dict[str, float]:
    """Vectors that got shorter while norms kept their divisor, each with C / C0: what is left of it.

    x / sqrt(Σ x² / C0 + eps) is x / sqrt(mean of x² + eps · C0 / C) · sqrt(C0 / C).
    """
    if program.record.walk.get("through_norm") != "exact":
        return {}
    dense = program.record.dense_shapes
    return {
        name: tensor.shape[0] / dense[name][0]
        for name, tensor in program.module.tensors().items()
        if tensor.dim() == 1 and name in dense and dense[name][0] != tensor.shape[0]
    }


def _opened(program: Program, folder: Path, entries: Entries) -> Run:
    dtype = _kept_type(program) or torch.float32
    network, names = open_directory(folder, entries, dtype), [spec.name for spec in program.inputs]
    keep_every_head(network, names, program.example_inputs(1, dtype=dtype))
    takes_by_name(network, names)

    def run(inputs: Sequence[Tensor]) -> Other:
        given = [x.to(dtype) if x.is_floating_point() else x for x in inputs]
        try:
            with seeded(), torch.no_grad():
                return Other(inputs, leaves(network(*given)))
        except Exception as error:  # torch raises anything there
            raise VerificationError(f"what transformers opens does not run: {innermost_line(error)}") from error

    return run
