"""More networks in the wild: sequences, graphs and points, several inputs, attention.

It must never hold what is expected of them.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchmarks.wild_networks import NETWORKS, Net, block, conv, network, of, pooled

__all__ = ["NETWORKS"]


# Sequences.


@network("CRNN (OCR)", "1x16x36")
def crnn() -> nn.Module:
    def forward(m: Any, x: Tensor) -> Tensor:
        x = m.maps(x).squeeze(2).permute(0, 2, 1)
        return m.e2(m.r2(m.e1(m.r1(x)[0]))[0]).log_softmax(2)

    maps = nn.Sequential(block(1, 16), nn.MaxPool2d(2), block(16, 32), nn.MaxPool2d((2, 1)), nn.Conv2d(32, 48, (4, 2)))
    more = {"batch_first": True, "bidirectional": True}
    return Net(
        forward, maps=maps, r1=nn.LSTM(48, 24, **more), e1=nn.Linear(48, 24), r2=nn.LSTM(24, 24, **more),
        e2=nn.Linear(48, 11),
    )  # fmt: skip


@network("language model, stacked LSTM", "7:int64")
def language_model() -> nn.Module:
    parts = {"embed": nn.Embedding(11, 16), "rnn": nn.LSTM(16, 24, 2, batch_first=True), "out": nn.Linear(24, 11)}
    return Net(lambda m, x: m.out(m.rnn(m.embed(x))[0]), **parts)


@network("keyword spotting, GRU in both directions", "20x8")
def keyword() -> nn.Module:
    rnn = nn.GRU(12, 20, 2, batch_first=True, bidirectional=True)
    return Net(lambda m, x: m.out(m.rnn(m.line(x))[0][:, -1]), line=nn.Linear(8, 12), rnn=rnn, out=nn.Linear(40, 5))


@network("LSTM with projections", "9x8")
def projected() -> nn.Module:
    return Net(
        lambda m, x: m.out(m.rnn(x)[0]), rnn=nn.LSTM(8, 24, proj_size=10, batch_first=True), out=nn.Linear(10, 4)
    )


@network("translation, GRU encoder and decoder with attention", "7:int64,6:int64")
def translation() -> nn.Module:
    def forward(m: Any, source: Tensor, target: Tensor) -> Tensor:
        keys, state = m.encoder(m.embed(source))
        y, _ = m.decoder(m.embed(target), state)
        weights = torch.bmm(y, keys.transpose(1, 2)).softmax(-1)
        return m.out(torch.cat([y, torch.bmm(weights, keys)], -1))

    rnn = {"encoder": nn.GRU(16, 20, batch_first=True), "decoder": nn.GRU(16, 20, batch_first=True)}
    return Net(forward, embed=nn.Embedding(11, 16), **rnn, out=nn.Linear(40, 11))


@network("image caption, LSTMCell stepped by hand", "3x8x8")
def caption() -> nn.Module:
    def forward(m: Any, x: Tensor) -> Tensor:
        y = m.line(pooled(m.maps(x)))
        h = c = y.new_zeros(y.shape[0], 20)
        words = []
        for _ in range(3):
            h, c = m.cell(y, (h, c))
            words.append(m.out(h))
        return torch.stack(words, 1)

    return Net(forward, maps=block(3, 16), line=nn.Linear(16, 12), cell=nn.LSTMCell(12, 20), out=nn.Linear(20, 11))


@network("ConvLSTM", "4x3x8x8")
def convlstm() -> nn.Module:
    def forward(m: Any, x: Tensor) -> Tensor:
        h = c = x.new_zeros(x.shape[0], 12, 8, 8)
        for step in range(x.shape[1]):
            i, f, g, o = m.gates(torch.cat([x[:, step], h], 1)).chunk(4, 1)
            c = torch.sigmoid(f) * c + torch.sigmoid(i) * torch.tanh(g)
            h = torch.sigmoid(o) * torch.tanh(c)
        return m.out(h)

    return Net(forward, gates=conv(15, 48), out=conv(12, 2, 1))


@network("WaveNet, gated and dilated", "4x32")
def wavenet() -> nn.Module:
    def forward(m: Any, x: Tensor) -> Tensor:
        x, skips = m.start(x), 0
        for gate, res, skip, d in zip(m.gates, m.res, m.skips, (1, 2, 4), strict=True):
            a, b = gate(F.pad(x, (d, 0))).chunk(2, 1)
            y = torch.tanh(a) * torch.sigmoid(b)
            x, skips = x + res(y), skips + skip(y)
        return m.end(F.relu(skips))

    return Net(
        forward, start=nn.Conv1d(4, 16, 1), gates=[nn.Conv1d(16, 40, 2, dilation=d) for d in (1, 2, 4)],
        res=[nn.Conv1d(20, 16, 1) for _ in range(3)], skips=[nn.Conv1d(20, 24, 1) for _ in range(3)],
        end=nn.Conv1d(24, 5, 1),
    )  # fmt: skip


@network("Conv-TasNet", "1x128")
def tasnet() -> nn.Module:
    def forward(m: Any, x: Tensor) -> Tensor:
        w = F.relu(m.encode(x))
        y = m.narrow(w)
        y = y + m.back(F.prelu(m.depth(F.prelu(m.wide(y), m.slope)), m.slope))
        masks = torch.sigmoid(m.masks(y)).view(x.shape[0], 2, 24, -1) * w.unsqueeze(1)
        return m.decode(masks.view(x.shape[0] * 2, 24, -1)).view(x.shape[0], 2, -1)

    return Net(
        forward, encode=nn.Conv1d(1, 24, 16, 8, bias=False), narrow=nn.Conv1d(24, 16, 1), wide=nn.Conv1d(16, 32, 1),
        slope=nn.Parameter(torch.tensor([0.25])), depth=nn.Conv1d(32, 32, 3, 1, 1, groups=32),
        back=nn.Conv1d(32, 16, 1), masks=nn.Conv1d(16, 48, 1), decode=nn.ConvTranspose1d(24, 1, 16, 8, bias=False),
    )  # fmt: skip


@network("Demucs, GLU", "1x128")
def demucs() -> nn.Module:
    def forward(m: Any, x: Tensor) -> Tensor:
        a = F.glu(m.g1(F.relu(m.e1(x))), 1)
        b = F.glu(m.g2(F.relu(m.e2(a))), 1)
        y = F.relu(m.u2(F.glu(m.d2(b), 1)))
        return m.u1(y + a[..., : y.shape[-1]])

    up = nn.ConvTranspose1d
    return Net(
        forward, e1=nn.Conv1d(1, 16, 8, 4), g1=nn.Conv1d(16, 32, 1), e2=nn.Conv1d(16, 32, 8, 4),
        g2=nn.Conv1d(32, 64, 1), d2=nn.Conv1d(32, 64, 1), u2=up(32, 16, 8, 4), u1=up(16, 2, 8, 4),
    )  # fmt: skip


# Graphs, points, several inputs.


@network("PointNet", "3x32")
def pointnet() -> nn.Module:
    def forward(m: Any, x: Tensor) -> Tensor:
        turn = m.turn(F.relu(m.t(x)).amax(2)).view(-1, 3, 3)
        x = F.relu(m.a(torch.bmm(turn, x)))
        whole = F.relu(m.b(x)).amax(2, keepdim=True)
        return m.out(torch.cat([x, whole.expand(-1, -1, x.shape[2])], 1))

    parts = {"t": nn.Conv1d(3, 16, 1), "turn": nn.Linear(16, 9), "a": nn.Conv1d(3, 24, 1), "b": nn.Conv1d(24, 40, 1)}
    return Net(forward, **parts, out=nn.Conv1d(64, 4, 1))


@network("DGCNN, nearest neighbours", "3x16")
def dgcnn() -> nn.Module:
    def forward(m: Any, x: Tensor) -> Tensor:
        near = torch.cdist(x.transpose(1, 2), x.transpose(1, 2)).topk(4, largest=False)[1]
        b, n, k = near.shape
        y = m.a(x)
        edges = y.gather(2, near.reshape(b, 1, n * k).expand(-1, y.shape[1], -1)).view(b, -1, n, k) - y.unsqueeze(-1)
        return m.out(F.relu(m.b(edges)).amax(-1))

    return Net(forward, a=nn.Conv1d(3, 16, 1), b=conv(16, 24, 1), out=nn.Conv1d(24, 4, 1))


@network("GCN, dense adjacency", "6x8")
def gcn() -> nn.Module:
    parts = {"a": nn.Linear(8, 16), "b": nn.Linear(16, 4), "adjacency": torch.rand(6, 6)}
    return Net(lambda m, x: m.b(m.adjacency @ F.relu(m.a(m.adjacency @ x))), **parts)


@network("message passing, index_add", "6x8")
def messages() -> nn.Module:
    def forward(m: Any, x: Tensor) -> Tensor:
        y = F.relu(m.a(x))
        return m.b(torch.zeros_like(y).index_add(1, m.target, y[:, m.source]) + y)

    ends = {"source": torch.tensor([0, 1, 2, 3, 5, 4, 1]), "target": torch.tensor([1, 2, 3, 0, 4, 5, 5])}
    return Net(forward, a=nn.Linear(8, 16), b=nn.Linear(16, 4), **ends)


@network("siamese, cosine", "3x8x8,3x8x8")
def siamese() -> nn.Module:
    net = nn.Sequential(block(3, 16), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, 12))
    return Net(lambda m, a, b: F.cosine_similarity(m.net(a), m.net(b)), net=net)


@network("prototypes, cdist", "3x8x8")
def prototypes() -> nn.Module:
    parts = {"a": block(3, 16), "line": nn.Linear(16, 12), "points": of(5, 12)}
    return Net(lambda m, x: -torch.cdist(m.line(pooled(m.a(x))), m.points), **parts)


@network("two modalities, nn.Bilinear", "3x8x8,6")
def two_modalities() -> nn.Module:
    parts = {"a": block(3, 16), "b": nn.Linear(6, 12), "join": nn.Bilinear(16, 12, 20), "out": nn.Linear(20, 4)}
    return Net(lambda m, x, y: m.out(F.relu(m.join(pooled(m.a(x)), F.relu(m.b(y))))), **parts)


@network("SlowFast", "3x8x8x8")
def slowfast() -> nn.Module:
    def forward(m: Any, x: Tensor) -> Tensor:
        fast, slow = F.relu(m.fast(x)), F.relu(m.slow(x[:, :, ::4]))
        slow = F.relu(m.more(torch.cat([slow, m.side(fast)], 1)))
        return m.out(torch.cat([slow.mean((2, 3, 4)), fast.mean((2, 3, 4))], 1))

    return Net(
        forward, fast=nn.Conv3d(3, 8, 3, 1, 1), slow=nn.Conv3d(3, 16, 3, 1, 1),
        side=nn.Conv3d(8, 12, (5, 1, 1), (4, 1, 1), (2, 0, 0)),
        more=nn.Conv3d(28, 20, 3, 1, 1), out=nn.Linear(28, 4),
    )  # fmt: skip


# Attention.


@network("transformer encoder of torch", "6x16")
def encoder() -> nn.Module:
    layer = nn.TransformerEncoderLayer(16, 4, 40, batch_first=True)
    return nn.Sequential(nn.TransformerEncoder(layer, 2, enable_nested_tensor=False), nn.Linear(16, 4))


@network("attention with normed queries and keys", "6x12")
def qknorm() -> nn.Module:
    def normed(x: Tensor, w: Tensor) -> Tensor:
        return w * x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + 1e-6)

    def forward(m: Any, x: Tensor) -> Tensor:
        x = m.start(x)
        b, t, c = x.shape
        q, k, v = m.qkv(x).reshape(b, t, 3, 4, 8).permute(2, 0, 3, 1, 4).unbind(0)
        y = F.scaled_dot_product_attention(normed(q, m.q), normed(k, m.k), v)
        return m.out(x + m.back(y.transpose(1, 2).reshape(b, t, c)))

    parts = {"start": nn.Linear(12, 32), "qkv": nn.Linear(32, 96), "back": nn.Linear(32, 32), "out": nn.Linear(32, 4)}
    return Net(forward, **parts, q=nn.Parameter(torch.rand(8) + 0.5), k=nn.Parameter(torch.rand(8) + 0.5))


@network("mixture of experts, weights in one tensor", "5x8")
def experts() -> nn.Module:
    def forward(m: Any, x: Tensor) -> Tensor:
        hidden = F.relu(torch.einsum("...d,edh->...eh", x, m.up))
        made = torch.einsum("...eh,ehd->...ed", hidden, m.down)
        return m.out((made * m.gate(x).softmax(-1).unsqueeze(-1)).sum(-2))

    return Net(forward, gate=nn.Linear(8, 3), up=of(3, 8, 20), down=of(3, 20, 8), out=nn.Linear(8, 4))


@network("NetVLAD", "3x8x8")
def netvlad() -> nn.Module:
    def forward(m: Any, x: Tensor) -> Tensor:
        x = m.stem(x)
        share, flat = m.assign(x).flatten(2).softmax(1), x.flatten(2)
        found = torch.einsum("bkn,bcn->bkc", share, flat) - share.sum(2, keepdim=True) * m.centres
        return m.out(found.flatten(1))

    return Net(forward, stem=block(3, 16), assign=conv(16, 6, 1), centres=of(1, 6, 16), out=nn.Linear(96, 8))
