"""Weights solved, not trained: after a cut every layer is fitted to the dense network's outputs; it must never cut.

Dense and pruned network run side by side, operator by operator, over the same calibration samples. At each convolution
or linear layer the weights that are left are the least-squares answer to "from what the pruned network feeds me, give
what the dense layer gave". No labels, no epochs; errors of earlier layers are seen, and made good, by later ones.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import islice
from typing import Any

import torch
from torch import Tensor
from torch.fx import Node
from torch.nn import functional as F

from compressor.data import DataSource
from compressor.errors import DataError
from compressor.program import Layer, Program, arguments, families, find_layers
from compressor.pruning.lockstep import Lockstep

_CHUNK = 32
"""Samples that are unfolded at a time: a patch matrix is 9 to 25 times its image."""
_ROWS_PER_COLUMN = 6
_LEAST_ROWS = 8192
"""Equations for each unknown of a filter, and at least so many: beyond it the answer no longer moves."""
_FITTED = families.LINEAR | families.CONV1D | families.CONV2D


@dataclass(frozen=True)
class Reconstruction:
    """Relative output error ‖Y − Y'‖ / ‖Y‖ of each layer `before` and `after` fitting; `skipped` gives reasons."""

    before: Mapping[str, float]
    after: Mapping[str, float]
    skipped: tuple[str, ...]


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
) -> Reconstruction:
    """What fitting did; the pruned program's weights are changed in place, what its masks cut stays 0.

    `dense` is the network before the cut, with the same graph. The ridge, a share of the mean energy of a layer's
    inputs, pulls towards the weights as they are, so that a layer that nothing happened to stays as it is.

    Raises:  UsageError if the two graphs differ (the program is compact already); DataError without training data.
    Source:  He et al. 2017, "Channel Pruning for Accelerating Very Deep Neural Networks", eq. 2, W only. Its sec. 3.3,
             asking the last layer of a residual block for what the shortcut has lost as well, was tried and did nothing
             (ResNet-20 and -56 cut to half their MACs: 80.6 and 86.8 % instead of 81.0 and 86.6 on 1,000 images).
    """
    inputs = _calibration(data, n_batches, batch_size, seed, device)
    run = Lockstep(program, dense, inputs)
    program.module.to(device).eval()
    dense.module.to(device).eval()
    fitting = _Fitting(program, ridge, seed)
    for node in run:
        if node.target in _FITTED:
            x, dense_x = run.inputs(node)
            fitting.fit(node, x, run.dense(node), same=torch.equal(x, dense_x))
    program.module.to("cpu")
    dense.module.to("cpu")
    return Reconstruction(fitting.before, fitting.after, tuple(fitting.skipped))


def _calibration(data: DataSource, n_batches: int, batch_size: int, seed: int, device: str) -> list[Tensor]:
    batches = list(islice(data.batches("train", batch_size, seed=seed, device=device), n_batches))
    if not batches:
        raise DataError(f"{data.ref}: the train split is empty; there is nothing to calibrate on")
    return [torch.cat(parts) for parts in zip(*(batch.inputs for batch in batches), strict=True)]


