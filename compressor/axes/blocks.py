"""Residual blocks: branches of an addition that may go as a whole, because what they are added to is what they were
given; it must never hold scores, masks or weights.
"""

from __future__ import annotations

import copy
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TypeAlias

from torch.fx import Graph, Node

from compressor.axes.zeros import Zeros
from compressor.program import Layer, Program, ProgramModule, TensorShape, arguments, families, find_layers
from compressor.program.masks import only
from compressor.program.unread import erase_unread

Branch: TypeAlias = "tuple[str, str]"
"""An addition, by the name of its node, and the argument that is the branch."""

_SAME_DATA = families.VIEWS | families.TRANSPOSE | families.COPY | families.CAST | families.DROPOUT
_SIDES = (("self", "other"), ("other", "self"))
_SUMS = families.ADD | families.SUB
_NO_IDENTITY = "its shortcut is no identity"


@dataclass(frozen=True)
class Block:
    """`branches` add exactly 0 once all of the parameters `zeroed` are 0, and then nothing else reads those.

    There are several branches where blocks share their last layer. `layers` are those that go with the block, `last`
    the one that it is called after.
    """

    name: str
    branches: tuple[Branch, ...]
    zeroed: frozenset[str]
    layers: tuple[str, ...]


@dataclass(frozen=True)
class PinnedBlock:
    """A branch of an addition that may not go, by its last layer, and why."""

    name: str
    reason: str


@dataclass(frozen=True)
class Blocks:
    """The residual blocks of a program in graph order."""

    free: tuple[Block, ...] = ()
    pinned: tuple[PinnedBlock, ...] = ()


def find_blocks(program: Program) -> Blocks:
    """Which branches of additions may go as a whole, and which not, with the reason.

    A branch may go where another term of the same sum is what the branch was computed from, moved about at most, and
    has the shape of the sum; where weights make the branch 0; and where nothing but the sum reads what those make.
    """
    return _Search(program).result()


def without_blocks(program: Program, blocks: Collection[Block]) -> Program:
    """The program with these branches left out of their sums, and without what only they needed; tensors are shared."""
    graph = copy.deepcopy(program.module.graph)
    for node, instead in _replaced(graph, _branches(blocks)).items():
        node.replace_all_uses_with(instead)
    erase_unread(graph)
    named = {node.target for node in graph.nodes if node.op == "get_attr"}
    tensors = {name: tensor for name, tensor in program.module.tensors().items() if name in named}
    module = ProgramModule(tensors, graph)
    module.training = program.module.training
    masks = only(program.masks, tensors)
    aliases = {name: to for name, to in program.aliases.items() if to in tensors}
    return program.replace(module=module, masks=masks, aliases=aliases)


def needed_without(program: Program, blocks: Collection[Block]) -> frozenset[str]:
    """Names of nodes, and of tensors that they read, that the outputs need once these blocks are left out."""
    return _needed(program.module.graph, _branches(blocks))


def _branches(blocks: Iterable[Block]) -> frozenset[Branch]:
    return frozenset(branch for block in blocks for branch in block.branches)


def _replaced(graph: Graph, cut: frozenset[Branch]) -> dict[Node, Node]:
    """What stands for each addition that loses a branch. One that loses both is 0, and no term of the next sum."""
    instead: dict[Node, Node] = {}
    gone: set[Node] = set()
    for node in graph.nodes:
        if node.target not in _SUMS:
            continue
        bound = arguments(node)
        left = [key for key, _ in _SIDES if (node.name, key) not in cut and bound[key] not in gone]
        if not left:
            gone.add(node)
        elif len(left) == 1:
            kept: Node = bound[left[0]]
            instead[node] = instead.get(kept, kept)
    return instead


def _needed(graph: Graph, cut: frozenset[Branch]) -> frozenset[str]:
    instead = _replaced(graph, cut)
    waiting = [node for node in graph.nodes if node.op == "output" or _writes(node)]
    seen = set(waiting)
    while waiting:
        node = waiting.pop()
        new = {instead.get(source, source) for source in node.all_input_nodes} - seen
        seen |= new
        waiting.extend(new)
    return frozenset({node.name for node in seen} | {str(node.target) for node in seen if node.op == "get_attr"})


