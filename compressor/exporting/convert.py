"""A program as an ONNX model in memory, through torch's own exporter; it must never write files or run the
result.

What the exporter adds for its own debugging (stack traces with the paths of this machine, node by node) is
taken out again, so that the same program gives the same bytes everywhere.
"""

from __future__ import annotations

import contextlib
import copy
import logging  # noqa: TID251 (the exporter speaks through it, and is told not to)
import operator
import re
import warnings
from collections.abc import Generator, Iterator, Sequence

import numpy as np
import onnx
import onnx_ir as ir
import torch
from torch import nn
from torch._ops import OpOverload
from torch.fx import Node

from compressor.errors import ModelError, UsageError, innermost_line
from compressor.exporting.masked_attention import zero_by_the_mask
from compressor.exporting.recurrent import stepping_openly, translations
from compressor.exporting.translations import stable_sort
from compressor.program import Program, ProgramModule, arguments, batches, families
from compressor.program.normalise import SIZE_ARITHMETIC

_TALKATIVE = ("torch.onnx", "torch.export", "onnxscript", "onnx_ir", "root")
"""onnxruntime's quantiser speaks through the root logger, and so does not even have a name to silence."""


def to_onnx(program: Program, module: nn.Module, opset: int | None, batch: int | None = None) -> ir.Model:
    """The ONNX model of `program`, computed from `module`: its own module on the CPU, in evaluation mode.

    Inputs have the names of the specification; a single output is `output`, several are `output`, `output_1`
    … or the keys of the dictionary that the network returns; a network that was imported from an ONNX file keeps
    the names of that. Of these only tensors are outputs of the file. The batch dimension is called `batch`, or has the
    size `batch`; dimensions of any length have the names that the specification gives them, or the file that the
    network came from.

    Raises:  ModelError if an operator has no ONNX form, UsageError if the opset cannot be written.
    """
    known = onnx.defs.onnx_opset_version()
    if opset is not None and opset > known:
        raise UsageError(f"--opset {opset}: onnx {onnx.__version__} here knows them up to {known}; update it")
    interface = program.record.interface
    _refuse_projections(program)
    _lay_out_attention(module)
    open_sizes = interface is not None and interface.has_open_sizes
    exported = to_exported(program, stepping_openly(_of_tensors(program, module)), batch, open_sizes=open_sizes)
    try:
        with quiet():
            onnx_program = torch.onnx.export(
                exported, dynamo=True, optimize=True, verbose=False, opset_version=opset, external_data=False,
                custom_translation_table={**dict.fromkeys(families.STABLE_SORT, stable_sort), **translations()},
            )  # fmt: skip
    except Exception as error:  # the exporter wraps whatever its parts raise
        raise ModelError(f"the model has no ONNX form: {_told(error, program, batch)}") from error
    if onnx_program is None:
        raise ModelError("the model has no ONNX form: torch.onnx.export gave nothing back")
    model = onnx_program.model
    written = model.opset_imports.get("", 0)
    if opset is not None and written != opset:
        raise UsageError(
            f"--opset {opset}: onnxscript cannot bring this model there, it got to {written}; leave it out, or try 18"
        )
    zero_by_the_mask(model)
    _strip(model)
    _name_values(model, [spec.name for spec in program.inputs], output_names(program))
    _name_sizes(model, program)
    _name_transposed(model, module)
    return model


def _lay_out_attention(module: nn.Module) -> None:
    """Attention's result in the memory layout that it says it has.

    torch's exporter writes a reshape behind it as a view by the strides of the operator, then takes the operator apart,
    which gives other strides where there is a mask. A copy costs nothing: ONNX has no strides.
    """
    for node in list(module.graph.nodes):  # type: ignore[union-attr]
        if node.op == "call_function" and node.target in families.ATTENTION:
            with node.graph.inserting_after(node):
                copied = node.graph.call_function(torch.ops.aten.clone.default, (node,))
            copied.kwargs = {"memory_format": torch.contiguous_format}
            node.replace_all_uses_with(copied, delete_user_cb=lambda user, own=copied: user is not own)
    module.recompile()  # type: ignore[operator]


def output_names(program: Program) -> list[str]:
    """Names of the outputs of the file: the network's tensors in the order in which they are flattened."""
    return [name for name, _ in named_outputs(program)[0]]


def named_outputs(program: Program) -> tuple[list[tuple[str, Node]], list[str]]:
    """The network's tensors in the order in which they are flattened, by names of which no two are alike and none is
    an input's, those of the file that it was imported from, if it was; and what it calls the numbers among its
    outputs, which no file of tensors has."""
    (output,) = (node for node in program.module.graph.nodes if node.op == "output")
    taken = {spec.name for spec in program.inputs}
    tensors: list[tuple[str, Node]] = []
    numbers: list[str] = []
    interface = program.record.interface
    told = iter(() if interface is None else [port.name for port in interface.outputs])
    for path, value in _paths(output.args[0], ""):
        if not isinstance(value, Node) or _is_number(value):
            numbers.append(path or f"number {len(numbers)}")
            continue
        wanted = next(told, path) or ("output" if not tensors else f"output_{len(tensors)}")
        name, n = wanted, 1
        while name in taken:
            name, n = f"{wanted}_output" if n == 1 else f"{wanted}_output_{n}", n + 1
        taken.add(name)
        tensors.append((name, value))
    return tensors, numbers


