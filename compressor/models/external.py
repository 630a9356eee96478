"""Builds networks of torchvision and timm without their weights.

It must never hold an import of either outside a function, nor start a download.
"""

from __future__ import annotations

import functools
import importlib
import inspect
import sys
from collections.abc import Mapping, Sequence
from types import ModuleType
from typing import Any

import torch
from torch import nn

from compressor.errors import CompressError, ModelError, UsageError
from compressor.nearest import did_you_mean
from compressor.sealed import sealed

Shapes = tuple[tuple[int, ...], ...]

# Classifiers stand directly in torchvision.models; detection, video ... in packages below it, with other inputs.
_TORCHVISION_SIDE = {"inception_v3": 299}
_TORCHVISION_DEFAULT_SIDE = 224
_OF_THE_NETWORK = frozenset({"scriptable", "exportable", "no_jit", "kwargs"})
"""Arguments of `timm.create_model` that it does not keep for finding weights: those change which layers are built."""


def build_torchvision(name: str, arch_args: Mapping[str, object]) -> tuple[nn.Module, Shapes | None]:
    """`torchvision.models.get_model(name, weights=None, ...)` and, for a classifier, the shape of its input.

    Raises:  ModelError if torchvision is missing or fails; UsageError for an unknown name.
    """
    models = _imported("torchvision.models", "torchvision")
    if name not in models.list_models():
        raise UsageError(_unknown(f"torchvision:{name}", name, models.list_models()))
    builder = models.get_model_builder(name)
    kwargs: dict[str, object] = {"weights": None, **_no_backbone_weights(builder), **arch_args}
    module = made(f"torchvision:{name}", lambda: models.get_model(name, **kwargs))
    if builder.__module__.count(".") != 2:
        fixed: Any = getattr(getattr(module, "transform", None), "fixed_size", None)
        return module, None if fixed is None else ((3, int(fixed[1]), int(fixed[0])),)
    side = _TORCHVISION_SIDE.get(name, _TORCHVISION_DEFAULT_SIDE)
    return module, ((3, side, side),)


def _no_backbone_weights(builder: Any) -> dict[str, None]:
    """Detectors and segmentation networks would download their backbone's."""
    return {"weights_backbone": None} if "weights_backbone" in inspect.signature(builder).parameters else {}


def build_timm(name: str, arch_args: Mapping[str, object]) -> tuple[nn.Module, Shapes | None]:
    """`timm.create_model(name, pretrained=False, ...)` and the input shape that it states.

    Raises:  ModelError if timm is missing or fails; UsageError for an unknown name.
    """
    timm = _imported("timm", "timm")
    if not timm.is_model(name):
        raise UsageError(_unknown(f"timm:{name}", name, timm.list_models()))
    refused = sorted((inspect.signature(timm.create_model).parameters.keys() - _OF_THE_NETWORK) & arch_args.keys())
    if refused:
        raise UsageError(
            f"--arch-arg {refused[0]}: says how timm loads weights, and none are loaded here; leave it out"
        )
    kwargs: dict[str, object] = {"pretrained": False, **arch_args}
    module = made(f"timm:{name}", lambda: timm.create_model(name, **kwargs))
    config: Mapping[str, Any] = getattr(module, "default_cfg", None) or {}
    shape = config.get("input_size")
    return module, None if shape is None else (tuple(shape),)


def _imported(module: str, package: str) -> Any:
    try:
        imported = imported_beside_any_torch(module)
    except (ImportError, RuntimeError) as cause:  # RuntimeError: a torchvision built for another torch
        raise ModelError(
            f"--arch {package}:...: {package} cannot be imported ({cause}); "
            f"install one that fits torch with pip install {package}"
        ) from cause
    return imported


def imported_beside_any_torch(module: str) -> ModuleType:
    """The module; where torchvision's compiled operators are missing, after their schemas have been declared.

    torchvision from PyPI is a CUDA build: beside a CPU torch its library cannot be loaded, and its Python part then
    fails while it registers shapes for operators of detectors. No classifier calls these, so their schemas are enough.
    """
    before = set(sys.modules)
    try:
        return importlib.import_module(module)
    except RuntimeError as error:
        if "operator torchvision::nms does not exist" not in str(error):
            raise
    _declare_detection_operators()
    for name in set(sys.modules) - before:
        if name.split(".")[0] in ("torchvision", module.split(".")[0]):
            del sys.modules[name]  # the failed import has left it half done
    return importlib.import_module(module)


@functools.cache
def _declare_detection_operators() -> torch.library.Library:
    """The library that holds the declarations; they last as long as it does, hence the cache."""
    library: Any = torch.library.Library("torchvision", "DEF")
    for name in ("nms", "qnms"):
        library.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    return library


def made(arch: str, make: Any) -> nn.Module:
    """What `make` returns, made without a process or the network.

    Raises:  ModelError if it raises, or returns no module.
    """
    try:
        with sealed(f"--arch {arch}"):
            module = make()
    except CompressError:
        raise
    except Exception as cause:
        raise ModelError(f"{arch}: building it raised {type(cause).__name__}: {cause}") from cause
    if not isinstance(module, nn.Module):
        raise ModelError(f"{arch}: returned {type(module).__name__}, not a torch.nn.Module")
    return module


def _unknown(arch: str, name: str, known: Sequence[str]) -> str:
    hint = did_you_mean(name, known)
    return f"--arch {arch}: unknown name{f'; {hint}' if hint else ''}"
