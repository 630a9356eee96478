"""Which module of the generated source computes which operator; it must never hold source text.

Operators with weights are at home where their weights are named. One without weights belongs to the module before it,
as long as it reads nothing from outside that this module does not read anyway; what a module has behind its last
weights must be what its siblings of the same kind have there, else it is its parent's.
"""

from __future__ import annotations

import operator
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor, fx
from torch.fx import Node

from compressor.exporting.source_layers import LayerCall, bare_module, layer_call
from compressor.program import families
from compressor.program.shapes import Shapes, TensorShape

Path = tuple[str, ...]


@dataclass
class Regions:
    """The division of a graph: `home` of every operator, `layers` by node, and the paths that have a `forward`."""

    nodes: list[Node]
    layers: dict[Node, LayerCall]
    home: dict[Node, Path]
    after: dict[Node, set[Node]]
    callable: set[Path] = field(default_factory=set)

    def inside(self, path: Path) -> list[Node]:
        """Operators of the module and of those in it, in order."""
        return [node for node in self.nodes if self.home[node][: len(path)] == path]

    def items(self, path: Path) -> list[Node | Path]:
        """What the module's own forward does: operators and calls of modules, in an order that computes.

        Raises:  Ring if two modules need each other's values.
        """
        of_node: dict[Node, Node | Path] = {}
        for node in self.inside(path):
            home = self.home[node]
            ends = (home[:n] for n in range(len(path) + 1, len(home) + 1))
            of_node[node] = next((end for end in ends if end in self.callable), node)
        return _sorted(of_node, self.after)

    def dissolve(self, path: Path) -> None:
        """Have the module around it compute what it did."""
        self.callable.discard(path)
        for node in self.nodes:
            if self.home[node] == path:
                self.home[node] = path[:-1]


