"""The bundled architectures by name, and `build`, which makes a module from any `--arch`.

It must never hold weights, nor import torchvision or timm before their prefix asks for them.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from compressor.architectures import ALIASES, check_architecture
from compressor.errors import ModelError, UsageError
from compressor.models.alexnet import AlexNet, CaffeNet
from compressor.models.external import build_timm, build_torchvision
from compressor.models.huggingface import build_transformers, fill_transformers
from compressor.models.inputs import InputHint
from compressor.models.lenet import LeNet5, LeNet300100
from compressor.models.resnet_cifar import ResNetCifar
from compressor.models.ultralytics import build_ultralytics
from compressor.models.vgg import VGG16, VGG16Cifar
from compressor.reference import complete_reference, load_reference, split_reference, takes
from compressor.typed_torch import forked_cpu_rng
from compressor.users_code import called

Shapes = tuple[tuple[int, ...], ...]


class Architecture(NamedTuple):
    """A bundled network. Shapes: input_shape without N."""

    constructor: Callable[..., nn.Module]
    input_shape: tuple[int, ...]
    n_classes: int
    description: str


class Built(NamedTuple):
    """A new module and, where known, the shapes of its inputs without N; `configuration` is what a library built it
    from, `arch` the name in full where a part of it was left out."""

    module: nn.Module
    input_shapes: Shapes | None
    inputs: tuple[InputHint, ...] = ()
    configuration: Mapping[str, Any] = MappingProxyType({})
    arch: str | None = None


ARCHITECTURES: Mapping[str, Architecture] = MappingProxyType(
    {
        "lenet-300-100": Architecture(LeNet300100, (1, 28, 28), 10, "fully connected 784-300-100-10, MNIST"),
        "lenet5": Architecture(LeNet5, (1, 28, 28), 10, "Caffe's LeNet-5 (20-50-500-10), MNIST"),
        "alexnet": Architecture(AlexNet, (3, 224, 224), 1000, "AlexNet as in torchvision, one column"),
        "caffenet": Architecture(CaffeNet, (3, 227, 227), 1000, "Caffe's AlexNet, with groups unless grouped=false"),
        "vgg16": Architecture(VGG16, (3, 224, 224), 1000, "VGG-16 as in torchvision"),
        "vgg16-bn": Architecture(
            partial(VGG16, batch_norm=True), (3, 224, 224), 1000, "VGG-16 with batch norm, as in torchvision"
        ),
        "vgg16-cifar": Architecture(VGG16Cifar, (3, 32, 32), 10, "VGG-16 with batch norm, one linear layer, CIFAR"),
        **{
            f"resnet{depth}": Architecture(
                partial(ResNetCifar, depth),
                (3, 32, 32),
                10,
                f"ResNet-{depth}, parameter-free shortcuts, CIFAR",
            )
            for depth in (20, 32, 44, 56, 110)
        },
    }
)
"""Every bundled name. ImageNet ResNets are `torchvision:resnet50` and the like."""

_EXTERNAL: Mapping[str, Callable[..., tuple[Any, ...]]] = MappingProxyType(
    {
        "torchvision": build_torchvision,
        "timm": build_timm,
        "transformers": build_transformers,
        "ultralytics": build_ultralytics,
    }
)


def build(
    arch: str,
    arch_args: Mapping[str, object],
    *,
    seed: int | None = None,
    trust_code: bool = True,
    base: Path | None = None,
) -> Built:
    """The module that `arch` names, with its initial weights.

    A bundled name, `torchvision:NAME`, `timm:NAME`, `transformers:DIRECTORY`, `ultralytics:NAME`,
    `package.module:callable`, `path/to/net.py:Net`, or `path/to/net.py` where there is one class in it that can be
    built. `seed` makes the initial weights reproducible and leaves the global random number generator as it was.
    `trust_code=False` is for a name that
    a file chose, and not the caller; `base` as for `open_data`.

    Raises:  UsageError if the name is unknown or takes no such arguments; ModelError if building it fails;
             UntrustedCodeError if it is code and not trusted.
    """
    make = partial(_build, arch, arch_args, trust_code, base)
    if seed is None:
        return make()
    with forked_cpu_rng():
        # Not torch.manual_seed, which reseeds the accelerators too, and fork_rng would not restore those.
        torch.default_generator.manual_seed(seed)
        return make()


def fill(
    arch: str, arch_args: Mapping[str, object], state: Mapping[str, Tensor], dtype: torch.dtype = torch.float32
) -> tuple[Built, dict[str, list[str]]] | None:
    """The module with its weights, in `dtype`, and the names that did not fit, for an `arch` that has to be filled by
    its own library; None for all others.

    Raises:  as `build`.
    """
    prefix, _, rest = arch.partition(":")
    if prefix != "transformers":
        return None
    found, trouble = fill_transformers(rest, arch_args, state, dtype)
    return Built(*found), trouble


def _build(arch: str, arch_args: Mapping[str, object], trust_code: bool, base: Path | None) -> Built:
    check_architecture(arch)
    name = ALIASES.get(arch.lower(), arch.lower())
    if name in ARCHITECTURES:
        entry = ARCHITECTURES[name]
        return Built(_call(entry.constructor, arch, arch_args), (entry.input_shape,))
    prefix, colon, rest = arch.partition(":")
    if colon and prefix in _EXTERNAL:
        return Built(*_EXTERNAL[prefix](rest, arch_args))
    if arch.endswith(".py"):
        whole = complete_reference(
            arch, field="arch", trust_code=trust_code, base=base, error=ModelError,
            fits=(lambda found: _is_network(found) and takes(found, arch_args), _is_network, inspect.isfunction),
        )  # fmt: skip
        return Built(_from_reference(whole, arch_args, trust_code, base), None, arch=whole)
    if split_reference(arch) is not None:
        return Built(_from_reference(arch, arch_args, trust_code, base), None)
    raise AssertionError(f"{arch}: a known name without a network")


def _is_network(found: object) -> bool:
    return isinstance(found, type) and issubclass(found, nn.Module)


def _from_reference(arch: str, arch_args: Mapping[str, object], trust_code: bool, base: Path | None) -> nn.Module:
    found = load_reference(arch, field="arch", trust_code=trust_code, base=base, error=ModelError)
    if isinstance(found, nn.Module):
        if arch_args:
            raise UsageError(f"--arch {arch}: is a finished module and takes no --arch-arg ({', '.join(arch_args)})")
        return found
    if not callable(found):
        raise ModelError(f"{arch}: neither a module nor a function that returns one, but {type(found).__name__}")
    return _call(found, arch, arch_args)


def _call(constructor: Callable[..., object], arch: str, arch_args: Mapping[str, object]) -> nn.Module:
    try:
        inspect.signature(constructor).bind(**arch_args)
    except TypeError as cause:
        known = ", ".join(inspect.signature(constructor).parameters) or "none"
        raise UsageError(f"--arch {arch}: {cause}; its --arch-arg names: {known}") from cause
    except ValueError:
        known = ""  # some callables written in C have no signature: then the call itself decides
    with called(f"{arch}: building it", ModelError):
        module = constructor(**arch_args)
    if not isinstance(module, nn.Module):
        raise ModelError(f"{arch}: returned {type(module).__name__}, not a torch.nn.Module")
    return module
