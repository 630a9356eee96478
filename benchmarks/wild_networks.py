"""Networks of many families in a few lines each, small, after public designs and bug reports of pruners.

It must never hold what is expected of them. Each entry of `NETWORKS` makes a module; its inputs are written as on the
command line: `3x16x16`, `7:int64` for word ids below 11.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils import parametrizations

Forward = Callable[..., Any]
NETWORKS: dict[str, tuple[str, Callable[[], nn.Module]]] = {}


class Net(nn.Module):
    """A network from its parts and a function of them and the inputs."""

    def __init__(self, forward: Forward, **parts: Any) -> None:
        super().__init__()
        for name, part in parts.items():
            if isinstance(part, Tensor) and not isinstance(part, nn.Parameter):
                self.register_buffer(name, part)
            else:
                setattr(self, name, nn.ModuleList(part) if isinstance(part, list) else part)
        self._forward = forward

    def forward(self, *inputs: Tensor) -> Any:
        return self._forward(self, *inputs)


def network(name: str, inputs: str) -> Callable[[Callable[[], nn.Module]], Callable[[], nn.Module]]:
    def enter(make: Callable[[], nn.Module]) -> Callable[[], nn.Module]:
        NETWORKS[name] = (inputs, make)
        return make

    return enter


def conv(i: int, o: int, k: int = 3, s: int = 1, **more: Any) -> nn.Conv2d:
    return nn.Conv2d(i, o, k, s, k // 2, **more)


def block(i: int, o: int, k: int = 3, s: int = 1) -> nn.Sequential:
    return nn.Sequential(conv(i, o, k, s, bias=False), nn.BatchNorm2d(o), nn.ReLU())


def of(*shape: int) -> nn.Parameter:
    return nn.Parameter(torch.randn(*shape))


def pooled(x: Tensor) -> Tensor:
    return x.mean((2, 3))


# Generators and decoders.


@network("autoencoder: Linear, view, transposed", "16")
def decoder() -> nn.Module:
    up = nn.ConvTranspose2d
    return Net(
        lambda m, z: m.b(F.relu(m.a(F.relu(m.line(z)).view(-1, 32, 4, 4)))),
        line=nn.Linear(16, 512), a=up(32, 16, 4, 2, 1), b=up(16, 3, 4, 2, 1),
    )  # fmt: skip


@network("VAE", "1x16x16")
def vae() -> nn.Module:
    def forward(m: Any, x: Tensor) -> Any:
        h = F.relu(m.e2(F.relu(m.e1(x)))).flatten(1)
        mean, spread = m.mean(h), m.spread(h)
        maps = F.relu(m.d0(mean)).unflatten(1, (32, 4, 4))
        return torch.sigmoid(m.d2(F.relu(m.d1(maps)))), mean, spread

    return Net(
        forward, e1=conv(1, 16, 3, 2), e2=conv(16, 32, 3, 2), mean=nn.Linear(512, 8), spread=nn.Linear(512, 8),
        d0=nn.Linear(8, 512), d1=nn.ConvTranspose2d(32, 16, 4, 2, 1), d2=nn.ConvTranspose2d(16, 1, 4, 2, 1),
    )  # fmt: skip


@network("DCGAN generator, grouped and depthwise", "16")
def dcgan() -> nn.Module:
    def forward(m: Any, z: Tensor) -> Tensor:
        x = F.relu(m.n0(m.line(z).view(-1, 32, 4, 4)))
        return torch.tanh(m.c(F.relu(m.n2(m.b(F.relu(m.n1(m.a(x))))))))

    up = nn.ConvTranspose2d
    return Net(
        forward, line=nn.Linear(16, 512), n0=nn.BatchNorm2d(32), a=up(32, 24, 4, 2, 1, groups=4),
        n1=nn.BatchNorm2d(24), b=up(24, 24, 4, 2, 1, groups=24), n2=nn.BatchNorm2d(24), c=up(24, 3, 4, 2, 1),
    )  # fmt: skip


@network("CycleGAN generator", "3x16x16")
def cyclegan() -> nn.Module:
    def residual(c: int) -> nn.Module:
        branch = nn.Sequential(nn.ReflectionPad2d(1), nn.Conv2d(c, c, 3), nn.InstanceNorm2d(c), nn.ReLU())
        return Net(lambda m, x: x + m.branch(x), branch=branch)

    return nn.Sequential(
        nn.ReflectionPad2d(3), nn.Conv2d(3, 12, 7), nn.InstanceNorm2d(12), nn.ReLU(), conv(12, 24, 3, 2),
        nn.InstanceNorm2d(24), nn.ReLU(), residual(24), residual(24),
        nn.ConvTranspose2d(24, 12, 3, 2, 1, output_padding=1), nn.InstanceNorm2d(12), nn.ReLU(), conv(12, 3, 7),
    )  # fmt: skip


@network("discriminator, spectral norm", "3x16x16")
def spectral() -> nn.Module:
    norm = parametrizations.spectral_norm
    layers = [norm(nn.Conv2d(3, 16, 4, 2, 1)), nn.LeakyReLU(0.2), norm(nn.Conv2d(16, 32, 4, 2, 1)), nn.LeakyReLU(0.2)]
    return nn.Sequential(*layers, nn.Flatten(), norm(nn.Linear(512, 1)))


@network("HiFi-GAN generator, weight norm", "20x16")
def hifigan() -> nn.Module:
    norm = parametrizations.weight_norm

    def forward(m: Any, x: Tensor) -> Tensor:
        x = m.pre(x)
        for up, first, second in zip(m.ups, m.first, m.second, strict=True):
            x = up(F.leaky_relu(x, 0.1))
            x = (x + first(F.leaky_relu(x, 0.1)) + x + second(F.leaky_relu(x, 0.1))) / 2
        return torch.tanh(m.post(x))

    return Net(
        forward, pre=norm(nn.Conv1d(20, 32, 7, 1, 3)), post=norm(nn.Conv1d(8, 1, 7, 1, 3)),
        ups=[norm(nn.ConvTranspose1d(32, 16, 8, 4, 2)), norm(nn.ConvTranspose1d(16, 8, 4, 2, 1))],
        first=[norm(nn.Conv1d(c, c, 3, 1, 1)) for c in (16, 8)],
        second=[norm(nn.Conv1d(c, c, 3, 1, 3, 3)) for c in (16, 8)],
    )  # fmt: skip


@network("StyleGAN2 synthesis", "8")
def stylegan() -> nn.Module:
    def modulated(weight: Tensor, style: nn.Module, x: Tensor, s: Tensor) -> Tensor:
        b, c, h, w = x.shape
        scaled = weight * style(s).view(b, 1, c, 1, 1)
        scaled = scaled * torch.rsqrt(scaled.pow(2).sum([2, 3, 4], keepdim=True) + 1e-8)
        kernel = scaled.view(b * weight.shape[0], c, 3, 3)
        return F.conv2d(x.reshape(1, b * c, h, w), kernel, padding=1, groups=b).view(b, weight.shape[0], h, w)

    def forward(m: Any, z: Tensor) -> Tensor:
        s = F.leaky_relu(m.map(z), 0.2)
        x = F.leaky_relu(modulated(m.w1, m.s1, m.const.repeat(z.shape[0], 1, 1, 1), s), 0.2)
        return m.rgb(F.leaky_relu(modulated(m.w2, m.s2, F.interpolate(x, scale_factor=2.0), s), 0.2))

    return Net(
        forward, const=of(1, 16, 4, 4), map=nn.Linear(8, 12), w1=of(20, 16, 3, 3), s1=nn.Linear(12, 16),
        w2=of(12, 20, 3, 3), s2=nn.Linear(12, 20), rgb=nn.Conv2d(12, 3, 1),
    )  # fmt: skip


@network("AdaIN", "3x16x16,8")
def adain() -> nn.Module:
    def styled(x: Tensor, norm: nn.Module, p: Tensor) -> Tensor:
        scale, shift = p.view(p.shape[0], -1, 1, 1).chunk(2, 1)
        return norm(x) * (1 + scale) + shift

    def forward(m: Any, x: Tensor, s: Tensor) -> Tensor:
        x = F.relu(styled(m.a(x), m.n1, m.s1(s)))
        return m.out(F.relu(styled(m.b(x), m.n2, m.s2(s))))

    return Net(
        forward, a=conv(3, 16), b=conv(16, 24), out=conv(24, 3), s1=nn.Linear(8, 32), s2=nn.Linear(8, 48),
        n1=nn.InstanceNorm2d(16), n2=nn.InstanceNorm2d(24),
    )  # fmt: skip


# Detection, segmentation, restoration.


@network("CenterNet DLA up", "3x16x16")
def dla() -> nn.Module:
    def forward(m: Any, x: Tensor) -> Tensor:
        a = F.relu(m.a(x))
        return m.out(F.relu(m.node(a + m.up(m.project(F.relu(m.b(a)))))))

    up = nn.ConvTranspose2d(16, 16, 4, 2, 1, groups=16, bias=False)
    parts = {"a": conv(3, 16, 3, 2), "b": conv(16, 24, 3, 2), "project": conv(24, 16, 1)}
    return Net(forward, **parts, up=up, node=conv(16, 16), out=conv(16, 2, 1))


@network("BiFPN", "3x32x32")
def bifpn() -> nn.Module:
    def forward(m: Any, x: Tensor) -> Tensor:
        levels = []
        for stage in m.stages:
            x = F.relu(stage(x))
            levels.append(x)
        p3, p4, p5 = (lateral(level) for lateral, level in zip(m.laterals, levels, strict=True))
        w = F.relu(m.w1)
        w = w / (w.sum() + 1e-4)
        t4 = m.point(m.depth(F.silu(w[0] * p4 + w[1] * F.interpolate(p5, scale_factor=2.0))))
        v = F.relu(m.w2)
        v = v / (v.sum(0) + 1e-4)
        up = F.interpolate(t4, size=p3.shape[-2:])
        return m.out(F.silu(v[0] * p3 + v[1] * up + v[2] * F.interpolate(p4, size=p3.shape[-2:])))

    return Net(
        forward, stages=[conv(3, 16, 3, 2), conv(16, 24, 3, 2), conv(24, 32, 3, 2)],
        laterals=[conv(c, 16, 1) for c in (16, 24, 32)], w1=nn.Parameter(torch.tensor([0.7, 0.4])),
        w2=nn.Parameter(torch.tensor([0.5, 0.6, 0.3])), depth=conv(16, 16, groups=16), point=conv(16, 16, 1),
        out=conv(16, 4, 1),
    )  # fmt: skip


@network("SSD, L2 norm and priors", "3x16x16")
def ssd() -> nn.Module:
    def forward(m: Any, x: Tensor) -> Any:
        b = F.relu(m.b(F.relu(m.a(x))))
        scaled = m.scale.view(1, -1, 1, 1) * b / (b.pow(2).sum(1, keepdim=True).sqrt() + 1e-10)
        maps = [scaled, F.relu(m.c(b))]
        n = x.size(0)
        loc = torch.cat([f(y).permute(0, 2, 3, 1).reshape(n, -1) for f, y in zip(m.loc, maps, strict=True)], 1)
        cls = torch.cat([f(y).permute(0, 2, 3, 1).reshape(n, -1) for f, y in zip(m.cls, maps, strict=True)], 1)
        return loc.view(n, -1, 4) * m.priors, cls.view(n, -1, 5).softmax(-1)

    return Net(
        forward, a=conv(3, 16, 3, 2), b=conv(16, 32, 3, 2), c=conv(32, 32, 3, 2),
        scale=nn.Parameter(torch.rand(32) + 9),
        loc=[conv(32, 16), conv(32, 24)], cls=[conv(32, 20), conv(32, 30)], priors=torch.rand(88, 4),
    )  # fmt: skip


@network("YOLOv7 head, implicit", "3x16x16")
def yolov7() -> nn.Module:
    def forward(m: Any, x: Tensor) -> Tensor:
        x = m.head(m.stem(x) + m.added) * m.scaled
        b, _, h, w = x.shape
        y = x.view(b, 3, 7, h, w).permute(0, 1, 3, 4, 2).contiguous().sigmoid()
        y[..., 0:2] = (y[..., 0:2] * 2.0 - 0.5 + m.grid) * 8.0
        y[..., 2:4] = (y[..., 2:4] * 2) ** 2 * m.anchor
        return y.view(b, -1, 7)

    grid = torch.stack(torch.meshgrid(torch.arange(4.0), torch.arange(4.0), indexing="xy"), 2)
    return Net(
        forward, stem=nn.Sequential(block(3, 32, 3, 2), block(32, 48, 3, 2)), added=of(1, 48, 1, 1),
        scaled=of(1, 21, 1, 1), head=conv(48, 21, 1), anchor=torch.rand(1, 3, 1, 1, 2), grid=grid.view(1, 1, 4, 4, 2),
    )  # fmt: skip


@network("DETR heads, queries by topk and gather", "3x16x16")
def detr() -> nn.Module:
    def forward(m: Any, x: Tensor) -> Any:
        tokens = m.stem(x).flatten(2).transpose(1, 2)
        scores = m.score(tokens)
        chosen = scores.max(-1).values.topk(20, dim=1).indices.unsqueeze(-1)
        queries = tokens.gather(1, chosen.expand(-1, -1, tokens.shape[-1]))
        best = scores.gather(1, chosen.expand(-1, -1, scores.shape[-1])).sigmoid()
        return m.box2(F.relu(m.box1(queries))).sigmoid(), best

    stem = nn.Sequential(block(3, 32, 3, 2), block(32, 48), conv(48, 32, 1))
    return Net(forward, stem=stem, score=nn.Linear(32, 20), box1=nn.Linear(32, 40), box2=nn.Linear(40, 4))


@network("SegNet, max_unpool", "3x16x16")
def segnet() -> nn.Module:
    def forward(m: Any, x: Tensor) -> Tensor:
        a, places = F.max_pool2d(F.relu(m.a(x)), 2, return_indices=True)  # type: ignore[misc]
        b = F.relu(m.c(F.relu(m.b(a))))
        return m.out(F.relu(m.d(F.max_unpool2d(b, places, 2))))

    return Net(forward, a=conv(3, 16), b=conv(16, 24), c=conv(24, 16), d=conv(16, 16), out=conv(16, 5, 1))


@network("U-Net", "3x16x16")
def unet() -> nn.Module:
    def forward(m: Any, x: Tensor) -> Tensor:
        a = m.a(x)
        b = m.b(F.max_pool2d(a, 2))
        return m.out(m.d(torch.cat([a, m.up(m.c(F.max_pool2d(b, 2)) + b.mean()).repeat(1, 1, 2, 2)], 1)))

    parts = {"a": block(3, 12), "b": block(12, 20), "c": block(20, 28), "d": block(26, 12)}
    return Net(forward, **parts, up=nn.ConvTranspose2d(28, 14, 2, 2), out=conv(12, 3, 1))


@network("HRNet", "3x16x16")
def hrnet() -> nn.Module:
    def forward(m: Any, x: Tensor) -> Tensor:
        x = m.stem(x)
        a, b = m.a(x), m.b(x)
        a, b = a + F.interpolate(m.ba(b), scale_factor=2.0), b + m.ab(a)
        return m.out(F.relu(torch.cat([a, F.interpolate(b, scale_factor=2.0, mode="bilinear")], 1)))

    return Net(
        forward, stem=block(3, 16, 3, 2), a=block(16, 12), b=block(16, 20, 3, 2), ab=conv(12, 20, 3, 2),
        ba=conv(20, 12, 1), out=conv(32, 5, 1),
    )  # fmt: skip


@network("DeepLab ASPP", "3x16x16")
def aspp() -> nn.Module:
    def forward(m: Any, x: Tensor) -> Tensor:
        x = m.stem(x)
        whole = F.interpolate(m.image(F.adaptive_avg_pool2d(x, 1)), size=x.shape[-2:], mode="bilinear")
        return m.out(torch.cat([F.relu(b(x)) for b in m.branches] + [whole], 1))

    rates = [nn.Conv2d(24, 8, 3, 1, r, r) for r in (1, 2, 3)]
    return Net(forward, stem=block(3, 24, 3, 2), branches=rates, image=conv(24, 8, 1), out=conv(32, 5, 1))


@network("PSPNet, pyramid pooling", "3x16x16")
def pspnet() -> nn.Module:
    def forward(m: Any, x: Tensor) -> Tensor:
        x = m.stem(x)
        pools = [F.interpolate(c(F.adaptive_avg_pool2d(x, k)), size=x.shape[-2:], mode="bilinear")
                 for k, c in zip((1, 2, 4), m.levels, strict=True)]  # fmt: skip
        return m.out(torch.cat([x, *pools], 1))

    return Net(forward, stem=block(3, 24, 3, 2), levels=[conv(24, 6, 1) for _ in range(3)], out=conv(42, 5))


@network("ESPCN", "1x8x8")
def espcn() -> nn.Module:
    return nn.Sequential(conv(1, 32, 5), nn.Tanh(), conv(32, 24), nn.Tanh(), conv(24, 9), nn.PixelShuffle(3))


@network("EDSR", "3x8x8")
def edsr() -> nn.Module:
    def forward(m: Any, x: Tensor) -> Tensor:
        y = x = m.head(x)
        for a, b in zip(m.a, m.b, strict=True):
            y = y + 0.1 * b(F.relu(a(y)))
        return m.tail(F.pixel_shuffle(m.up(m.body(y) + x), 2))

    many = {"a": [conv(24, 24) for _ in range(3)], "b": [conv(24, 24) for _ in range(3)]}
    return Net(forward, head=conv(3, 24), **many, body=conv(24, 24), up=conv(24, 96), tail=conv(24, 3))


@network("NAFNet block, simple gate", "3x8x8")
def nafnet() -> nn.Module:
    def forward(m: Any, x: Tensor) -> Tensor:
        x = m.head(x)
        left, right = m.depth(m.wide(m.norm(x))).chunk(2, 1)
        y = left * right
        return m.tail(x + m.narrow(y * m.gate(F.adaptive_avg_pool2d(y, 1))))

    parts = {
        "wide": conv(16, 32, 1),
        "depth": conv(32, 32, groups=32),
        "gate": conv(16, 16, 1),
        "narrow": conv(16, 16, 1),
    }
    return Net(forward, head=conv(3, 16), norm=nn.BatchNorm2d(16), **parts, tail=conv(16, 3))


@network("PWC-Net, warped by grid_sample", "3x16x16,3x16x16")
def pwcnet() -> nn.Module:
    def forward(m: Any, a: Tensor, b: Tensor) -> Tensor:
        a, b = m.pyramid(a), m.pyramid(b)
        flow = m.flow(a)
        n, _, h, w = a.shape
        grid = F.affine_grid(torch.eye(2, 3, dtype=a.dtype).expand(n, 2, 3), [n, 1, h, w], align_corners=True)
        q = F.pad(F.grid_sample(b, grid + flow.permute(0, 2, 3, 1), align_corners=True), (1, 1, 1, 1))
        cost = [(a * q[:, :, i : i + h, j : j + w]).sum(1, keepdim=True) for i in range(3) for j in range(3)]
        return flow + m.out(F.leaky_relu(m.decode(torch.cat([*cost, a], 1)), 0.1))

    pyramid = nn.Sequential(conv(3, 16, 3, 2), nn.LeakyReLU(0.1), conv(16, 24), nn.LeakyReLU(0.1))
    return Net(forward, pyramid=pyramid, flow=conv(24, 2), decode=conv(33, 32), out=conv(32, 2))


@network("SiamRPN, depthwise correlation", "3x8x8,3x16x16")
def siamrpn() -> nn.Module:
    def forward(m: Any, kernel: Tensor, search: Tensor) -> Tensor:
        k, s = F.relu(m.net(kernel)), F.relu(m.net(search))
        n, c = k.shape[:2]
        found = F.conv2d(s.reshape(1, n * c, *s.shape[2:]), k.reshape(n * c, 1, *k.shape[2:]), groups=n * c)
        return m.out(found.view(n, c, *found.shape[2:]))

    return Net(forward, net=nn.Sequential(block(3, 16, 3, 2), conv(16, 24)), out=conv(24, 5, 1))
