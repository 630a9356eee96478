"""One small network for every operator that multiplies and sums, with its multiply-adds worked out by hand."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from compressor.program import InputSpec, Program, capture

aten = torch.ops.aten


class Calls(nn.Module):
    """`call(self, *inputs)` with parameters of the given shapes as attributes."""

    def __init__(self, call: Callable[..., Any], **shapes: tuple[int, ...]) -> None:
        super().__init__()
        self.call = call
        for name, shape in shapes.items():
            setattr(self, name, nn.Parameter(torch.randn(shape)))

    def forward(self, *inputs: Tensor) -> Any:
        return self.call(self, *inputs)


class First(nn.Module):
    """The first result of a recurrent layer."""

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, x: Tensor) -> Tensor:
        found = self.layer(x)
        return found[0] if isinstance(found, tuple) else found


@dataclass(frozen=True)
class Case:
    """`macs` of one sample; `torch` is what torch's counter makes of it where that is another number."""

    make: Callable[[], nn.Module]
    inputs: tuple[tuple[int, ...], ...]
    macs: int
    torch: int | None = None

    def program(self) -> Program:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            made = self.make().eval()
        return capture(made, [InputSpec(f"x{i}", (None, *shape)) for i, shape in enumerate(self.inputs)])


def calls(call: Callable[..., Any], *inputs: tuple[int, ...], macs: int, torch: int | None = None,
          **shapes: tuple[int, ...]) -> Case:  # fmt: skip
    return Case(partial(Calls, call, **shapes), inputs, macs, torch)


def layer(make: Callable[[], nn.Module], *inputs: tuple[int, ...], macs: int, torch: int | None = None) -> Case:
    return Case(make, inputs, macs, torch)


CONVOLUTIONS = {
    "conv1d": layer(lambda: nn.Conv1d(6, 8, 3), (6, 10), macs=8 * 8 * 6 * 3),
    "conv2d": layer(lambda: nn.Conv2d(6, 8, (3, 5), stride=2, padding=1), (6, 9, 9), macs=5 * 4 * 8 * 6 * 15),
    "conv2d, groups": layer(lambda: nn.Conv2d(6, 8, 3, groups=2), (6, 7, 7), macs=25 * 8 * 3 * 9),
    "conv2d, depthwise": layer(lambda: nn.Conv2d(6, 6, 3, groups=6), (6, 7, 7), macs=25 * 6 * 9),
    "conv2d, same": layer(lambda: nn.Conv2d(6, 8, 4, padding="same", dilation=2), (6, 9, 9), macs=81 * 8 * 6 * 16),
    "conv3d": layer(lambda: nn.Conv3d(2, 3, 2), (2, 4, 5, 6), macs=3 * 4 * 5 * 3 * 2 * 8),
    "conv_transpose1d": layer(lambda: nn.ConvTranspose1d(6, 4, 3, 2), (6, 5), macs=5 * 6 * 4 * 3),
    "conv_transpose2d": layer(lambda: nn.ConvTranspose2d(6, 4, 4, 2, 1), (6, 5, 7), macs=35 * 6 * 4 * 16),
    "conv_transpose2d, groups": layer(
        lambda: nn.ConvTranspose2d(6, 4, 4, 2, 1, groups=2), (6, 5, 7), macs=35 * 6 * 2 * 16
    ),
    "conv_transpose3d": layer(lambda: nn.ConvTranspose3d(2, 3, 2), (2, 3, 4, 5), macs=60 * 2 * 3 * 8),
    "convolution": calls(
        lambda m, x: aten.convolution.default(x, m.w, None, [1, 1], [0, 0], [1, 1], False, [0, 0], 2),
        (6, 7, 7), w=(8, 3, 3, 3), macs=25 * 8 * 3 * 9,
    ),
    "convolution, transposed": calls(
        lambda m, x: aten.convolution.default(x, m.w, None, [2, 2], [0, 0], [1, 1], True, [0, 0], 1),
        (6, 5, 7), w=(6, 4, 3, 3), macs=35 * 6 * 4 * 9,
    ),
    "conv_tbc": calls(
        lambda m, x: torch.conv_tbc(x.transpose(0, 1).contiguous(), m.w, m.b), (7, 3), w=(3, 3, 5), b=(5,),
        macs=5 * 5 * 9, torch=0,
    ),
}  # fmt: skip

