"""AlexNet in its two common forms: torchvision's and Caffe's.

It must never hold training settings or weights.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn


class AlexNet(nn.Module):
    """torchvision's AlexNet, layer for layer and name for name: 61,100,840 parameters.

    One column (no groups), 64-192-384-256-256 filters, no response normalisation. Han's table counts the
    other form, CaffeNet; both round to the 61M given there.

    Shapes:  (N, 3, 224, 224) -> (N, num_classes)
    Source:  Krizhevsky 2014, "One weird trick for parallelizing convolutional neural networks".
    """

    def __init__(self, num_classes: int = 1000, dropout: float = 0.5) -> None:
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv2d(3, 64, 11, 4, 2),
            nn.ReLU(inplace=True),
            nn.MaxPool2d(3, 2),
            nn.Conv2d(64, 192, 5, 1, 2),
            nn.ReLU(inplace=True),
            nn.MaxPool2d(3, 2),
            nn.Conv2d(192, 384, 3, 1, 1),
            nn.ReLU(inplace=True),
            nn.Conv2d(384, 256, 3, 1, 1),
            nn.ReLU(inplace=True),
            nn.Conv2d(256, 256, 3, 1, 1),
            nn.ReLU(inplace=True),
            nn.MaxPool2d(3, 2),
        )
        self.avgpool = nn.AdaptiveAvgPool2d((6, 6))
        self.classifier = nn.Sequential(
            nn.Dropout(dropout),
            nn.Linear(256 * 6 * 6, 4096),
            nn.ReLU(inplace=True),
            nn.Dropout(dropout),
            nn.Linear(4096, 4096),
            nn.ReLU(inplace=True),
            nn.Linear(4096, num_classes),
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.classifier(self.avgpool(self.features(x)).flatten(1))


class CaffeNet(nn.Module):
    """BVLC's CaffeNet: AlexNet with each response normalisation after its pooling.

    `grouped=True` is the published network: 60,965,224 parameters, the 61M of Han et al. 2015, table 5,
    with 307,200 + 884,736 + 663,552 + 442,368 weights in conv2..conv5. `grouped=False` has no groups, as
    structured ADMM papers count it: 614,400 + 884,736 + 1,327,104 + 884,736 weights there, 62,378,344
    parameters.

    Shapes:  (N, 3, 227, 227) -> (N, num_classes)
    Source:  Krizhevsky et al. 2012; BVLC Caffe, models/bvlc_reference_caffenet/train_val.prototxt, whose
             initial weights these are too.
    """

    def __init__(self, num_classes: int = 1000, grouped: bool = True, dropout: float = 0.5) -> None:
        super().__init__()
        groups = 2 if grouped else 1
        self.conv1 = nn.Conv2d(3, 96, 11, 4)
        self.conv2 = nn.Conv2d(96, 256, 5, 1, 2, groups=groups)
        self.conv3 = nn.Conv2d(256, 384, 3, 1, 1)
        self.conv4 = nn.Conv2d(384, 384, 3, 1, 1, groups=groups)
        self.conv5 = nn.Conv2d(384, 256, 3, 1, 1, groups=groups)
        self.fc6 = nn.Linear(256 * 6 * 6, 4096)
        self.fc7 = nn.Linear(4096, 4096)
        self.fc8 = nn.Linear(4096, num_classes)
        self.dropout = dropout
        self._initialise()

    def forward(self, x: Tensor) -> Tensor:
        x = _pool_and_normalise(F.relu(self.conv1(x)))
        x = _pool_and_normalise(F.relu(self.conv2(x)))
        x = F.relu(self.conv3(x))
        x = F.relu(self.conv4(x))
        x = F.max_pool2d(F.relu(self.conv5(x)), 3, 2)
        x = x.flatten(1)
        x = F.dropout(F.relu(self.fc6(x)), self.dropout, self.training)
        x = F.dropout(F.relu(self.fc7(x)), self.dropout, self.training)
        return self.fc8(x)

    def _initialise(self) -> None:
        for name, layer in self.named_children():
            if isinstance(layer, nn.Conv2d | nn.Linear) and layer.bias is not None:
                nn.init.normal_(layer.weight, std=0.005 if name in ("fc6", "fc7") else 0.01)
                nn.init.constant_(layer.bias, 0.0 if name in ("conv1", "conv3", "fc8") else 1.0)


def _pool_and_normalise(x: Tensor) -> Tensor:
    return F.local_response_norm(F.max_pool2d(x, 3, 2), 5, alpha=1e-4, beta=0.75, k=1.0)
