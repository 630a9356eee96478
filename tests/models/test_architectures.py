"""The bundled networks: published counts, names, and shapes of outputs."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from compressor.models import ARCHITECTURES, build
from compressor.models.alexnet import CaffeNet
from compressor.models.lenet import LeNet5
from compressor.models.resnet_cifar import BasicBlock, ResNetCifar
from compressor.models.vgg import VGG16Cifar

# Parameters, and elements of convolution and linear weights alone (which Han et al. 2015 count).
COUNTS = {
    "lenet-300-100": (266_610, 266_200),
    "lenet5": (431_080, 430_500),
    "alexnet": (61_100_840, 61_090_496),
    "caffenet": (60_965_224, 60_954_656),
    "vgg16": (138_357_544, 138_344_128),
    "vgg16-bn": (138_365_992, 138_344_128),
    "vgg16-cifar": (14_728_266, 14_715_584),
    "resnet20": (269_722, 268_336),
    "resnet32": (464_154, 461_872),
    "resnet44": (658_586, 655_408),
    "resnet56": (853_018, 848_944),
    "resnet110": (1_727_962, 1_719_856),
}


def on_meta(name: str, **arch_args: object) -> nn.Module:
    with torch.device("meta"):
        return build(name, arch_args).module


def n_parameters(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def test_every_bundled_network_has_its_counts_listed() -> None:
    assert COUNTS.keys() == ARCHITECTURES.keys()


@pytest.mark.parametrize("name", COUNTS)
def test_counts_and_output_shape(name: str) -> None:
    module = on_meta(name).eval()
    weights = sum(parameter.numel() for parameter in module.parameters() if parameter.dim() > 1)
    assert (n_parameters(module), weights) == COUNTS[name]
    entry = ARCHITECTURES[name]
    out = module(torch.empty(2, *entry.input_shape, device="meta"))
    assert out.shape == (2, entry.n_classes)


@pytest.mark.parametrize("name", COUNTS)
def test_the_number_of_classes_is_an_argument(name: str) -> None:
    module = on_meta(name, num_classes=7).eval()
    assert module(torch.empty(1, *ARCHITECTURES[name].input_shape, device="meta")).shape == (1, 7)


@pytest.mark.parametrize(
    ("name", "keys"),
    [
        ("lenet-300-100", {"fc1", "fc2", "fc3"}),
        ("lenet5", {"conv1", "conv2", "fc1", "fc2"}),
        ("caffenet", {"conv1", "conv2", "conv3", "conv4", "conv5", "fc6", "fc7", "fc8"}),
        ("alexnet", {*(f"features.{i}" for i in (0, 3, 6, 8, 10)), *(f"classifier.{i}" for i in (1, 4, 6))}),
    ],
)
def test_layer_names(name: str, keys: set[str]) -> None:
    assert {key.rpartition(".")[0] for key in on_meta(name).state_dict()} == keys


def test_vgg_names_are_those_of_torchvision() -> None:
    plain = {key.rpartition(".")[0] for key in on_meta("vgg16").state_dict()}
    assert plain == {
        *(f"features.{i}" for i in (0, 2, 5, 7, 10, 12, 14, 17, 19, 21, 24, 26, 28)),
        *(f"classifier.{i}" for i in (0, 3, 6)),
    }
    assert "features.41.running_mean" in on_meta("vgg16-bn").state_dict()


@pytest.mark.parametrize(
    ("name", "input_size", "maps"),
    [("alexnet", 224, (256, 6, 6)), ("vgg16", 224, (512, 7, 7)), ("vgg16-bn", 224, (512, 7, 7))],
)
def test_features_are_of_the_published_size_before_they_are_averaged(
    name: str, input_size: int, maps: tuple[int, ...]
) -> None:
    """What follows is averaged to that size, and would take any."""
    module = on_meta(name).eval()
    assert module.features(torch.empty(1, 3, input_size, input_size, device="meta")).shape[1:] == maps


def test_caffenet_has_maps_of_its_sizes_and_begins_as_its_source_says() -> None:
    net = CaffeNet(num_classes=10).eval()
    sizes: list[int] = []
    for i in range(1, 6):
        getattr(net, f"conv{i}").register_forward_hook(lambda module, x, y: sizes.append(y.shape[-1]))
    with torch.no_grad():
        net(torch.zeros(1, 3, 227, 227))
    assert sizes == [55, 27, 13, 13, 13] and net.fc6.in_features == 256 * 6 * 6
    layers = dict(net.named_children())
    spread = {name: round(float(layer.weight.detach().std()), 3) for name, layer in layers.items()}
    assert spread == {name: 0.005 if name in ("fc6", "fc7") else 0.01 for name in layers}
    biases = {name: set(layer.bias.tolist()) for name, layer in layers.items()}
    assert biases == {name: {0.0 if name in ("conv1", "conv3", "fc8") else 1.0} for name in layers}


def test_caffenet_without_groups_counts_as_in_structured_papers() -> None:
    def conv_weights(network: CaffeNet) -> list[int]:
        return [getattr(network, f"conv{i}").weight.numel() for i in range(2, 6)]

    with torch.device("meta"):
        assert conv_weights(CaffeNet()) == [307_200, 884_736, 663_552, 442_368]
        ungrouped = CaffeNet(grouped=False)
    assert conv_weights(ungrouped) == [614_400, 884_736, 1_327_104, 884_736]
    assert n_parameters(ungrouped) == 62_378_344


def test_vgg16_cifar_without_batch_norm() -> None:
    with torch.device("meta"):
        assert n_parameters(VGG16Cifar(batch_norm=False)) == 14_719_818


def test_lenet5_has_two_relus() -> None:
    net = LeNet5()
    x = torch.randn(4, 1, 28, 28)
    features = F.max_pool2d(net.conv1(x), 2)
    features = F.max_pool2d(net.conv2(features).clamp(min=0), 2).reshape(4, 800)
    assert torch.allclose(net(x), net.fc2(net.fc1(features).clamp(min=0)), atol=1e-6)
    assert not torch.allclose(net(x), net.fc2(net.fc1(features)), atol=1e-3)


def test_the_shortcut_pads_channels_on_both_sides_of_every_second_pixel() -> None:
    block = BasicBlock(4, 8, 2).eval()
    for convolution in (block.conv1, block.conv2):
        nn.init.zeros_(convolution.weight)
    x = torch.rand(1, 4, 6, 6)
    out = block(x)
    assert torch.equal(out[:, 2:6], x[:, :, ::2, ::2])
    assert not out[:, :2].any() and not out[:, 6:].any()


def test_resnet_depths_that_do_not_exist_are_refused() -> None:
    with pytest.raises(ValueError, match=r"depth 21: must be 6n \+ 2"):
        ResNetCifar(21)


def test_small_networks_learn() -> None:
    for name in ("lenet-300-100", "lenet5", "resnet20"):
        module = build(name, {}, seed=0).module.train()
        x = torch.randn(8, *ARCHITECTURES[name].input_shape, generator=torch.Generator().manual_seed(0))
        y = torch.arange(8)
        optimizer = torch.optim.Adam(module.parameters(), 1e-3)
        losses: list[float] = []
        for _ in range(6):
            loss = nn.functional.cross_entropy(module(x), y)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
        assert losses[-1] < 0.8 * losses[0], name


@pytest.mark.parametrize(("name", "file"), [("resnet20", "resnet20-12fca82f.th"), ("resnet56", "resnet56-4bfd9763.th")])
def test_published_checkpoints_fit(name: str, file: str) -> None:
    path = Path(os.environ.get("COMPRESS_CHECKPOINTS", ""), file)
    if not path.is_file():
        pytest.skip(f"COMPRESS_CHECKPOINTS does not name a directory with {file}")
    stored = torch.load(path, map_location="cpu", weights_only=True)["state_dict"]
    missing, unexpected = on_meta(name).load_state_dict(
        {key.removeprefix("module."): value for key, value in stored.items()}, assign=True
    )
    assert (missing, unexpected) == ([], [])