PRODUCTS = {
    "linear": layer(lambda: nn.Linear(6, 5), (6,), macs=30),
    "linear on tokens": layer(lambda: nn.Linear(6, 5), (3, 4, 6), macs=12 * 30),
    "linear with a vector": calls(lambda m, x: F.linear(x, m.w), (3, 6), w=(6,), macs=18, torch=0),
    "matmul": calls(lambda m, x, y: x @ y, (4, 3), (3, 5), macs=60),
    "matmul, batch of the second": calls(lambda m, x: m.w @ x.unsqueeze(1), (3, 5), w=(6, 4, 3), macs=6 * 60),
    "matmul, both batches stretched": calls(lambda m, x: x.unsqueeze(2) @ m.w, (7, 4, 3), w=(6, 3, 5), macs=7 * 6 * 60),
    "matmul with a vector": calls(lambda m, x: x @ m.w, (4, 3), w=(3,), macs=12, torch=0),
    "vector times matmul": calls(lambda m, x: m.w @ x, (3, 5), w=(3,), macs=15),
    "mm": calls(lambda m, x: torch.mm(x, m.w), (3,), w=(3, 5), macs=15),
    "bmm": calls(lambda m, x, y: torch.bmm(x, y), (4, 3), (3, 5), macs=60),
    "mv": calls(lambda m, x: torch.mv(x, m.w), (3,), w=(3,), macs=3, torch=0),
    "dot": calls(lambda m, x: x * torch.dot(m.v, m.w), (3,), v=(7,), w=(7,), macs=7, torch=0),
    "vdot": calls(lambda m, x: x * torch.vdot(m.v, m.w), (3,), v=(7,), w=(7,), macs=7, torch=0),
    "inner": calls(lambda m, x: torch.inner(x, m.w), (4, 5), w=(6, 5), macs=4 * 6 * 5),
    "addmm": calls(lambda m, x: torch.addmm(m.b, x, m.w), (3,), b=(5,), w=(3, 5), macs=15),
    "baddbmm": calls(lambda m, x, y: torch.baddbmm(m.b, x, y), (4, 3), (3, 5), b=(4, 5), macs=60),
    "addbmm": calls(
        lambda m, x: x @ torch.addbmm(m.b, m.v, m.w), (4,), b=(4, 6), v=(2, 4, 5), w=(2, 5, 6), macs=24 + 240, torch=24
    ),
    "addmv": calls(lambda m, x: x * torch.addmv(m.b, m.v, m.w), (4,), b=(4,), v=(4, 5), w=(5,), macs=20, torch=0),
    "tensordot": calls(lambda m, x: torch.tensordot(x, m.w, 2), (3, 4, 5), w=(4, 5, 6), macs=3 * 4 * 5 * 6),
    "tensordot, crossed": calls(
        lambda m, x: torch.tensordot(x, m.w, ([3, 1], [0, 2])), (3, 4, 5), w=(5, 6, 3), macs=3 * 4 * 5 * 6
    ),
    "tensordot without a sum": calls(lambda m, x: torch.tensordot(x, m.w, 0), (3,), w=(4,), macs=0, torch=12),
    "bilinear": layer(lambda: nn.Bilinear(6, 5, 4), (6,), (5,), macs=4 * 6 * 5 + 4 * 6, torch=0),
    "affine_grid": calls(
        lambda m, x: F.affine_grid(x, [x.shape[0], 1, 4, 5], align_corners=False), (2, 3), macs=20 * 2 * 3, torch=0
    ),
}

