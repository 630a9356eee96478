"""Networks that two right computations answer differently, each for a reason of its own.

Probabilities next to nothing, near-ties, random numbers, NaN, depth, thresholds: what a fixed limit takes for a fault.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from compressor.program import InputSpec, Program, capture

IMAGE = InputSpec("x", (None, 3, 24, 24))


class Trunk(nn.Module):
    """Two convolutions with batch norm, so that there is something to prune.

    Where features are far from zero, `shift` away, many of them are as near to each other as float32 can tell.
    """

    def __init__(self, n_out: int, shift: float = 0.0) -> None:
        super().__init__()
        self.a, self.norm = nn.Conv2d(3, 16, 3, padding=1, bias=False), nn.BatchNorm2d(16)
        self.b = nn.Conv2d(16, n_out, 3, padding=1)
        for bound in (self.norm.running_mean, self.norm.bias):
            nn.init.uniform_(bound, -0.3, 0.3)
        nn.init.uniform_(self.norm.running_var, 0.5, 2)
        nn.init.constant_(self.b.bias, shift)

    def features(self, x: Tensor) -> Tensor:
        return self.b(torch.relu(self.norm(self.a(x))))


class Detector(Trunk):
    """Text detection: a map of probabilities, upsampled, that is next to zero where there is no text."""

    def __init__(self, shift: float = -12.0) -> None:
        super().__init__(8, shift=0.5)
        self.up, self.out, self.shift = nn.ConvTranspose2d(8, 8, 2, 2), nn.ConvTranspose2d(8, 1, 2, 2), shift
        nn.init.constant_(self.up.bias, 0.5)

    def forward(self, x: Tensor) -> Tensor:
        y = F.interpolate(torch.relu(self.features(F.avg_pool2d(x, 2))), scale_factor=2.0, mode="nearest")
        return torch.sigmoid(self.out(torch.relu(self.up(y))) * 3 + self.shift)


class Queries(Trunk):
    """Queries chosen by the score of their class, gathered and decoded (RT-DETR, deformable DETR)."""

    def __init__(self, k: int = 300) -> None:
        super().__init__(12)
        self.score, self.box, self.box2, self.k = nn.Linear(12, 5), nn.Linear(12, 16), nn.Linear(16, 4), k
        nn.init.constant_(self.score.bias, 100.0)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        tokens = self.features(x).flatten(2).transpose(1, 2)
        scores = self.score(tokens)
        places = torch.topk(scores.max(-1).values, self.k, dim=1).indices.unsqueeze(-1)
        chosen = tokens.gather(1, places.expand(-1, -1, 12))
        boxes = self.box2(torch.relu(self.box(chosen))).sigmoid()
        return boxes, (scores.gather(1, places.expand(-1, -1, 5)) - 100).sigmoid()


class EndToEnd(Trunk):
    """Boxes sorted by score, after a first selection; the class by integer division (YOLOv10)."""

    def __init__(self) -> None:
        super().__init__(12)
        self.box, self.cls = nn.Conv2d(12, 4, 1), nn.Conv2d(12, 6, 1)
        nn.init.constant_(self.cls.bias, 6.0)

    def forward(self, x: Tensor) -> Tensor:
        f = torch.relu(self.features(x))
        boxes, scores = self.box(f).flatten(2).mT, self.cls(f).flatten(2).mT.sigmoid()
        first = scores.amax(-1).topk(200, 1).indices.unsqueeze(-1)
        boxes, scores = boxes.gather(1, first.repeat(1, 1, 4)), scores.gather(1, first.repeat(1, 1, 6))
        best, places = scores.flatten(1).topk(200, 1)
        rows = (places // 6).unsqueeze(-1)
        return torch.cat([boxes.gather(1, rows.repeat(1, 1, 4)), best.unsqueeze(-1), (places % 6).unsqueeze(-1)], -1)


class Segmentation(Trunk):
    """The class of each pixel, as a whole number."""

    def __init__(self) -> None:
        super().__init__(3, shift=2000.0)

    def forward(self, x: Tensor) -> Tensor:
        return self.features(x).argmax(1)


class Codebook(Trunk):
    """Features replaced by the nearest of a few code words (VQ-VAE)."""

    def __init__(self) -> None:
        super().__init__(4, shift=20.0)
        self.codes, self.out = nn.Parameter(torch.randn(32, 4) * 0.3 + 20), nn.Linear(4, 6)

    def forward(self, x: Tensor) -> Tensor:
        f = self.features(x).flatten(2).transpose(1, 2)
        distances = f.square().sum(-1, keepdim=True) - 2 * f @ self.codes.T + self.codes.square().sum(-1)
        return self.out(F.embedding(distances.argmin(-1), self.codes))


class Sorted(Trunk):
    """All pixels in the order of one feature."""

    def __init__(self) -> None:
        super().__init__(6, shift=100.0)

    def forward(self, x: Tensor) -> Tensor:
        f = self.features(x).flatten(2)
        order = f[:, 0].sort(dim=1, descending=True).indices
        return f.gather(2, order.unsqueeze(1).expand(-1, 6, -1))


class Thresholds(Trunk):
    """Features switched on and off by others, then rounded to steps (quantisation-aware training)."""

    def __init__(self) -> None:
        super().__init__(8, shift=100.0)
        self.out = nn.Conv2d(8, 4, 1)

    def forward(self, x: Tensor) -> Tensor:
        f = self.features(x)
        gated = (f - 100) * (f.flip(1) > 100.05)
        return self.out(torch.round(gated * 256) / 256)


class Noisy(Trunk):
    """Adds noise in evaluation (StyleGAN), and switches samples off at random (stochastic depth)."""

    def __init__(self) -> None:
        super().__init__(16)
        self.strength, self.out = nn.Parameter(torch.full((1, 16, 1, 1), 0.3)), nn.Linear(16, 4)

    def forward(self, x: Tensor) -> Tensor:
        f = self.features(x)
        f = torch.relu(f + self.strength * torch.randn_like(f[:, :1]))
        keep = (torch.rand_like(f[:, :1, :1, :1]) < 0.7).to(f.dtype)
        return self.out((f * (1 + keep)).mean((2, 3)))


class Undefined(Trunk):
    """Attention of which one query sees nothing, and means over what may be empty: NaN and infinities."""

    def __init__(self) -> None:
        super().__init__(8)
        self.out = nn.Linear(8, 5)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        tokens = self.features(x[:, :, ::4, ::4]).flatten(2).mT
        n = tokens.shape[1]
        mask = torch.full((n, n), float("-inf")).triu(0)
        seen = F.softmax(tokens @ tokens.mT + mask, -1) @ tokens
        none = tokens[:, :3].clamp(min=0) * 0
        return self.out(tokens + seen), none / none.sum(1, keepdim=True), mask.expand(x.shape[0], n, n) + 0


class Deep(nn.Module):
    """Fifty layers that each amplify what the rounding of the one before left."""

    def __init__(self, n_layers: int = 50, gain: float = 1.6) -> None:
        super().__init__()
        self.layers = nn.ModuleList(nn.Linear(24, 24) for _ in range(n_layers))
        self.first, self.out = nn.Linear(12, 24), nn.Linear(24, 4)
        for layer in self.layers:
            nn.init.orthogonal_(layer.weight, gain)

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(x)
        for layer in self.layers:
            x = torch.sin(layer(x))
        return self.out(x)


class Tokens(nn.Module):
    """A small causal transformer over ids, with types of tokens."""

    def __init__(self) -> None:
        super().__init__()
        self.words, self.kinds, self.places = nn.Embedding(50, 16), nn.Embedding(3, 16), nn.Embedding(12, 16)
        self.qkv, self.norm = nn.Linear(16, 48), nn.LayerNorm(16)
        self.up, self.down, self.out = nn.Linear(16, 40), nn.Linear(40, 16), nn.Linear(16, 50)

    def forward(self, ids: Tensor, kinds: Tensor) -> dict[str, Tensor]:
        x = self.words(ids) + self.kinds(kinds) + self.places(torch.arange(ids.shape[1]))
        q, k, v = (part.unflatten(-1, (2, 8)).transpose(1, 2) for part in self.qkv(self.norm(x)).chunk(3, -1))
        x = x + F.scaled_dot_product_attention(q, k, v, is_causal=True).transpose(1, 2).flatten(2)
        x = x + self.down(F.gelu(self.up(x)))
        return {"logits": self.out(x), "state": x, "empty": x[:, :0]}


class Casting(nn.Module):
    """A float64 network that takes float32, and whose last layer computes in it."""

    def __init__(self) -> None:
        super().__init__()
        self.hidden, self.out = nn.Linear(12, 32).double(), nn.Linear(32, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.out(torch.tanh(self.hidden(x.to(torch.float64))).to(torch.float32))


@dataclass(frozen=True)
class Kind:
    """A network, how it is built, what it takes, and the hidden units whose order does not matter.

    `made` holds the tensors with one slice per hidden unit along dimension 0, `read` those along dimension 1.
    """

    build: Callable[[], nn.Module]
    inputs: tuple[InputSpec, ...] = (IMAGE,)
    made: tuple[str, ...] = ("a.weight", "norm.weight", "norm.bias", "norm.running_mean", "norm.running_var")
    read: str = "b.weight"


VECTOR = InputSpec("x", (None, 12))
IDS = (InputSpec("ids", (None, 12), "int64"), InputSpec("kinds", (None, 12), "int64"))
FIRST = ("first.weight", "first.bias")
KINDS: Mapping[str, Kind] = {
    "probabilities near 1e-5": Kind(Detector),
    "probabilities near 1e-7": Kind(lambda: Detector(-16.0)),
    "top-k queries": Kind(Queries),
    "two selections": Kind(EndToEnd),
    "argmax as output": Kind(Segmentation),
    "nearest code": Kind(Codebook),
    "sort": Kind(Sorted),
    "thresholds and rounding": Kind(Thresholds),
    "random in evaluation": Kind(Noisy),
    "NaN and infinities": Kind(Undefined),
    "deep": Kind(Deep, (VECTOR,), FIRST, "layers.0.weight"),
    "tokens": Kind(Tokens, IDS, ("up.weight", "up.bias"), "down.weight"),
    "float64": Kind(lambda: Deep(3).double(), (InputSpec("x", (None, 12), "float64"),), FIRST, "layers.0.weight"),
    "float64 with float32 inputs": Kind(Casting, (VECTOR,), ("hidden.weight", "hidden.bias"), "out.weight"),
}


@cache
def captured(name: str) -> Program:
    """The program of a kind; the same weights every time, and the same object: clone it to change it."""
    kind = KINDS[name]
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(3)
        net = kind.build().eval()
    return capture(net, list(kind.inputs))


@torch.no_grad()
def reordered(name: str, program: Program) -> Program:
    """The same function, computed by sums in another order: its hidden units have changed places."""
    kind, other = KINDS[name], program.clone()
    tensors = other.module.tensors()
    order = torch.randperm(tensors[kind.read].shape[1], generator=torch.Generator().manual_seed(5))
    for tensor in kind.made:
        tensors[tensor].copy_(tensors[tensor][order])
    tensors[kind.read].copy_(tensors[kind.read][:, order])
    return other
