"""From an `nn.Module` to a `Program` by `torch.export`; it must never read files or know architectures.

The export is the training IR (ATen before decomposition), in evaluation mode, with a dynamic batch where the network
allows one. A program leaves here only when it answers as the module does; what the export leaves out, and what
evaluation leaves to chance or to the batch, is written into the record's notes.
"""

from __future__ import annotations

import inspect
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.utils import _pytree as pytree

from compressor.errors import ModelError
from compressor.narrowing import is_dict, is_row
from compressor.program import families
from compressor.program.batches import (
    closed_lengths,
    fixed_at,
    is_open,
    open_batch,
    turning_lengths,
    turning_points,
)
from compressor.program.faithful import find_difference
from compressor.program.items import OpenReadError, fold_reads
from compressor.program.known import constants_of
from compressor.program.modes import batch_statistics, drop_unused_statistics, random_places, shown, switch_off_dropout
from compressor.program.module import ProgramModule, of_same_kind
from compressor.program.normalise import foreign_operators, normalise, users_line
from compressor.program.original import At, Original
from compressor.program.program import Program
from compressor.program.record import Record
from compressor.program.regions import inline_regions
from compressor.program.response_norm import open_response_norms
from compressor.program.shapes import traced_shapes
from compressor.program.spec import Inputs, InputSpec, all_lengths, as_specs
from compressor.program.trace import NoTraceError, trace
from compressor.program.weight_norm import fold_weight_norms
from compressor.typed_torch import named_modules

_TRACED_BATCH = 2
_MOST_ELEMENTS = 2**24
"""Elements of all inputs up to which a batch size is compared only because the code asks for it."""


class _UnlikeError(Exception):
    """What was captured is not the module; the message says in what."""


def capture(model: nn.Module, inputs: Inputs, *, record: Record | None = None, owned: bool = False) -> Program:
    """The program of a module; the module itself is left in evaluation mode and otherwise untouched. An `owned` one is
    given away: its weights become the program's, and are not copied.

    `inputs` say what goes in: an example batch, a text as `"1x28x28"`, an `InputSpec`, or several of these.
    Both are called on random inputs at batches 1 and 3, and at other sizes that the module's code asks for; they must
    return the same. Dimensions that are free in `inputs` are compared at other lengths too, and fixed, with a note,
    where no program for any length does; if none for any batch does, one for batch 1 is tried, and a note says why.
    Dropout that is on in evaluation is on in training only, batch norms that are in training mode use the statistics of
    the batch in both.

    Raises:  ModelError if the module does not run, cannot be exported, or does what no graph can: its results depend on
             earlier calls, or on random numbers that are not torch's.
    """
    model.eval()
    original = Original(model, _in_order(model, inputs), owned=owned)
    try:
        program = _faithful(original)
    finally:
        original.restore()
    start = record or Record()
    return program.replace(record=replace(start, notes=(*start.notes, *program.record.notes)))


def _in_order(model: nn.Module, inputs: Inputs) -> tuple[InputSpec, ...]:
    """The specifications; those given by name in the order of `forward`, where it has these names."""
    specs = as_specs(inputs)
    places = {name: i for i, name in enumerate(inspect.signature(model.forward).parameters)}
    if isinstance(inputs, Mapping) and all(spec.name in places for spec in specs):
        return tuple(sorted(specs, key=lambda spec: places[spec.name]))
    return specs


def _faithful(original: Original) -> Program:
    """A program of the module that answers as it does. Raises: as `capture`."""
    sizes = original.batches
    if original.keeps_state:
        original.check_repeatable()
    if lengths := all_lengths(original.inputs):
        try:
            return _like(original, sizes, any_batch=True)
        except (NoTraceError, _UnlikeError) as first:
            told = ", ".join(f"{name} fixed at {size}" for name, size in lengths.items())
            return _noted(_faithful(original.at_one_length()), f"exported with {told}: {first}", in_front=True)
    try:
        return _like(original, sizes, any_batch=True)
    except (NoTraceError, _UnlikeError) as first:
        try:
            program = _like(original, (1,), any_batch=False)
        except (NoTraceError, _UnlikeError) as second:
            original.check_repeatable()
            what = "cannot be exported" if isinstance(second, NoTraceError) else "is not what its export computes"
            way_out = second.way_out if isinstance(second, NoTraceError) else ""
            more = [f"first try, with a dynamic batch: {first}"] if str(first) != str(second) else []
            raise ModelError("\n".join([f"the model {what}: {second}", *more, *filter(None, [way_out])])) from second
        why = original.own_limit or str(first)
        return _noted(program, f"exported with the batch fixed at 1: {why}", in_front=True)


