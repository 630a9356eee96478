"""Two networks of one graph run side by side, operator by operator; it must never change a tensor of either."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from torch import Tensor, fx
from torch.fx import Node

from compressor.errors import UsageError
from compressor.program import Program, is_same_graph


class Lockstep:
    """Values of a pruned and its dense network on the same inputs; what no operator needs any more is freed.

    Raises:  UsageError if the two graphs differ (the pruned one is compact already).
    """

    def __init__(self, program: Program, dense: Program, inputs: Sequence[Tensor]) -> None:
        if not is_same_graph(program.module, dense.module):
            raise UsageError("--reconstruct: the dense model has another graph; reconstruct before compact, not after")
        nodes = list(program.module.graph.nodes)
        self._twin = dict(zip(nodes, dense.module.graph.nodes, strict=True))
        self._pruned, self._dense = fx.Interpreter(program.module), fx.Interpreter(dense.module)
        self._pruned.args_iter, self._dense.args_iter = iter(inputs), iter(inputs)
        last_use = {source: node for node in nodes for source in node.all_input_nodes}
        self._freed: dict[Node, list[Node]] = {}
        for source, node in last_use.items():
            self._freed.setdefault(node, []).append(source)

    def __iter__(self) -> Iterator[Node]:
        """Every node of the pruned graph in its order; when the next one is asked for, the pruned network computes it
        with the weights that it has by then."""
        for node, twin in self._twin.items():
            self._dense.env[twin] = self._dense.run_node(twin)
            yield node
            self._pruned.env[node] = self._pruned.run_node(node)
            for source in self._freed.get(node, ()):
                del self._pruned.env[source], self._dense.env[self._twin[source]]

    def inputs(self, node: Node) -> tuple[Tensor, Tensor]:
        """What reaches the node in the pruned and in the dense network."""
        return (
            self._pruned.fetch_args_kwargs_from_env(node)[0][0],
            self._dense.fetch_args_kwargs_from_env(self._twin[node])[0][0],
        )

    def dense(self, node: Node) -> Tensor:
        """The node's value in the dense network."""
        return self._dense.env[self._twin[node]]
