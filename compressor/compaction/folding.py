"""What removed constants added to their readers, moved into biases; it must never decide what is removed.

The numbers are computed in float64 and stored in the model's own type; the exact ones are returned as well, because a
proof in float64 has to be made with them.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn
from torch.fx import Node

from compressor.axes import UnitMap, Value
from compressor.compaction.constants import Constants, run, stretch
from compressor.compaction.dead import Living
from compressor.compaction.readers import Reading, place
from compressor.compaction.removed import Folded
from compressor.compaction.slicing import Sizes
from compressor.compaction.transfer_contract import factors
from compressor.program import (
    Program,
    ProgramModule,
    TensorShape,
    arguments,
    families,
    free_name,
    is_learned,
    of_same_kind,
    set_argument,
)

aten = torch.ops.aten


@dataclass(frozen=True)
class Made:
    """A constant that compaction computed; `learned` says that a parameter that training changes went into it."""

    value: Tensor
    learned: bool


@dataclass
class Additions:
    """A program under edit: graph, tensors, masks, and the exact value of every tensor that was rounded."""

    program: Program
    exact: dict[str, Tensor] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.graph = copy.deepcopy(self.program.module.graph)
        self.tensors = dict(self.program.module.tensors())
        self.masks = dict(self.program.masks)
        self.made: set[Node] = set()
        self.nodes: dict[str, Node] = {node.name: node for node in self.graph.nodes}

    def finished(self) -> Program:
        """The edited program, without tensors that nothing reads."""
        named = {node.target for node in self.graph.nodes if node.op == "get_attr"}
        tensors = {name: tensor for name, tensor in self.tensors.items() if name in named}
        self.exact = {name: value for name, value in self.exact.items() if name in named}
        module = ProgramModule(tensors, self.graph)
        module.training = self.program.module.training
        masks = {name: mask for name, mask in self.masks.items() if name in tensors}
        aliases = {name: to for name, to in self.program.aliases.items() if to in tensors}
        return self.program.replace(module=module, masks=masks, aliases=aliases)

    def add_to_output(self, node: Node, amounts: Made) -> str:
        """The tensor that took `amounts`, one per channel of the node's output; a new one where there is none.

        Behind a convolution without bias a batch norm takes them into its running mean: no tensor more.
        """
        bias = arguments(node).get("bias") if node.target in families.WITH_FILTERS else None
        if isinstance(bias, Node):
            return self._grow(node, bias, amounts)
        norm = _norm_behind(node)
        if norm is not None and self._is_own(norm):
            self._set(str(norm.target), self._value(str(norm.target)) - amounts.value)
            return str(norm.target)
        made = self.tensor(f"{place(node)}.bias", amounts, node, node)
        if node.target in families.WITH_FILTERS:
            set_argument(node, "bias", made)
            return str(made.target)
        with self.graph.inserting_after(node):
            added = self.graph.call_function(aten.add.Tensor, (node, made))
        added.meta = {"where": node.meta.get("where", "")}
        node.replace_all_uses_with(added, delete_user_cb=lambda user: user is not added)
        return str(made.target)

    def _grow(self, node: Node, bias: Node, amounts: Made) -> str:
        name = str(bias.target)
        if self._is_own(bias):
            self._set(name, self._value(name) + amounts.value)
            mask = self.masks.get(name)
            if mask is not None:
                self.masks[name] = mask | (amounts.value != 0)
            return name
        sum_of_both = Made(self._value(name) + amounts.value, amounts.learned or is_learned(self.tensors[name]))
        made = self.tensor(f"{place(node)}.bias", sum_of_both, node, node)
        set_argument(node, "bias", made)
        return str(made.target)

    def _is_own(self, tensor: Node) -> bool:
        """Whether a parameter or buffer is read at one place only."""
        readers = [n for n in self.graph.nodes if n.op == "get_attr" and n.target == tensor.target]
        return tensor.op == "get_attr" and len(readers) == 1 and len(tensor.users) == 1

    def _value(self, name: str) -> Tensor:
        return self.exact.get(name, self.tensors[name].detach().double())

    def _set(self, name: str, value: Tensor) -> None:
        old = self.tensors[name]
        self.exact[name] = value
        self.tensors[name] = of_same_kind(value.to(old.dtype).to(old.device), old)

    def tensor(self, wanted: str, made: Made, like: Node, at: Node) -> Node:
        """A new tensor of the element type of `like`, read in front of `at`: a parameter if what it is made of was
        learned, else a buffer, which training leaves as it is. Its name is `wanted` if that is free."""
        name = free_name(wanted, [*self.tensors, *self.program.aliases])
        shape = self.program.shapes[like.name]
        assert isinstance(shape, TensorShape)
        held = (tensor.device for tensor in self.tensors.values() if tensor.device.type != "meta")
        device = next(held, made.value.device)
        stored = made.value.to(shape.dtype).to(device)
        self.tensors[name] = nn.Parameter(stored) if made.learned else stored
        self.exact[name] = made.value
        with self.graph.inserting_before(at):
            node = self.graph.get_attr(name)
        node.meta = {"where": at.meta.get("where", "")}
        self.made.add(node)
        return node


def _norm_behind(node: Node) -> Node | None:
    """The running mean of the batch norm that alone reads `node`, if it normalises with that mean."""
    users = list(node.users)
    if len(users) != 1 or users[0].target not in families.BATCH_NORM:
        return None
    bound = arguments(users[0])
    mean = bound["running_mean"]
    return mean if bound["input"] is node and isinstance(mean, Node) and not bound["training"] else None


def fold_removed(
    sliced: Program, units: UnitMap, verdict: Living, exact: Mapping[str, Tensor]
) -> tuple[Program, tuple[Folded, ...], Mapping[str, Tensor]]:
    """The sliced program with what the removed constants added, where each went, and the exact tensors, old and new."""
    dead = ~verdict.keep | verdict.fillers
    edit, done, sizes = Additions(sliced, dict(exact)), [], Sizes(units, verdict.keep)
    for reading in verdict.readings:
        if reading.node.target in families.TRANSPOSED_CONVOLUTIONS:
            continue  # adds another constant at every position: what it reads stays
        gone = (reading.channel_units >= 0) & dead[reading.channel_units]
        constant = reading.source.everywhere(reading.dim) & ~reading.source.zero_everywhere(reading.dim)
        folded = torch.from_numpy(gone) & constant
        if not folded.any():
            continue
        walked = units.walk.values[reading.node.name]
        assert isinstance(walked, Value)
        dim = walked.rank - 1 if reading.dim == reading.source.rank - 1 else reading.dim
        amounts = added_by(reading, folded)
        fills = (reading.row_units >= 0) & verdict.fillers[reading.row_units]
        amounts[torch.from_numpy(fills)] = 0  # what only fills a dimension must be 0 for a norm or a sum over it
        amounts = amounts[torch.from_numpy(sizes.kept(walked, dim))]
        if not amounts.any():
            continue
        learned = any(constants.learned for constants in _factors_of(reading))
        into = edit.add_to_output(edit.nodes[reading.node.name], Made(amounts, learned))
        done.append(Folded(place(reading.node), int(folded.sum()), into))
    return (edit.finished(), tuple(done), edit.exact) if done else (sliced, (), exact)


def _factors_of(reading: Reading) -> tuple[Constants, ...]:
    """What `added_by` multiplies."""
    a = reading.arguments
    return (reading.source, a["weight"] if "weight" in a else factors(reading.node, a)[1])


@torch.no_grad()
def added_by(reading: Reading, channels: Tensor) -> Tensor:
    """What constant channels add to each output channel, exact where they add the same at every position.

    Shapes:  channels (G * I,) bool -> (G * O,)
    """
    a, x = reading.arguments, reading.source
    values = torch.where(channels, x.first_along(reading.dim), torch.zeros((), dtype=torch.float64))
    if "weight" not in a:
        weight = factors(reading.node, a)[1]
        rows_KN = stretch(weight.value, weight.sizes, range(2))[channels].double()
        return a.get("alpha", 1) * (values[channels] @ rows_KN)
    if reading.is_single:
        at = [-1 if d == reading.dim else 1 for d in range(x.rank)]
        whole = torch.where(channels.reshape(at), x.exact, torch.zeros((), dtype=torch.float64))
        whole = stretch(whole, (1, *x.sizes[1:]), range(1, x.rank))
        return run(reading.node, {**a, "bias": None}, lambda c: whole if c is x else c.exact).flatten()
    assert reading.reads is not None
    weight = a["weight"]
    groups, n_rows, n_channels = reading.reads.shape
    grouped = weight.value.reshape(groups, n_rows, n_channels, -1)
    parts = []
    for group in range(groups):
        mine = slice(group * n_channels, (group + 1) * n_channels)
        taps = grouped[group][:, channels[mine]].double().sum(-1)
        parts.append(taps @ values[mine][channels[mine]])
    return torch.cat(parts)
