"""Networks of Ultralytics: built from the YAML files that its package ships, and the form in which they are exported.

It must never hold an import of the package outside a function, nor let it download, install or print to the results.
"""

from __future__ import annotations

import contextlib
import difflib
import inspect
import os
import re
import sys
from collections.abc import Generator, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

from torch import nn

from compressor.errors import ModelError, UsageError
from compressor.models.external import imported_beside_any_torch, made
from compressor.narrowing import is_mapping, is_row

Shapes = tuple[tuple[int, ...], ...]

_SIDE, _SIDE_OF_CLASSIFIERS = 640, 224
"""Sides of images that Ultralytics trains with unless told otherwise."""
_MODELS = {
    "detect": "DetectionModel",
    "segment": "SegmentationModel",
    "pose": "PoseModel",
    "obb": "OBBModel",
    "classify": "ClassificationModel",
    "semantic": "SemanticSegmentationModel",
    "depth": "DepthModel",
}
"""Class of a task, in `ultralytics.nn.tasks`."""
_SCALED = re.compile(r"(?P<version>yoloe?-?v?\d+)(?P<scale>[nslmx])(?P<rest>-.+)?")
"""`yolo11n-seg` is `yolo11-seg.yaml` at scale n."""
_FIXED = re.compile(r"(^|\.)dfl\.")
"""What its trainers never train: the bins of a distribution over distances."""
_QUIET = {"YOLO_OFFLINE": "true", "YOLO_AUTOINSTALL": "false"}


def build_ultralytics(name: str, arch_args: Mapping[str, object]) -> tuple[nn.Module, Shapes | None]:
    """The network of a YAML file of the package, such as `yolo11n` or `yolov8n-seg`, with random weights, and the shape
    of its image.

    Raises:  ModelError if the package is missing or fails; UsageError for an unknown name or argument.
    """
    arch = f"ultralytics:{name}"
    tasks = import_ultralytics(f"--arch {arch}")
    folder = Path(str(tasks.__file__)).parents[1] / "cfg" / "models"
    file = _yaml_of(name.removesuffix(".yaml"), sorted(folder.rglob("*.yaml")), arch)
    content: dict[str, Any] = {**tasks.YAML.load(file), "scale": tasks.guess_model_scale(name), "yaml_file": f"{name}"}
    constructor = getattr(tasks, _class_of(tasks, content, arch))
    known = [key for key in inspect.signature(constructor).parameters if key not in ("cfg", "verbose")]
    for key in arch_args:
        if key not in known:
            raise UsageError(f"--arch {arch}: has no --arch-arg {key}; its names: {', '.join(known)}")
    with quiet():
        module = made(arch, lambda: constructor(content, verbose=False, **arch_args))
    return module, (_image(module),)


def import_ultralytics(what: str) -> ModuleType:
    """`ultralytics.nn.tasks`; `what` needs it.

    Raises:  ModelError if it cannot be imported.
    """
    try:
        with quiet():
            with contextlib.suppress(ImportError):
                imported_beside_any_torch("torchvision")
            return imported_beside_any_torch("ultralytics.nn.tasks")
    except (ImportError, RuntimeError) as cause:
        raise ModelError(
            f"{what}: ultralytics cannot be imported ({cause})\n"
            "pip install ultralytics (where torch must stay as it is: --no-deps, and opencv-python-headless beside it)"
        ) from cause


@contextlib.contextmanager
def quiet() -> Generator[None]:
    """Ultralytics without its network, its installer, and its words among the results; its settings are put back."""
    before = {name: os.environ.get(name) for name in _QUIET}
    os.environ.update(_QUIET)
    try:
        with contextlib.redirect_stdout(sys.stderr):
            yield
    finally:
        for name, value in before.items():
            os.environ.pop(name) if value is None else os.environ.update({name: value})


def is_of_ultralytics(module: nn.Module) -> bool:
    """Whether the class of a module is one of the package's."""
    return type(module).__module__.partition(".")[0] == "ultralytics"


def set_heads_to_export(module: nn.Module) -> None:
    """Lets heads return what `yolo export` writes: the decoded results, and not the raw maps beside them, which losses
    read in training."""
    for part in module.modules():
        if hasattr(part, "export"):
            part.export = True  # type: ignore[assignment]
            if hasattr(part, "format"):
                part.format = "onnx"  # type: ignore[assignment]


def fixed_for_good(module: nn.Module) -> tuple[str, ...]:
    """Parameters that no training of the module's own library changes."""
    if not is_of_ultralytics(module):
        return ()
    return tuple(name for name, _ in module.named_parameters() if _FIXED.search(name))


def image_of(module: nn.Module) -> tuple[int, ...] | None:
    """The image that a network of Ultralytics says it was trained with. Shapes: -> (C, H, W)"""
    return _image(module) if is_of_ultralytics(module) else None


def _image(module: nn.Module) -> tuple[int, ...]:
    told: Any = getattr(module, "yaml", None) or {}
    trained: Any = getattr(module, "args", None) or {}
    of_training = trained.get("imgsz") if is_mapping(trained) else getattr(trained, "imgsz", None)
    is_classifier = type(module).__name__ == _MODELS["classify"]
    side = of_training or (_SIDE_OF_CLASSIFIERS if is_classifier else _SIDE)
    height, width = side if is_row(side) else (side, side)
    return (int(told.get("channels", told.get("ch", 3))), int(height), int(width))


def _yaml_of(name: str, files: list[Path], arch: str) -> Path:
    by_stem = {file.stem: file for file in files}
    scaled = _SCALED.fullmatch(name)
    unscaled = name if scaled is None else scaled["version"] + (scaled["rest"] or "")
    found = by_stem.get(name) or by_stem.get(unscaled)
    if found is not None:
        return found
    near = difflib.get_close_matches(unscaled, by_stem, n=3, cutoff=0.5)
    hint = f"; did you mean {' or '.join(near)}?" if near else ""
    raise UsageError(f"--arch {arch}: the package has no such YAML{hint} (a letter for the size behind the number)")


def _class_of(tasks: ModuleType, content: Mapping[str, Any], arch: str) -> str:
    """By the last module of the YAML, as the package's own trainers choose."""
    head = str(content["head"][-1][2])
    if head.startswith("RTDETR"):
        return "RTDETRDetectionModel"
    if head.startswith("World"):
        return "WorldModel"
    if head.startswith("YOLOE"):
        return "YOLOESegModel" if "Segment" in head else "YOLOEModel"
    task = tasks.guess_model_task(dict(content))
    if task not in _MODELS:
        raise ModelError(f"{arch}: a network that ends in {head} is not known here")
    return _MODELS[task]