EINSUMS = {
    "plain": calls(lambda m, x: torch.einsum("bi,ij->bj", x, m.w), (4,), w=(4, 5), macs=20),
    "attention": calls(lambda m, x: torch.einsum("bhid,bhjd->bhij", x, x), (2, 5, 4), macs=2 * 25 * 4),
    "summed apart": calls(lambda m, x: torch.einsum("bi,j->bi", x, m.w), (4,), w=(5,), macs=0),
    "implicit result": calls(lambda m, x: torch.einsum("zi,ij", x, m.w), (4,), w=(4, 5), macs=20),
    "ellipsis": calls(lambda m, x: torch.einsum("...i,ij->...j", x, m.w), (2, 3, 4), w=(4, 5), macs=6 * 20),
    "two ellipses": calls(
        lambda m, x: torch.einsum("...ij,...jk->...ik", x, m.w), (6, 1, 2, 3), w=(5, 3, 4), macs=30 * 24
    ),
    "sum before": calls(lambda m, x: torch.einsum("bij,jk->bk", x, m.w), (3, 4), w=(4, 5), macs=20),
    "outer": calls(lambda m, x: torch.einsum("bi,j->bij", x, m.w), (4,), w=(5,), macs=0),
    "by element": calls(lambda m, x: torch.einsum("bi,i->bi", x, m.w), (4,), w=(4,), macs=0),
    "one operand": calls(lambda m, x: torch.einsum("bij->bji", x), (3, 4), macs=0),
    "diagonal": calls(lambda m, x: torch.einsum("bii,ij->bj", x, m.w), (3, 3), w=(3, 4), macs=12),
    "three": calls(
        lambda m, x: torch.einsum("bi,ij,jk->bk", x, m.v, m.w), (4,), v=(4, 5), w=(5, 6), macs=20 + 30
    ),
    "four": calls(
        lambda m, x: torch.einsum("bi,ij,jk,kl->bl", x, m.u, m.v, m.w), (2,), u=(2, 3), v=(3, 5), w=(5, 7),
        macs=6 + 15 + 35,
    ),
    "four by a path": calls(
        lambda m, x: aten.einsum.default("bi,ij,jk,kl->bl", [x, m.u, m.v, m.w], path=[2, 3, 1, 2, 0, 1]), (2,),
        u=(2, 3), v=(3, 5), w=(5, 7), macs=3 * 5 * 7 + 2 * 3 * 7 + 14,
    ),
    "four by another path": calls(
        lambda m, x: aten.einsum.default("bi,ij,jk,kl->bl", [x, m.u, m.v, m.w], path=[0, 1, 0, 1, 0, 1]), (2,),
        u=(2, 3), v=(3, 5), w=(5, 7), macs=6 + 3 * 5 * 7 + 3 * 7,
    ),
}  # fmt: skip

_QKV = ((4, 7, 8), (4, 9, 8), (4, 9, 6))
ATTENTIONS = {
    "cross": calls(lambda m, q, k, v: F.scaled_dot_product_attention(q, k, v), *_QKV, macs=4 * 7 * 9 * 14),
    "causal": calls(
        lambda m, q: F.scaled_dot_product_attention(q, q, q, is_causal=True), (4, 7, 8), macs=4 * 49 * 16
    ),
    "masked": calls(
        lambda m, q, k, v: F.scaled_dot_product_attention(q, k, v, attn_mask=m.w), *_QKV, w=(7, 9), macs=4 * 7 * 9 * 14
    ),
    "shared keys": calls(
        lambda m, q, k, v: F.scaled_dot_product_attention(q, k, v, enable_gqa=True), (4, 7, 8), (2, 9, 8), (2, 9, 6),
        macs=4 * 7 * 9 * 14,
    ),
    "without heads": calls(lambda m, q: F.scaled_dot_product_attention(q, q, q), (7, 8), macs=49 * 16),
    "nn.MultiheadAttention": layer(
        lambda: nn.TransformerEncoderLayer(16, 4, 32, batch_first=True), (5, 16),
        macs=5 * 16 * 16 * 4 + 2 * 5 * 5 * 16 + 2 * 5 * 16 * 32,
    ),
}  # fmt: skip

RECURRENT = {
    "lstm": layer(lambda: First(nn.LSTM(8, 16, batch_first=True)), (7, 8), macs=7 * 64 * (8 + 16)),
    "lstm, deep and both ways": layer(
        lambda: First(nn.LSTM(8, 16, 2, batch_first=True, bidirectional=True)), (7, 8),
        macs=7 * 2 * (64 * (8 + 16) + 64 * (32 + 16)),
    ),
    "lstm, projected": layer(
        lambda: First(nn.LSTM(8, 16, proj_size=5, batch_first=True)), (7, 8), macs=7 * (64 * (8 + 5) + 5 * 16)
    ),
    "gru": layer(lambda: First(nn.GRU(8, 16, batch_first=True)), (7, 8), macs=7 * 48 * (8 + 16)),
    "rnn": layer(lambda: First(nn.RNN(8, 16, batch_first=True)), (7, 8), macs=7 * 16 * (8 + 16)),
    "rnn, relu": layer(
        lambda: First(nn.RNN(8, 16, nonlinearity="relu", batch_first=True)), (7, 8), macs=7 * 16 * (8 + 16)
    ),
    "lstm cell": layer(lambda: First(nn.LSTMCell(8, 16)), (8,), macs=64 * 24),
    "gru cell": layer(lambda: First(nn.GRUCell(8, 16)), (8,), macs=48 * 24),
    "rnn cell": layer(lambda: First(nn.RNNCell(8, 16)), (8,), macs=16 * 24),
}  # fmt: skip

CASES = {
    **CONVOLUTIONS,
    **PRODUCTS,
    **{f"einsum, {name}": case for name, case in EINSUMS.items()},
    **{f"attention, {name}": case for name, case in ATTENTIONS.items()},
    **RECURRENT,
}
