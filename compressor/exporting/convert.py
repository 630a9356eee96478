"""A program as an ONNX model in memory, through torch's own exporter; it must never write files or run the
result.

What the exporter adds for its own debugging (stack traces with the paths of this machine, node by node) is
taken out again, so that the same program gives the same bytes everywhere.
"""

from __future__ import annotations

import contextlib
import logging  # noqa: TID251 (the exporter speaks through it, and is told not to)
import re
import warnings
from collections.abc import Iterator, Sequence

import numpy as np
import onnx
import onnx_ir as ir
import torch
from torch import nn
from torch.fx import Node

from compressor.errors import ModelError, UsageError, innermost_line
from compressor.exporting.translations import stable_sort
from compressor.program import Interface, Program, families

_TALKATIVE = ("torch.onnx", "torch.export", "onnxscript", "onnx_ir", "root")
"""onnxruntime's quantiser speaks through the root logger, and so does not even have a name to silence."""


def to_onnx(program: Program, module: nn.Module, opset: int | None, batch: int | None = None) -> ir.Model:
    """The ONNX model of `program`, computed from `module`: its own module on the CPU, in evaluation mode.

    Inputs have the names of the specification; a single output is `output`, several are `output`, `output_1`
    … or the keys of the dictionary that the network returns; a network that was imported from an ONNX file keeps
    the names of that. The batch dimension is called `batch`, or has the size `batch`; sizes that such a file leaves
    open and the program does are open.

    Raises:  ModelError if an operator has no ONNX form, UsageError if the opset cannot be written.
    """
    known = onnx.defs.onnx_opset_version()
    if opset is not None and opset > known:
        raise UsageError(f"--opset {opset}: onnx {onnx.__version__} here knows them up to {known}; update it")
    if weight_dtype(program) == torch.bfloat16:
        raise ModelError("onnxruntime has no CPU kernels for bfloat16 to check it with; convert the weights to float32")
    interface = program.record.interface
    exported = to_exported(program, module, batch, open_sizes=interface is not None and interface.has_open_sizes)
    try:
        with quiet():
            onnx_program = torch.onnx.export(
                exported, dynamo=True, optimize=True, verbose=False, opset_version=opset, external_data=False,
                custom_translation_table=dict.fromkeys(families.STABLE_SORT, stable_sort),
            )  # fmt: skip
    except Exception as error:  # the exporter wraps whatever its parts raise
        raise ModelError(f"the model has no ONNX form: {innermost_line(error)}") from error
    if onnx_program is None:
        raise ModelError("the model has no ONNX form: torch.onnx.export gave nothing back")
    model = onnx_program.model
    written = model.opset_imports.get("", 0)
    if opset is not None and written != opset:
        raise UsageError(
            f"--opset {opset}: onnxscript cannot bring this model there, it got to {written}; leave it out, or try 18"
        )
    _strip(model)
    _name_values(model, [spec.name for spec in program.inputs], output_names(program))
    _name_sizes(model, interface)
    _name_transposed(model, module)
    return model


def output_names(program: Program) -> list[str]:
    """Names of the network's outputs in the order in which they are flattened; no two alike, none an
    input's. Those of the file that it was imported from, if it was."""
    (output,) = (node for node in program.module.graph.nodes if node.op == "output")
    taken = {spec.name for spec in program.inputs}
    names: list[str] = []
    interface = program.record.interface
    paths = list(_paths(output.args[0], "")) if interface is None else [port.name for port in interface.outputs]
    for path in paths:
        wanted = path or ("output" if not names else f"output_{len(names)}")
        name, n = wanted, 1
        while name in taken:
            name, n = f"{wanted}_output" if n == 1 else f"{wanted}_output_{n}", n + 1
        taken.add(name)
        names.append(name)
    return names


def _paths(value: object, path: str) -> Iterator[str]:
    """The dictionary keys that lead to each tensor, joined by dots; empty outside dictionaries."""
    if isinstance(value, Node):
        yield path
    elif isinstance(value, dict):
        for key, part in value.items():
            yield from _paths(part, f"{path}.{key}" if path else str(key))
    elif isinstance(value, tuple | list):
        for i, part in enumerate(value):
            yield from _paths(part, f"{path}.{i}" if path else "")


def to_exported(
    program: Program, module: nn.Module, batch: int | None = None, *, open_sizes: bool = False
) -> torch.export.ExportedProgram:
    """torch's own exported form, the batch open or of size `batch`; `open_sizes` as the program's interface says.

    Raises:  ModelError if torch cannot export it, or the graph holds the batch as a number that should be
             open.
    """
    is_open = program.has_dynamic_batch and batch is None
    open_dims = _open_dims(program, is_open, open_sizes)
    dynamic = tuple(dict.fromkeys(dims, torch.export.Dim.AUTO) for dims in open_dims) if any(open_dims) else None
    example = 2 if is_open else batch or 1
    examples = program.example_inputs(example, dtype=input_dtype(program))
    try:
        with quiet():
            exported = torch.export.export(module, examples, dynamic_shapes=dynamic)
    except Exception as error:  # torch.export has no common base class for what it raises
        raise ModelError(f"the model cannot be exported: {innermost_line(error)}") from error
    pairs = list(zip(_user_inputs(exported), open_dims, strict=True))
    if is_open and not all(_is_symbolic(exported, name, 0) for name, _ in pairs):
        raise ModelError(
            "the graph fixes the batch although its input leaves it open; "
            "a reshape or expand in it holds the batch as a number"
        )
    if not all(_is_symbolic(exported, name, dim) for name, dims in pairs for dim in dims):
        raise ModelError("the graph fixes a size that its input leaves open")
    return exported


