"""Weights solved, not trained: each layer of a cut network fits the dense one's outputs; it must never cut more.

Dense and pruned network run side by side over the same calibration samples. At each convolution or linear layer the
weights that are left are the least-squares answer to "from what the pruned network feeds me, give what the dense layer
gave". No labels, no epochs; errors of earlier layers are seen, and made good, by later ones.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from itertools import islice

import torch
from torch import Tensor
from torch.fx import Node

from compressor.data import DataSource
from compressor.errors import DataError
from compressor.program import Program, arguments, families, find_layers
from compressor.pruning.activations import channel_of, counted, token_mask
from compressor.pruning.equations import Equations
from compressor.pruning.least_squares import Support, admm_support, ridge_rows
from compressor.pruning.lockstep import Lockstep, operand

_AT_ONCE = 16
"""Samples that run together."""
_FITTED = families.LINEAR | families.CONV1D | families.CONV2D | families.MATMUL | families.MM | families.ADDMM


@dataclass(frozen=True)
class Reconstruction:
    """Relative output error ‖Y − Y'‖ / ‖Y‖ of each layer `before` and `after` fitting; `skipped` gives reasons.

    `masks` stand in place of the program's where layers chose other weights, as many.
    """

    before: Mapping[str, float]
    after: Mapping[str, float]
    skipped: tuple[str, ...]
    masks: Mapping[str, Tensor] = field(default_factory=dict[str, Tensor])


@torch.no_grad()
def reconstruct(
    program: Program,
    dense: Program,
    data: DataSource,
    *,
    n_batches: int,
    batch_size: int = 64,
    ridge: float = 1e-3,
    seed: int = 0,
    device: str = "cpu",
    supports: Mapping[str, Support] | None = None,
) -> Reconstruction:
    """What fitting did; the pruned program's weights are changed in place, what its masks cut stays 0.

    `dense` is the network before the cut, with the same graph. The ridge, a share of the mean energy of a layer's
    inputs, pulls towards the weights as they are, so that a layer that nothing happened to stays as it is. A layer
    whose weight has one of `supports` chooses what to keep of its dense weights, by ADMM (`admm_support`), if that fits
    better than what it was left.
    Tokens that an `attention_mask` hides are no equations.

    Raises:  UsageError if the two graphs differ (the program is compact already); DataError without training data.
    Source:  He et al. 2017, "Channel Pruning for Accelerating Very Deep Neural Networks", eq. 2, W only. Its sec. 3.3,
             asking the last layer of a residual block for what the shortcut has lost as well, was tried and did nothing
             (ResNet-20 and -56 cut to half their MACs: 80.6 and 86.8 % instead of 81.0 and 86.6 on 1,000 images).
    """
    batches = list(_calibration(program, data, n_batches, batch_size, seed, device))
    if not batches:
        raise DataError(f"{data.ref}: the train split is empty; there is nothing to calibrate on")
    program.module.to(device).eval()
    dense.module.to(device).eval()
    fitting = _Fitting(program, dense, ridge, seed, supports or {})
    nodes = [node for node in program.module.graph.nodes if fitting.fits(node)]
    run = Lockstep(program, dense, batches, nodes)
    masks = [token_mask(program.inputs, batch) for batch in batches]
    n_samples = sum(len(batch[0]) for batch in batches)
    for group in run:
        equations = {node: fitting.equations(node) for node in group}
        for met in run.met(group):
            mine = equations[met.node]
            mine.same = mine.same and torch.equal(met.x, met.dense_x)
            counts = counted(met.wanted, masks[met.batch], channel_of(met.node.target))
            mine.add(met.x, met.wanted, counts, len(batches[met.batch][0]) / n_samples)
        for node in group:
            fitting.fit(equations.pop(node))
    program.module.to("cpu")
    dense.module.to("cpu")
    return Reconstruction(fitting.before, fitting.after, tuple(fitting.skipped), fitting.chosen)


def _calibration(
    program: Program, data: DataSource, n_batches: int, batch_size: int, seed: int, device: str
) -> Iterator[list[Tensor]]:
    step = program.fixed_batch or _AT_ONCE
    for batch in islice(data.batches("train", batch_size, seed=seed, device=device), n_batches):
        for first in range(0, len(batch.inputs[0]), step):
            yield [x[first : first + step] for x in batch.inputs]


class _Fitting:
    """The layers of one program, fitted one by one."""

    def __init__(
        self, program: Program, dense: Program, ridge: float, seed: int, supports: Mapping[str, Support]
    ) -> None:
        self.before: dict[str, float] = {}
        self.after: dict[str, float] = {}
        self.skipped: list[str] = []
        self.chosen: dict[str, Tensor] = {}
        self._masks = program.masks
        self._parameters, self._dense, self._ridge = program.parameters, dense.parameters, ridge
        self._random = torch.Generator().manual_seed(seed)
        self._supports = supports
        layers = [layer for layer in find_layers(program) if layer.in_dim is not None]
        self._layers = {layer.node: layer for layer in layers}
        self._uses = {layer.weight: sum(x.weight == layer.weight for x in layers) for layer in layers}
        mine, its = program.module.tensors(), dense.module.tensors()
        self._other = {name for name, tensor in mine.items() if not torch.equal(tensor, its[name].to(tensor.device))}
        self._reached: set[Node] = set()

    def fits(self, node: Node) -> bool:
        """Whether a node, asked in graph order, is a layer to be fitted: one that masks cut, or that the cut reaches.

        One that cannot be is noted in `skipped`.
        """
        layer = self._layers.get(node.name)
        if node.op == "get_attr" and str(node.target) in self._other:
            self._reached.add(node)
        can = layer is not None and node.target in _FITTED and layer.weight in self._parameters
        reads = can and operand(node) in self._reached
        if not self._reached.isdisjoint(node.all_input_nodes):
            self._reached.add(node)
        if layer is None or not can or not (reads or layer.weight in self._masks):
            return False
        if self._uses[layer.weight] > 1:
            self.skipped.append(f"{layer.name}: its weight is shared by {self._uses[layer.weight]} operators")
            return False
        if not isinstance(arguments(node).get("groups", 1), int):
            self.skipped.append(f"{layer.name}: its groups depend on the number of samples")
            return False
        self._reached.add(node)
        return True

    def equations(self, node: Node) -> Equations:
        """Those of a layer, still empty."""
        layer = self._layers[node.name]
        return Equations(node, layer, self._parameters[layer.weight], self._random)

    def fit(self, equations: Equations) -> None:
        """Solve one layer for its weights. A whole layer that sees the same as the dense one is left alone."""
        layer = equations.layer
        if layer.weight not in self._masks and equations.same:
            return
        weight, bias = self._parameters[layer.weight], self._parameters.get(equations.bias or "")
        rows = weight.detach().movedim(layer.out_dim, 0)
        free_OK = _mask(self._masks, layer.weight, weight).movedim(layer.out_dim, 0).flatten(1)
        b_O = rows.new_zeros(len(rows), dtype=torch.float64) if bias is None else bias.detach().to(torch.float64)
        free_O = torch.zeros_like(b_O, dtype=torch.bool)
        free_O = free_O if bias is None else _mask(self._masks, str(equations.bias), bias)
        found = _Fit.of(equations, rows.flatten(1), b_O, free_OK, free_O, self._ridge)
        if layer.weight in self._supports:
            dense = self._dense[layer.weight].detach().movedim(layer.out_dim, 0).flatten(1).to(equations.gram)
            support = self._supports[layer.weight]
            keep = admm_support(equations.gram[:, :-1, :-1], equations.cross[:, :-1], dense, support, ridge=self._ridge)
            other = _Fit.of(equations, torch.where(keep, dense, 0), b_O, keep, free_O, self._ridge)
            if other.after < found.after:
                found = other
                self.chosen[layer.weight] = keep.reshape(rows.shape).movedim(0, layer.out_dim).contiguous().cpu()
        self.before[layer.name], self.after[layer.name] = found.before, found.after
        weight.copy_(found.solved[:, :-1].reshape(rows.shape).movedim(0, layer.out_dim))
        if bias is not None:
            bias.copy_(found.solved[:, -1])


@dataclass(frozen=True)
class _Fit:
    """Weights and, last, biases as solved, and the layer's relative output error. Shapes: solved (O, K + 1)"""

    solved: Tensor
    before: float
    after: float

    @classmethod
    def of(
        cls, equations: Equations, w_OK: Tensor, b_O: Tensor, free_OK: Tensor, free_O: Tensor, ridge: float
    ) -> _Fit:  # fmt: skip
        """From the weights as they are; what is not free stays."""
        live_O = free_OK.any(dim=1)
        start = torch.cat([w_OK.to(b_O), b_O[:, None]], dim=1)
        solved = _solve(equations, start, torch.cat([free_OK, (free_O & live_O)[:, None]], dim=1), ridge)
        size = float(equations.energy[live_O].sum()) or 1.0
        before, after = (max(_left_over(equations, w, live_O) + size, 0.0) / size for w in (start, solved))
        return cls(solved, before**0.5, after**0.5)


