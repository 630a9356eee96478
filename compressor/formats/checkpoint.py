"""The checkpoint: one dictionary of tensors, masks, graph text and metadata, with a digest over all of it.

It must never hold pickled code; nothing in it is believed before schema, digest, names, shapes are checked.
"""

from __future__ import annotations

import copy
import json
import logging
import os
from collections.abc import Mapping
from dataclasses import replace
from io import BytesIO
from pathlib import Path
from typing import Any, BinaryIO, TypeVar

import torch
from torch import Tensor, nn

from compressor.atomic import atomic_write, opened
from compressor.errors import CompressError, ModelError
from compressor.formats.archive import first_line
from compressor.formats.digest import digest
from compressor.formats.graph_json import read_graph, write_graph
from compressor.formats.names import check_tensor_names, shown, variables_of
from compressor.formats.positions import flat_positions, read_positions, stored_positions, with_positions
from compressor.formats.running import check_running
from compressor.formats.tensors import check_dense, check_finite, plain
from compressor.formats.where import made_absolute, made_relative
from compressor.narrowing import is_dict
from compressor.program import InputSpec, Program, ProgramModule, Record
from compressor.schema import check_plain, read_as

T = TypeVar("T")

SCHEMA = 2
_WITHOUT_POSITIONS = 1
"""The schema of files without the positions of `stored_positions`, which earlier versions read too."""
_POSITIONS = "kept_positions"
_LARGEST_INPUT = 2**33
"""Elements of one input at batch 2, 32 GiB in fp32; a larger one is a damaged or hostile size."""
_MOST_SHARING = 16
"""Times that the tensors may be larger than the memory behind them; ours share none but a mask or two."""


def is_checkpoint(content: Any) -> bool:
    """Whether what torch.load gave is one of ours, of whatever schema."""
    return isinstance(content, dict) and "compressor" in content and "graph" in content


def save(program: Program, target: str | Path | BinaryIO, *, force: bool = False) -> None:
    """Write the program as a checkpoint, atomically when `target` is a path.

    References to data and task become relative to the target's folder where they lie below it.

    Raises:  OutputError if the file exists and not `force`, or cannot be written; ModelError if the program
             holds what a checkpoint cannot, or weights that its masks cut are not 0.
    """
    if isinstance(target, (str, Path)):
        content = _contents(program, Path(os.path.realpath(target)).parent)
        with atomic_write(target, force=force) as temporary, opened(temporary) as file:
            torch.save(content, file)
    else:
        # torch.save seeks on what it is given; a pipe cannot.
        target.write(_serialised(_contents(program, None)))
        target.flush()


def to_bytes(program: Program) -> bytes:
    """The checkpoint as bytes; the same program gives the same bytes."""
    return _serialised(_contents(program, None))


def check_storable(program: Program) -> None:
    """Nothing, when `save` can keep the program's graph and `load` would open it: to be asked before hours of work.

    Raises:  ModelError naming the operator that a checkpoint cannot hold, and where it is used.
    """
    _graph_text(program.module)
    check_running(program)


def read_checkpoint(content: Mapping[str, Any], name: str, folder: Path | None) -> Program:
    """The program in evaluation mode; `folder` is where its relative references start.

    Raises:  ModelError if the checkpoint is of a newer schema, damaged, or does not fit together.
    """
    try:
        return _read(content, folder)
    except ModelError as error:
        raise ModelError(f"{name}: {error}") from error


def _serialised(content: Mapping[str, Any]) -> bytes:
    buffer = BytesIO()
    torch.save(content, buffer)
    return buffer.getvalue()


