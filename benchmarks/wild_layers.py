"""The last of the networks in the wild: layers that are not usual, and what no graph holds.

It must never hold what is expected of them.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchmarks.wild_more import NETWORKS
from benchmarks.wild_networks import Net, block, conv, network, of, pooled

__all__ = ["NETWORKS"]


# Layers that are not usual.


@network("RepVGG, three branches", "3x16x16")
def repvgg() -> nn.Module:
    def forward(m: Any, x: Tensor) -> Tensor:
        x = m.stem(x)
        return m.out(pooled(F.relu(m.dense(x) + m.point(x) + m.same(x))))

    norm = nn.BatchNorm2d
    dense, point = nn.Sequential(conv(16, 16), norm(16)), nn.Sequential(conv(16, 16, 1), norm(16))
    return Net(forward, stem=block(3, 16, 3, 2), dense=dense, point=point, same=norm(16), out=nn.Linear(16, 4))


@network("FasterNet, written in place", "3x8x8")
def partial() -> nn.Module:
    def forward(m: Any, x: Tensor) -> Tensor:
        x = F.relu(m.a(x))
        y = x.clone()
        y[:, :9] = m.part(y[:, :9])
        return pooled(m.out(x + m.down(F.relu(m.up(y)))))

    return Net(forward, a=conv(3, 36), part=conv(9, 9), up=conv(36, 72, 1), down=conv(72, 36, 1), out=conv(36, 4, 1))


@network("equalised learning rate (ProGAN)", "3x8x8")
def equalised() -> nn.Module:
    def forward(m: Any, x: Tensor) -> Tensor:
        x = F.leaky_relu(F.conv2d(x, m.a * 0.19, m.bias, padding=1), 0.2)
        return m.out(pooled(F.leaky_relu(F.conv2d(x, m.b * 0.06, stride=2, padding=1), 0.2)))

    return Net(forward, a=of(32, 3, 3, 3), bias=of(32), b=of(24, 32, 3, 3), out=nn.Linear(24, 4))


@network("weight standardisation", "3x8x8")
def standardised() -> nn.Module:
    def forward(m: Any, x: Tensor) -> Tensor:
        mean, var = m.w.mean((1, 2, 3), keepdim=True), m.w.var((1, 2, 3), keepdim=True, unbiased=False)
        x = F.relu(m.n(F.conv2d(m.a(x), (m.w - mean) / torch.sqrt(var + 1e-5), padding=1)))
        return m.out(pooled(x))

    return Net(forward, a=block(3, 16), w=of(24, 16, 3, 3), n=nn.BatchNorm2d(24), out=nn.Linear(24, 4))


@network("binary weights (XNOR-Net)", "3x8x8")
def binary() -> nn.Module:
    def forward(m: Any, x: Tensor) -> Tensor:
        scale = m.w.abs().mean((1, 2, 3), keepdim=True)
        return m.out(pooled(F.hardtanh(m.n(F.conv2d(m.a(x), torch.sign(m.w) * scale, padding=1)))))

    return Net(forward, a=block(3, 16), w=of(24, 16, 3, 3), n=nn.BatchNorm2d(24), out=nn.Linear(24, 4))


@network("dynamic convolution", "3x8x8")
def dynamic() -> nn.Module:
    def forward(m: Any, x: Tensor) -> Tensor:
        x = F.relu(m.a(x))
        b, c, h, w = x.shape
        mix = m.two(F.relu(m.one(F.adaptive_avg_pool2d(x, 1)))).view(b, -1).softmax(1)
        weight = torch.mm(mix, m.w.view(4, -1)).view(b * 24, 16, 3, 3)
        y = F.conv2d(x.reshape(1, b * c, h, w), weight, padding=1, groups=b).view(b, 24, h, w)
        return pooled(m.out(F.relu(y)))

    return Net(forward, a=conv(3, 16), one=conv(16, 8, 1), two=conv(8, 4, 1), w=of(4, 24, 16, 3, 3), out=conv(24, 4, 1))


@network("hypernetwork", "3x8x8")
def hypernetwork() -> nn.Module:
    def forward(m: Any, x: Tensor) -> Tensor:
        weight = m.make(m.latent).view(12, 16, 3, 3)
        return m.out(pooled(F.relu(F.conv2d(F.relu(m.a(x)), weight, padding=1))))

    return Net(forward, a=conv(3, 16), make=nn.Linear(6, 144), latent=of(12, 6), out=nn.Linear(12, 4))


@network("maxout", "3x8x8")
def maxout() -> nn.Module:
    parts = {"a": conv(3, 32), "b": conv(16, 24), "out": nn.Linear(12, 4)}
    return Net(
        lambda m, x: m.out(pooled(m.b(m.a(x).view(-1, 16, 2, 8, 8).amax(2)).view(-1, 12, 2, 8, 8).amax(2))), **parts
    )


@network("LightCNN, maximum of halves", "3x8x8")
def lightcnn() -> nn.Module:
    parts = {"a": conv(3, 32), "b": conv(16, 24), "out": nn.Linear(12, 4)}
    return Net(lambda m, x: m.out(pooled(torch.maximum(*m.b(torch.maximum(*m.a(x).chunk(2, 1))).chunk(2, 1)))), **parts)


@network("involution by unfold", "3x8x8")
def involution() -> nn.Module:
    def forward(m: Any, x: Tensor) -> Tensor:
        x = F.relu(m.a(x))
        taps = F.unfold(x, 3, padding=1).view(x.shape[0], 16, 9, 8, 8)
        return m.out((taps * m.kernel(x).unsqueeze(1)).sum(2))

    return Net(forward, a=conv(3, 16), kernel=conv(16, 9, 1), out=conv(16, 4, 1))


@network("squeeze and excite, spatial gate (CBAM)", "3x8x8")
def cbam() -> nn.Module:
    def forward(m: Any, x: Tensor) -> Tensor:
        x = m.a(x)
        x = x * torch.sigmoid(m.up(F.relu(m.down(pooled(x)))))[:, :, None, None]
        return m.out(m.b(x) * torch.sigmoid(m.place(torch.cat([x.mean(1, True), x.amax(1, True)], 1))))

    parts = {"down": nn.Linear(16, 4), "up": nn.Linear(4, 16), "place": conv(2, 1, 7)}
    return Net(forward, a=block(3, 16), **parts, b=block(16, 24), out=conv(24, 4, 1))


@network("pooling, then .squeeze()", "3x8x8")
def squeezed() -> nn.Module:
    return Net(lambda m, x: m.b(F.adaptive_avg_pool2d(m.a(x), 1).squeeze()), a=block(3, 16), b=nn.Linear(16, 4))


@network("several tasks, numbers among the outputs", "3x8x8")
def tasks() -> nn.Module:
    def forward(m: Any, x: Tensor) -> Any:
        x = m.a(x)
        return {"dense": {"map": m.map(x)}, "class": [m.line(pooled(x))], "n": 3, "batch": x.shape[0], "none": None}

    return Net(forward, a=block(3, 16), map=nn.ConvTranspose2d(16, 5, 2, 2), line=nn.Linear(16, 7))


@network("dueling DQN", "4x12x12")
def dueling() -> nn.Module:
    def forward(m: Any, x: Tensor) -> Tensor:
        x = m.maps(x).flatten(1)
        gain = m.g2(F.relu(m.g1(x)))
        return m.v2(F.relu(m.v1(x))) + gain - gain.mean(1, keepdim=True)

    maps = nn.Sequential(nn.Conv2d(4, 16, 4, 2), nn.ReLU(), nn.Conv2d(16, 24, 3), nn.ReLU())
    line = {"v1": nn.Linear(216, 32), "v2": nn.Linear(32, 1), "g1": nn.Linear(216, 32), "g2": nn.Linear(32, 6)}
    return Net(forward, maps=maps, **line)


@network("NeRF", "3")
def nerf() -> nn.Module:
    def forward(m: Any, x: Tensor) -> Tensor:
        waves = torch.cat([x, *(f(x * 2.0**i) for i in range(4) for f in (torch.sin, torch.cos))], -1)
        y = F.relu(m.b(F.relu(m.a(waves))))
        return m.out(F.relu(m.c(torch.cat([y, waves], -1))))

    return Net(forward, a=nn.Linear(27, 40), b=nn.Linear(40, 40), c=nn.Linear(67, 40), out=nn.Linear(40, 4))


# What no graph holds.


@network("early exit by confidence", "3x8x8")
def early_exit() -> nn.Module:
    def forward(m: Any, x: Tensor) -> Tensor:
        y = m.out(pooled(m.a(x)))
        return y if y.softmax(1).max() > 0.9 else m.out(pooled(m.b(m.a(x))))

    return Net(forward, a=block(3, 16), b=block(16, 16), out=nn.Linear(16, 4))


@network("through NumPy", "3x8x8")
def through_numpy() -> nn.Module:
    def forward(m: Any, x: Tensor) -> Tensor:
        y = m.a(x)
        return m.out(pooled(y * torch.from_numpy((y.detach().numpy() > 0.5).astype("float32"))))

    return Net(forward, a=block(3, 16), out=nn.Linear(16, 4))


@network("GCN, sparse adjacency", "6x8")
def sparse_gcn() -> nn.Module:
    net = Net(lambda m, x: torch.sparse.mm(m.adjacency, m.a(x[0]))[None], a=nn.Linear(8, 16))
    net.register_buffer("adjacency", torch.eye(6).to_sparse())
    return net


@network("fake quantisation", "3x8x8")
def fake_quantised() -> nn.Module:
    def forward(m: Any, x: Tensor) -> Tensor:
        return m.out(pooled(torch.fake_quantize_per_tensor_affine(m.a(x), 0.05, 0, -128, 127)))

    return Net(forward, a=block(3, 16), out=nn.Linear(16, 4))
