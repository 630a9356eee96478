"""Regression as a task: a network that learns a smooth function of eight numbers. Nothing is downloaded.

    compress prune init --arch sample_models/tasks/regression.py:Net --input 8 -r 2x -m magnitude -o net.pruned.pt \
        --data sample_models/tasks/regression.py:data --task sample_models/tasks/regression.py:Task \
        --require 'mse<=0.5'
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.utils.data import Dataset, TensorDataset


class Net(nn.Module):
    """Three linear layers. Shapes: (N, 8) -> (N, 1)"""

    def __init__(self, width: int = 48) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(8, width), nn.ReLU(), nn.Linear(width, width), nn.ReLU())
        self.out = nn.Linear(width, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.out(self.layers(x))


class Task:
    """Squared error to train on, mean squared and mean absolute error to show; smaller is better."""

    name = "regression"
    primary = "mse"
    higher_is_better = False

    def loss(self, outputs: Tensor, batch, *, smoothing: float = 0.0) -> Tensor:
        return nn.functional.mse_loss(outputs, batch.target)

    def metrics(self, outputs: Tensor, batch) -> dict[str, tuple[float, int]]:
        """Sums and counts, not means: the tool adds them up over batches of any size."""
        error = outputs - batch.target
        return {"mse": (float(error.square().sum()), error.numel()), "mae": (float(error.abs().sum()), error.numel())}


def data() -> tuple[Dataset, Dataset]:
    """1,024 samples to train on and 256 to validate on."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(1280, 8, generator=generator)
    y = torch.sin(x[:, :1]) + 0.5 * x[:, 1:2] * x[:, 2:3].tanh() + 0.05 * torch.randn(1280, 1, generator=generator)
    return TensorDataset(x[:1024], y[:1024]), TensorDataset(x[1024:], y[1024:])