class Ring(Exception):
    """Modules that need each other's values."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self.path = path


def divide(
    graph: fx.Graph, tensors: Mapping[str, Tensor], shapes: Shapes, nodes: Sequence[Node], is_flat: bool
) -> Regions:
    """The division of the operators `nodes`; `is_flat` puts all into one forward, in the order of the graph."""
    layers = _layers(nodes, tensors, shapes)
    after = _after(nodes)
    if is_flat:
        return Regions(list(nodes), layers, {node: () for node in nodes}, after)
    fixed = {node: _home(node, layers) for node in nodes}
    home = _homes(nodes, fixed)
    _trim(nodes, fixed, home, layers)
    regions = Regions(list(nodes), layers, home, after)
    _dissolve(regions)
    return regions


def _layers(nodes: Sequence[Node], tensors: Mapping[str, Tensor], shapes: Shapes) -> dict[Node, LayerCall]:
    """Calls of modules; of operators that use the same weights in other ways the first one counts."""
    first: dict[str, LayerCall] = {}
    found: dict[Node, LayerCall] = {}
    for node in nodes:
        given = node.args[0] if node.args else None
        shape = shapes.get(given.name) if isinstance(given, Node) else None
        rank = len(shape.sizes) if isinstance(shape, TensorShape) else 0
        call = layer_call(node, tensors, rank)
        if call is not None and first.setdefault(call.path, call).build == call.build:
            found[node] = call
    return found


RANDOM = families.DROPOUT | families.ALPHA_DROPOUT | families.RRELU


def _is_ordered(node: Node) -> bool:
    """Whether its place among its like matters: it draws random numbers."""
    if node.target in RANDOM:
        return True
    return torch.Tag.nondeterministic_seeded in getattr(node.target, "tags", ())


def _after(nodes: Sequence[Node]) -> dict[Node, set[Node]]:
    """What each operator has to come after."""
    known = set(nodes)
    found = {node: {given for given in node.all_input_nodes if given in known} for node in nodes}
    drawn: Node | None = None
    for node in nodes:
        if _is_ordered(node):
            if drawn is not None:
                found[node].add(drawn)
            drawn = node
    return found


def owner_of(tensor: str, layer_paths: set[str]) -> Path:
    """The module whose forward may read a tensor: its own one, or that around the layer that it belongs to."""
    path = tuple(tensor.split("."))[:-1]
    return path[:-1] if ".".join(path) in layer_paths else path


def _home(node: Node, layers: Mapping[Node, LayerCall]) -> Path | None:
    """Where the weights that it reads are at home, None without weights."""
    if node in layers:
        return tuple(layers[node].path.split("."))[:-1]
    paths = {call.path for call in layers.values()}
    owners = [owner_of(str(given.target), paths) for given in node.all_input_nodes if given.op == "get_attr"]
    return common(owners) if owners else None


def common(paths: Sequence[Path]) -> Path:
    """The longest path that all begin with."""
    shared: list[str] = []
    for parts in zip(*paths, strict=False):
        if len(set(parts)) > 1:
            break
        shared.append(parts[0])
    return tuple(shared)


def _homes(nodes: Sequence[Node], fixed: Mapping[Node, Path | None]) -> dict[Node, Path]:
    home: dict[Node, Path] = {}
    reads: dict[Path, set[Node]] = {}
    at: Path = ()
    known = set(nodes)
    around = _around(nodes, fixed)
    for node in nodes:
        own = fixed[node]
        values = [given for given in node.all_input_nodes if given in known or given.op == "placeholder"]
        if own is None:
            own = (
                _deepest(at, around[node], values, home, reads)
                if node.target is not operator.getitem
                else home.get(values[0], ())
            )
        home[node] = at = own
        for n in range(1, len(own) + 1):
            outside = (value for value in values if home.get(value, ())[:n] != own[:n])
            reads.setdefault(own[:n], set()).update(outside)
    return home


def _around(nodes: Sequence[Node], fixed: Mapping[Node, Path | None]) -> dict[Node, Path]:
    """The innermost module that has both the weights before an operator and those behind it."""
    following: dict[Node, Path] = {}
    found: dict[Node, Path] = {}
    at: Path = ()
    for node in reversed(nodes):
        own = fixed[node]
        following[node] = at = at if own is None else own
    at = ()
    for node in nodes:
        own = fixed[node]
        at = at if own is None else own
        found[node] = common([at, following[node]])
    return found


def _deepest(
    at: Path, least: Path, values: Sequence[Node], home: Mapping[Node, Path], reads: Mapping[Path, set[Node]]
) -> Path:
    """The innermost module around `at` that has all the values, or reads them already; `least` or one in it."""
    for n in range(len(at), len(least), -1):
        path = at[:n]
        if values and all(home.get(v, ())[:n] == path or v in reads.get(path, ()) for v in values):
            return path
    return common([at, least])


def _prefixes(home: Mapping[Node, Path]) -> list[Path]:
    """Every module with operators, the innermost first."""
    found = dict.fromkeys(path[:n] for path in home.values() for n in range(1, len(path) + 1))
    return sorted(found, key=len, reverse=True)


def _trim(
    nodes: Sequence[Node],
    fixed: Mapping[Node, Path | None],
    home: dict[Node, Path],
    layers: Mapping[Node, LayerCall],
) -> None:
    """Give back to the parent what a module has behind its last weights and its siblings have not."""
    for depth in range(max((len(path) for path in home.values()), default=0), 0, -1):
        kinds: dict[object, list[list[Node]]] = {}
        for path in (p for p in _prefixes(home) if len(p) == depth):
            inside = [node for node in nodes if home[node][:depth] == path]
            last = max((i for i, node in enumerate(inside) if fixed[node] is not None), default=-1)
            core = tuple(_relative(node, depth, layers, home) for node in inside if fixed[node] is not None)
            tail = [node for node in inside[last + 1 :] if home[node] == path]
            if _holds_only_modules(path, home, fixed):
                _move(tail, path[:-1], home)
                continue
            if _is_numbered(path, home, layers):
                _move(_from(tail, lambda node: bare_module(node) is None), path[:-1], home)
            else:
                _move(_of_the_next(tail, inside), path[:-1], home)
            if tail := [node for node in tail if home[node] == path]:
                kinds.setdefault(core, []).append(tail)
        for tails in kinds.values():
            usual = _usual([_targets(tail) for tail in tails])
            for tail in tails:
                kept = _until(_targets(tail), usual)
                _move(tail[kept:], home[tail[0]][:-1] if tail else (), home)


def _from(tail: Sequence[Node], is_first: Callable[[Node], bool]) -> Sequence[Node]:
    """The tail from the first operator on that is one."""
    return next((tail[i:] for i, node in enumerate(tail) if is_first(node)), ())


def _of_the_next(tail: Sequence[Node], inside: Sequence[Node]) -> Sequence[Node]:
    """What of a tail only makes one more output of the module, out of another one: whoever reads it may make it."""
    members = set(inside)
    for number in range(len(tail) - 1, -1, -1):
        read = [given for given in tail[number].all_input_nodes if given in members]
        is_one_more = len(read) == 1 and any(user not in members for user in read[0].users)
        if not is_one_more or any(user in members for user in tail[number].users):
            return tail[number + 1 :]
        members.discard(tail[number])
    return tail


def _is_numbered(path: Path, home: Mapping[Node, Path], layers: Mapping[Node, LayerCall]) -> bool:
    """Whether all that it has has a number for its name: such a module is to be an `nn.Sequential`."""
    depth = len(path)
    below = {at[depth] for at in home.values() if len(at) > depth and at[:depth] == path}
    own = {call.path.rpartition(".")[2] for node, call in layers.items() if home[node] == path}
    return bool(below | own) and all(name.isdigit() for name in below | own)


def _targets(tail: Sequence[Node]) -> Path:
    return tuple(str(node.target) for node in tail)


def _usual(tails: Sequence[Path]) -> Path:
    """What most have; where several are as frequent, what these begin with."""
    counts = Counter(tails)
    most = max(counts.values())
    return common([tail for tail, count in counts.items() if count == most])


def _until(tail: Path, usual: Path) -> int:
    """Where the tail has done what is usual; how far it goes along with that if it never has."""
    ends = range(len(usual), len(tail) + 1)
    return next((end for end in ends if tail[end - len(usual) : end] == usual), len(common([tail, usual])))


def _relative(node: Node, depth: int, layers: Mapping[Node, LayerCall], home: Mapping[Node, Path]) -> tuple[str, Path]:
    where = tuple(layers[node].path.split(".")) if node in layers else home[node]
    return str(node.target), where[depth:]


def _holds_only_modules(path: Path, home: Mapping[Node, Path], fixed: Mapping[Node, Path | None]) -> bool:
    """Whether it is a plain list of modules with several operators each: such a list computes nothing itself."""
    own = [node for node, at in home.items() if at == path and fixed[node] is not None]
    below = {at[len(path)] for at in home.values() if len(at) > len(path) and at[: len(path)] == path}
    return not own and len(below) > 0 and all(name.isdigit() for name in below)


def _move(nodes: Sequence[Node], path: Path, home: dict[Node, Path]) -> None:
    for node in nodes:
        home[node] = path


def _dissolve(regions: Regions) -> None:
    """Keep as modules of their own those that can run in one piece."""
    for path in _prefixes(regions.home):
        if _is_convex(regions.inside(path), regions):
            regions.callable.add(path)
        else:
            regions.dissolve(path)
    while True:
        try:
            for path in ((), *regions.callable):
                regions.items(path)
            return
        except Ring as ring:
            regions.dissolve(ring.path)


def _is_convex(inside: Sequence[Node], regions: Regions) -> bool:
    """Whether nothing outside comes both after a part of it and before another."""
    members = set(inside)
    first, last = regions.nodes.index(inside[0]), regions.nodes.index(inside[-1])
    behind: set[Node] = set()
    for node in regions.nodes[first : last + 1]:
        needs = regions.after[node]
        if node in members:
            if needs & behind:
                return False
        elif needs & (members | behind):
            behind.add(node)
    return True


def _sorted(of_node: Mapping[Node, Node | Path], after: Mapping[Node, set[Node]]) -> list[Node | Path]:
    """The items, each behind what it needs, else as they came."""
    waits: dict[Node | Path, set[Node | Path]] = {}
    for node, item in of_node.items():
        needs = {of_node[given] for given in after[node] if given in of_node}
        waits.setdefault(item, set()).update(needs - {item})
    done: dict[Node | Path, None] = {}
    while len(done) < len(waits):
        ready = next((item for item in _pending(waits, done) if waits[item] <= done.keys()), None)
        if ready is None:
            raise Ring(max((item for item in _pending(waits, done) if isinstance(item, tuple)), key=len))
        done[ready] = None
    return list(done)


def _pending(waits: Mapping[Node | Path, set[Node | Path]], done: Mapping[Node | Path, None]) -> Iterator[Node | Path]:
    return (item for item in waits if item not in done)
