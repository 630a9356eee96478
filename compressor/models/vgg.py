"""VGG-16 for ImageNet and its reduced form for CIFAR.

It must never hold training settings or weights.
"""

from __future__ import annotations

from torch import Tensor, nn

# Filters of the 13 convolutions, 0 = pooling. Simonyan & Zisserman 2015, table 1, column D.
_PLAN = (64, 64, 0, 128, 128, 0, 256, 256, 256, 0, 512, 512, 512, 0, 512, 512, 512, 0)


class VGG16(nn.Module):
    """torchvision's VGG-16, name for name: 138,357,544 parameters, 8,448 more with `batch_norm`.

    Shapes:  (N, 3, 224, 224) -> (N, num_classes)
    Source:  Simonyan & Zisserman 2015, configuration D; Han et al. 2015, table 6 (there: 138M).
    """

    def __init__(self, num_classes: int = 1000, batch_norm: bool = False, dropout: float = 0.5) -> None:
        super().__init__()
        self.features = _features(batch_norm)
        self.avgpool = nn.AdaptiveAvgPool2d((7, 7))
        self.classifier = nn.Sequential(
            nn.Linear(512 * 7 * 7, 4096),
            nn.ReLU(inplace=True),
            nn.Dropout(dropout),
            nn.Linear(4096, 4096),
            nn.ReLU(inplace=True),
            nn.Dropout(dropout),
            nn.Linear(4096, num_classes),
        )
        _initialise(self)

    def forward(self, x: Tensor) -> Tensor:
        return self.classifier(self.avgpool(self.features(x)).flatten(1))


class VGG16Cifar(nn.Module):
    """13 convolutions with batch normalisation and one linear layer: 14,728,266 parameters.

    The version that CIFAR pruning papers call VGG-16 (15M). Without `batch_norm` 14,719,818.

    Shapes:  (N, 3, 32, 32) -> (N, num_classes)
    Source:  Li et al. 2017, "Pruning Filters for Efficient ConvNets", sec. 4.1 (there: 512 -> 512 -> 10; the
             one linear layer is that of HRank, CHIP and DepGraph).
    """

    def __init__(self, num_classes: int = 10, batch_norm: bool = True) -> None:
        super().__init__()
        self.features = _features(batch_norm)
        self.classifier = nn.Linear(512, num_classes)
        _initialise(self)

    def forward(self, x: Tensor) -> Tensor:
        return self.classifier(self.features(x).flatten(1))


def _features(batch_norm: bool) -> nn.Sequential:
    layers: list[nn.Module] = []
    channels = 3
    for filters in _PLAN:
        if filters == 0:
            layers.append(nn.MaxPool2d(2, 2))
            continue
        layers.append(nn.Conv2d(channels, filters, 3, 1, 1))
        if batch_norm:
            layers.append(nn.BatchNorm2d(filters))
        layers.append(nn.ReLU(inplace=True))
        channels = filters
    return nn.Sequential(*layers)


def _initialise(network: nn.Module) -> None:
    # The paper's N(0, 0.01) does not train 16 layers from scratch (it starts from a trained 11-layer net);
    # its sec. 3.1 footnote points to Glorot, and everybody since uses He et al. 2015 for the convolutions.
    for module in network.modules():
        if isinstance(module, nn.Conv2d) and module.bias is not None:
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
            nn.init.zeros_(module.bias)
        elif isinstance(module, nn.Linear):
            nn.init.normal_(module.weight, std=0.01)
            nn.init.zeros_(module.bias)
