"""One layer or region of a network as a small program of its own; it must never take time or choose what is excerpted.

Such programs are what a stopwatch is given. Names are those that their maker chose, so that equal excerpts are equal.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Sequence
from typing import Any

from torch import Tensor, fx, nn
from torch.fx import Node

from compressor.program.module import ProgramModule
from compressor.program.program import Program
from compressor.program.spec import InputSpec


class Excerpt:
    """A small program in the making: one input `x` of the given sizes (None where the batch goes), and calls."""

    def __init__(self, sizes: Sequence[int | None]) -> None:
        self._graph = fx.Graph()
        self._inputs = (InputSpec("x", tuple(sizes)),)
        self._tensors: dict[str, Tensor] = {}
        self.input = self._graph.placeholder("x")

    def tensor(self, name: str, value: Tensor) -> Node:
        """A tensor of the excerpt: a parameter that is not trained if it is floating, else a buffer."""
        own = value.detach()
        self._tensors[name] = nn.Parameter(own, requires_grad=False) if own.is_floating_point() else own
        return self._graph.get_attr(name)

    def call(self, target: Any, *args: Any, **kwargs: Any) -> Node:
        return self._graph.call_function(target, args, kwargs)

    def copy(self, nodes: Iterable[Node], made: dict[Node, Node], tensor: Callable[[Node], Tensor]) -> None:
        """Copies of another graph's nodes; `made` says what stands for a node here and gets all that is copied.

        `tensor` gives what a `get_attr` stands for; in the excerpt it is called `layer.0`, `layer.1` …

        Raises:  ValueError for an input of the other graph that nothing stands for.
        """
        for node in nodes:
            if node.op == "get_attr":
                made[node] = self.tensor(f"layer.{len(self._tensors)}", tensor(node))
            elif node.op == "placeholder":
                raise ValueError(f"the excerpt needs {node.name}, which is outside of it")
            else:
                args, kwargs = fx.map_arg((node.args, node.kwargs), lambda one: made[one])
                made[node] = self.call(node.target, *args, **kwargs)

    def program(self, result: Node) -> Program:
        """The program that computes `result`."""
        self._graph.output((result,))
        return Program(ProgramModule(self._tensors, self._graph), self._inputs)


def between(sources: Collection[Node], last: Node) -> list[Node]:
    """What is computed from `sources` up to `last`, tensors that are read among it, in the order of the graph."""
    needed, waiting = {last}, [last]
    while waiting:
        for one in waiting.pop().all_input_nodes:
            if one not in sources and one not in needed:
                needed.add(one)
                waiting.append(one)
    return [node for node in last.graph.nodes if node in needed]
