"""Which weights must be 0 so that a value of the graph is exactly 0, whatever the input; it must never look at them.

Followed backwards from the value through what leaves 0 at 0, to the last layers that make it: their weights and biases,
scale and shift of a norm behind them.
"""

from __future__ import annotations

import operator
from collections.abc import Iterable, Sequence
from typing import Any, TypeAlias

from torch.fx import Node

from compressor.axes.labels import Value
from compressor.axes.rules_pointwise import zero_rule
from compressor.program import Program, TensorShape, arguments, families

Zeroed: TypeAlias = "frozenset[str] | None"
"""Names of parameters; None where no weights make the value 0."""

_PASSES = (
    families.VIEWS | families.TRANSPOSE | families.FLIP | families.ROTATE | families.EXPAND | families.EXPAND_AS
    | families.REPEAT | families.REPEAT_INTERLEAVE | families.PIXEL_SHUFFLE | families.CHANNEL_SHUFFLE
    | families.DISPLACE | families.TO_COLUMNS | families.FROM_COLUMNS | families.PARTS | families.INDEX_SELECT
    | families.INDEX | families.GATHER | families.POOLS | families.ADAPTIVE_POOL | families.RESIZE | families.BORDER
    | families.MEAN | families.COPY | families.CAST | families.CAST_LIKE | families.DROPOUT | families.PRELU
)  # fmt: skip
"""0 wherever their first operand is 0."""
_NORMS = families.CHANNEL_NORMS | families.FEATURE_NORMS | families.GROUP_NORM
_DIVIDES = ("div", "divide", "true_divide")


class Zeros:
    """Answers for the values of one program, each worked out once."""

    def __init__(self, program: Program) -> None:
        self._shapes, self._parameters = program.shapes, program.parameters
        self._found: dict[Node, Zeroed] = {}
        self._of_input: set[Node] = set()
        for node in program.module.graph.nodes:
            if node.op == "placeholder" or not self._of_input.isdisjoint(node.all_input_nodes):
                self._of_input.add(node)
            self._found[node] = self._of(node)

    def of(self, node: Node) -> Zeroed:
        """The parameters that make the value of `node` 0 when all of them are."""
        return self._found[node]

    def _of(self, node: Node) -> Zeroed:
        if node.op == "get_attr":
            name = str(node.target)
            return frozenset({name}) if name in self._parameters else None
        if node.op != "call_function":
            return None
        if node.target is operator.getitem:
            return self._operand(node.args[0])
        bound = arguments(node)
        if node.target in families.WITH_FILTERS:
            return self._all((bound["weight"], bound["bias"]))
        if node.target in _NORMS:
            return self._of_norm(bound)
        if node.target in families.ADDED_PRODUCTS:
            first, second = (bound[name] for name in families.operands_of(node.target))
            return _both(self._operand(bound["self"]), self._one((first, second)))
        if node.target in families.ATTENTION:
            return self._operand(bound["value"])
        if operands := families.operands_of(node.target):
            return self._one([bound[name] for name in operands])
        if node.target in families.EINSUM:
            return self._one(bound["tensors"])
        if node.target in families.CAT or node.target in families.STACK:
            return self._all(bound["tensors"])
        if node.target in families.PAD:
            plain = bound.get("mode", "constant") == "constant" and not bound.get("value")
            return self._operand(bound["self"]) if plain else None
        if node.target in _PASSES:
            return self._operand(bound["input"] if "input" in bound else bound["self"])
        if families.operator_name(node.target) == "sum":
            return self._operand(bound["self"])
        return self._by_element(node, bound) if families.works_by_element(node.target) else None

    def _of_norm(self, bound: dict[str, Any]) -> Zeroed:
        """Scale and shift, and the layer before, if nothing else reads that. A norm without them leaves 0 at 0 only
        where it takes its mean from what it is given."""
        source = bound["input"] if "input" in bound else bound["self"]
        if not isinstance(bound.get("weight"), Node):
            keeps_running = isinstance(bound.get("running_mean"), Node)
            return None if keeps_running else self._operand(source)
        own = self._all((bound["weight"], bound.get("bias")))
        is_layer = isinstance(source, Node) and source.target in families.WITH_FILTERS and len(source.users) == 1
        return _both(own, self._operand(source)) if is_layer and self._operand(source) is not None else own

    def _by_element(self, node: Node, bound: dict[str, Any]) -> Zeroed:
        operands = [one for one in bound.values() if isinstance(one, Node) and self._is_tensor(one)]
        values = {key: self._walked(value) for key, value in bound.items()}
        name = families.operator_name(node.target)
        rule = zero_rule(name, values, [Value(self._sizes(one)) for one in operands])
        if not operands or not rule([True] * len(operands)):
            return None
        enough = [one for i, one in enumerate(operands) if rule([j == i for j in range(len(operands))])]
        if not enough:
            return self._all(operands)
        if name in _DIVIDES:
            found = self._operand(operands[0])
            return None if found is None or _reads(operands[1:], found) else found
        return self._factors(enough)

    def _factors(self, operands: Sequence[Node]) -> Zeroed:
        """Of a product of elements: a scale that is learned, and the first operand that weights make 0."""
        known = [(one, found) for one in operands if (found := self._found[one]) is not None]
        scales = [found for one, found in known if one not in self._of_input]
        others = [found for one, found in known if one in self._of_input]
        return frozenset[str]().union(*scales, *others[:1]) or None

    def _one(self, operands: Iterable[Any]) -> Zeroed:
        """Of a product that is summed: the weights in it, else the operand that is nearest to its own."""
        known = [(one, found) for one in operands if (found := self._operand(one)) is not None]
        own = [found for one, found in known if one not in self._of_input or _is_chosen_weight(one)]
        return next((found for found in (*own, *(found for _, found in reversed(known)))), None)

    def _all(self, operands: Iterable[Any]) -> Zeroed:
        found: Zeroed = frozenset()
        for operand in operands:
            if operand is not None:
                found = _both(found, self._operand(operand))
        return found or None

    def _operand(self, operand: Any) -> Zeroed:
        return self._found.get(operand) if isinstance(operand, Node) else None

    def _is_tensor(self, node: Node) -> bool:
        return isinstance(self._shapes.get(node.name), TensorShape)

    def _walked(self, value: Any) -> Any:
        """An argument as a rule sees it: a value for a tensor, the number of one that is computed from sizes."""
        if not isinstance(value, Node):
            return value
        return Value(self._sizes(value)) if self._is_tensor(value) else self._shapes.get(value.name)

    def _sizes(self, node: Node) -> tuple[int, ...]:
        shape = self._shapes.get(node.name)
        return shape.sizes if isinstance(shape, TensorShape) else ()


def _is_chosen_weight(node: Node) -> bool:
    """Whether a value is a parameter, or what another tensor chooses of one: the weights of an expert."""
    while node.target in _PASSES:
        node = node.all_input_nodes[0]
    return node.op == "get_attr"


def _both(a: Zeroed, b: Zeroed) -> Zeroed:
    return None if a is None or b is None else a | b


def _reads(nodes: Sequence[Node], tensors: frozenset[str]) -> bool:
    return any(one.op == "get_attr" and str(one.target) in tensors for one in _before(nodes))


def _before(nodes: Sequence[Node]) -> list[Node]:
    """These nodes and everything that leads to them."""
    found, seen = list(nodes), set(nodes)
    for node in found:
        new = [source for source in node.all_input_nodes if source not in seen]
        found.extend(new)
        seen.update(new)
    return found
