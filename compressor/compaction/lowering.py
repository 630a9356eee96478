"""`lower`: layers with unused columns in the form that is fastest, or that was asked for; it must never measure.

Time is taken by a stopwatch that the caller hands in. A pass: program in, new program and an account of every layer
with unused columns out. What the program computes stays the same.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from torch import Tensor, fx
from torch.fx import Node

from compressor.asking.compact import DEFAULTS, LoweringChoice
from compressor.compaction.lowering_forms import Box, Dense, Features, Form
from compressor.compaction.lowering_plan import Candidate, find_candidates
from compressor.compaction.lowering_result import LoweredLayer
from compressor.compaction.lowering_trial import trial_program
from compressor.cost.latency import Stopwatch
from compressor.program import Program, ProgramModule, Record, arguments, free_name, of_same_kind

_AS_FAST, _AS_FAST_S = 0.03, 2e-6
"""Repeated measurements of one small operator differ by about so much."""


def lower(
    program: Program,
    choice: LoweringChoice = DEFAULTS.lowering,
    stopwatch: Stopwatch | None = None,
    batch: int = 1,
    *,
    masks_only: bool = False,
    filled: Mapping[str, Tensor] | None = None,
) -> tuple[Program, tuple[LoweredLayer, ...]]:
    """The program with its column-sparse layers in their new forms, and what became of each; the input is untouched.

    `auto` takes the form that the stopwatch finds fastest at `batch`, of equals the smallest; without one every
    layer stays dense with that reason. Any other choice is taken where the layer has that form. With
    `masks_only` zeros that no mask holds are weights like others. Channels that the masks of `filled` cut are there to
    be zeros.
    """
    candidates = find_candidates(program, masks_only=masks_only, filled=filled)
    if not candidates:
        return program, ()
    graph = copy.deepcopy(program.module.graph)
    nodes = {node.name: node for node in graph.nodes}
    tensors, masks = program.module.tensors(), dict(program.masks)
    record, account, changed = program.record, [], False
    for candidate in candidates:
        form, seconds, reason = _choose(program, candidate, choice, stopwatch, batch)
        before = tuple(tensors[candidate.layer.weight].shape)
        if not isinstance(form, Dense):
            changed = True
            _replace(graph, nodes[candidate.node.name], candidate, form, tensors, masks)
            record = _forget_columns(record, candidate, form, before)
        after = tuple(tensors[candidate.layer.weight].shape)
        account.append(
            LoweredLayer(
                candidate.layer.name, form.name, candidate.n_used, candidate.n_columns, before, after, seconds, reason
            )
        )
    if not changed:
        return program, tuple(account)
    graph.lint()
    lowered = program.replace(module=ProgramModule(tensors, graph), masks=masks, record=record)
    return lowered.clone(), tuple(account)


def _choose(
    program: Program, candidate: Candidate, choice: str, stopwatch: Stopwatch | None, batch: int
) -> tuple[Form, Mapping[str, float], str | None]:
    """The form, what was measured, and why the layer stays dense where it does without a measurement."""
    dense = Dense(candidate.geometry)
    if len(candidate.forms) < 2:
        return dense, {}, candidate.reason
    if choice == "dense":
        return dense, {}, "asked for"
    if choice != "auto":
        wanted = _form_named(choice, candidate, program.parameters[candidate.layer.weight])
        if wanted is None:
            names = ", ".join(form.name for form in candidate.forms[1:])
            return dense, {}, f"it has no form {choice}; possible: {names}"
        return wanted, {}, None
    if stopwatch is None:
        return dense, {}, "no stopwatch to choose with"
    trials = [trial_program(program, candidate, form) for form in candidate.forms]
    times = stopwatch.seconds(trials, batch)
    best = _smallest_fast(trials, times)
    return candidate.forms[best], {f.name: t for f, t in zip(candidate.forms, times, strict=True)}, None


def _form_named(name: str, candidate: Candidate, weight: Tensor) -> Form | None:
    """`columns` promises that no unused column stays, which a gather or a box does where it has as few weights."""
    forms = candidate.forms[1:]
    if name == "columns":
        shape_only = weight.to("meta")
        return min(forms, key=lambda form: form.weight(shape_only).numel())
    return next((form for form in forms if form.name == name), None)


def _smallest_fast(trials: Sequence[Program], times: Sequence[float]) -> int:
    """Of the forms that are as fast as the fastest, as far as that can be told, the one with the fewest weights."""
    limit = max(min(times) * (1 + _AS_FAST), min(times) + _AS_FAST_S)
    fast = [i for i, seconds in enumerate(times) if seconds <= limit]
    return min(fast, key=lambda i: (trials[i].n_parameters, times[i]))


def _replace(
    graph: fx.Graph, node: Node, candidate: Candidate, form: Form, tensors: dict[str, Tensor], masks: dict[str, Tensor]
) -> None:
    """Put the form's calls in the place of `node`, which becomes the last of them, so that its name stays."""
    bound, name = arguments(node), candidate.layer.weight
    weight = tensors[name]
    tensors[name] = of_same_kind(form.weight(weight.detach()).clone(), weight)
    if name in masks:
        mask = form.weight(masks.pop(name)).clone()
        if not mask.all():
            masks[name] = mask
    first = next(iter(graph.nodes))
    indices: dict[str, Node] = {}
    for end, index in form.indices.items():
        buffer = free_name(f"{candidate.layer.name}.{end}", tensors)
        tensors[buffer] = index
        with graph.inserting_before(first):
            indices[end] = graph.create_node("get_attr", buffer)

    def call(target: Any, *args: Any) -> Node:
        with graph.inserting_before(node):
            made = graph.call_function(target, args)
        made.meta = {"where": node.meta.get("where", "")}
        return made

    last = form.write(call, bound["input"], bound["weight"], bound["bias"], indices)
    node.target, node.args, node.kwargs = last.target, last.args, last.kwargs
    graph.erase_node(last)


def _forget_columns(record: Record, candidate: Candidate, form: Form, before: Sequence[int]) -> Record:
    """The record with the input positions that a gather kept; those of columns have no axis to be kept along."""
    name = candidate.layer.weight
    kept = {key: dict(axes) for key, axes in record.kept.items()}
    axes = kept.pop(name, {})
    axes.pop("1", None)
    earlier = record.kept_along(name, 1, before[1])
    chosen = None
    if isinstance(form, Features):
        chosen = form.features
    elif isinstance(form, Box) and form.geometry.groups == 1:
        chosen = form.channels[0]
    if chosen is not None and len(chosen) < before[1]:
        axes["1"] = [earlier[i] for i in chosen]
    if axes:
        kept[name] = axes
    return replace(record, kept=kept, dense_shapes={name: list(before), **record.dense_shapes})
