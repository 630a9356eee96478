"""Networks whose work is not all in layers with own weights: these are computed, or activations are multiplied."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from compressor.program import InputSpec, Program, capture


class Scaled(nn.Conv2d):
    """Equalised learning rate (Karras et al. 2018): the weight times a constant."""

    def forward(self, x: Tensor) -> Tensor:
        return F.conv2d(x, self.weight * 0.2, self.bias, self.stride, self.padding)


class Standardised(nn.Conv2d):
    """Weight standardisation (Qiao et al. 2019)."""

    def forward(self, x: Tensor) -> Tensor:
        centred = self.weight - self.weight.mean((1, 2, 3), keepdim=True)
        return F.conv2d(x, centred / (centred.square().mean((1, 2, 3), keepdim=True) + 1e-5).sqrt(), self.bias, 1, 1)


class Adapted(nn.Linear):
    """A low-rank addition (LoRA) that is part of the network: the weight itself takes a matrix product."""

    def __init__(self, n_in: int, n_out: int, rank: int = 2) -> None:
        super().__init__(n_in, n_out)
        self.up, self.down = nn.Parameter(torch.randn(n_out, rank) * 0.1), nn.Parameter(torch.randn(rank, n_in) * 0.1)

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x, self.weight + self.up @ self.down, self.bias)


class Modulated(nn.Module):
    """StyleGAN 2: a weight for every sample, run as one convolution with as many groups as samples."""

    def __init__(self, n_in: int, n_out: int, n_style: int) -> None:
        super().__init__()
        self.style, self.weight = nn.Linear(n_style, n_in), nn.Parameter(torch.randn(1, n_out, n_in, 3, 3))

    def forward(self, x: Tensor, style: Tensor) -> Tensor:
        n, c, h, w = x.shape
        weight = self.weight * self.style(style).reshape(n, 1, c, 1, 1)
        weight = weight * torch.rsqrt(weight.square().sum((2, 3, 4), keepdim=True) + 1e-8)
        o = weight.shape[1]
        return F.conv2d(x.reshape(1, n * c, h, w), weight.reshape(n * o, c, 3, 3), padding=1, groups=n).reshape(
            n, o, h, w
        )


class Generator(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.start, self.map = nn.Parameter(torch.randn(1, 12, 4, 4)), nn.Linear(8, 10)
        self.first, self.second, self.out = Modulated(12, 16, 10), Modulated(16, 14, 10), nn.Conv2d(14, 3, 1)

    def forward(self, z: Tensor) -> Tensor:
        style = F.relu(self.map(z))
        x = F.relu(self.first(self.start.repeat(z.shape[0], 1, 1, 1), style))
        return self.out(F.relu(self.second(F.interpolate(x, scale_factor=2.0), style)))


class Attends(nn.Module):
    """Attention of 4 heads, the product written in different ways; with `shared` each key is for two of them."""

    def __init__(self, product: str) -> None:
        super().__init__()
        self.product, self.n_keys = product, 2 if product == "shared" else 4
        self.q, self.k, self.v = nn.Linear(16, 32), nn.Linear(16, 8 * self.n_keys), nn.Linear(16, 8 * self.n_keys)
        self.o, self.mlp, self.out = nn.Linear(32, 16), nn.Linear(16, 40), nn.Linear(40, 5)

    def forward(self, x: Tensor) -> Tensor:
        n, t, _ = x.shape
        q = self.q(x).reshape(n, t, 4, 8).transpose(1, 2)
        k, v = (f(x).reshape(n, t, self.n_keys, 8).transpose(1, 2) for f in (self.k, self.v))
        y = self.attend(q, k, v).transpose(1, 2).reshape(n, t, 32)
        return self.out(F.relu(self.mlp(x + self.o(y))))

    def attend(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        if self.product == "matmul":
            return (q @ k.mT * 0.35).softmax(-1) @ v
        if self.product == "einsum":
            scores = torch.einsum("bhid,bhjd->bhij", q, k) * 0.35
            return torch.einsum("bhij,bhjd->bhid", scores.softmax(-1), v)
        return F.scaled_dot_product_attention(q, k, v, enable_gqa=self.product == "shared")


class Reads(nn.Module):
    """A recurrent layer between convolutions and a classifier."""

    def __init__(self, recurrent: type[nn.RNNBase]) -> None:
        super().__init__()
        self.a, self.b = nn.Conv1d(4, 24, 3, padding=1), nn.Conv1d(24, 32, 3, padding=1)
        self.read, self.hidden, self.out = recurrent(32, 6, batch_first=True), nn.Linear(6, 64), nn.Linear(64, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.b(F.relu(self.a(x)))).transpose(1, 2)
        return self.out(F.relu(self.hidden(self.read(x)[0][:, -1])))


class Points(nn.Module):
    """PointNet: a transformation per sample, applied by a batched product; features put beside their maximum."""

    def __init__(self) -> None:
        super().__init__()
        self.t1, self.t2 = nn.Conv1d(3, 16, 1), nn.Linear(16, 9)
        self.a, self.b, self.c, self.out = (nn.Conv1d(i, o, 1) for i, o in ((3, 16), (16, 32), (48, 24), (24, 5)))

    def forward(self, x: Tensor) -> Tensor:
        t = self.t2(F.relu(self.t1(x)).amax(2)).reshape(-1, 3, 3)
        p = F.relu(self.a(torch.bmm(x.transpose(1, 2), t).transpose(1, 2)))
        g = self.b(p).amax(2, keepdim=True).expand(-1, -1, x.shape[2])
        return self.out(F.relu(self.c(torch.cat([g, p], 1))))


class Mixed(nn.Module):
    """Grouped, depthwise and transposed convolutions, a residual sum, a bilinear product of two branches."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.grouped = nn.Conv2d(3, 16, 3, padding=1), nn.Conv2d(16, 24, 3, 2, 1, groups=2)
        self.depth, self.up = nn.Conv2d(24, 24, 3, 1, 1, groups=24), nn.ConvTranspose2d(24, 16, 2, 2)
        self.left, self.right, self.join = nn.Linear(16, 12), nn.Linear(16, 10), nn.Bilinear(12, 10, 5)

    def forward(self, x: Tensor) -> Tensor:
        y = F.relu(self.stem(x))
        y = (y + self.up(F.relu(self.depth(self.grouped(y))))).mean((2, 3))
        return self.join(F.relu(self.left(y)), F.relu(self.right(y)))