def _contents(program: Program, folder: Path | None) -> dict[str, Any]:
    tensors = program.module.tensors()
    parameters = program.parameters
    check_tensor_names(tensors)
    check_finite(tensors, parameters)
    state = {name: plain(tensor) for name, tensor in tensors.items()}
    # The very same key objects in both: pickle writes a string again or refers to it by identity.
    keys = {name: name for name in state}
    _check_masks(program.masks, parameters)
    program.check_masks()
    positions = stored_positions(program.masks)
    masks = {keys.get(name, name): plain(program.masks[name]) for name in program.masks if name not in positions}
    graph = _graph_text(program.module)
    check_running(program)
    _check_all_read(program.module, state)
    aliases = {alias: name for alias, name in program.aliases.items() if name in state and alias not in state}
    metadata = {
        "schema": SCHEMA if positions else _WITHOUT_POSITIONS,
        "inputs": [spec.to_mapping() for spec in program.inputs],
        "record": made_relative(program.record, folder).to_mapping(),
        "aliases": aliases,
        "buffers": [name for name in state if name not in parameters],
        "frozen": [name for name, parameter in parameters.items() if not parameter.requires_grad],
        "versions": {"torch": str(torch.__version__)},
    }
    # Through JSON and back: nothing but plain values, and the same bytes for the same program.
    metadata = json.loads(json.dumps(metadata, default=_as_plain))
    metadata["sha256"] = digest(graph, metadata, state, {**masks, **flat_positions(positions)})
    state |= {alias: state[name] for alias, name in aliases.items()}
    kept = {_POSITIONS: positions} if positions else {}
    return {"state_dict": state, "masks": masks, **kept, "graph": graph, "compressor": metadata}


def _as_plain(value: Any) -> Any:
    """Numbers of NumPy and torch as Python's, everything else as text."""
    return value.item() if hasattr(value, "item") else str(value)


def _graph_text(module: ProgramModule) -> str:
    """The graph as it is in evaluation mode; the module, whatever mode it is in, is left alone."""
    return write_graph(ProgramModule(module.tensors(), copy.deepcopy(module.graph)).eval().graph)


def _read(content: Mapping[str, Any], folder: Path | None) -> Program:
    metadata, graph = content["compressor"], content["graph"]
    _check_schema(metadata)
    check_plain(metadata, ModelError, "its metadata")
    state, dense = _tensors(content, "state_dict"), _tensors(content, "masks")
    positions = read_positions(content.get(_POSITIONS, {}), state)
    if not isinstance(graph, str):
        raise ModelError("its graph is no text; the file is damaged")
    aliases = _names(metadata, "aliases", dict[str, str])
    tensors = _without_aliases(state, aliases)
    _check_own_memory([*tensors.values(), *dense.values()])
    if metadata.get("sha256") != digest(graph, metadata, tensors, {**dense, **flat_positions(positions)}):
        raise ModelError("its content does not match its digest: it was damaged or edited; restore it from a copy")
    tensors = {name: tensor.contiguous() for name, tensor in tensors.items()}
    module = _module(graph, tensors, _names(metadata, "buffers", list[str]), _names(metadata, "frozen", list[str]))
    parameters = dict(module.named_parameters())
    check_finite(tensors, parameters)
    masks = with_positions(dense, positions, parameters)
    _check_masks(masks, parameters)
    record = made_absolute(Record.from_mapping(metadata.get("record")), folder)
    program = Program(module, _inputs(metadata, module), masks, record, dict(aliases))
    if record.interface is not None:
        record.interface.check(program.inputs, program.n_outputs)
    _check_shapes(program)
    return program


def _check_schema(metadata: Any) -> None:
    schema = metadata.get("schema") if is_dict(metadata) else None
    if type(schema) is not int or schema < 1:
        raise ModelError("its header has no schema number; the file is damaged")
    if schema > SCHEMA:
        raise ModelError(
            f"was written by a newer compress (schema {schema}, this one reads up to {SCHEMA}); update compress"
        )


def _check_own_memory(tensors: list[Tensor]) -> None:
    """Nothing, when the tensors are not many times the same few bytes, which would take hours to read."""
    held = {tensor.untyped_storage().data_ptr(): tensor.untyped_storage().nbytes() for tensor in tensors}
    declared = sum(tensor.numel() * tensor.element_size() for tensor in tensors)
    if declared > _MOST_SHARING * sum(held.values()):
        raise ModelError(
            f"its tensors declare {declared:,} bytes but share {sum(held.values()):,}; the file is damaged"
        )


def _tensors(content: Mapping[str, Any], key: str) -> dict[str, Tensor]:
    found = content.get(key)
    if not is_dict(found) or not all(isinstance(name, str) for name in found):
        raise ModelError(f"has no {key}; the file is damaged")
    for name, tensor in found.items():
        check_dense(name, tensor)
    return {name: tensor.detach() for name, tensor in found.items()}