def _open_dims(program: Program, is_open: bool, open_sizes: bool) -> list[tuple[int, ...]]:
    """The dimensions of each input whose sizes are to be open."""
    interface = program.record.interface
    inner = [()] * len(program.inputs)
    if open_sizes and interface is not None:
        inner = [port.open_sizes() for port in interface.read]
    return [((0,) if is_open else ()) + dims for dims in inner]


def _user_inputs(exported: torch.export.ExportedProgram) -> Sequence[str]:
    return [name for name in exported.graph_signature.user_inputs if isinstance(name, str)]


def _is_symbolic(exported: torch.export.ExportedProgram, name: str, dim: int) -> bool:
    (node,) = (node for node in exported.graph.nodes if node.name == name)
    return isinstance(node.meta["val"].shape[dim], torch.SymInt)


def weight_dtype(program: Program) -> torch.dtype | None:
    """Element type of the network's weights, of the first of them where there are several."""
    return next((p.dtype for p in program.module.parameters() if p.is_floating_point()), None)


def input_dtype(program: Program) -> torch.dtype | None:
    """Element type that the network's floating inputs have: what its specification says, or that of its weights where
    they have another and nothing casts the input to it."""
    told = {spec.torch_dtype for spec in program.inputs if spec.torch_dtype.is_floating_point}
    weights = {p.dtype for p in program.module.parameters() if p.is_floating_point()}
    placeholders = [node for node in program.module.graph.nodes if node.op == "placeholder"]
    readers = [user for node in placeholders for user in node.users]
    casts = bool(readers) and all(user.target in families.CASTS for user in readers)
    if len(told) == 1 and (casts or told <= weights):
        return next(iter(told))
    return weight_dtype(program)


def _strip(model: ir.Model) -> None:
    model.metadata_props.clear()
    for graph in model.graphs():
        graph.metadata_props.clear()
        graph.doc_string = None
        for value in (*graph.inputs, *graph.initializers.values()):
            value.metadata_props.clear()
        for node in graph:
            node.metadata_props.clear()
            node.doc_string = None
            for value in node.outputs:
                value.metadata_props.clear()


def _name_values(model: ir.Model, inputs: Sequence[str], outputs: Sequence[str]) -> None:
    """Gives inputs and outputs their names; another value that has one of these steps aside."""
    graph = model.graph
    if len(graph.inputs) != len(inputs) or len(graph.outputs) != len(outputs):
        raise ModelError(
            f"the ONNX form has {len(graph.inputs)} inputs and {len(graph.outputs)} outputs, "
            f"the model {len(inputs)} and {len(outputs)}; make every output a tensor"
        )
    ends = [*graph.inputs, *graph.outputs]
    reserved = {*inputs, *outputs}
    for value in [*graph.initializers.values(), *ends, *(v for node in graph for v in node.outputs)]:
        if value.name in reserved:
            value.name = f"{value.name}_inner"
    for value, name in zip(ends, [*inputs, *outputs], strict=True):
        value.name = name


def _name_sizes(model: ir.Model, interface: Interface | None) -> None:
    """Calls the symbols of the inputs' open sizes as the interface does, that of the first `batch` where it says
    nothing, wherever they occur, as in `4*s77` too."""
    symbols: dict[str, str] = {}
    for position, value in enumerate(model.graph.inputs):
        told = interface.read[position].shape if interface is not None else None
        for dim, size in enumerate(value.shape or ()):
            if not isinstance(size, ir.SymbolicDim) or not size.value or size.value in symbols:
                continue
            wanted = told[dim] if told is not None and dim < len(told) else None
            wanted = wanted if isinstance(wanted, str) else "batch" if dim == 0 else f"size_{dim}"
            n = sum(name == wanted or name.startswith(f"{wanted}_") for name in symbols.values())
            symbols[size.value] = f"{wanted}_{n}" if n else wanted
    if not symbols:
        return
    known = re.compile(r"\b(" + "|".join(map(re.escape, symbols)) + r")\b")
    for graph in model.graphs():
        for value in (*graph.inputs, *(v for node in graph for v in node.outputs)):
            if value.shape is None or not any(isinstance(dim, ir.SymbolicDim) for dim in value.shape):
                continue
            value.shape = ir.Shape([_renamed(dim, known, symbols) for dim in value.shape])


def _renamed(dim: int | ir.SymbolicDim, known: re.Pattern[str], symbols: dict[str, str]) -> int | str | None:
    if isinstance(dim, int):
        return dim
    return None if dim.value is None else known.sub(lambda match: symbols[match[1]], str(dim.value))


def _name_transposed(model: ir.Model, module: nn.Module) -> None:
    """Calls a weight that the optimiser stored transposed `NAME.T`, where it would be an anonymous
    `val_4`."""
    initializers = model.graph.initializers
    lost = {name: p for name, p in module.named_parameters() if p.dim() == 2 and name not in initializers}
    for value in list(initializers.values()):
        if value.const_value is None or value.shape is None or len(value.shape) != 2:
            continue
        stored = value.const_value
        for name, parameter in lost.items():
            if tuple(stored.shape) == tuple(parameter.T.shape) and (stored.numpy() == to_numpy(parameter.T)).all():
                value.name = f"{name}.T"
                del lost[name]
                break


def to_numpy(tensor: torch.Tensor) -> np.ndarray:
    """A copy on the host. Raises:  TypeError for bfloat16, which numpy does not have."""
    return tensor.detach().cpu().contiguous().numpy()


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Without the exporter's warnings and log lines, which speak to its developers."""
    loggers = [logging.getLogger(name) for name in _TALKATIVE]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.CRITICAL + 1)
    # Without any handler, the first message of the root logger would install one for good.
    silent = logging.NullHandler()
    logging.getLogger().addHandler(silent)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.getLogger().removeHandler(silent)
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
