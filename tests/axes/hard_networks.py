"""Small networks that pruners stumble over, one function each; it must never hold an expectation about them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn


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


def selected() -> nn.Module:
    """Single channels by their numbers, from the front and from the back, beside a reader of all of them."""

    def forward(m: Any, x: Tensor) -> tuple[Tensor, Tensor]:
        x = F.relu(m.a(x))
        return pooled(m.out(x)), m.line((x[:, 5] - 2 * x[:, -2]).flatten(1))

    return Net(forward, a=conv(3, 9), out=conv(9, 4), line=nn.Linear(144, 3))


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
        some = torch.cat([some[:, :, :0], some], dim=2)
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
