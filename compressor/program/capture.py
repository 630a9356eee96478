"""From an `nn.Module` to a `Program` by `torch.export`; it must never read files or know architectures.

The export is the training IR (ATen before decomposition), in evaluation mode, with a dynamic batch where the network
allows one. What the export leaves out is written into the record's notes.
"""

from __future__ import annotations

import contextlib
import logging
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.utils import _pytree as pytree

from compressor.errors import ModelError
from compressor.program.module import ProgramModule
from compressor.program.normalise import foreign_operators, normalise
from compressor.program.program import Program
from compressor.program.record import Record
from compressor.program.regions import inline_regions
from compressor.program.response_norm import open_response_norms
from compressor.program.shapes import traced_shapes
from compressor.program.spec import InputSpec


def capture(model: nn.Module, inputs: Sequence[InputSpec], *, record: Record | None = None) -> Program:
    """The program of a module; the module itself is left in evaluation mode and otherwise untouched.

    Raises:  ModelError if the module cannot be exported; the message holds torch's own first line.
    """
    model.eval()
    exported, notes = _export(model, tuple(inputs))
    with _quiet():
        source = exported.module()
    plain = _plain_graph(source)
    inline_regions(plain, source)
    graph, aliases = normalise(plain, _named_tensors(source))
    tensors = {name: t for name, t in _named_tensors(source).items() if name not in aliases}
    tensors, dropped = _without_unused_parameters(tensors, graph)
    if dropped:
        shown = ", ".join(dropped[:3]) + (" …" if len(dropped) > 3 else "")
        notes.append(f"{len(dropped)} parameters play no part in evaluation and were left out: {shown}")
    if foreign := foreign_operators(graph):
        notes.append(f"{', '.join(foreign)}: not an ATen operator, so the model can be analysed but not kept in a file")
    module = ProgramModule({name: _own(tensor) for name, tensor in tensors.items()}, graph)
    placeholders = [node for node in graph.nodes if node.op == "placeholder"]
    specs = tuple(
        replace(
            spec,
            name=node.name,
            shape=(None if _is_dynamic(node) else 1, *spec.shape[1:]),
            dtype=str(node.meta["val"].dtype).removeprefix("torch."),
        )
        for spec, node in zip(inputs, placeholders, strict=True)
    )
    module.eval()
    start = record or Record()
    traced = traced_shapes(graph, module.tensors())
    program = Program(module, specs, {}, replace(start, notes=(*start.notes, *notes)), aliases, traced)
    return open_response_norms(program)


def _export(model: nn.Module, inputs: tuple[InputSpec, ...]) -> tuple[torch.export.ExportedProgram, list[str]]:
    """Export with a dynamic batch, or at batch 1 where the network fixes its batch."""
    examples = tuple(spec.example(2).to(_dtype_of(model, spec)) for spec in inputs)
    dynamic = tuple({0: torch.export.Dim.AUTO} for _ in inputs)
    try:
        with _quiet():
            exported = torch.export.export(model, examples, dynamic_shapes=_by_signature(model, dynamic))
        if all(_is_dynamic(node) for node in exported.graph.nodes if _is_user_input(exported, node)):
            return exported, []
    except Exception as error:  # torch.export has no common base class for what it raises
        reason = _first_line(error)
    else:
        reason = "its code fixes the batch size"
    try:
        with _quiet():
            exported = torch.export.export(model, tuple(x[:1] for x in examples))
    except Exception as error:
        raise ModelError(
            f"the model cannot be exported: {_first_line(error)}\nfirst try, with a dynamic batch: {reason}"
        ) from error
    return exported, [f"exported with the batch fixed at 1: {reason}"]