class _Fitting:
    """The layers of one program, fitted one by one."""

    def __init__(self, program: Program, ridge: float, seed: int) -> None:
        self.before: dict[str, float] = {}
        self.after: dict[str, float] = {}
        self.skipped: list[str] = []
        self._parameters, self._masks, self._ridge = program.parameters, program.masks, ridge
        self._random = torch.Generator().manual_seed(seed)
        layers = [layer for layer in find_layers(program) if layer.in_dim is not None]
        self._layers = {layer.node: layer for layer in layers}
        self._uses = {layer.weight: sum(x.weight == layer.weight for x in layers) for layer in layers}

    def fit(self, node: Node, x: Tensor, wanted: Tensor, *, same: bool) -> None:
        """Solve one layer for its weights, given what reaches it and what should come out.

        A whole layer that sees the `same` as the dense one is left alone.
        """
        layer = self._layers.get(node.name)
        if layer is None or layer.weight not in self._parameters:
            return
        if self._uses[layer.weight] > 1:
            self.skipped.append(f"{layer.name}: its weight is shared by {self._uses[layer.weight]} operators")
            return
        if layer.weight not in self._masks and same:
            return
        bound = arguments(node)
        groups = bound.get("groups", 1)
        if not isinstance(groups, int):
            self.skipped.append(f"{layer.name}: its groups depend on the number of samples")
            return
        rows, targets = _equations(node, bound, x, wanted, self._parameters[layer.weight].shape, self._random)
        bias = bound.get("bias")
        bias_name = str(bias.target) if isinstance(bias, Node) else None
        self._solve(layer, bias_name, groups, rows, targets)

    def _solve(self, layer: Layer, bias_name: str | None, groups: int, x_RK: Tensor, y_RO: Tensor) -> None:
        weight = self._parameters[layer.weight]
        bias = self._parameters.get(bias_name) if bias_name is not None else None
        w_OK = weight.detach().flatten(1).to(torch.float64)
        b_O = w_OK.new_zeros(len(w_OK)) if bias is None else bias.detach().to(torch.float64)
        free_OK = _mask(self._masks, layer.weight, weight).flatten(1)
        free_O = torch.zeros_like(b_O, dtype=torch.bool) if bias is None else _mask(self._masks, str(bias_name), bias)
        live_O = free_OK.any(dim=1)
        solved, before, after = torch.cat([w_OK, b_O[:, None]], dim=1), 0.0, 0.0
        free = torch.cat([free_OK, (free_O & live_O)[:, None]], dim=1)
        k, o = w_OK.shape[1], len(w_OK) // groups
        for group in range(groups):
            own = slice(group * o, (group + 1) * o)
            x = torch.cat([x_RK[:, group * k : (group + 1) * k], torch.ones_like(x_RK[:, :1])], dim=1)
            gram, cross = (x.T @ x).double(), (x.T @ y_RO[:, own]).double()
            before += _left_over(gram, cross, solved[own], live_O[own])
            solved[own] = ridge_rows(gram, cross, solved[own], free[own], self._ridge)
            after += _left_over(gram, cross, solved[own], live_O[own])
        size = float(y_RO[:, live_O].double().square().sum()) or 1.0
        self.before[layer.name] = (max(before + size, 0.0) / size) ** 0.5
        self.after[layer.name] = (max(after + size, 0.0) / size) ** 0.5
        weight.copy_(solved[:, :-1].reshape(weight.shape))
        if bias is not None:
            bias.copy_(solved[:, -1])


def _mask(masks: Mapping[str, Tensor], name: str, like: Tensor) -> Tensor:
    mask = masks.get(name)
    return torch.ones(like.shape, dtype=torch.bool, device=like.device) if mask is None else mask.to(like.device)


def _left_over(gram_KK: Tensor, cross_KO: Tensor, w_OK: Tensor, live_O: Tensor) -> float:
    """‖XW − Y‖² − ‖Y‖² over the filters that live."""
    w = w_OK[live_O]
    return float(((w @ gram_KK) * w).sum() - 2 * (w * cross_KO.T[live_O]).sum())


def ridge_rows(gram_KK: Tensor, cross_KO: Tensor, start_OK: Tensor, free_OK: Tensor, ridge: float) -> Tensor:
    """Rows w that minimise ‖Xw − y‖² + λ‖w − start‖² over their free entries; what is not free stays.

    Shapes:  gram XᵀX (K, K), cross XᵀY (K, O), start and free (O, K) -> (O, K)
    Units:   `ridge` is λ as a share of the mean of the gram's diagonal.
    """
    solved = start_OK.clone()
    supports, which_O = torch.unique(free_OK, dim=0, return_inverse=True)
    for number, support in enumerate(supports):
        if not support.any():
            continue
        rows = which_O == number
        block = gram_KK[support][:, support]
        strength = ridge * block.diagonal().mean().clamp_min(torch.finfo(torch.float32).tiny)
        fixed = gram_KK[support][:, ~support] @ start_OK[rows][:, ~support].T
        start = start_OK[rows][:, support].T
        right = cross_KO[support][:, rows] - fixed + strength * start
        left = block + strength * torch.eye(len(block), dtype=block.dtype, device=block.device)
        answer = torch.cholesky_solve(right, torch.linalg.cholesky(left))
        solved[rows.nonzero(), support.nonzero()[:, 0]] = answer.T
    return solved


