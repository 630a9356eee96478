"""Segmentation as a task: discs and squares on noise, a label for every pixel. Nothing is downloaded.

    compress prune init --arch sample_models/tasks/segmentation.py:Net --input 1x16x16 -r 2x -m magnitude \
        --data sample_models/tasks/segmentation.py:data --task sample_models/tasks/segmentation.py:Task \
        -o net.pruned.pt --require 'iou>=30%'
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.utils.data import Dataset, TensorDataset

N_CLASSES = 3
SIDE = 16


class Net(nn.Module):
    """A small U-Net: down, up, and a skip connection that is concatenated. Shapes: (N, 1, H, W) -> (N, 3, H, W)"""

    def __init__(self, width: int = 12) -> None:
        super().__init__()
        self.first = nn.Sequential(nn.Conv2d(1, width, 3, padding=1), nn.BatchNorm2d(width), nn.ReLU())
        self.down = nn.Sequential(nn.Conv2d(width, 2 * width, 3, 2, 1), nn.BatchNorm2d(2 * width), nn.ReLU())
        self.up = nn.ConvTranspose2d(2 * width, width, 2, 2)
        self.last = nn.Sequential(nn.Conv2d(2 * width, width, 3, padding=1), nn.ReLU(), nn.Conv2d(width, N_CLASSES, 1))

    def forward(self, x: Tensor) -> Tensor:
        fine = self.first(x)
        return self.last(torch.cat([fine, self.up(self.down(fine))], 1))


class Task:
    """Cross entropy per pixel to train on; intersection over union of the shapes to show."""

    name = "segmentation"
    primary = "iou"
    higher_is_better = True

    def loss(self, outputs: Tensor, batch, *, smoothing: float = 0.0) -> Tensor:
        return nn.functional.cross_entropy(outputs, batch.target, label_smoothing=smoothing)

    def metrics(self, outputs: Tensor, batch) -> dict[str, tuple[float, int]]:
        """The IoU of all batches is all intersections ÷ all unions, which is a sum and a count."""
        found, target = outputs.argmax(1), batch.target
        shared = int(((found == target) & (target > 0)).sum())
        either = int(((found > 0) | (target > 0)).sum())
        right = int((found == target).sum())
        return {"iou": (float(shared), either), "pixel_accuracy": (float(right), target.numel())}


def data() -> tuple[Dataset, Dataset]:
    """256 pictures to train on and 64 to validate on."""
    generator = torch.Generator().manual_seed(1)
    n = 320
    centre = torch.rand(n, 2, 1, 1, generator=generator) * (SIDE - 8) + 4
    radius = torch.rand(n, 1, 1, generator=generator) * 2 + 2
    grid = torch.stack(torch.meshgrid(torch.arange(SIDE), torch.arange(SIDE), indexing="ij"))
    away = (grid - centre).abs()
    disc, square = away.square().sum(1).sqrt() <= radius, away.amax(1) <= radius
    is_disc = (torch.arange(n) % 2 == 0)[:, None, None]
    label = torch.where(is_disc, disc.long(), 2 * square.long())
    picture = (label > 0).float() + 0.3 * torch.randn(n, SIDE, SIDE, generator=generator)
    x = picture[:, None]
    return TensorDataset(x[:256], label[:256]), TensorDataset(x[256:], label[256:])
