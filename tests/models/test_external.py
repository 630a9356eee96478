"""torchvision and timm: asked for only by prefix, never for weights, and named when missing.

Stand-ins with the same functions take their places, so the test needs neither; the last one uses the real
torchvision where it is installed.
"""

from __future__ import annotations

import importlib
import importlib.util
import sys
from collections.abc import Callable
from types import ModuleType
from typing import Any

import pytest
from torch import nn

from compressor.errors import ModelError, UsageError
from compressor.models import build, external


class Stand(nn.Module):
    def __init__(self, **kwargs: object) -> None:
        super().__init__()
        if kwargs.pop("fail", False):
            raise RuntimeError("no")
        self.kwargs = kwargs
        self.default_cfg = {"input_size": (3, 288, 288)}


def classifier(**kwargs: object) -> Stand:
    return Stand(**kwargs)


def detector(**kwargs: object) -> Stand:
    return Stand(**kwargs)


classifier.__module__ = "torchvision.models.resnet"
detector.__module__ = "torchvision.models.detection.faster_rcnn"
BUILDERS: dict[str, Callable[..., Stand]] = {
    "resnet18": classifier,
    "inception_v3": classifier,
    "rcnn": detector,
}


@pytest.fixture
def stand_ins(monkeypatch: pytest.MonkeyPatch) -> None:
    vision: Any = ModuleType("torchvision")
    models: Any = ModuleType("torchvision.models")
    models.list_models = lambda: list(BUILDERS)
    models.get_model_builder = BUILDERS.__getitem__
    models.get_model = lambda name, **kwargs: BUILDERS[name](**kwargs)
    vision.models = models
    timm: Any = ModuleType("timm")
    timm.is_model = BUILDERS.__contains__
    timm.list_models = lambda: list(BUILDERS)
    timm.create_model = lambda name, **kwargs: BUILDERS[name](**kwargs)
    for name, module in (("torchvision", vision), ("torchvision.models", models), ("timm", timm)):
        monkeypatch.setitem(sys.modules, name, module)


@pytest.mark.usefixtures("stand_ins")
@pytest.mark.parametrize(
    ("arch", "kwargs", "shapes"),
    [
        ("torchvision:resnet18", {"weights": None, "num_classes": 3}, ((3, 224, 224),)),
        ("torchvision:inception_v3", {"weights": None, "num_classes": 3}, ((3, 299, 299),)),
        ("torchvision:rcnn", {"weights": None, "num_classes": 3}, None),
        ("timm:resnet18", {"pretrained": False, "num_classes": 3}, ((3, 288, 288),)),
    ],
)
def test_built_without_weights(arch: str, kwargs: dict[str, object], shapes: object) -> None:
    built = build(arch, {"num_classes": 3})
    assert isinstance(built.module, Stand)
    assert built.module.kwargs == kwargs
    assert built.input_shapes == shapes


@pytest.mark.usefixtures("stand_ins")
@pytest.mark.parametrize("package", ["torchvision", "timm"])
def test_failures_are_named(package: str) -> None:
    with pytest.raises(UsageError, match=f"{package}:resnet81: unknown name; did you mean resnet18"):
        build(f"{package}:resnet81", {})
    with pytest.raises(ModelError, match=f"{package}:resnet18: building it raised RuntimeError: no"):
        build(f"{package}:resnet18", {"fail": True})


@pytest.mark.parametrize(("package", "module"), [("torchvision", "torchvision.models"), ("timm", "timm")])
def test_the_extra_is_named_when_missing(package: str, module: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(ModelError, match=rf"{package} cannot be imported .*pip install {package}"):
        build(f"{package}:resnet18", {})


def test_bundled_names_and_layouts_are_those_of_the_real_torchvision() -> None:
    if importlib.util.find_spec("torchvision") is None:
        pytest.skip("torchvision is not installed")
    # First, because it also makes a CUDA build of torchvision importable beside a CPU torch.
    assert build("torchvision:resnet18", {}).input_shapes == ((3, 224, 224),)
    models = importlib.import_module("torchvision.models")
    for name in ("alexnet", "vgg16"):
        theirs = {key: value.shape for key, value in models.get_model(name, weights=None).state_dict().items()}
        ours = {key: value.shape for key, value in build(name, {}).module.state_dict().items()}
        assert ours == theirs


def test_detection_operators_are_declared_for_a_build_that_lacks_them(monkeypatch: pytest.MonkeyPatch) -> None:
    """A CUDA build beside a CPU torch fails once, in its own words; any other failure is reported."""
    calls: list[str] = []

    def half_broken(name: str) -> ModuleType:
        calls.append(name)
        if len(calls) == 1:
            raise RuntimeError("operator torchvision::nms does not exist")
        return ModuleType(name)

    declared: list[bool] = []
    monkeypatch.setattr(external, "_declare_detection_operators", lambda: declared.append(True))
    monkeypatch.setattr(external.importlib, "import_module", half_broken)
    assert external.imported_beside_any_torch("absent.models").__name__ == "absent.models"
    assert declared == [True]
    monkeypatch.setattr(external.importlib, "import_module", lambda name: 1 / 0)
    with pytest.raises(ZeroDivisionError, match="division by zero"):
        external.imported_beside_any_torch("absent.models")


@pytest.mark.parametrize("name", ["fcn_resnet50", "ssdlite320_mobilenet_v3_large"])
def test_no_backbone_is_fetched(name: str) -> None:
    """Their builders have a default of `weights_backbone`; in a sealed block a download would be refused."""
    if importlib.util.find_spec("torchvision") is None:
        pytest.skip("torchvision is not installed")
    module, shapes = external.build_torchvision(name, {"num_classes": 3})
    assert isinstance(module, nn.Module) and shapes in (None, ((3, 320, 320),))  # it says so where it takes one size
