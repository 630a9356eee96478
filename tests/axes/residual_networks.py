"""Small networks with residual blocks in every form that people write, and the blocks that each has."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.utils.parametrizations import weight_norm

from compressor.program import InputSpec, Program, capture
from tests.axes.attention_networks import WIDTH, Mlp, PackedAttention, VitBlock

C = 6


def conv(into: int = C, side: int = 3, stride: int = 1, of: int = C) -> nn.Conv2d:
    return nn.Conv2d(of, into, side, stride, padding=side // 2, bias=False)


class PostActivation(nn.Module):
    """He et al. 2015: relu(x + norm(conv(...)))."""

    def __init__(self, stride: int = 1) -> None:
        super().__init__()
        self.conv1, self.bn1, self.conv2, self.bn2 = conv(stride=stride), nn.BatchNorm2d(C), conv(), nn.BatchNorm2d(C)
        self.shortcut = nn.Identity() if stride == 1 else nn.Sequential(conv(side=1, stride=2), nn.BatchNorm2d(C))

    def forward(self, x: Tensor) -> Tensor:
        return (self.bn2(self.conv2(self.bn1(self.conv1(x)).relu())) + self.shortcut(x)).relu()


class PreActivation(nn.Module):
    """He et al. 2016: x + conv(relu(norm(...)))."""

    def __init__(self) -> None:
        super().__init__()
        self.bn1, self.conv1, self.bn2, self.conv2 = nn.BatchNorm2d(C), conv(), nn.BatchNorm2d(C), nn.Conv2d(C, C, 1)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.conv2(self.bn2(self.conv1(self.bn1(x).relu())).relu())


class StochasticDepth(nn.Module):
    """Huang et al. 2016: a branch is left out of some samples in training."""

    def forward(self, x: Tensor) -> Tensor:
        return x * (torch.rand(len(x), 1, 1, 1) > 0.3) / 0.7 if self.training else x


class Scaled(nn.Module):
    """Layer scale and stochastic depth, channels last inside: ConvNeXt."""

    def __init__(self) -> None:
        super().__init__()
        self.dw, self.norm = nn.Conv2d(C, C, 3, padding=1, groups=C), nn.LayerNorm(C)
        self.pw1, self.pw2 = nn.Linear(C, 2 * C), nn.Linear(2 * C, C)
        self.gamma, self.drop = nn.Parameter(torch.full((C,), 0.5)), StochasticDepth()

    def forward(self, x: Tensor) -> Tensor:
        y = self.pw2(nn.functional.gelu(self.pw1(self.norm(self.dw(x).permute(0, 2, 3, 1)))))
        return x + self.drop((self.gamma * y).permute(0, 3, 1, 2))


class Nested(nn.Module):
    """x + (u + inner(u)), u = outer(x): the inner block may go alone, u not without it."""

    def __init__(self) -> None:
        super().__init__()
        self.outer, self.inner = conv(), conv()

    def forward(self, x: Tensor) -> Tensor:
        u = self.outer(x)
        return x + (u + self.inner(u.relu()))


class Gated(nn.Module):
    """A branch times a gate that it makes itself, an inverted bottleneck, taken away instead of added."""

    def __init__(self) -> None:
        super().__init__()
        self.expand, self.gate, self.project = conv(2 * C, 1), conv(2 * C, 1, of=2 * C), conv(C, 1, of=2 * C)

    def forward(self, x: Tensor) -> Tensor:
        y = self.expand(x).relu()
        return x - self.project(y * self.gate(y.mean((2, 3), keepdim=True)).sigmoid())


class Context(nn.Module):
    """A branch of one pixel, added everywhere, under a normalised weight."""

    def __init__(self) -> None:
        super().__init__()
        self.fc = weight_norm(nn.Conv2d(C, C, 1))

    def forward(self, x: Tensor) -> Tensor:
        return x + self.fc(x.mean((2, 3), keepdim=True))


class Tied(nn.Module):
    """One block at two places, and one whose last layer alone is shared."""

    def __init__(self) -> None:
        super().__init__()
        self.block, self.first, self.second, self.last = PreActivation(), conv(), conv(), conv()

    def forward(self, x: Tensor) -> Tensor:
        x = self.block(self.block(x))
        x = x + self.last(self.first(x).relu())
        return x + self.last(self.second(x).relu())


class Pinned(nn.Module):
    """Branches that may not go: through a sigmoid, read elsewhere, of another shape, and scores of attention."""

    def __init__(self) -> None:
        super().__init__()
        self.squash, self.read, self.wide = conv(), conv(), conv()

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.squash(x).sigmoid()
        y = self.read(x)
        x = (x + y) * y.mean()
        x = x.mean((2, 3), keepdim=True)
        return x + self.wide(x.expand(-1, -1, 4, 4))


class Between(nn.Module):
    """stem, the block, a classifier."""

    def __init__(self, *blocks: nn.Module) -> None:
        super().__init__()
        self.stem, self.blocks, self.fc = nn.Conv2d(3, C, 3, padding=1), nn.Sequential(*blocks), nn.Linear(C, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.blocks(self.stem(x)).mean((2, 3)))


class Parallel(nn.Module):
    """Attention beside an MLP in one sum, as in GPT-J."""

    def __init__(self) -> None:
        super().__init__()
        self.norm, self.attn, self.mlp = nn.LayerNorm(WIDTH), PackedAttention(), Mlp()

    def forward(self, x: Tensor) -> Tensor:
        y = self.norm(x)
        return self.attn(y) + self.mlp(y) + x


class Tokens(nn.Module):
    """A linear layer in front of blocks of tokens, and a classifier behind."""

    def __init__(self, *blocks: nn.Module) -> None:
        super().__init__()
        self.stem, self.blocks, self.fc = nn.Linear(5, WIDTH), nn.Sequential(*blocks), nn.Linear(WIDTH, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.blocks(self.stem(x)).mean(1))


@dataclass(frozen=True)
class Residual:
    """How a network is made, the blocks that may go, and words of the reasons of those that may not."""

    make: Callable[[], nn.Module]
    free: tuple[str, ...]
    pinned: tuple[str, ...] = ()


NETWORKS: dict[str, Residual] = {
    "post-activation": Residual(
        lambda: Between(PostActivation(), PostActivation(2), PostActivation()),
        ("blocks.0", "blocks.2"), ("its shortcut is no identity",),
    ),
    "pre-activation": Residual(lambda: Between(PreActivation(), PreActivation()), ("blocks.0", "blocks.1")),
    "scaled": Residual(lambda: Between(Scaled(), Scaled()), ("blocks.0", "blocks.1")),
    "nested": Residual(lambda: Between(Nested(), PreActivation()), ("blocks.0.inner", "blocks.0.outer", "blocks.1")),
    "gated": Residual(lambda: Between(Gated(), Gated()), ("blocks.0", "blocks.1")),
    "context": Residual(lambda: Between(Context(), PreActivation()), ("blocks.0", "blocks.1")),
    "tied": Residual(lambda: Between(Tied(), PreActivation()), ("blocks.0.block", "blocks.0", "blocks.1")),
    "attention": Residual(
        lambda: Tokens(VitBlock(PackedAttention()), VitBlock(PackedAttention())),
        ("blocks.0.attn", "blocks.0.mlp", "blocks.1.attn", "blocks.1.mlp"),
    ),
    "parallel": Residual(
        lambda: Tokens(Parallel(), Parallel()),
        ("blocks.0.attn", "blocks.0.mlp", "blocks.1.attn", "blocks.1.mlp"),
    ),
    "pinned": Residual(
        lambda: Between(Pinned(), PreActivation()), ("blocks.1",),
        ("no weights make it 0: it ends in sigmoid", "its last layer is read elsewhere too", "another shape"),
    ),
    "none": Residual(lambda: Between(conv(), nn.ReLU(), conv()), ()),
}  # fmt: skip


def residual_program(name: str, dtype: torch.dtype = torch.float64) -> Program:
    """The network in evaluation mode, random in all its parameters."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        net = NETWORKS[name].make().to(dtype).eval()
        with torch.no_grad():
            for tensor in (*net.parameters(), *net.buffers()):
                if tensor.is_floating_point():
                    tensor.add_(0.2 * torch.rand_like(tensor))
    shape = (None, 7, 5) if isinstance(net, Tokens) else (None, 3, 8, 8)
    program = capture(net, [InputSpec("x", shape, str(dtype).removeprefix("torch."))])
    program.module.eval()
    return program