def _like(original: Original, sizes: Sequence[int], *, any_batch: bool) -> Program:
    """A program that returned the same as the module at all `sizes`, in evaluation mode.

    Raises:  NoTraceError if there is none; _UnlikeError if it returned something else, or takes one batch size only
             where any is asked for.
    """
    original.restore()
    examples = original.examples(At(_TRACED_BATCH if any_batch else 1))
    dims = [[*([0] if any_batch else []), *_free_dims(spec)] for spec in original.inputs]
    exported, source = trace(original.module, examples, open_dims=dims)
    if any_batch and not open_batch(exported):
        line = fixed_at(exported)
        raise _UnlikeError(f"its code fixes the batch size{f' ({line})' if line else ''}")
    if not any_batch and (error := original.answer(At(1)).error) is not None:
        raise _UnlikeError(f"at batch 1 the model itself raises {error}")
    closed = closed_lengths(exported, original.inputs)
    program = _program(source, original, [spec.fixed(closed) for spec in original.inputs])
    asked = {b: line for b, line in turning_points(exported).items() if b not in sizes} if any_batch else {}
    affordable = [b for b in asked if original.elements(At(b)) <= _MOST_ELEMENTS]
    if difference := find_difference(program, original, map(At, (*sizes, *affordable))):
        raise _UnlikeError(f"it would be wrong with any batch, {difference}" if any_batch else difference)
    others = _lengths_to_compare(program, original, turning_lengths(exported, program.inputs))
    if difference := find_difference(program, original, others):
        raise _UnlikeError(f"it would be wrong with any length, {difference}")
    beyond = {batch: line for batch, line in asked.items() if batch not in affordable}
    return _noted(
        program, *_fixed_lengths(exported, original, closed), *_left_to_chance(program), *_told_by_calls(original),
        *_not_compared(original, sizes, beyond),
    )  # fmt: skip


def _free_dims(spec: InputSpec) -> list[int]:
    return [dim for dim, name in enumerate(spec.free) if name]


def _lengths_to_compare(program: Program, original: Original, asked: Mapping[str, Mapping[int, str]]) -> list[At]:
    """Other sizes of the dimensions that are still free, and those at which the code goes another way.

    Raises:  _UnlikeError if the module itself runs at none of the former.
    """
    left = all_lengths(program.inputs)
    if not left:
        return []
    usual = [At(at.batch, kept) for at in original.other_lengths if (kept := _only(at.lengths, left))]
    if all(original.answer(at).error is not None for at in usual):
        raise _UnlikeError(f"at {usual[0]} the model itself raises {original.answer(usual[0]).error}")
    turning = [At(_TRACED_BATCH, ((name, size),)) for name, sizes in asked.items() for size in sizes]
    return [*usual, *(at for at in turning if at not in usual and original.elements(at) <= _MOST_ELEMENTS)]


def _only(lengths: Iterable[tuple[str, int]], names: Mapping[str, int]) -> tuple[tuple[str, int], ...]:
    return tuple((name, size) for name, size in lengths if name in names)


def _fixed_lengths(
    exported: torch.export.ExportedProgram, original: Original, closed: Collection[str]
) -> Iterator[str]:
    """A note on free dimensions that the code made numbers of."""
    if closed:
        line, sizes = fixed_at(exported), all_lengths(original.inputs)
        told = ", ".join(f"{name} at {sizes[name]}" for name in sorted(closed))
        yield f"its code fixes {told}{f' ({line})' if line else ''}"