def _writes(node: Node) -> bool:
    return bool(getattr(getattr(node.target, "_schema", None), "is_mutable", False))


@dataclass(frozen=True)
class _Found:
    """A branch, the node that makes it, its last layer and the weights that make it 0; `reason`: why it may not go."""

    branch: Branch
    node: Node
    last: str
    zeroed: frozenset[str]
    reason: str | None


class _Search:
    """What of one graph comes from what, and the branches of its sums."""

    def __init__(self, program: Program) -> None:
        self._program, self._graph = program, program.module.graph
        self._zeros, self._layers = Zeros(program), find_layers(program)
        self._bit: dict[Node, int] = {}
        self._upto: dict[Node, int] = {}
        self._values = 0
        from_input: set[Node] = set()
        for i, node in enumerate(self._graph.nodes):
            mine = self._bit[node] = 1 << i
            shape = program.shapes.get(node.name)
            is_real = isinstance(shape, TensorShape) and shape.dtype.is_floating_point
            comes = node.op == "placeholder" or not from_input.isdisjoint(node.all_input_nodes)
            if comes:
                from_input.add(node)
            self._values |= mine if comes and is_real else 0
            for source in node.all_input_nodes:
                mine |= self._upto[source]
            self._upto[node] = mine
        self._node = {node.name: node for node in self._bit}

    def result(self) -> Blocks:
        found = [one for node in self._bit if node.target in _SUMS for one in self._of_sum(node)]
        pinned = [PinnedBlock(one.last, one.reason) for one in found if one.reason is not None]
        free: list[Block] = []
        done: set[Branch] = set()
        for one in (one for one in found if one.reason is None):
            if one.branch in done:
                continue
            block = self._block([one]) or self._block(_sharing(one, found))
            if block is None:
                pinned.append(PinnedBlock(one.last, "its last layer is read elsewhere too"))
            else:
                free.append(block)
                done.update(block.branches)
        return Blocks(_named(_without_pairs(free)), tuple(dict.fromkeys(pinned)))

    def _block(self, parts: Sequence[_Found]) -> Block | None:
        """The block of these branches; None if what makes them 0 is needed without them."""
        branches = tuple(part.branch for part in parts)
        zeroed = frozenset[str]().union(*(part.zeroed for part in parts))
        needed = _needed(self._graph, frozenset(branches))
        if zeroed & needed:
            return None
        layers = dict.fromkeys(layer.name for layer in self._layers if layer.node not in needed)
        return Block(parts[0].last, branches, zeroed, tuple(layers))

    def _of_sum(self, node: Node) -> Iterator[_Found]:
        """The branches of an addition that have layers of their own."""
        if self._are_scores(node):
            return
        bound = arguments(node)
        for key, other in _SIDES:
            branch, rest = bound[key], bound[other]
            if (
                not isinstance(branch, Node)
                or not isinstance(rest, Node)
                or (key == "self" and node.target in families.SUB)
            ):
                continue
            shared = self._upto[branch] & self._upto[rest] & self._values
            last = self._last(branch, shared)
            if last is None:
                continue
            is_residual = any(self._is_given(term, branch) for term in self._terms(self._whole(node), branch))
            if not is_residual and self._is_shorter(branch, rest):
                continue
            zeroed = self._zeros.of(branch)
            reason = self._why_not(node, rest, branch) if is_residual else _NO_IDENTITY
            yield _Found((node.name, key), branch, last.name, zeroed or frozenset(), reason)

    def _is_shorter(self, branch: Node, rest: Node) -> bool:
        """Of two that are computed the longer one is called the branch."""
        return self._upto[branch].bit_count() < self._upto[rest].bit_count()

    def _why_not(self, node: Node, rest: Node, branch: Node) -> str | None:
        if self._program.shapes.get(rest.name) != self._program.shapes.get(node.name):
            return "the sum would have another shape without it"
        if self._zeros.of(branch) is None:
            return f"no weights make it 0: it ends in {families.operator_name(branch.target) or branch.name}"
        return None

    def _is_given(self, term: Node, branch: Node) -> bool:
        """Whether a term is what the branch is computed from, moved about at most."""
        while term.target in _SAME_DATA:
            term = term.all_input_nodes[0]
        return term is not branch and bool(self._bit[term] & self._upto[branch] & self._values)

    def _whole(self, node: Node) -> Node:
        """The sum that an addition is a part of: of one that only another addition reads, that."""
        while len(node.users) == 1:
            (reader,) = node.users
            if reader.target not in families.ADD or self._shape(reader) != self._shape(node):
                break
            node = reader
        return node

    def _terms(self, node: Node, branch: Node) -> Iterator[Node]:
        """What is added up beside the branch, sums in it and their terms."""
        for term in (arguments(node)[key] for key, _ in _SIDES):
            if not isinstance(term, Node) or term is branch:
                continue
            yield term
            if term.target in families.ADD and len(term.users) == 1 and self._shape(term) == self._shape(node):
                yield from self._terms(term, branch)

    def _shape(self, node: Node) -> object:
        return self._program.shapes.get(node.name)

    def _last(self, branch: Node, shared: int) -> Layer | None:
        """The last layer of a branch behind what it shares with the rest of its sum."""
        for layer in reversed(self._layers):
            node = self._node.get(layer.node)
            if node is None:
                continue
            inside = self._bit[node] & self._upto[branch] and not self._bit[node] & shared
            if inside and self._upto[node] & shared:
                return layer
        return None

    def _are_scores(self, node: Node) -> bool:
        """Whether a sum is what a softmax makes weights of: a bias on scores of attention is no residual."""
        for reader in node.users:
            if reader.target in families.SOFTMAX or reader.target in families.ATTENTION:
                return True
            passes = reader.target in _SAME_DATA or families.works_by_element(reader.target)
            if passes and len(node.users) == 1 and self._are_scores(reader):
                return True
        return False


