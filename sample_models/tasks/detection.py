"""Detection as a task: one or two bright boxes on noise, found on a grid of cells. Nothing is downloaded.

    compress prune init --arch sample_models/tasks/detection.py:Net --input 1x32x32 -r 2x -m magnitude \
        --data sample_models/tasks/detection.py:data --task sample_models/tasks/detection.py:Task \
        -o net.pruned.pt --require 'recall>=10%'
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.utils.data import Dataset

SIDE, GRID, MOST = 32, 8, 2
CELL = SIDE / GRID
IOU = 0.5


class Net(nn.Module):
    """Two heads on one backbone: is there a box centred in this cell, and where exactly.

    Shapes:  (N, 1, 32, 32) -> score (N, 1, 8, 8), box (N, 4, 8, 8) of centre and size, in cells
    """

    def __init__(self, width: int = 16) -> None:
        super().__init__()
        self.backbone = nn.Sequential(
            nn.Conv2d(1, width, 3, 2, 1), nn.BatchNorm2d(width), nn.ReLU(),
            nn.Conv2d(width, 2 * width, 3, 2, 1), nn.BatchNorm2d(2 * width), nn.ReLU(),
            nn.Conv2d(2 * width, 2 * width, 3, padding=1), nn.ReLU(),
        )  # fmt: skip
        self.score = nn.Conv2d(2 * width, 1, 1)
        self.box = nn.Conv2d(2 * width, 4, 1)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        features = self.backbone(x)
        return self.score(features), self.box(features)


class Task:
    """Presence of every cell plus the L1 distance of the boxes that are there; recall at an IoU of 0.5 to show."""

    name = "detection"
    primary = "recall"
    higher_is_better = True

    def loss(self, outputs: tuple[Tensor, Tensor], batch, *, smoothing: float = 0.0) -> Tensor:
        score, box = outputs
        present, wanted = batch.target["present"], batch.target["box"]
        weight = 1 + 5 * present  # cells with a box are few
        presence = nn.functional.binary_cross_entropy_with_logits(score, present, weight=weight)
        distance = ((box - wanted).abs() * present).sum() / (4 * present.sum()).clamp(min=1)
        return presence + distance

    def metrics(self, outputs: tuple[Tensor, Tensor], batch) -> dict[str, tuple[float, int]]:
        score, box = outputs
        present = batch.target["present"] > 0
        hit = present & (score > 0) & (_iou(box, batch.target["box"]) >= IOU)[:, None]
        n_claimed = int((score > 0).sum())
        return {
            "recall": (float(hit.sum()), int(present.sum())),
            "precision": (float(hit.sum()), n_claimed),
        }


def _iou(a: Tensor, b: Tensor) -> Tensor:
    """Intersection over union of boxes in the same cell. Shapes: (N, 4, G, G) twice -> (N, G, G)"""
    low = torch.maximum(a[:, :2] - a[:, 2:] / 2, b[:, :2] - b[:, 2:] / 2)
    high = torch.minimum(a[:, :2] + a[:, 2:] / 2, b[:, :2] + b[:, 2:] / 2)
    shared = (high - low).clamp(min=0).prod(1)
    return shared / (a[:, 2:].clamp(min=0).prod(1) + b[:, 2:].prod(1) - shared).clamp(min=1e-6)


class Boxes(Dataset):
    """Pictures made on demand; an item is (picture, {"present", "box"}), both laid out on the grid."""

    def __init__(self, n: int, seed: int) -> None:
        self.n, self.seed = n, seed

    def __len__(self) -> int:
        return self.n

    def __getitem__(self, i: int) -> tuple[Tensor, dict[str, Tensor]]:
        generator = torch.Generator().manual_seed(self.seed * 100_003 + i)
        picture = 0.3 * torch.randn(1, SIDE, SIDE, generator=generator)
        present, box = torch.zeros(1, GRID, GRID), torch.zeros(4, GRID, GRID)
        for _ in range(1 + i % MOST):
            height, width = (int(side) for side in torch.randint(6, 13, (2,), generator=generator))
            top = int(torch.randint(0, SIDE - height, (1,), generator=generator))
            left = int(torch.randint(0, SIDE - width, (1,), generator=generator))
            picture[:, top : top + height, left : left + width] += 1
            y, x = (top + height / 2) / CELL, (left + width / 2) / CELL
            present[0, int(y), int(x)] = 1
            box[:, int(y), int(x)] = torch.tensor([y - int(y), x - int(x), height / CELL, width / CELL])
        return picture, {"present": present, "box": box}


def data() -> tuple[Dataset, Dataset]:
    """256 pictures to train on and 64 to validate on."""
    return Boxes(256, 1), Boxes(64, 2)
