"""Operands that never change, taken out of the graph with everything that only they needed; it must never touch units.

A residual branch that is constant adds nothing (then the addition goes), or the same all over a channel (then a bias or
one small parameter does that). What would need a whole map stays.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor
from torch.fx import Node

from compressor.compaction.constants import Constants, Walked
from compressor.compaction.folding import Additions, Made
from compressor.compaction.readers import place
from compressor.compaction.removed import Branch
from compressor.compaction.transfer_contract import channel_dim
from compressor.program import Program, TensorShape, arguments, families, layer_name
from compressor.program.unread import erase_unread

_COMBINES = families.ADD | families.SUB | families.MUL
_TAKES_ADDITIONS = families.CONVOLUTIONS | families.LINEAR


@dataclass(frozen=True)
class Cleared:
    """A program without constant branches; `stays` are those that could not go, with the reason."""

    program: Program
    branches: tuple[Branch, ...] = ()
    stays: tuple[str, ...] = ()
    exact: Mapping[str, Tensor] = field(default_factory=dict)


def without_constant_branches(program: Program, constants: Mapping[str, Walked]) -> Cleared:
    """The program with every constant operand of an addition or a product replaced, and what became of each."""
    edit, branches, stays = Additions(program), [], []
    of_input = _of_input(program)
    for name in [node.name for node in edit.graph.nodes if node.target in _COMBINES]:
        node = edit.nodes[name]
        for key, other in (("self", "other"), ("other", "self")):
            operand, rest = arguments(node)[key], arguments(node)[other]
            if not _goes(operand, rest, constants, of_input):
                continue
            done = _replace(edit, node, key, constants)
            if done is None:
                stays.append(f"{_origin(operand)}: it is constant, but differs by position; {name} stays")
            else:
                branches.append(Branch(_origin(operand), done))
            break
    if not branches:
        return Cleared(program, (), tuple(stays))
    erase_unread(edit.graph, edit.made)
    return Cleared(edit.finished(), tuple(branches), tuple(stays), edit.exact)


def _of_input(program: Program) -> set[str]:
    """Tensors that some tensor leads to from an input of the network; a size that was read off it does not count."""
    found: set[str] = set()
    for node in program.module.graph.nodes:
        from_input = node.op == "placeholder" or any(source.name in found for source in node.all_input_nodes)
        if from_input and isinstance(program.shapes.get(node.name), (TensorShape, tuple)):
            found.add(node.name)
    return found


def _goes(operand: Any, rest: Any, constants: Mapping[str, Walked], of_input: set[str]) -> bool:
    """Whether an operand is a constant that the graph computes from its input, and the other one is not."""
    if not isinstance(operand, Node) or not isinstance(rest, Node) or operand.name not in of_input:
        return False
    known, other = constants.get(operand.name), constants.get(rest.name)
    return isinstance(known, Constants) and known.all_known and isinstance(other, Constants) and not other.all_known


def _replace(edit: Additions, node: Node, key: str, constants: Mapping[str, Walked]) -> str | None:
    """What stands for the constant operand now; None where it has to stay."""
    bound = arguments(node)
    operand, rest = bound[key], bound["other" if key == "self" else "self"]
    known, other = constants[operand.name], constants[rest.name]
    assert isinstance(known, Constants) and isinstance(other, Constants)
    shapes = edit.program.shapes
    whole, alone = shapes[node.name], shapes[rest.name]
    if not isinstance(whole, TensorShape) or whole != alone or not known.value.is_floating_point():
        return None
    adds = node.target not in families.MUL
    if adds and not (node.target in families.SUB and key == "self") and not bool(known.value.any()):
        node.replace_all_uses_with(rest)
        edit.graph.erase_node(node)
        return "nothing: it was 0"
    if sum(size > 1 for size in known.value.shape) > 1:
        return None
    if node.target in families.ADD and bound["alpha"] == 1 and _can_take(rest, node, known):
        into = edit.add_to_output(rest, Made(_per_channel(rest, known, whole), known.learned))
        node.replace_all_uses_with(rest)
        edit.graph.erase_node(node)
        return f"its constant went into {into}"
    home = f"{_origin(operand)}." if _layer_behind(operand) in _only_for(operand, node) else ""
    made = edit.tensor(f"{home}constant", Made(known.exact, known.learned), operand, node)
    node.replace_input_with(operand, made)
    return f"its constant is {made.target}"


def _can_take(rest: Node, node: Node, known: Constants) -> bool:
    """Whether a bias in `rest` can take the constant: nobody else reads it, and both speak of the same channels."""
    dim = channel_dim(rest, known)
    others = [d for d, size in enumerate(known.value.shape) if size > 1 and d != dim]
    return rest.target in _TAKES_ADDITIONS and list(rest.users) == [node] and not others


def _per_channel(rest: Node, known: Constants, whole: TensorShape) -> Tensor:
    return known.exact.flatten().expand(whole.sizes[channel_dim(rest, known)])


def _origin(operand: Node) -> str:
    """The name of the layer with weights that the operand comes from, nearest first."""
    node = _layer_behind(operand)
    if node is None:
        return operand.name
    found = place(node)
    weight = next(source for source in node.all_input_nodes if source.op == "get_attr")
    return found if found != node.name else layer_name(str(weight.target))


def _layer_behind(operand: Node) -> Node | None:
    frontier, seen = [operand], {operand}
    for node in frontier:
        if node.op == "call_function" and any(source.op == "get_attr" for source in node.all_input_nodes):
            return node
        new = [source for source in node.all_input_nodes if source not in seen]
        frontier.extend(new)
        seen.update(new)
    return None


def _only_for(operand: Node, reader: Node) -> set[Node]:
    """Operators that nobody needs but the reader of the operand: a constant may have the place of a layer among them.

    A layer that others read lives on, and a tensor of no business of its own would make it another layer.
    """
    found: set[Node] = set()
    for node in reversed(list(operand.graph.nodes)):
        ends = node.users and all(user in found for user in node.users)
        if ends or (node is operand and list(node.users) == [reader]):
            found.add(node)
    return found
