"""Programs that really compute something else: every comparison must tell them from rounding."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch

from compressor.program import Program, arguments, set_argument
from tests.program.hard_to_compare import KINDS

aten = torch.ops.aten


@torch.no_grad()
def weight_off(name: str, program: Program, by: float = 0.3) -> None:
    """One weight is off by a share of the largest of its tensor."""
    weight = program.module.tensors()[KINDS[name].read]
    weight.view(-1)[weight.abs().argmax()] *= 1 + by


@torch.no_grad()
def channels_swapped(name: str, program: Program) -> None:
    """Two hidden units have changed places in what makes them, and not in what reads them."""
    weight = program.module.tensors()[KINDS[name].made[0]]
    weight[[0, 1]] = weight[[1, 0]]


def activation_missing(name: str, program: Program) -> None:
    nonlinear = (aten.relu.default, aten.sin.default, aten.gelu.default, aten.tanh.default)
    replace_first(program, nonlinear, lambda node: node.args[0])


@torch.no_grad()
def bias_lost(name: str, program: Program) -> None:
    """A bias behind the hidden units is zero, or moved if it was."""
    bias = program.module.tensors()[KINDS[name].read.replace("weight", "bias")]
    bias[-1] = 0 if bias[-1] != 0 else 1


def next_best(name: str, program: Program) -> None:
    """A selection leaves the best out and takes one more of the rest."""

    def shifted(node: torch.fx.Node) -> torch.fx.Node:
        k = arguments(node)["k"]
        set_argument(node, "k", k + 1)
        for part in list(node.users):
            with program.module.graph.inserting_after(part):
                rest = program.module.graph.call_function(aten.slice.Tensor, (part, 1, 1, k + 1))
            part.replace_all_uses_with(rest, delete_user_cb=lambda user, rest=rest: user is not rest)
        return node

    replace_first(program, (aten.topk.default,), shifted)


def worst_instead_of_best(name: str, program: Program) -> None:
    for node in program.module.graph.nodes:
        if node.target is aten.topk.default:
            set_argument(node, "largest", False)
        elif node.target is aten.sort.default:
            set_argument(node, "descending", False)
        elif node.target in (aten.argmax.default, aten.argmin.default):
            node.target = aten.argmin.default if node.target is aten.argmax.default else aten.argmax.default
    program.module.recompile()


def neighbour_gathered(name: str, program: Program) -> None:
    """What was chosen is right, and what is fetched lies beside it."""

    def moved(node: torch.fx.Node) -> torch.fx.Node:
        index = arguments(node)["index"]
        with program.module.graph.inserting_before(node):
            beside = program.module.graph.call_function(aten.add.Tensor, (index, 1))
            inside = program.module.graph.call_function(aten.clamp.default, (beside, 0, 5))
        set_argument(node, "index", inside)
        return node

    replace_first(program, (aten.gather.default,), moved)


def threshold_moved(name: str, program: Program) -> None:
    for node in program.module.graph.nodes:
        if node.target in (aten.gt.Scalar, aten.lt.Scalar):
            node.args = (node.args[0], node.args[1] * 1.0005)
    program.module.recompile()


def rounded_down(name: str, program: Program) -> None:
    for node in program.module.graph.nodes:
        if node.target is aten.round.default:
            node.target = aten.floor.default
    program.module.recompile()


def noise_stronger(name: str, program: Program) -> None:
    def louder(node: torch.fx.Node) -> torch.fx.Node:
        return program.module.graph.call_function(aten.mul.Tensor, (node, 1.5))

    replace_first(program, (aten.randn_like.default,), louder)


def mask_shifted(name: str, program: Program) -> None:
    for node in program.module.graph.nodes:
        if node.target is aten.triu.default:
            node.args = (node.args[0], 1)
    program.module.recompile()


def replace_first(program: Program, targets: tuple[object, ...], instead: Callable[[torch.fx.Node], object]) -> None:
    """Puts what `instead` makes of the first such operator into its place."""
    graph = program.module.graph
    node = next(node for node in graph.nodes if node.target in targets)
    with graph.inserting_after(node):
        other = instead(node)
    if other is not node:
        node.replace_all_uses_with(other, delete_user_cb=lambda user: user is not other)  # type: ignore[arg-type]
    graph.lint()
    program.module.recompile()


Fault = Callable[[str, Program], None]
EVERYWHERE: tuple[Fault, ...] = (weight_off, channels_swapped, activation_missing, bias_lost)
OWN: Mapping[str, tuple[Fault, ...]] = {
    "top-k queries": (next_best, worst_instead_of_best, neighbour_gathered),
    "two selections": (next_best, worst_instead_of_best, neighbour_gathered),
    "argmax as output": (worst_instead_of_best,),
    "nearest code": (worst_instead_of_best,),
    "sort": (worst_instead_of_best, neighbour_gathered),
    "thresholds and rounding": (threshold_moved, rounded_down),
    "random in evaluation": (noise_stronger,),
    "NaN and infinities": (mask_shifted,),
}


def faults_of(name: str) -> tuple[Fault, ...]:
    """The faults that a network of that kind can have."""
    return (*EVERYWHERE, *OWN.get(name, ()))