def _names(metadata: Mapping[str, Any], key: str, kind: type[T]) -> T:
    return read_as(kind, metadata.get(key, [] if kind == list[str] else {}), ModelError, f"its list of {key}")


def _without_aliases(state: Mapping[str, Tensor], aliases: Mapping[str, str]) -> dict[str, Tensor]:
    for alias, name in aliases.items():
        tied = name not in aliases and name in state and alias in state
        if not tied or state[alias].data_ptr() != state[name].data_ptr() or state[alias].shape != state[name].shape:
            raise ModelError(f"{shown(alias, 60)} should be tied to {shown(name, 60)} and is not; the file is damaged")
    return {name: tensor for name, tensor in state.items() if name not in aliases}


def _module(graph: str, tensors: Mapping[str, Tensor], buffers: list[str], frozen: list[str]) -> ProgramModule:
    fixed, unlearned = set(buffers), set(frozen)
    own = {
        name: tensor
        if name in fixed
        else nn.Parameter(tensor, requires_grad=tensor.is_floating_point() and name not in unlearned)
        for name, tensor in tensors.items()
    }
    try:
        module = ProgramModule(own, read_graph(graph, own))
    except CompressError:
        raise
    except Exception as error:  # torch.fx raises anything from KeyError to SyntaxError on a graph it cannot build
        raise ModelError(f"its graph cannot be built: {first_line(error)}") from error
    _check_all_read(module, own)
    return module.eval()


def _check_all_read(module: ProgramModule, tensors: Mapping[str, Tensor]) -> None:
    read = {node.target for node in module.graph.nodes if node.op == "get_attr"}
    unread = [name for name in tensors if name not in read]
    if unread:
        raise ModelError(f"{len(unread)} tensors are read by no node of the graph: {', '.join(unread[:3])[:200]}")


def _check_masks(masks: Mapping[str, Tensor], parameters: Mapping[str, nn.Parameter]) -> None:
    for name in masks:
        if name not in parameters:
            raise ModelError(f"a mask is for {shown(name, 60)}, which is no parameter")
        mask = masks[name]
        if mask.dtype is not torch.bool or mask.shape != parameters[name].shape:
            raise ModelError(
                f"the mask of {shown(name, 60)} is {mask.dtype} {list(mask.shape)}; "
                f"the parameter wants bool {list(parameters[name].shape)}"
            )


def _inputs(metadata: Mapping[str, Any], module: ProgramModule) -> tuple[InputSpec, ...]:
    entries = read_as(list[dict[str, Any]], metadata.get("inputs"), ModelError, "its list of inputs")
    inputs = tuple(InputSpec.from_mapping(entry) for entry in entries)
    names = [node.name for node in module.graph.nodes if node.op == "placeholder"]
    given = [spec.name for spec in inputs]
    if given != names and variables_of(given) != names:
        raise ModelError(f"its inputs are specified as {[s.name for s in inputs]} but the graph reads {names}")
    for spec in inputs:
        n_elements = 1
        for size in spec.concrete(2):
            n_elements *= size
        if any(size < 1 for size in spec.concrete(2)) or n_elements > _LARGEST_INPUT:
            raise ModelError(f"input {spec.name} has an impossible shape {list(spec.shape)}")
    return inputs


def _check_shapes(program: Program) -> None:
    """Runs shape inference once: every operator must fit its tensors, and all of them a machine."""
    logger = logging.getLogger("torch._subclasses.fake_tensor")
    was = logger.disabled
    logger.disabled = True  # it prints a stack trace for every operator that does not fit, before raising
    try:
        _ = program.shapes
    except CompressError:
        raise
    except Exception as error:  # what the graph computes can break the inference itself in torch's own ways
        raise ModelError(f"its graph does not fit its tensors: {first_line(error)}") from error
    finally:
        logger.disabled = was
    check_running(program)


def with_references(program: Program, data: str | None, task: str | None) -> Program:
    """The program with data and task replaced where one is given."""
    changes = {key: text for key, text in (("data", data), ("task", task)) if text is not None}
    return program.replace(record=replace(program.record, **changes)) if changes else program