def _convolutions(kind: type[nn.Conv2d]) -> nn.Module:
    return nn.Sequential(
        kind(3, 16, 3, padding=1), nn.ReLU(), kind(16, 32, 3, padding=1), nn.ReLU(), nn.Conv2d(32, 24, 3, padding=1),
        nn.BatchNorm2d(24), nn.ReLU(), nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(96, 5),
    )  # fmt: skip


def _adapted() -> nn.Module:
    return nn.Sequential(Adapted(12, 40), nn.ReLU(), Adapted(40, 30), nn.ReLU(), nn.Linear(30, 5))


NETWORKS = {
    "plain": (lambda: _convolutions(nn.Conv2d), (3, 8, 8)),
    "scaled weights": (lambda: _convolutions(Scaled), (3, 8, 8)),
    "standardised weights": (lambda: _convolutions(Standardised), (3, 8, 8)),
    "low-rank additions": (_adapted, (12,)),
    "modulated weights": (Generator, (8,)),
    "attention": (lambda: Attends("fused"), (12, 16)),
    "attention by matmul": (lambda: Attends("matmul"), (12, 16)),
    "attention by einsum": (lambda: Attends("einsum"), (12, 16)),
    "attention, shared keys": (lambda: Attends("shared"), (12, 16)),
    "transformer layer": (lambda: nn.TransformerEncoderLayer(16, 4, 64, batch_first=True), (12, 16)),
    "lstm": (lambda: Reads(nn.LSTM), (4, 20)),
    "gru": (lambda: Reads(nn.GRU), (4, 20)),
    "points": (Points, (3, 20)),
    "mixed": (Mixed, (3, 8, 8)),
}


def program_of(name: str) -> Program:
    make, shape = NETWORKS[name]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        module = make().eval()
    return capture(module, [InputSpec("x", (None, *shape))])