def _is_number(node: Node) -> bool:
    """Whether a node is a size, or arithmetic on sizes."""
    return node.target in families.SIZE or (node.target in SIZE_ARITHMETIC and node.target is not operator.getitem)


def _paths(value: object, path: str) -> Iterator[tuple[str, object]]:
    """Every tensor or number with the dictionary keys that lead to it, joined by dots; empty outside dictionaries."""
    if isinstance(value, dict):
        for key, part in value.items():
            yield from _paths(part, f"{path}.{key}" if path else str(key))
    elif isinstance(value, tuple | list):
        for i, part in enumerate(value):
            yield from _paths(part, f"{path}.{i}" if path else "")
    elif value is not None:
        yield path, value


def _refuse_projections(program: Program) -> None:
    """Raises:  ModelError for an LSTM with projections, which is written as one without."""
    for node in program.module.graph.nodes:
        if node.target not in families.RECURRENT:
            continue
        bound = arguments(node)
        n_cells = bound["num_layers"] * (2 if bound["bidirectional"] else 1)
        if len(bound["params"]) > n_cells * (4 if bound["has_biases"] else 2):
            where = node.meta.get("where") or node.name
            raise ModelError(
                f"{where}: ONNX has no LSTM with projections (proj_size)\nwrite -o model.pt2 or model.py instead"
            )


def _of_tensors(program: Program, module: nn.Module) -> nn.Module:
    """The module with its tensors as the only outputs; the very module where it returns nothing else."""
    tensors, numbers = named_outputs(program)
    if not numbers or not isinstance(module, ProgramModule):
        return module
    if not tensors:
        raise ModelError("the model returns numbers only, and an ONNX file has tensors as outputs; return one")
    graph = copy.deepcopy(module.graph)
    (output,) = (node for node in graph.nodes if node.op == "output")
    by_name = {node.name: node for node in graph.nodes}
    output.args = (tuple(by_name[node.name] for _, node in tensors),)
    return ProgramModule(module.tensors(), graph).eval()


_NO_FUNCTION = re.compile(r"No ONNX function found for <OpOverload\(op='(?P<operator>[^']+)'")


def _told(error: BaseException, program: Program, batch: int | None) -> str:
    """Why torch's exporter gave up, and what to do instead."""
    lacking = _NO_FUNCTION.search(innermost_line(error))
    if lacking is not None:
        return f"torch's exporter knows none for {lacking['operator']}\nwrite -o model.pt2 or model.py instead"
    line = _line_of_batch(program) if batch is None and program.has_dynamic_batch else None
    if line is None:
        return f"{innermost_line(error)}\nwrite -o model.pt2 or model.py instead"
    return f"{innermost_line(error)}\nit computes with the number of samples ({line}); try a fixed batch: --batch 1"


def _line_of_batch(program: Program) -> str | None:
    """The first line in which the number of samples is an operand, which many ONNX operators cannot take."""
    readers = (
        node for node in program.module.graph.nodes
        if isinstance(node.target, OpOverload) and any(_is_number(source) for source in node.all_input_nodes)
    )  # fmt: skip
    return next((node.meta.get("where") or node.name for node in readers), None)


def to_exported(
    program: Program, module: nn.Module, batch: int | None = None, *, open_sizes: bool = False
) -> torch.export.ExportedProgram:
    """torch's own exported form, the batch open or of size `batch`, free dimensions open; `open_sizes` opens those of
    the program's interface too.

    Raises:  ModelError if torch cannot export it, or the graph holds a size as a number that should be open.
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
    for name, spec, dims in zip(_user_inputs(exported), program.inputs, open_dims, strict=False):
        (node,) = (node for node in exported.graph.nodes if node.name == name)
        for dim in (dim for dim in dims if not batches.is_open(node, dim)):
            what = "the batch" if dim == 0 else f"{spec.free[dim] if spec.free else f'size {dim}'} of {spec.name}"
            raise ModelError(
                f"the graph fixes {what} although its input leaves it open; "
                "a reshape or expand in it holds the size as a number"
            )
    return exported


def _open_dims(program: Program, is_open: bool, open_sizes: bool) -> list[list[int]]:
    """The dimensions of each input whose sizes are to be open."""
    interface = program.record.interface
    ports = interface.read if open_sizes and interface is not None else (None,) * len(program.inputs)
    found: list[list[int]] = []
    for spec, port in zip(program.inputs, ports, strict=True):
        free = [dim for dim, name in enumerate(spec.free) if name]
        found.append([*([0] if is_open else []), *free, *(() if port is None else port.open_sizes())])
    return found


def _user_inputs(exported: torch.export.ExportedProgram) -> Sequence[str]:
    return [name for name in exported.graph_signature.user_inputs if isinstance(name, str)]


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


def _name_sizes(model: ir.Model, program: Program) -> None:
    """Calls the symbols of the inputs' open sizes as the program's interface or specification does, that of the first
    dimension `batch` where neither says anything, wherever they occur, as in `4*s77` too."""
    symbols: dict[str, str] = {}
    interface = program.record.interface
    for position, (value, spec) in enumerate(zip(model.graph.inputs, program.inputs, strict=True)):
        told = interface.read[position].shape if interface is not None else None
        for dim, size in enumerate(value.shape or ()):
            if not isinstance(size, ir.SymbolicDim) or not size.value or size.value in symbols:
                continue
            own = "batch" if dim == 0 else spec.free[dim] if spec.free else ""
            if interface is None and own:  # one name for one batch, and for one length
                symbols[size.value] = own
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
def quiet() -> Generator[None]:
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