def _program(source: fx.GraphModule, original: Original, inputs: Sequence[InputSpec]) -> Program:
    """The export as a program that does in evaluation all that the module does; what was left out is in its notes."""
    plain = _plain_graph(source)
    inline_regions(plain, source)
    _refuse_objects(plain, source)
    _fold_reads(plain, source, original.module)
    graph, aliases, written = normalise(plain, _named_tensors(source))
    in_training = drop_unused_statistics(graph)
    tensors = {name: t for name, t in _named_tensors(source).items() if name not in aliases}
    tensors, normed = fold_weight_norms(graph, tensors)
    tensors, dropped = _without_unused_parameters(tensors, graph)
    aliases = {name: to for name, to in aliases.items() if to in tensors}
    own = {name: of_same_kind(tensor, tensors[name]) for name, tensor in _own(tensors, original.owned).items()}
    module = ProgramModule(own, graph)
    module.training = False
    placeholders = [node for node in graph.nodes if node.op == "placeholder"]
    specs = tuple(
        replace(
            spec,
            name=node.name,
            shape=(None if is_open(node) else 1, *spec.shape[1:]),
            dtype=str(node.meta["val"].dtype).removeprefix("torch."),
        )
        for spec, node in zip(inputs, placeholders, strict=True)
    )
    written = {name: line for name, line in written.items() if name.rpartition(".")[0] not in in_training}
    notes = [*_folded(normed), *_left_out(graph, dropped, written)]
    traced = traced_shapes(graph, module.tensors())
    return _noted(open_response_norms(Program(module, specs, {}, Record(), aliases, traced)), *notes)


def _own(tensors: Mapping[str, Tensor], owned: bool) -> dict[str, Tensor]:
    """Tensors that nobody else has: copies, but of parameters of an `owned` module that lie alone in their memory."""
    memory = Counter(tensor.untyped_storage().data_ptr() for tensor in tensors.values())
    found: dict[str, Tensor] = {}
    for name, tensor in tensors.items():
        alone = memory[tensor.untyped_storage().data_ptr()] == 1 and tensor.is_contiguous()
        is_given = owned and alone and isinstance(tensor, nn.Parameter)
        found[name] = tensor.detach() if is_given else tensor.detach().clone()
    return found


def _noted(program: Program, *notes: str, in_front: bool = False) -> Program:
    old = program.record.notes
    return program.replace(record=replace(program.record, notes=(*notes, *old) if in_front else (*old, *notes)))


def _folded(normed: Sequence[str]) -> list[str]:
    """A note on weights that the module computes by weight norm and the program holds."""
    if not normed:
        return []
    return [f"weight norm is folded into the weights ({shown(normed)}), and retraining trains these as they are"]


def _left_out(graph: fx.Graph, dropped: Sequence[str], written: Mapping[str, str]) -> list[str]:
    """Notes on what of the module is not in the graph, or not as a reader of it would expect."""
    notes: list[str] = []
    if dropped:
        notes.append(f"{len(dropped)} parameters play no part in evaluation and were left out: {shown(dropped)}")
    if simulated := [node for node in graph.nodes if "fake_quantize" in families.operator_name(node.target)]:
        notes.append(
            f"fake quantisation ({len(simulated)} operators): what it reads stays whole; prune the float network,"
            " and prepare the compact one for quantisation"
        )
    if foreign := foreign_operators(graph):
        notes.append(f"{', '.join(foreign)}: not an ATen operator, so the model can be analysed but not kept in a file")
    if norms := batch_statistics(graph):
        notes.append(
            f"{shown(norms)}: normalises with the statistics of the batch in evaluation too, so a result depends on "
            f"the other samples of its batch"
        )
    if written:
        lines = shown(dict.fromkeys(line for line in written.values() if line))
        notes.append(
            f"{shown(written)}: written in evaluation{f' ({lines})' if lines else ''}; the program leaves that out, "
            f"and the module's next call returned the same"
        )
    return notes


def _left_to_chance(program: Program) -> list[str]:
    """Puts the module into evaluation mode, and says what that changed and what is random still."""
    notes: list[str] = []
    dropped = switch_off_dropout(program.module)
    if places := dropped.until_training:
        notes.append(f"dropout is on in evaluation ({shown(places)}); in the program it is on in training only")
    if places := dropped.for_good:
        notes.append(f"dropout in attention is on in evaluation ({shown(places)}); in the program it is never on")
    if places := random_places(program.module.graph):
        notes.append(f"draws random numbers in evaluation ({shown(places)})")
    return notes


def _told_by_calls(original: Original) -> list[str]:
    """Notes on what calls of the module did beside their results."""
    notes: list[str] = []
    if original.counted:
        notes.append(f"{shown(original.counted)}: changes with every call; the next call returned the same")
    if original.draws_python:
        notes.append(
            "draws random numbers of Python or NumPy in evaluation, which changed no result in a few dozen calls"
        )
    return notes


