"""The two LeNets of the pruning literature, for 28x28 grey images.

It must never hold training settings or weights.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn


class LeNet300100(nn.Module):
    """Fully connected 784-300-100-10: 266,200 weights, 266,610 parameters.

    Shapes:  (N, 1, 28, 28) or (N, 784) -> (N, num_classes)
    Source:  LeCun et al. 1998, "Gradient-based learning", sec. III.C; Han et al. 2015, table 3 (there: 267K).
    """

    def __init__(self, num_classes: int = 10) -> None:
        super().__init__()
        self.fc1 = nn.Linear(784, 300)
        self.fc2 = nn.Linear(300, 100)
        self.fc3 = nn.Linear(100, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        x = x.flatten(1)
        x = F.relu(self.fc1(x))
        x = F.relu(self.fc2(x))
        return self.fc3(x)


class LeNet5(nn.Module):
    """Caffe's LeNet, conv 20@5x5, pool, conv 50@5x5, pool, fc 500, fc 10: 430,500 weights, 431,080 in all.

    Deviates from Caffe, which has one ReLU, after fc1: here is another one after conv2.

    Shapes:  (N, 1, 28, 28) -> (N, num_classes)
    Source:  BVLC Caffe, examples/mnist/lenet.prototxt; Han et al. 2015, table 4 (there: 431K).
    """

    def __init__(self, num_classes: int = 10) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(1, 20, 5)
        self.conv2 = nn.Conv2d(20, 50, 5)
        self.fc1 = nn.Linear(800, 500)
        self.fc2 = nn.Linear(500, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        x = F.max_pool2d(self.conv1(x), 2)
        x = F.max_pool2d(F.relu(self.conv2(x)), 2)
        x = x.flatten(1)
        return self.fc2(F.relu(self.fc1(x)))
