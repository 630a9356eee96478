"""What routers send to their experts, measured; it must never cut one."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.fx import Node

from compressor.asking.prune import PruneSettings
from compressor.asking.score import ROUTING
from compressor.data import DataSource
from compressor.program import Program, Router, TensorShape, find_routers, rows_of, tapped
from compressor.program.shapes import Shapes
from compressor.progress import Progress
from compressor.pruning.block_order import sample_inputs

_AT_ONCE = 4
"""Samples that run together: the weights of every expert that a token was sent to are gathered for that token."""


def routed_of(
    program: Program, settings: PruneSettings, data: DataSource | None, progress: Progress
) -> dict[str, tuple[float, ...]] | None:
    """What matters of each expert, by the weight of its router; None where the settings ask for another score."""
    if settings.score != ROUTING or not settings.pattern.experts:
        return None
    if data is None:
        progress.note("no data: what is sent to each expert is measured on random inputs")
    return measure_routing(program, sample_inputs(program, data, settings.seed), settings.device)


@torch.no_grad()
def measure_routing(program: Program, inputs: Sequence[Tensor], device: str = "cpu") -> dict[str, tuple[float, ...]]:
    """For every router, by its weight, the share of each expert in what the experts add: the norm of what it answers,
    times its weight, summed over the tokens that were sent to it. Where experts are computed in a form in which one
    answer is not to be seen, the weights are summed alone.

    Shapes:  -> (n_experts,), sums to 1
    Source:  Lasby et al. 2025, "REAP the Experts", eq. 9, takes the mean over those tokens; the sum rates an expert
             that hardly any token is sent to by what goes with it.
    """
    routers = find_routers(program)
    seen = {router: _Seen.find(program, router) for router in routers}
    names = tuple(dict.fromkeys(name for one in seen.values() for name in one.names))
    module = tapped(program.module, names).to(device).eval()
    totals = {router: torch.zeros(router.n_experts, dtype=torch.float64) for router in routers}
    n = inputs[0].shape[0]
    step = program.fixed_batch or _AT_ONCE
    for first in range(0, n, step):
        _, values = module(*(x[first : first + step].to(device) for x in inputs))
        at = dict(zip(names, values, strict=True))
        for router, one in seen.items():
            totals[router] += one.of_experts(at, router.n_experts)
    return {router.weight: tuple((total / total.sum().clamp_min(1e-30)).tolist()) for router, total in totals.items()}


@dataclass(frozen=True)
class _Seen:
    """Nodes in which it is seen who was sent where, and what came of it: answers of a row each, or their weights."""

    places: str
    answers: str

    @property
    def names(self) -> tuple[str, str]:
        return self.places, self.answers

    @classmethod
    def find(cls, program: Program, router: Router) -> _Seen:
        """The answers are the last value with a row for each place at which weights are looked up; else the weights are
        the last value with an element for each place."""
        nodes = {node.name: node for node in program.module.graph.nodes}
        parameters = set(program.parameters)
        for name in rows_of(program, router):
            weights = {user for user in nodes[name].users if _is_of(user, parameters)}
            rows = _sizes(program.shapes, nodes[name])
            last = _last(program.shapes, weights, lambda sizes, rows=rows: sizes[:-1] == rows)
            if last is not None and last not in weights:
                return cls(name, last.name)
        taken = {node.args[1]: node for node in nodes[router.topk].users}
        rows = _sizes(program.shapes, taken[1])
        last = _last(program.shapes, set(taken.values()), lambda sizes: sizes == rows)
        return cls(taken[1].name, taken[1].name if last is None else last.name)

    def of_experts(self, at: Mapping[str, Tensor], n_experts: int) -> Tensor:
        """Shapes: -> (n_experts,)"""
        places, answers = at[self.places], at[self.answers]
        rows = answers.double() if answers.is_floating_point() else torch.ones_like(answers, dtype=torch.float64)
        rows = rows.norm(dim=-1) if rows.dim() > places.dim() else rows.abs()
        found = torch.zeros(n_experts, dtype=torch.float64, device=rows.device)
        return found.index_add_(0, places.reshape(-1), rows.reshape(-1)).cpu()


def _is_of(node: Node, parameters: set[str]) -> bool:
    """Whether a parameter is looked up."""
    return any(source.op == "get_attr" and str(source.target) in parameters for source in node.all_input_nodes)


def _last(shapes: Shapes, first: Collection[Node], fits: Callable[[tuple[int, ...]], bool]) -> Node | None:
    """The last floating value, in graph order, that is computed of these through values of fitting sizes alone."""
    reached, last = set(first), None
    for node in next(iter(first)).graph.nodes if first else ():
        shape = shapes.get(node.name)
        if node not in first and reached.isdisjoint(node.all_input_nodes):
            continue
        if isinstance(shape, TensorShape) and fits(shape.sizes):
            reached.add(node)
            last = node if shape.dtype.is_floating_point else last
    return last


def _sizes(shapes: Shapes, node: Node) -> tuple[int, ...]:
    shape = shapes.get(node.name)
    return shape.sizes if isinstance(shape, TensorShape) else ()