def _equations(
    node: Node, bound: Mapping[str, Any], x: Tensor, wanted: Tensor, shape: torch.Size, random: torch.Generator
) -> tuple[Tensor, Tensor]:
    """What is multiplied by the weights at sampled positions, and what should come out.

    Shapes:  -> (R, groups * K), (R, O)
    """
    if node.target in families.LINEAR:
        rows, targets = x.reshape(-1, x.shape[-1]), wanted.reshape(-1, wanted.shape[-1])
        picked = _sample(len(rows), _n_rows(shape[1]), random, x.device)
        return rows[picked].float(), targets[picked].float()
    if node.target in families.CONV1D:
        x, wanted, shape = x.unsqueeze(2), wanted.unsqueeze(2), torch.Size((shape[0], shape[1], 1, shape[2]))
        bound = {**bound, **{key: _flat(bound[key], across) for key, across in _ACROSS.items()}}
    stride, dilation = _pair(bound["stride"]), _pair(bound["dilation"])
    kernel = (shape[2], shape[3])
    x = F.pad(x, _padding(bound["padding"], kernel, dilation))
    n_positions = wanted.shape[2] * wanted.shape[3]
    per_sample = min(n_positions, -(-_n_rows(shape[1] * kernel[0] * kernel[1]) // len(x)))
    parts: list[tuple[Tensor, Tensor]] = []
    for first in range(0, len(x), _CHUNK):
        chunk = slice(first, first + _CHUNK)
        picked = _sample(n_positions, per_sample, random, x.device)
        patches_NKL = F.unfold(x[chunk], kernel, dilation=dilation, stride=stride)[:, :, picked]
        targets_NOL = wanted[chunk].flatten(2)[:, :, picked]
        parts.append((patches_NKL.movedim(1, 2).flatten(0, 1), targets_NOL.movedim(1, 2).flatten(0, 1)))
    rows, targets = (torch.cat(part).float() for part in zip(*parts, strict=True))
    return rows, targets


def _n_rows(n_columns: int) -> int:
    return max(_LEAST_ROWS, _ROWS_PER_COLUMN * n_columns)


def _sample(n: int, wanted: int, random: torch.Generator, device: torch.device) -> Tensor:
    if wanted >= n:
        return torch.arange(n, device=device)
    return torch.randperm(n, generator=random)[:wanted].sort().values.to(device)


def _pair(value: Any) -> tuple[int, int]:
    first, *rest = [value] if isinstance(value, int) else list(value)
    return (int(first), int(rest[0] if rest else first))


_ACROSS = {"stride": 1, "padding": 0, "dilation": 1}
"""What a 1-D convolution does along the height of 1 that makes it a 2-D one."""


def _flat(value: Any, across: int) -> Any:
    if isinstance(value, str):
        return value
    return (across, value if isinstance(value, int) else value[0])


def _padding(padding: Any, kernel: tuple[int, int], dilation: tuple[int, int]) -> list[int]:
    """Left, right, top, bottom. `same` pads the odd pixel behind, as torch does."""
    if padding == "valid":
        return [0, 0, 0, 0]
    if padding == "same":
        whole = [d * (k - 1) for k, d in zip(kernel, dilation, strict=True)]
        return [whole[1] // 2, whole[1] - whole[1] // 2, whole[0] // 2, whole[0] - whole[0] // 2]
    rows, columns = _pair(padding)
    return [columns, columns, rows, rows]
