"""What reaches every weight of a network, measured on training data; it must never score or change one.

A weight is worth what its layer's output loses without it: its square times the energy of the input that it multiplies.
The energy is asked of the operator itself. An operator that is linear in its weight gives, on squared inputs, the
derivative Σ x² by each weight, whichever inputs that one meets: strides, borders, groups, gathered experts, the rows
that an embedding looks up.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from typing import Any, cast

import torch
from torch import Tensor, fx
from torch.fx import Node
from torch.fx.node import map_arg

from compressor.data import DataSource
from compressor.errors import DataError, TrainingError
from compressor.narrowing import is_row
from compressor.program import InputSpec, Program, arguments, families
from compressor.training import open_processes

_AT_ONCE = 16
"""Samples that run together: what a run holds beside the network is what these need at one operator."""
_WEIGHTED = families.WITH_FILTERS | families.EMBEDDING
_LINEAR = (
    _WEIGHTED | families.PRODUCTS | families.ADDED_PRODUCTS | families.EINSUM | families.BILINEAR | families.CONV_TBC
    | families.TENSORDOT
)  # fmt: skip
"""Operators whose result is linear in each operand."""
_MOVES = families.SAME_NUMBERS | families.INDEX | families.INDEX_SELECT | families.GATHER


@torch.no_grad()
def input_energies(
    program: Program, data: DataSource, *, n_batches: int, batch_size: int = 64, seed: int = 0, device: str = "cpu"
) -> dict[str, Tensor]:
    """Σ x² over the positions at which a weight is multiplied, a mean over samples, by the names of parameters.

    Positions that an `attention_mask` hides do not count, in values that have a row for each token. What is in no
    operator that is linear in it has no entry: biases, norms, recurrent layers, weights that are computed first. A
    weight that several operators read has the sum. Every process gets the first one's answer.

    Shapes:  such that they broadcast with the parameter: of a linear layer (1, I), of a convolution (1, I, Kh, Kw)
    Raises:  DataError without training data; TrainingError for an input that is not finite.
    Source:  Sun et al. 2023, "A Simple and Effective Pruning Approach for Large Language Models" (Wanda), eq. 1: the
             square of ‖X_j‖₂.
    """
    processes = open_processes(device)
    program.module.to(processes.device).eval()
    meeting = _Meeting(program)
    n_samples, step = 0, program.fixed_batch or _AT_ONCE
    for batch in islice(data.batches("train", batch_size, seed=seed, device=str(processes.device)), n_batches):
        n = len(batch.inputs[0])
        for first in range(0, n, step):
            meeting.add([x[first : first + step] for x in batch.inputs])
        n_samples += n
    program.module.to("cpu")
    if n_samples == 0:
        raise DataError(f"{data.ref}: the train split is empty; there is nothing to measure activations on")
    processes.share(meeting.sums.values())
    for name, energy in meeting.sums.items():
        if not bool(torch.isfinite(energy).all()):
            raise TrainingError(f"{name}: what it multiplies is not finite; the network does not fit its data")
    return {name: energy.cpu() / n_samples for name, energy in meeting.sums.items()}


def token_mask(specs: Sequence[InputSpec], inputs: Sequence[Tensor]) -> Tensor | None:
    """Which tokens of the inputs are no padding, where the network is told. Shapes: -> (N, T) bool"""
    for spec, given in zip(specs, inputs, strict=True):
        if spec.name == "attention_mask" and given.dim() == 2:
            return given != 0
    return None


def counted(value: Tensor, mask_NT: Tensor | None, channel: int) -> Tensor | None:
    """Which positions of a value count, so that it broadcasts; None where all do, or it has no row for each token.

    Shapes:  value (N, T, ..., F) or (N · T, F), channels last; (N, F, T), channels at 1
    """
    if mask_NT is None:
        return None
    n, t = mask_NT.shape
    if channel == 1 and value.dim() == 3 and (value.shape[0], value.shape[2]) == (n, t):
        return mask_NT.unsqueeze(1)
    if channel == -1 and value.dim() > 2 and value.shape[:2] == (n, t):
        return mask_NT.reshape(n, t, *[1] * (value.dim() - 2))
    if channel == -1 and value.dim() == 2 and len(value) == n * t:
        return mask_NT.reshape(-1, 1)
    return None


def channel_of(target: Any) -> int:
    """Along which dimension of its values an operator has features."""
    return 1 if target in families.CONVOLUTIONS or target in families.TRANSPOSED_CONVOLUTIONS else -1


class _Meeting:
    """Runs of one network that sum up what its weights meet, operator by operator; values are freed when they can be.

    `moved` are values that hold nothing but a parameter's numbers at other places, by the parameter's name; `at` says
    of an operator which of its operands is such a value.
    """

    def __init__(self, program: Program) -> None:
        self.sums: dict[str, Tensor] = {}
        self._program, self._parameters = program, program.parameters
        self._moved, self._at = _find(program)
        nodes = list(program.module.graph.nodes)
        ends = [i for i, node in enumerate(nodes) if node in self._at]
        self._nodes = nodes[: max(ends, default=-1) + 1]
        last_use = {source: node for node in self._nodes for source in node.all_input_nodes}
        self._freed: dict[Node, list[Node]] = {}
        for source, node in last_use.items():
            self._freed.setdefault(node, []).append(source)

    def add(self, inputs: Sequence[Tensor]) -> None:
        """One more run. What comes behind the last weight is not computed, nor what that one makes."""
        run = fx.Interpreter(self._program.module)
        run.args_iter = iter(inputs)
        mask = token_mask(self._program.inputs, inputs)
        probes: dict[Node, Tensor] = {}
        leaves: dict[str, Tensor] = {}
        for node in self._nodes:
            if node in self._moved and node.op != "get_attr":
                probes[node] = self._move(run, node, probes, leaves)
            if node in self._at:
                self._measure(run, node, probes, leaves, mask)
            if node is not self._nodes[-1]:
                run.env[node] = run.run_node(node)
            for source in self._freed.get(node, ()):
                del run.env[source]
                probes.pop(source, None)

    def _leaf(self, name: str, leaves: dict[str, Tensor]) -> Tensor:
        if name not in leaves:
            leaves[name] = torch.zeros_like(self._parameters[name], dtype=torch.float32).requires_grad_()
        return leaves[name]

    def _move(self, run: fx.Interpreter, node: Node, probes: dict[Node, Tensor], leaves: dict[str, Tensor]) -> Tensor:
        """The probe of the parameter, moved as its numbers are."""
        name = self._moved[node]

        def value(source: Node) -> Any:
            if source in self._moved:
                return probes[source] if source in probes else self._leaf(name, leaves)
            return run.env[source]

        args, kwargs = map_arg((node.args, node.kwargs), value)
        with torch.enable_grad():
            moved = cast(Any, node.target)(*args, **kwargs)
        return moved

    def _measure(
        self, run: fx.Interpreter, node: Node, probes: dict[Node, Tensor], leaves: dict[str, Tensor],
        mask: Tensor | None,
    ) -> None:  # fmt: skip
        operand = self._at[node]
        name = self._moved[operand]
        bound = {key: map_arg(given, lambda n: run.env[n]) for key, given in arguments(node).items()}
        narrow = _one_filter(node, bound, operand) if operand.op == "get_attr" else None
        probe = narrow
        if probe is None:
            probe = probes[operand] if operand in probes else self._leaf(name, leaves)
        leaf = narrow if narrow is not None else self._leaf(name, leaves)
        with torch.enable_grad():
            sources = arguments(node)
            wide = probe.to(torch.float32)
            given = {key: _squared(value, sources[key], operand, wide) for key, value in bound.items()}
            if narrow is not None and "bias" in given:
                given["bias"] = None
            if narrow is not None and node.target in families.ADDED_PRODUCTS:
                given["self"] = torch.zeros_like(narrow).sum()
            out = cast(Any, node.target)(**given)
            counts = counted(out, mask, channel_of(node.target))
            total = (out if counts is None else out * counts).sum()
            (energy,) = torch.autograd.grad(total, leaf, retain_graph=operand in probes)
        energy = _of_all_filters(node, energy, self._parameters[name]).to(torch.float64)
        self.sums[name] = self.sums[name] + energy if name in self.sums else energy


def _find(program: Program) -> tuple[dict[Node, str], dict[Node, Node]]:
    """Values that are a parameter moved, by its name; and operators that are linear in one of those, and which."""
    parameters = {name for name, p in program.parameters.items() if p.dim() > 1 and p.is_floating_point()}
    moved: dict[Node, str] = {}
    at: dict[Node, Node] = {}
    for node in program.module.graph.nodes:
        if node.op == "get_attr" and str(node.target) in parameters:
            moved[node] = str(node.target)
        if node.op != "call_function":
            continue
        sources = [source for source in node.all_input_nodes if source in moved]
        if len(sources) != 1:
            continue
        if node.target in _MOVES and next(iter(_tensors(node)), None) is sources[0]:
            moved[node] = moved[sources[0]]
        elif node.target in _LINEAR and sources[0] in _operands(node):
            at[node] = sources[0]
    return moved, at


def _tensors(node: Node) -> Iterator[Node]:
    return (value for value in arguments(node).values() if isinstance(value, Node))


def _operands(node: Node) -> set[Node]:
    """What is multiplied: no bias, and not what is added."""
    bound = arguments(node)
    if node.target in families.EINSUM:
        return set(bound["tensors"])
    names = families.operands_of(node.target) or ("weight", "self", "other")
    return {bound[name] for name in names if isinstance(bound.get(name), Node)}


def _one_filter(node: Node, bound: Mapping[str, Any], operand: Node) -> Tensor | None:
    """A weight of one filter, of each group, for an operator in which all filters of a group meet the same; None where
    that is not known of it."""
    groups = bound.get("groups", 1)
    if node.target in _WEIGHTED and isinstance(groups, int):
        weight, dim = bound["weight"], _filter_dim(node)
        n = groups if node.target in families.CONVOLUTIONS else 1
    elif node.target in families.PRODUCTS | families.ADDED_PRODUCTS:
        names = families.operands_of(node.target)
        last = bound[names[-1]] if len(names) == 2 else None
        if last is None or arguments(node)[names[-1]] is not operand:
            return None
        weight, dim, n = last, last.dim() - 1, 1
    else:
        return None
    return torch.zeros_like(weight.narrow(dim, 0, n), dtype=torch.float32).requires_grad_()


def _filter_dim(node: Node) -> int:
    family = families.family_of(node.target)
    assert family is not None and family.filter_dim is not None
    return family.filter_dim


def _of_all_filters(node: Node, energy: Tensor, weight: Tensor) -> Tensor:
    """What one filter of each group met, for every filter; one that all share stays one."""
    if node.target not in families.CONVOLUTIONS or energy.shape[0] in (1, weight.shape[0]):
        return energy
    return energy.repeat_interleave(weight.shape[0] // energy.shape[0], 0)


def _squared(value: Any, source: Any, operand: Node, probe: Tensor) -> Any:
    """An argument as it is given to the operator: the probe in place of the weight, others squared."""
    if isinstance(source, Node) and source is operand:
        return probe
    if isinstance(value, Tensor) and value.is_floating_point():
        return value.to(torch.float32).square()
    if is_row(value) and is_row(source):
        pairs = zip(value, source, strict=True)
        return [_squared(one, of, operand, probe) for one, of in pairs]
    return value
