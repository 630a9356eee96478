"""`import_onnx`: a file with its batch open where that computes the same, else with the batch that it fixes.

It must never hold what a node becomes, nor how a program and its file are compared.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import BinaryIO

import onnx

from compressor.errors import ModelError
from compressor.formats.onnx_import import operators as _operators  # noqa: F401 (fills the table)
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
    source = Source(file, name, folder, model, found.specs)
    notes = [*start.notes, f"imported from ONNX: opset {model.opset}, {model.producer}", *model.notes]
    program, said = _first_that_fits(model, nodes, found, source)
    return program.replace(record=replace(start, notes=(*notes, *said)))


def _first_that_fits(
    model: OnnxModel, nodes: Sequence[onnx.NodeProto], inputs: Inputs, source: Source
) -> tuple[Program, list[str]]:
    """The program of the first form that can be built and computes what the file does, with notes on it.

    Raises:  ModelError, that of the last form, if there is none.
    """
    reasons: list[ModelError] = []
    for form in _forms(inputs):
        if form.is_open and any(isinstance(reason, DiffersError) for reason in reasons):
            continue  # it could be built, and another set of trials builds the same
        try:
            built = build(model, nodes, form, source.name)
            said = compare(built.program, source, built.traces, form.opened)
        except BranchesError as error:
            if inputs.fixed is None:
                raise BranchesError(f"{error}\n{_how_to_fix(inputs)}") from error
            reasons.append(error)
        except DiffersError as error:
            if not form.is_open:
                raise DiffersError(_differs(source.name, error)) from error
            reasons.append(error)
        except ModelError as error:
            if not form.is_open:
                raise error from (reasons[0] if reasons else None)
            reasons.append(error)
        else:
            why = str(reasons[0]).removeprefix(f"{source.name}: ") if reasons else inputs.why_not_open
            return built.program, [*_batch_notes(form, why), said]
    raise AssertionError("the last form is a fixed one, which returns or raises")


def _forms(inputs: Inputs) -> Iterator[Form]:
    """With an open batch, if the inputs share one; then with the one that the file fixes."""
    if inputs.why_not_open is None:
        for trials in _TRIALS:
            yield Form(inputs.specs, trials, inputs.fixed)
    specs = inputs.at_own_batch()
    yield Form(specs, (inputs.held[0] or 1,))


def _batch_notes(form: Form, why_fixed: str | None) -> list[str]:
    if form.is_open:
        return [] if form.opened is None else [f"the file fixes the batch at {form.opened}; it was opened"]
    return [f"imported with the batch fixed at {form.trials[0]}: {why_fixed}"]


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
        yield node.domain, node.op_type, node.name or (node.output[0] if node.output else "")
        for graph in subgraphs(node):
            yield from _operators_of(graph.node)