def _mask(masks: Mapping[str, Tensor], name: str, like: Tensor) -> Tensor:
    mask = masks.get(name)
    return torch.ones(like.shape, dtype=torch.bool, device=like.device) if mask is None else mask.to(like.device)


def _by_group(equations: Equations) -> Iterator[tuple[slice, Tensor, Tensor]]:
    """Filters of each group, with its gram and its cross."""
    o = equations.cross.shape[2]
    for group, (gram, cross) in enumerate(zip(equations.gram, equations.cross, strict=True)):
        yield slice(group * o, (group + 1) * o), gram, cross


def _solve(equations: Equations, start_OK: Tensor, free_OK: Tensor, ridge: float) -> Tensor:
    parts = [ridge_rows(gram, cross, start_OK[own], free_OK[own], ridge) for own, gram, cross in _by_group(equations)]
    return torch.cat(parts)


def _left_over(equations: Equations, w_OK: Tensor, live_O: Tensor) -> float:
    """‖XW − Y‖² − ‖Y‖² over the filters that live."""
    found = 0.0
    for own, gram_KK, cross_KO in _by_group(equations):
        w, cross = w_OK[own][live_O[own]], cross_KO.T[live_O[own]]
        found += float(((w @ gram_KK) * w).sum() - 2 * (w * cross).sum())
    return found