def _sharing(one: _Found, found: Sequence[_Found]) -> list[_Found]:
    """The branches that a tied weight makes 0 together with this one."""
    together, zeroed, grew = [one], set(one.zeroed), True
    while grew:
        more = [other for other in found if other not in together and other.reason is None and zeroed & other.zeroed]
        together += more
        zeroed.update(*(other.zeroed for other in more))
        grew = bool(more)
    return sorted(together, key=found.index)


def _without_pairs(blocks: Sequence[Block]) -> list[Block]:
    """Without sums of branches that may go one by one: attention beside an MLP."""
    left = list(blocks)
    for block in blocks:
        parts = [other.zeroed for other in left if other is not block and other.zeroed <= block.zeroed]
        if parts and frozenset().union(*parts) == block.zeroed:
            left.remove(block)
    return left


def _named(blocks: Sequence[Block]) -> tuple[Block, ...]:
    """Blocks called after the module that holds all of their layers and none of another's, or after that of their last
    layer, where it is one block's alone; else after their last layer, or their first."""
    choices = [
        (_own_module(block, blocks), block.name.rpartition(".")[0], block.name, block.layers[0]) for block in blocks
    ]
    counts = Counter(name for names in choices for name in set(names))
    found: dict[str, Block] = {}
    for block, names in zip(blocks, choices, strict=True):
        name = next((name for name in names if name and counts[name] == 1), block.name)
        name = name if name not in found else f"{name} at {block.branches[0][0]}"
        found[name] = replace(block, name=name)
    return tuple(found.values())


def _own_module(block: Block, blocks: Sequence[Block]) -> str:
    """The module that the block's layers lie in, if those of other blocks in it go with the block; "" for none."""
    module = _common(block.layers)
    inside = (layer for other in blocks for layer in other.layers if layer.startswith(f"{module}."))
    return module if module and set(inside) <= set(block.layers) else ""


def _common(names: Sequence[str]) -> str:
    """The module that all of these layers lie in; "" for none."""
    parts = [name.split(".")[:-1] for name in names]
    shared = [column[0] for column in zip(*parts, strict=False) if len(set(column)) == 1]
    return ".".join(shared)
