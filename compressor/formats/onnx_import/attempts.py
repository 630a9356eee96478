"""`import_onnx`: a file with its batch open where that computes the same, else with the batch that it fixes.

It must never hold what a node becomes, nor how a program and its file are compared.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import BinaryIO

import onnx

from compressor.errors import ModelError
from compressor.formats.onnx_import import importers as importers  # fills the table
from compressor.formats.onnx_import.budget import TooMuchError
from compressor.formats.onnx_import.build import Form, build
from compressor.formats.onnx_import.compare import DiffersError, compare
from compressor.formats.onnx_import.inputs import Inputs, read_inputs
from compressor.formats.onnx_import.read import OnnxModel, needed_nodes, read_model, subgraphs
from compressor.formats.onnx_import.source import Source
from compressor.formats.onnx_import.table import check_supported
from compressor.formats.onnx_import.values import BranchesError
from compressor.program import InputSpec, Program, Record

_TRIALS = ((2, 3, 1, 997), (2, 3, 5, 8), (2, 4, 6, 996))
"""Batch sizes that every value is measured at: what differs between them depends on the batch, what does not is taken
for a number. So they go from the smallest to one beyond any bound that a file may hold (`min(batch, 64)`). The others
are for files that need several samples, have tables of so many rows, or split a batch in two."""


def import_onnx(
    file: BinaryIO,
    name: str,
    *,
    folder: Path | None = None,
    inputs: Sequence[InputSpec] = (),
    record: Record | None = None,
) -> Program:
    """The program that an ONNX file holds; weights are parameters under the names that the exporter left.

    `inputs` gives sizes that the file leaves open. A batch that the file fixes is opened where the graph allows it;
    where not, the program keeps it and says so in its notes. Every program is compared with the file in onnxruntime;
    a note says at which batches, or why it was not.

    Raises:  ModelError if the file is no sound ONNX, holds an operator without importer, or would compute something
             else as a program; UsageError if a size that the file leaves open is not given.
    """
    try:
        return _imported(file, name, folder, inputs, record or Record())
    except UnicodeDecodeError as error:  # protobuf looks at text only when it is read
        raise ModelError(f"{name}: is damaged: a name in it is no text") from error


def _imported(file: BinaryIO, name: str, folder: Path | None, inputs: Sequence[InputSpec], start: Record) -> Program:
    model = read_model(file, name, folder)
    nodes = needed_nodes(model.graph, [value.name for value in model.graph.output])
    check_supported(list(_operators_of(nodes)), name)
    found = read_inputs(model, inputs, name)
    source = Source(file, name, folder, model, found.specs, found.bound)
    notes = [*start.notes, f"imported from ONNX: opset {model.opset}, {model.producer}", *model.notes, *found.notes]
    program, growing, said = _first_that_fits(model, nodes, found, source)
    interface = found.interface.with_fixed_sizes(found.specs, growing)
    return program.replace(record=replace(start, notes=(*notes, *said), interface=interface))


def _first_that_fits(
    model: OnnxModel, nodes: Sequence[onnx.NodeProto], inputs: Inputs, source: Source
) -> tuple[Program, tuple[tuple[int, ...], ...], list[str]]:
    """The program of the first form that can be built and computes what the file does, with notes on it.

    Between them are the dimensions behind the batch that stay open, of each input.

    Raises:  ModelError, that of the last form, if there is none.
    """
    reasons = _Reasons([], [])
    for form in _forms(inputs):
        if form.is_open and not form.grows and any(isinstance(reason, DiffersError) for reason in reasons.batch):
            continue  # it could be built, and another set of trials builds the same
        try:
            built = build(model, nodes, form, source.name, inputs.bound)
            kept = inputs.interface.with_fixed_sizes(inputs.specs, form.growing) if form.grows else None
            said = compare(built, source, form.opened, kept)
        except ModelError as error:
            reasons.keep(form, error, inputs, source.name)
        else:
            return built.program, form.growing, [*_form_notes(form, inputs, reasons, source.name), said]
    raise AssertionError("the last form is a fixed one, which returns or raises")


@dataclass(frozen=True)
class _Reasons:
    """Why earlier forms did not do: those with open sizes, and those with an open batch."""

    sizes: list[ModelError]
    batch: list[ModelError]

    def keep(self, form: Form, error: ModelError, inputs: Inputs, name: str) -> None:
        """Remembers it, or raises it where no other form is left to be tried, or none can help."""
        if isinstance(error, TooMuchError):
            raise error
        error = error.with_traceback(None)  # which holds all that was built
        if form.grows:
            self.sizes.append(error)
            return
        if isinstance(error, BranchesError) and inputs.fixed is None:
            raise BranchesError(f"{error}\n{_how_to_fix(inputs)}") from error
        if not form.is_open:
            if isinstance(error, DiffersError):
                raise DiffersError(_differs(name, error)) from error
            raise error from (self.batch[0] if self.batch else None)
        self.batch.append(error)


def _forms(inputs: Inputs) -> Iterator[Form]:
    """With open sizes where the file has them; with an open batch, if the inputs share one; with a fixed one."""
    specs, batch = inputs.at_own_batch(), inputs.held[0] or 1
    for growing in _growing(inputs):
        if inputs.why_not_open is None:
            yield Form(inputs.specs, _TRIALS[0], inputs.fixed, growing)
        if inputs.fixed is not None:
            yield Form(specs, (batch,) * 4, None, growing)
    if inputs.why_not_open is None:
        for trials in _TRIALS:
            yield Form(inputs.specs, trials, inputs.fixed)
    yield Form(specs, (batch,))


def _growing(inputs: Inputs) -> Iterator[tuple[tuple[int, ...], ...]]:
    """Which sizes may stay open: all that the file leaves so, else the last of each input (lines of one height)."""
    if inputs.has_open_sizes:
        yield inputs.open_sizes
    if any(len(dims) > 1 for dims in inputs.open_sizes):
        yield tuple(dims[-1:] for dims in inputs.open_sizes)


def _form_notes(form: Form, inputs: Inputs, reasons: _Reasons, name: str) -> list[str]:
    notes: list[str] = []
    fixed = [
        f"{spec.name} {'x'.join(map(str, spec.shape[1:]))}"
        for spec, dims, kept in zip(
            inputs.specs, inputs.open_sizes, form.growing or ((),) * len(inputs.specs), strict=True
        )
        if dims != kept
    ]
    if fixed:
        # The importers know one kind of open size, and call it by what it mostly is.
        why = f": {_told(reasons.sizes[0], name)}".replace("the batch size", "the open sizes") if reasons.sizes else ""
        but = " but for the last" if form.grows else ""
        notes.append(f"sizes that the file leaves open are fixed{but}, {', '.join(fixed)}{why}")
    if form.is_open:
        opened = None if form.opened is None else f"the file fixes the batch at {form.opened}; it was opened"
        return notes if opened is None else [*notes, opened]
    earlier = reasons.batch or reasons.sizes
    why = _told(earlier[0], name) if earlier else inputs.why_not_open
    return [*notes, f"imported with the batch fixed at {form.trials[0]}: {why}"]


def _told(error: ModelError, name: str) -> str:
    return str(error).removeprefix(f"{name}: ")


def _how_to_fix(inputs: Inputs) -> str:
    spec = inputs.specs[0]
    sizes = ",".join(map(str, spec.concrete(1)))
    return (
        "fix the batch first: python -m onnxruntime.tools.make_dynamic_shape_fixed "
        f"--input_name {spec.name} --input_shape {sizes} IN.onnx OUT.onnx"
    )


def _differs(name: str, error: DiffersError) -> str:
    return f"{name}: {error}\nso it was imported wrongly, which should not happen: please report it with the file"


def _operators_of(nodes: Iterable[onnx.NodeProto]) -> Iterable[tuple[str, str, str]]:
    for node in nodes:
        yield from (_told_of(part) for part in (node, *(n for graph in subgraphs(node) for n in graph.node)))


def _told_of(node: onnx.NodeProto) -> tuple[str, str, str]:
    return node.domain, node.op_type, node.name or (node.output[0] if node.output else "")
