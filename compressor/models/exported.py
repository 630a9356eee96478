"""The part of a library's network that can be a graph, where that is not the whole of it; it must never change weights.

Detectors end in code that decides by values: they keep boxes, resize images, suppress what overlaps. The part with the
weights comes before.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from typing import Any

from torch import Tensor, nn

from compressor.models.ultralytics import is_of_ultralytics, set_heads_to_export
from compressor.narrowing import is_dict

_DETECTORS = "torchvision.models.detection"
_CHANGED = ("forward", "export", "format")
"""Attributes that the form sets on heads, or that whoever calls them in it does."""
Part = Callable[[Tensor], dict[str, Tensor]]


@contextmanager
def exported_form(module: nn.Module) -> Generator[None]:
    """For the time of the block, a `forward` that is a graph: heads of Ultralytics return what `yolo export` writes,
    detectors of torchvision end at their heads. Whoever trains the module gets it as its author wrote it."""
    parts = list(module.modules()) if is_of_ultralytics(module) else []
    before = [(part, {name: vars(part)[name] for name in _CHANGED if name in vars(part)}) for part in parts]
    try:
        if parts:
            set_heads_to_export(module)
        with ending_at_heads(module):
            yield
    finally:
        for changed, values in before:
            for name in _CHANGED:
                vars(changed).pop(name, None)
            vars(changed).update(values)


@contextmanager
def ending_at_heads(module: nn.Module) -> Generator[None]:
    """For the time of the block, `forward` of a detector of torchvision is its part with weights; all others stay as
    they are."""
    part, own = part_with_weights(module), vars(module).get("forward")
    try:
        if part is not None:
            module.forward = part  # type: ignore[method-assign]
        yield
    finally:
        vars(module).pop("forward", None)
        if own is not None:
            module.forward = own


def left_outside(module: nn.Module, until: Sequence[str] = ()) -> tuple[str, ...]:
    """What of a network is in no graph, and how to go on without it; for the record. `until` are the layers that the
    user ends it at."""
    is_detector = part_with_weights(module) is not None
    if until:
        images = "; it takes batches of normalised images" if is_detector else ""
        return (f"captured up to {', '.join(until)}, as --until says: what follows stays outside{images}",)
    if not is_detector:
        return ()
    ends = "its heads" if _head(module) is not None else "its features and the proposal head"
    return (
        f"captured up to {ends}: resizing and normalising of images, anchors, decoding and NMS stay outside, so give it"
        " batches of normalised images",
    )


def part_with_weights(module: nn.Module) -> Part | None:
    """What a detector of torchvision computes up to its heads, from a batch of images; None for all others.

    Shapes:  (N, C, H, W) -> by name, in the order of the levels.
    """
    is_detector = any(kind.__module__.startswith(_DETECTORS) for kind in type(module).__mro__)
    backbone, head = getattr(module, "backbone", None), _head(module)
    proposals: Any = getattr(module, "rpn", None)
    if not is_detector or backbone is None or (head is None and proposals is None):
        return None

    def images_to_heads(x: Tensor) -> dict[str, Tensor]:
        features: Any = backbone(x)
        by_level = features if is_dict(features) else {"0": features}
        if head is not None:
            return dict(head(list(by_level.values())))
        objectness, deltas = proposals.head(list(by_level.values()))
        found = {f"features_{level}": feature for level, feature in by_level.items()}
        found |= {f"objectness_{i}": part for i, part in enumerate(objectness)}
        return found | {f"deltas_{i}": part for i, part in enumerate(deltas)}

    return images_to_heads


def _head(module: nn.Module) -> Any:
    """The heads of a detector with one stage."""
    return getattr(module, "head", None)
