"""Networks that pruners stumble over: each is cut exactly, or keeps what it must for the stated reason.

Every case names parameter axes that have to be prunable (so that a rule that pins everything fails) and axes that have
to be pinned with a reason; what is prunable is cut at random and compared in float64.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchmarks.zoo import make_difficult, random_keep, removal_error, train_one_step
from compressor.axes import UnitMap, find_units
from compressor.program import InputSpec, Program, capture

IMAGE = InputSpec("x", (None, 3, 12, 12))
TOKENS = InputSpec("x", (None, 5, 16))
WORDS = InputSpec("words", (None, 7), "int64", high=11)

Axis = tuple[str, int]


@dataclass(frozen=True)
class Case:
    """`free`: axes with at least one removable index. `pinned`: axes without one, and a part of the reason."""

    model: Callable[[], nn.Module]
    inputs: tuple[InputSpec, ...]
    free: tuple[Axis, ...] = ()
    pinned: Mapping[Axis, str] = field(default_factory=dict)


class Net(nn.Module):
    """A network from its layers and a function of them and the inputs."""

    def __init__(self, forward: Callable[..., Any], **parts: nn.Module | nn.Parameter) -> None:
        super().__init__()
        for name, part in parts.items():
            setattr(self, name, part)
        self._forward = forward

    def forward(self, *inputs: Tensor) -> Any:
        return self._forward(self, *inputs)


def conv(i: int, o: int, k: int = 3, **kwargs: Any) -> nn.Conv2d:
    return nn.Conv2d(i, o, k, padding=k // 2, **kwargs)


def pooled(x: Tensor) -> Tensor:
    return x.mean(dim=(2, 3))


def hard_view() -> nn.Module:
    def forward(m: Any, x: Tensor) -> Tensor:
        x = F.max_pool2d(F.relu(m.b(F.relu(m.a(x)))), 2)
        return m.out(F.relu(m.fc(x.view(-1, 9216))))

    return Net(forward, a=conv(3, 8), b=nn.Conv2d(8, 256, 1), fc=nn.Linear(9216, 12), out=nn.Linear(12, 4))


def split_by_constant() -> nn.Module:
    """The C2f block of detectors: a split by `self.c`, a chain that appends, a concatenation of everything."""

    def forward(m: Any, x: Tensor) -> Tensor:
        y = list(m.cv1(x).split((8, 8), 1))
        y.append(F.silu(m.m1(y[-1])))
        y.append(F.silu(m.m2(y[-1])) + y[-1])
        return pooled(m.out(F.silu(m.cv2(torch.cat(y, 1)))))

    return Net(forward, cv1=conv(3, 16, 1), m1=conv(8, 8), m2=conv(8, 8), cv2=conv(32, 10, 1), out=conv(10, 4, 1))


def split_int() -> nn.Module:
    def forward(m: Any, x: Tensor) -> Tensor:
        a, b = torch.split(m.a(x), m.width, 1)
        return pooled(m.out(a * torch.sigmoid(b)))

    net = Net(forward, a=conv(3, 12), out=conv(6, 4))
    net.width = 6
    return net


def packed_attention() -> nn.Module:
    def forward(m: Any, x: Tensor) -> Tensor:
        b, n, _ = x.shape
        q, k, v = m.qkv(x).reshape(b, n, 3, 4, 6).permute(2, 0, 3, 1, 4).unbind(0)
        attn = ((q * 6**-0.5) @ k.transpose(-2, -1)).softmax(-1)
        x = x + m.proj((attn @ v).transpose(1, 2).reshape(b, n, 24))
        return m.out(x + m.down(F.gelu(m.up(x))))

    layers = {"qkv": nn.Linear(16, 72), "proj": nn.Linear(24, 16), "up": nn.Linear(16, 20), "down": nn.Linear(20, 16)}
    return Net(forward, **layers, out=nn.Linear(16, 3))


def fused_attention(gqa: bool) -> nn.Module:
    def forward(m: Any, x: Tensor) -> Tensor:
        b, n, _ = x.shape
        q = m.q(x).view(b, n, 4, 6).transpose(1, 2)
        k, v = (part(x).view(b, n, m.n_kv, 6).transpose(1, 2) for part in (m.k, m.v))
        y = F.scaled_dot_product_attention(q, k, v, enable_gqa=m.n_kv < 4)
        return m.out(m.proj(y.transpose(1, 2).reshape(b, n, 24)))

    n_kv = 2 if gqa else 4
    keys = {"k": nn.Linear(16, n_kv * 6), "v": nn.Linear(16, n_kv * 6)}
    net = Net(forward, q=nn.Linear(16, 24), **keys, proj=nn.Linear(24, 8), out=nn.Linear(8, 3))
    net.n_kv = n_kv
    return net


def repeated_keys() -> nn.Module:
    """Grouped queries written out: keys and values repeated with `expand` and `reshape`."""

    def forward(m: Any, x: Tensor) -> Tensor:
        b, n, _ = x.shape
        q = m.q(x).view(b, n, 4, 6).transpose(1, 2)
        k, v = (part(x).view(b, n, 2, 6).transpose(1, 2) for part in (m.k, m.v))
        k, v = (part[:, :, None].expand(b, 2, 2, n, 6).reshape(b, 4, n, 6) for part in (k, v))
        attn = (q @ k.mT * 6**-0.5).softmax(-1)
        return m.out(m.proj((attn @ v).transpose(1, 2).reshape(b, n, 24)))

    layers = {"q": nn.Linear(16, 24), "k": nn.Linear(16, 12), "v": nn.Linear(16, 12)}
    return Net(forward, **layers, proj=nn.Linear(24, 8), out=nn.Linear(8, 3))


def einsum_attention() -> nn.Module:
    def forward(m: Any, x: Tensor) -> Tensor:
        b, n, _ = x.shape
        q, k, v = (part(x).reshape(b, n, 4, 5) for part in (m.q, m.k, m.v))
        attn = torch.einsum("bihd,bjhd->bhij", q, k).softmax(-1)
        return m.proj(torch.einsum("bhij,bjhd->bihd", attn, v).reshape(b, n, 20))

    return Net(forward, q=nn.Linear(16, 20), k=nn.Linear(16, 20), v=nn.Linear(16, 20), proj=nn.Linear(20, 3))


def module_attention() -> nn.Module:
    def forward(m: Any, x: Tensor) -> Tensor:
        return m.out(m.attention(x, x, x)[0])

    return Net(forward, attention=nn.MultiheadAttention(16, 4, batch_first=True), out=nn.Linear(16, 3))


def layer_chain(*layers: nn.Module) -> Callable[[], nn.Module]:
    return lambda: nn.Sequential(*layers)


def glu() -> nn.Module:
    return Net(lambda m, x: pooled(m.out(F.glu(m.a(x), dim=1))), a=conv(3, 12), out=conv(6, 4))


def swiglu() -> nn.Module:
    def forward(m: Any, x: Tensor) -> Tensor:
        gate, up = m.w12(x).chunk(2, dim=-1)
        return m.out(F.silu(gate) * up)

    return Net(forward, w12=nn.Linear(16, 20), out=nn.Linear(10, 3))


def recurrent(kind: type[nn.LSTM] | type[nn.GRU]) -> nn.Module:
    def forward(m: Any, x: Tensor) -> Tensor:
        return m.out(F.relu(m.hidden(m.cell(m.embed(x))[0][:, -1])))

    layers = {"embed": nn.Linear(16, 8), "cell": kind(8, 9, batch_first=True), "hidden": nn.Linear(9, 10)}
    return Net(forward, **layers, out=nn.Linear(10, 3))


def words() -> nn.Module:
    def forward(m: Any, x: Tensor) -> Tensor:
        return m.out(F.relu(m.hidden(m.embed(x) + m.place)))

    layers: dict[str, Any] = {"embed": nn.Embedding(11, 12), "place": nn.Parameter(torch.randn(7, 12))}
    return Net(forward, **layers, hidden=nn.Linear(12, 10), out=nn.Linear(10, 3))


def tied_words() -> nn.Module:
    def forward(m: Any, x: Tensor) -> Tensor:
        return m.decode(F.relu(m.hidden(m.embed(x))))

    net = Net(forward, embed=nn.Embedding(11, 12), hidden=nn.Linear(12, 12), decode=nn.Linear(12, 11, bias=False))
    net.decode.weight = net.embed.weight
    return net


def shared_layer() -> nn.Module:
    def forward(m: Any, x: Tensor) -> Tensor:
        x = m.a(x)
        for _ in range(3):
            x = F.relu(m.shared(x))
        return pooled(m.out(x))

    return Net(forward, a=conv(3, 8), shared=conv(8, 8), out=conv(8, 4))


def several_inputs() -> nn.Module:
    def forward(m: Any, x: Tensor, y: Tensor) -> Any:
        a, b = F.relu(m.a(x)), F.relu(m.b(y))
        return {"both": pooled(m.out(a + b)), "parts": (pooled(a[:, :2]), [m.c(b)])}

    return Net(forward, a=conv(3, 8), b=conv(3, 8), c=conv(8, 2), out=conv(8, 4))


def in_place() -> nn.Module:
    def forward(m: Any, x: Tensor) -> Tensor:
        x = m.a(x).relu_()
        y = m.b(x)
        y += x
        y.mul_(0.5).clamp_(min=0)
        y[:, :3] = torch.tanh(y[:, :3])
        y[:, 3:5, 1:].zero_()
        return pooled(m.out(y))

    return Net(forward, a=conv(3, 8), b=conv(8, 8), out=conv(8, 4))


def seen_twice() -> nn.Module:
    """A write through one view that another view reads: left as it is, and what is written is pinned."""

    def forward(m: Any, x: Tensor) -> Tensor:
        x = m.a(x)
        flat = x.flatten(2)
        x[:, 2:4] += 1.0
        return pooled(m.out(x)) + flat[:, :4, 0]

    return Net(forward, a=conv(3, 8), out=conv(8, 4))


def unused() -> nn.Module:
    return Net(lambda m, x: pooled(m.out(m.a(x))), a=conv(3, 8), out=conv(8, 4), never=nn.Linear(7, 5))


def arithmetic() -> nn.Module:
    """Layer scale, a position embedding, a class token and a scalar, all as bare parameters."""

    def forward(m: Any, x: Tensor) -> Tensor:
        x = m.embed(x)
        x = torch.cat([m.token.expand(x.shape[0], -1, -1), x], dim=1) + m.place
        return m.out((x + m.scale * m.hidden(x)).sum(1)) * m.one

    parts: dict[str, Any] = {
        "token": nn.Parameter(torch.randn(1, 1, 12)),
        "place": nn.Parameter(torch.randn(1, 6, 12)),
        "scale": nn.Parameter(torch.randn(12)),
        "one": nn.Parameter(torch.ones(())),
    }
    return Net(forward, embed=nn.Linear(16, 12), hidden=nn.Linear(12, 12), out=nn.Linear(12, 3), **parts)


def gates() -> nn.Module:
    """CBAM: a channel gate from pooled channels, then a spatial gate from the mean and maximum over channels."""

    def forward(m: Any, x: Tensor) -> Tensor:
        x = F.relu(m.a(x))
        squeezed = [m.up(F.relu(m.down(pool(x, 1)))) for pool in (F.adaptive_avg_pool2d, F.adaptive_max_pool2d)]
        x = x * torch.sigmoid(squeezed[0] + squeezed[1])
        x = m.b(x)
        over = torch.cat([x.mean(1, keepdim=True), x.amax(1, keepdim=True)], dim=1)
        return pooled(m.out(x * torch.sigmoid(m.gate(over))))

    return Net(
        forward, a=conv(3, 12), down=conv(12, 5, 1), up=conv(5, 12, 1), b=conv(12, 8), gate=conv(2, 1), out=conv(8, 4)
    )


def one_channel_gate() -> nn.Module:
    """A gate of one channel is broadcast over all others: it must couple nothing."""

    def forward(m: Any, x: Tensor) -> Tensor:
        return pooled(m.out(m.a(x) * torch.sigmoid(m.gate(F.relu(m.b(x))))))

    return Net(forward, a=conv(3, 8), b=conv(3, 6), gate=conv(6, 1), out=conv(8, 4))


def channel_shuffle() -> nn.Module:
    def forward(m: Any, x: Tensor) -> Tensor:
        x = m.a(x)
        b, c, h, w = x.shape
        x = x.view(b, 3, c // 3, h, w).transpose(1, 2).reshape(b, c, h, w)
        return pooled(m.out(F.relu(m.grouped(x))))

    return Net(forward, a=conv(3, 12), grouped=conv(12, 18, groups=3), out=conv(18, 4))


def padded_shortcut() -> nn.Module:
    def forward(m: Any, x: Tensor) -> Tensor:
        x = m.a(x)
        short = F.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, 2, 2))
        return pooled(m.out(F.relu(m.b(x) + short)))

    return Net(forward, a=conv(3, 8), b=conv(8, 12, stride=2), out=conv(12, 4))


def depth_multiplier() -> nn.Module:
    return nn.Sequential(conv(3, 6), conv(6, 12, groups=6), nn.ReLU(), conv(12, 4, 1), nn.AdaptiveAvgPool2d(1))


def every_second() -> nn.Module:
    return Net(lambda m, x: pooled(m.out(m.b(m.a(x)[:, ::2]))), a=conv(3, 8), b=conv(4, 6), out=conv(6, 4))


def moved_channels() -> nn.Module:
    """`flip` is index arithmetic that can be followed; a roll along channels is not, and pins."""

    def forward(m: Any, x: Tensor) -> Tensor:
        return pooled(m.out(m.b(m.a(x).flip(1)).roll(2, dims=1)))

    return Net(forward, a=conv(3, 8), b=conv(8, 6), out=conv(6, 4))


def normalised_weight() -> nn.Module:
    """Weight norm divides each filter by its norm, so that a zeroed filter is not finite; its channels may go."""
    net = nn.Sequential(conv(3, 8), nn.ReLU(), conv(8, 6), nn.ReLU(), conv(6, 4))
    nn.utils.parametrizations.weight_norm(net[2])
    return net


def zero_sized() -> nn.Module:
    """Nothing split off, nothing concatenated, an empty list of features."""

    def forward(m: Any, x: Tensor) -> Tensor:
        x = m.a(x)
        none, some = x.split([0, 8], dim=1)
        return pooled(m.out(F.relu(torch.cat([none, some, x[:, :0]], dim=1))))

    return Net(forward, a=conv(3, 8), out=conv(8, 4))


def constant_padding() -> nn.Module:
    def forward(m: Any, x: Tensor) -> Tensor:
        x = m.a(x)
        more = torch.zeros(x.shape[0], 4, 12, 12, dtype=x.dtype)
        return pooled(m.out(m.b(x) + torch.cat([x, more], dim=1)))

    return Net(forward, a=conv(3, 8), b=conv(8, 12), out=conv(12, 4))


def cosine() -> nn.Module:
    """Features divided by their norm, which is spread back over them."""

    def forward(m: Any, x: Tensor) -> Tensor:
        return m.out(F.normalize(m.a(x), dim=-1))

    return Net(forward, a=nn.Linear(16, 12), out=nn.Linear(12, 3))


def masked_scores() -> nn.Module:
    def forward(m: Any, x: Tensor) -> Tensor:
        q, k, v = m.q(x), m.k(x), m.v(x)
        causal = torch.ones(5, 5, dtype=torch.bool).tril()
        scores = (q @ k.transpose(1, 2)).masked_fill(~causal, float("-inf"))
        return m.out(scores.softmax(-1) @ v)

    return Net(forward, q=nn.Linear(16, 9), k=nn.Linear(16, 9), v=nn.Linear(16, 7), out=nn.Linear(7, 3))


def without_gradients() -> nn.Module:
    """A region without gradients and one with mixed precision switched off, as exporters wrap them."""

    def forward(m: Any, x: Tensor) -> Tensor:
        x = F.relu(m.a(x))
        with torch.no_grad():
            scale = x.abs().sum(dim=(2, 3), keepdim=True) + 1
        with torch.autocast("cpu", enabled=False):
            x = m.b(x / scale)
        return pooled(m.out(x))

    return Net(forward, a=conv(3, 8), b=conv(8, 6), out=conv(6, 4))


def fixed_batch() -> nn.Module:
    return Net(lambda m, x: m.out(m.a(x).reshape(1, 8, 144).mean(-1)), a=conv(3, 8), out=nn.Linear(8, 4))


CASES = {
    "view(-1, 9216)": Case(hard_view, (IMAGE,), (("a.weight", 0), ("b.weight", 0), ("fc.weight", 1), ("fc.weight", 0))),
    "split and concat chain": Case(
        split_by_constant, (IMAGE,), (("cv1.weight", 0), ("m1.weight", 0), ("cv2.weight", 1))
    ),
    "split(x, self.c, 1)": Case(split_int, (IMAGE,), (("a.weight", 0), ("out.weight", 1))),
    "num_heads in a reshape": Case(
        packed_attention, (TOKENS,), (("qkv.weight", 0), ("proj.weight", 1), ("up.weight", 0), ("down.weight", 1))
    ),
    "fused attention": Case(lambda: fused_attention(False), (TOKENS,), (("q.weight", 0), ("v.weight", 0))),
    "grouped queries": Case(
        lambda: fused_attention(True), (TOKENS,), (("q.weight", 0), ("k.weight", 0), ("v.weight", 0))
    ),
    "grouped queries by expand": Case(repeated_keys, (TOKENS,), (("q.weight", 0), ("k.weight", 0), ("v.weight", 0))),
    "einsum attention": Case(einsum_attention, (TOKENS,), (("q.weight", 0), ("v.weight", 0), ("proj.weight", 1))),
    "MultiheadAttention": Case(
        module_attention, (TOKENS,), (("attention.in_proj_weight", 0), ("attention.out_proj.weight", 1))
    ),
    "pixel shuffle": Case(
        layer_chain(conv(3, 24), nn.PixelShuffle(2), nn.ReLU(), conv(6, 4)),
        (IMAGE,),
        (("0.weight", 0), ("3.weight", 1)),
    ),
    "pixel unshuffle": Case(
        layer_chain(conv(3, 6), nn.PixelUnshuffle(2), nn.ReLU(), conv(24, 4)), (IMAGE,), (("0.weight", 0),)
    ),
    "GLU": Case(glu, (IMAGE,), (("a.weight", 0), ("out.weight", 1))),
    "SwiGLU": Case(swiglu, (TOKENS,), (("w12.weight", 0), ("out.weight", 1))),
    "transposed convolution": Case(
        layer_chain(conv(3, 8), nn.ConvTranspose2d(8, 6, 2, 2), nn.BatchNorm2d(6), nn.ReLU(), conv(6, 4)),
        (IMAGE,),
        (("0.weight", 0), ("1.weight", 1)),
    ),
    "grouped transposed convolution": Case(
        layer_chain(conv(3, 8), nn.ConvTranspose2d(8, 6, 2, 2, groups=2), nn.ReLU(), conv(6, 4)),
        (IMAGE,),
        (("0.weight", 0), ("1.weight", 1)),
    ),
    "1-D convolution": Case(
        layer_chain(nn.Conv1d(5, 8, 3), nn.BatchNorm1d(8), nn.ReLU(), nn.MaxPool1d(2), nn.Flatten(), nn.Linear(56, 3)),
        (TOKENS,),
        (("0.weight", 0), ("5.weight", 1)),
    ),
    "3-D convolution": Case(
        layer_chain(nn.Conv3d(2, 8, 3), nn.BatchNorm3d(8), nn.ReLU(), nn.MaxPool3d(2), nn.Conv3d(8, 4, 1)),
        (InputSpec("x", (None, 2, 6, 6, 6)),),
        (("0.weight", 0), ("4.weight", 1)),
    ),
    "GroupNorm": Case(
        layer_chain(conv(3, 8), nn.GroupNorm(2, 8), conv(8, 6), nn.ReLU(), conv(6, 4)),
        (IMAGE,),
        (("2.weight", 0),),
        {("0.weight", 0): "normalised over 4 channels", ("1.weight", 0): "normalised over 4 channels"},
    ),
    "InstanceNorm": Case(
        layer_chain(conv(3, 8), nn.InstanceNorm2d(8, affine=True), nn.ReLU(), conv(8, 4)),
        (IMAGE,),
        (("0.weight", 0), ("1.weight", 0)),
    ),
    "InstanceNorm without scale": Case(
        layer_chain(conv(3, 8), nn.InstanceNorm2d(8), nn.ReLU(), conv(8, 4)), (IMAGE,), (("0.weight", 0),)
    ),
    "LSTM": Case(
        lambda: recurrent(nn.LSTM),
        (TOKENS,),
        (("hidden.weight", 0),),
        {("cell.weight_ih_l0", 0): "no axis rule for aten.lstm", ("embed.weight", 0): "no axis rule for aten.lstm"},
    ),
    "GRU": Case(
        lambda: recurrent(nn.GRU),
        (TOKENS,),
        (("hidden.weight", 0),),
        {("cell.weight_hh_l0", 0): "no axis rule for aten.gru", ("embed.weight", 0): "no axis rule for aten.gru"},
    ),
    "embedding": Case(
        words,
        (WORDS,),
        (("embed.weight", 1), ("place", 1), ("hidden.weight", 1)),
        {("embed.weight", 0): "chosen by the input", ("place", 0): "no units along"},
    ),
    "tied embedding": Case(
        tied_words, (WORDS,), (("embed.weight", 1), ("hidden.weight", 0)), {("embed.weight", 0): "chosen by the input"}
    ),
    "shared layer": Case(shared_layer, (IMAGE,), (("a.weight", 0), ("shared.weight", 0), ("out.weight", 1))),
    "several inputs and outputs": Case(
        several_inputs, (IMAGE, InputSpec("y", (None, 3, 12, 12))), (("a.weight", 0), ("c.weight", 1))
    ),
    "in-place operators": Case(in_place, (IMAGE,), (("a.weight", 0), ("b.weight", 0), ("out.weight", 1))),
    "a write that another view sees": Case(seen_twice, (IMAGE,), (("a.weight", 0),)),
    "unused parameters": Case(unused, (IMAGE,), (("a.weight", 0),)),
    "parameters in arithmetic": Case(
        arithmetic,
        (TOKENS,),
        (("embed.weight", 0), ("token", 2), ("place", 2), ("scale", 0), ("out.weight", 1)),
        {("place", 1): "no units along"},
    ),
    "CBAM": Case(
        gates,
        (IMAGE,),
        (("a.weight", 0), ("down.weight", 0), ("up.weight", 0)),
        {("b.weight", 0): "over 8 positions", ("out.weight", 1): "over 8 positions"},
    ),
    "a gate of one channel": Case(one_channel_gate, (IMAGE,), (("a.weight", 0), ("b.weight", 0), ("gate.weight", 1))),
    "channel shuffle": Case(channel_shuffle, (IMAGE,), (("a.weight", 0), ("grouped.weight", 0), ("grouped.weight", 1))),
    "padded shortcut": Case(padded_shortcut, (IMAGE,), (("a.weight", 0), ("b.weight", 0))),
    "depth multiplier": Case(depth_multiplier, (IMAGE,), (("0.weight", 0), ("1.weight", 0))),
    "every second channel": Case(
        every_second, (IMAGE,), (("b.weight", 0),), {("a.weight", 0): "every so manyth position"}
    ),
    "flip and roll": Case(moved_channels, (IMAGE,), (("a.weight", 0),), {("b.weight", 0): "rolled"}),
    "weight norm": Case(
        normalised_weight,
        (IMAGE,),
        (("0.weight", 0), ("2.parametrizations.weight.original1", 1)),
        {("2.parametrizations.weight.original1", 0): "would not be finite"},
    ),
    "sizes of zero": Case(zero_sized, (IMAGE,), (("a.weight", 0), ("out.weight", 1))),
    "concatenated zeros": Case(constant_padding, (IMAGE,), (("a.weight", 0), ("b.weight", 0), ("out.weight", 1))),
    "divided by a norm": Case(cosine, (TOKENS,), (("a.weight", 0), ("out.weight", 1))),
    "masked scores": Case(masked_scores, (TOKENS,), (("q.weight", 0), ("k.weight", 0), ("v.weight", 0))),
    "wrapped regions": Case(without_gradients, (IMAGE,), (("a.weight", 0), ("b.weight", 0))),
    "a batch of one": Case(fixed_batch, (IMAGE,), (("a.weight", 0), ("out.weight", 1))),
}


def analysed(case: Case) -> tuple[Program, UnitMap]:
    torch.manual_seed(0)
    program = capture(case.model(), list(case.inputs))
    make_difficult(program, zero_biases=False)
    return program, find_units(program)


@pytest.mark.parametrize("name", CASES)
def test_hard_case(name: str) -> None:
    case = CASES[name]
    program, units = analysed(case)
    for axis in case.free:
        assert (units.axes[axis] >= 0).any(), f"{axis} is pinned: {units.pin_at.get(axis)}"
    for axis, reason in case.pinned.items():
        assert (units.axes[axis] < 0).all(), f"{axis} may go"
        assert reason in units.pin_at[axis].reason
    for seed in range(2):
        difference, compact = removal_error(program, units, random_keep(units, seed=seed), torch.float64)
        assert difference <= 1e-12
    assert compact.n_parameters < program.n_parameters
    train_one_step(compact)


def test_what_a_write_reaches_is_pinned() -> None:
    """Channels 2 and 3 are written where another name of that memory is read; the others need not stay for it."""
    _, units = analysed(CASES["a write that another view sees"])
    assert (units.axes["a.weight", 0][2:4] == -1).all()
    assert "aten.add_.Tensor" in units.walk.unknown
    assert (units.axes["a.weight", 0][4:] >= 0).all()


def test_a_lost_coupling_would_be_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    """The twin: without the couplings that slices and concatenations make, the cases above must fail."""
    from compressor.axes import rules_move
    from compressor.axes.labels import Value
    from compressor.axes.table import RULES
    from compressor.errors import ModelError

    aten = torch.ops.aten
    assert RULES[aten.cat.default] is rules_move.concatenate
    monkeypatch.setitem(RULES, aten.cat.default, lambda ctx, node, a: Value(ctx.out.sizes))
    program, units = analysed(CASES["sizes of zero"])
    assert (units.axes["out.weight", 1] < 0).all()
    with pytest.raises(ModelError, match="does not fit its inputs"):
        removal_error(program, units, random_keep(units), torch.float64)
