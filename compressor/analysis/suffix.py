"""A program's graph run from any operator on; it must never know which tensors are exchanged there, or why.

`Steps` executes the operators one by one in graph order. What lies before the first reader of a changed tensor is the
same for every variant of it, so a caller computes that once and runs only the rest again: the numbers are those of a
whole run, bit for bit, because the same operators get the same values.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, TypeAlias

import torch
from torch import Tensor
from torch.fx import Node
from torch.fx.node import map_arg

from compressor.errors import ModelError
from compressor.program import Program, TensorShape

Live: TypeAlias = dict[Node, Any]
"""Values that operators still to come will read."""


class Steps:
    """The operators of a program in order, with its tensors on `device`."""

    def __init__(self, program: Program, device: torch.device | str = "cpu") -> None:
        program.module.eval()
        self._nodes: list[Node] = list(program.module.graph.nodes)
        self._place = {node: i for i, node in enumerate(self._nodes)}
        self._tensors = {name: tensor.detach().to(device) for name, tensor in program.module.tensors().items()}
        self._frees: list[list[Node]] = [[] for _ in self._nodes]
        for node in self._nodes:
            if node.op != "get_attr" and node.users:
                self._frees[max(self._place[user] for user in node.users)].append(node)
        self._writes = any(_writes(node) for node in self._nodes)

    @property
    def tensors(self) -> Mapping[str, Tensor]:
        """Parameters and buffers by name, on the device."""
        return self._tensors

    @property
    def end(self) -> int:
        return len(self._nodes)

    def first_reader(self, names: Iterable[str]) -> int:
        """Place of the first operator that reads one of these tensors.

        0 in a graph that writes into memory: there a second run of the rest would find other values than the first.
        """
        if self._writes:
            return 0
        wanted = set(names)
        read = [node for node in self._nodes if node.op == "get_attr" and str(node.target) in wanted]
        return min((self._place[user] for node in read for user in node.users), default=self.end - 1)

    def begin(self, inputs: Sequence[Tensor]) -> Live:
        """The values at place 0: the inputs. Raises: ModelError if they are too few."""
        names = [node for node in self._nodes if node.op == "placeholder"]
        if len(names) > len(inputs):
            raise ModelError(f"the graph has {len(names)} inputs, the data give {len(inputs)}")
        return dict(zip(names, inputs, strict=False))

    def run(self, live: Live, start: int, stop: int, changed: Mapping[str, Tensor] | None = None) -> Any:
        """Execute the places `start` to before `stop`, in place on `live`; the network's output if that is reached.

        `changed` stands in for tensors of those names.
        """
        tensors = self._tensors if not changed else {**self._tensors, **changed}

        def value(node: Node) -> Any:
            return tensors[str(node.target)] if node.op == "get_attr" else live[node]

        for place in range(start, stop):
            node = self._nodes[place]
            if node.op == "output":
                return map_arg(node.args[0], value)
            if node.op == "call_function":
                live[node] = node.target(*map_arg(node.args, value), **map_arg(node.kwargs, value))  # type: ignore
            for done in self._frees[place]:
                live.pop(done, None)
        return None

    def outputs(self, live: Live, start: int, changed: Mapping[str, Tensor]) -> Any:
        """The network's output from `start` on with some tensors changed; `live` stays as it is."""
        if start == 0 and self._writes:
            return self.run({node: value.clone() for node, value in live.items()}, 0, self.end, changed)
        return self.run(dict(live), start, self.end, changed)


def live_bytes(program: Program) -> int:
    """Largest number of bytes that are alive at once in one pass, for one sample."""
    nodes = list(program.module.graph.nodes)
    size = {node: _bytes(program.shapes.get(node.name)) for node in nodes if node.op != "get_attr"}
    place = {node: i for i, node in enumerate(nodes)}
    change = [0] * (len(nodes) + 1)
    for node, n_bytes in size.items():
        change[place[node]] += n_bytes
        change[max((place[user] for user in node.users), default=place[node]) + 1] -= n_bytes
    now = largest = 0
    for step in change:
        now += step
        largest = max(largest, now)
    return -(-largest // program.sampled_batch)


def _bytes(shape: Any) -> int:
    if isinstance(shape, TensorShape):
        return shape.numel * shape.dtype.itemsize
    return sum(_bytes(part) for part in shape) if isinstance(shape, tuple) else 0


def _writes(node: Node) -> bool:
    schema = getattr(node.target, "_schema", None)
    return schema is not None and bool(schema.is_mutable)
