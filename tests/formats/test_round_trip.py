"""Networks of many kinds come back bit for bit: what export writes, the strict reader accepts."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils import parametrizations

from compressor.formats import from_bytes, to_bytes
from compressor.program import InputSpec, capture

IMAGE = (InputSpec("x", (None, 4, 8, 8)),)
TOKENS = (InputSpec("x", (None, 6, 8)),)
IDS = (InputSpec("ids", (None, 6), "int64", 10),)


class Call(nn.Module):
    """A function as a module, with one weight beside it."""

    def __init__(self, function: Callable[[Tensor, Tensor], Any], *shape: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(*shape))
        self.function = function

    def forward(self, x: Tensor) -> Any:
        return self.function(x, self.weight)


def write_in_place(x: Tensor, w: Tensor) -> Tensor:
    y = x.clone()
    y[:, :2] = w
    y[:, 2:].mul_(2)
    return y


def write_through_a_view(x: Tensor, w: Tensor) -> Tensor:
    y = x * w
    part = y[:, 1:3]
    part.add_(1)
    return y + part.sum()


def sizes(x: Tensor, w: Tensor) -> Tensor:
    n, c, h, _ = x.shape
    y = x.reshape(n * c, -1)[:, : h // 2 * 2].view(n, c, -1)
    return torch.zeros(n, c, 1) + y.sum(-1, keepdim=True) / (h * c) ** 0.5 * w


def fills(x: Tensor, w: Tensor) -> Tensor:
    mask = torch.ones(8, 8, dtype=torch.bool).tril()
    low = torch.finfo(torch.float32).min
    return (x * w).masked_fill(~mask, float("-inf")).softmax(-1) + torch.where(mask, 0.0, low).amax()


IMAGE_NETS: dict[str, Callable[[], nn.Module]] = {
    "depthwise": lambda: nn.Sequential(nn.Conv2d(4, 4, 3, groups=4, padding="same"), nn.ReLU6(inplace=True)),
    "transposed": lambda: nn.Sequential(nn.ConvTranspose2d(4, 3, 3, 2, output_padding=1), nn.GELU("tanh")),
    "norms": lambda: nn.Sequential(nn.GroupNorm(2, 4), nn.InstanceNorm2d(4, affine=True), nn.LayerNorm([8, 8])),
    "batch norm without statistics": lambda: nn.BatchNorm2d(4, track_running_stats=False),
    "pools": lambda: nn.Sequential(nn.MaxPool2d(2, ceil_mode=True), nn.AvgPool2d(2), nn.AdaptiveAvgPool2d(1)),
    "activations": lambda: nn.Sequential(nn.Hardswish(), nn.SiLU(), nn.PReLU(4), nn.ELU(), nn.Softplus(), nn.RReLU()),
    "resampling": lambda: nn.Sequential(
        nn.Upsample(scale_factor=2, mode="bilinear"), nn.PixelShuffle(2), nn.PixelUnshuffle(2)
    ),
    "antialias": lambda: Call(lambda x, w: F.interpolate(x * w, size=5, mode="bicubic", antialias=True), 1),
    "nearest exact": lambda: Call(lambda x, w: F.interpolate(x * w, scale_factor=2, mode="nearest-exact"), 1),
    "grid sample": lambda: Call(
        lambda x, w: F.grid_sample(x, w.expand(x.shape[0], -1, -1, -1), align_corners=True), 1, 5, 5, 2
    ),
    "weight norm": lambda: parametrizations.weight_norm(nn.Conv2d(4, 3, 3)),
    "spectral norm": lambda: parametrizations.spectral_norm(nn.Conv2d(4, 3, 3)),
    "pads": lambda: nn.Sequential(nn.ReflectionPad2d(1), nn.ReplicationPad2d(1), nn.ZeroPad2d(1), nn.CircularPad2d(1)),
    "movement": lambda: Call(
        lambda x, w: torch.cat([torch.roll(x, 1, -1).flip(2), (x * w).permute(0, 1, 3, 2)], 1).chunk(2, 1)[1],
        1,
    ),
    "unfold": lambda: Call(lambda x, w: F.fold(F.unfold(x * w, 3), (8, 8), 3), 1),
    "local response": lambda: nn.LocalResponseNorm(3),
    "always dropout": lambda: Call(lambda x, w: F.dropout(x * w, 0.0, training=True), 1),
    "indexing": lambda: Call(lambda x, w: (x * w)[:, [0, 2], ::2, None].unbind(1)[0], 1),
    "write in place": lambda: Call(write_in_place, 2, 8, 8),
    "write through a view": lambda: Call(write_through_a_view, 1),
    "sizes": lambda: Call(sizes, 1),
    "fills": lambda: Call(fills, 1),
    "types": lambda: Call(lambda x, w: (x.double() * w).float() + ((x > 0) & (x < 1)).to(x.dtype), 1),
    "einsum": lambda: Call(lambda x, w: torch.einsum("nchw,ck->nkhw", x, w), 4, 5),
    "sort and gather": lambda: Call(lambda x, w: torch.gather(x * w, 1, x.argsort(1)).topk(2, 1).values, 1),
    "statistics": lambda: Call(lambda x, w: torch.std(x * w, (2, 3)) + torch.linalg.vector_norm(x, dim=(2, 3)), 1),
}
TOKEN_NETS: dict[str, Callable[[], nn.Module]] = {
    "encoder": lambda: nn.TransformerEncoder(nn.TransformerEncoderLayer(8, 2, 16, batch_first=True), 2),
    "attention": lambda: Call(lambda x, w: F.scaled_dot_product_attention(x @ w, x, x, is_causal=True), 8, 8),
    "lstm": lambda: nn.LSTM(8, 5, 2, batch_first=True, bidirectional=True),
    "gru": lambda: nn.GRU(8, 5, batch_first=True),
    "rms norm": lambda: nn.RMSNorm(8),
    "bilinear": lambda: Call(lambda x, w: F.bilinear(x, x, w), 3, 8, 8),
    "conv1d": lambda: nn.Conv1d(6, 4, 3, dilation=2),
    "baddbmm": lambda: Call(lambda x, w: torch.baddbmm(w, x, x.mT, beta=0.5), 1, 6, 6),
    "cumulative": lambda: Call(lambda x, w: torch.cumsum(x * w, 1).clamp(-1, 1).log_softmax(-1), 1),
}
ID_NETS: dict[str, Callable[[], nn.Module]] = {
    "embedding": lambda: nn.Sequential(nn.Embedding(10, 4, padding_idx=0), nn.Flatten(), nn.Linear(24, 2)),
    "one hot": lambda: Call(lambda ids, w: F.one_hot(ids, 10).float() @ w, 10, 3),
    "embedding bag": lambda: nn.EmbeddingBag(10, 4),
    "positions": lambda: Call(lambda ids, w: w[torch.arange(ids.shape[1])] + ids[..., None], 6, 3),
}
NETS = [
    *((name, make, IMAGE) for name, make in IMAGE_NETS.items()),
    *((name, make, TOKENS) for name, make in TOKEN_NETS.items()),
    *((name, make, IDS) for name, make in ID_NETS.items()),
]


@pytest.mark.parametrize(("name", "make", "inputs"), NETS, ids=[name for name, _, _ in NETS])
def test_round_trip(name: str, make: Callable[[], nn.Module], inputs: tuple[InputSpec, ...]) -> None:
    torch.manual_seed(0)
    program = capture(make(), inputs)
    content = to_bytes(program)
    back = from_bytes(content)
    examples = program.example_inputs(3 if program.has_dynamic_batch else 1)
    left, right = program.module(*examples), back.module(*examples)
    leaves = torch.utils._pytree.tree_leaves
    assert leaves(left), name
    assert all(torch.equal(a, b) for a, b in zip(leaves(left), leaves(right), strict=True))
    assert back.shapes.keys() == program.shapes.keys()
    assert to_bytes(back) == content