def _by_signature(model: nn.Module, dynamic: tuple[Mapping[int, object], ...]) -> tuple[object, ...]:
    """The same, with several inputs collected where `forward` takes `*args`."""
    import inspect

    parameters = list(inspect.signature(model.forward).parameters.values())
    fixed = [p for p in parameters if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
    if len(fixed) < len(dynamic) and any(p.kind is p.VAR_POSITIONAL for p in parameters):
        return (*dynamic[: len(fixed)], dynamic[len(fixed) :])
    return dynamic


def _dtype_of(model: nn.Module, spec: InputSpec) -> torch.dtype:
    """The element type for an example: a half or double network wants its floating inputs in its own type."""
    floating = next((p.dtype for p in model.parameters() if p.is_floating_point()), spec.torch_dtype)
    return floating if spec.torch_dtype.is_floating_point else spec.torch_dtype


def _plain_graph(source: fx.GraphModule) -> fx.Graph:
    """The graph with flat inputs and a plain tuple, list or dict as output instead of a pytree calling convention."""
    graph = fx.Graph()
    mapping: dict[fx.Node, fx.Node] = {}
    flat = graph.graph_copy(source.graph, mapping)
    info = getattr(source.graph._codegen, "pytree_info", None)
    output: Any = flat
    if info is not None and info.out_spec is not None:
        leaves = list(flat) if isinstance(flat, (tuple, list)) else [flat]
        output = _plain_structure(pytree.tree_unflatten(leaves, info.out_spec))
    graph.output(output)
    return graph


def _plain_structure(value: Any) -> Any:
    """Custom output classes (dataclasses that export registered) as dictionaries without their empty fields."""
    if isinstance(value, dict):
        return {str(key): _plain_structure(part) for key, part in value.items() if part is not None}
    if isinstance(value, (tuple, list)):
        return tuple(_plain_structure(part) for part in value)
    if hasattr(value, "__dataclass_fields__"):
        fields = value.__dataclass_fields__  # type: ignore[union-attr]
        return {name: _plain_structure(getattr(value, name)) for name in fields if getattr(value, name) is not None}
    return value


def _named_tensors(source: nn.Module) -> dict[str, Tensor]:
    """All parameters and buffers, a tied one under each of its names."""
    return {
        **dict(source.named_parameters(remove_duplicate=False)),
        **dict(source.named_buffers(remove_duplicate=False)),
        **{name: value for name, value in _constants(source)},
    }


def _constants(source: nn.Module) -> Iterator[tuple[str, Tensor]]:
    """Tensors that the export put on modules as plain attributes."""
    for prefix, module in source.named_modules():
        for name, value in vars(module).items():
            if isinstance(value, Tensor) and not name.startswith("_"):
                yield (f"{prefix}.{name}" if prefix else name), value


def _without_unused_parameters(tensors: dict[str, Tensor], graph: fx.Graph) -> tuple[dict[str, Tensor], list[str]]:
    """Parameters that nothing reads would distort every ratio; buffers (batch counters) are harmless and stay."""
    unread = [node for node in graph.nodes if node.op == "get_attr" and not node.users]
    dropped = [node.target for node in unread if isinstance(tensors.get(node.target), nn.Parameter)]
    for node in unread:
        if node.target in dropped:
            graph.erase_node(node)
    named = {node.target for node in graph.nodes if node.op == "get_attr"}
    unnamed = [n for n, t in tensors.items() if n not in named and n not in dropped and isinstance(t, nn.Parameter)]
    dropped = [*dropped, *unnamed]
    return {name: t for name, t in tensors.items() if name in named}, dropped


def _own(tensor: Tensor) -> Tensor:
    copied = tensor.detach().clone()
    return nn.Parameter(copied, tensor.requires_grad) if isinstance(tensor, nn.Parameter) else copied


def _is_user_input(exported: torch.export.ExportedProgram, node: fx.Node) -> bool:
    return node.op == "placeholder" and node.name in exported.graph_signature.user_inputs


def _is_dynamic(node: fx.Node) -> bool:
    value = node.meta.get("val")
    return isinstance(value, Tensor) and value.dim() > 0 and isinstance(value.shape[0], torch.SymInt)


def _first_line(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return f"{type(error).__name__}: {lines[0][:200] if lines else 'no message'}"


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Without torch.export's own warnings and log lines, which speak to its developers."""
    logger = logging.getLogger("torch.export")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)