def _not_compared(original: Original, sizes: Sequence[int], asked: Mapping[int, str]) -> list[str]:
    """Notes on batch sizes at which nothing speaks for the program."""
    refused = [batch for batch in sizes if original.answer(At(batch)).error is not None]
    notes: list[str] = []
    if refused:
        sizes_told = ", ".join(map(str, refused))
        notes.append(f"the model itself does not run at batch {sizes_told}: {original.answer(At(refused[0])).error}")
    for batch, line in asked.items():
        where = f" ({line})" if line else ""
        notes.append(f"its code asks how many samples there are{where}: from batch {batch} on nothing was compared")
    return notes


def _plain_graph(source: fx.GraphModule) -> fx.Graph:
    """The graph with flat inputs and a plain tuple, list or dict as output instead of a pytree calling convention."""
    graph = fx.Graph()
    mapping: dict[fx.Node, fx.Node] = {}
    flat = graph.graph_copy(source.graph, mapping)
    codegen: Any = getattr(source.graph, "_codegen", None)
    info = getattr(codegen, "pytree_info", None)
    output: Any = flat
    if info is not None and info.out_spec is not None:
        leaves = list(flat) if isinstance(flat, (tuple, list)) else [flat]
        output = _plain_structure(pytree.tree_unflatten(leaves, info.out_spec))
    graph.output(output)
    return graph


def _refuse_objects(graph: fx.Graph, source: nn.Module) -> None:
    """Raises:  ModelError if the graph reads anything that is no tensor, such as a random generator of its own."""
    tensors = _named_tensors(source)
    for node in graph.nodes:
        if node.op == "get_attr" and node.target not in tensors:
            reader = next(iter(node.users), node)
            where = users_line(reader.meta.get("stack_trace") or "") or reader.name
            kind = type(getattr(source, str(node.target), None)).__name__
            raise ModelError(f"{where}: reads an object of type {kind}; a graph holds tensors and numbers only")


def _fold_reads(graph: fx.Graph, source: nn.Module, module: nn.Module) -> None:
    """Raises:  NoTraceError if a number is read out of what is not constant: it may be, with the batch fixed."""
    kept = constants_of(module)
    named = [*module.named_parameters(remove_duplicate=False), *module.named_buffers(remove_duplicate=False)]
    changing = {name for name, _ in named if name not in kept}
    try:
        fold_reads(graph, {name: t for name, t in _named_tensors(source).items() if name not in changing})
    except OpenReadError as error:
        raise NoTraceError(str(error), "or end the graph before that: --until LAYER") from error


def _plain_structure(value: Any) -> Any:
    """Custom output classes (dataclasses that export registered) as dictionaries without their empty fields."""
    if is_dict(value):
        return {str(key): _plain_structure(part) for key, part in value.items() if part is not None}
    if is_row(value):
        return tuple(_plain_structure(part) for part in value)
    if hasattr(value, "__dataclass_fields__"):
        fields = value.__dataclass_fields__
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
    for prefix, module in named_modules(source):
        for name, value in vars(module).items():
            if isinstance(value, Tensor) and not name.startswith("_"):
                yield (f"{prefix}.{name}" if prefix else name), value


def _without_unused_parameters(tensors: dict[str, Tensor], graph: fx.Graph) -> tuple[dict[str, Tensor], list[str]]:
    """Parameters that nothing reads would distort every ratio; buffers (batch counters) are harmless and stay."""
    unread = [node for node in graph.nodes if node.op == "get_attr" and not node.users]
    read = {node.target for node in graph.nodes if node.op == "get_attr" and node.users}
    dropped: list[str] = []
    for node in unread:
        if isinstance(tensors.get(node.target), nn.Parameter):
            graph.erase_node(node)
            dropped += [] if node.target in read or node.target in dropped else [node.target]
    named = {node.target for node in graph.nodes if node.op == "get_attr"}
    unnamed = [n for n, t in tensors.items() if n not in named and n not in dropped and isinstance(t, nn.Parameter)]
    dropped = [*dropped, *unnamed]
    return {name: t for name, t in tensors.items() if name in named}, dropped
