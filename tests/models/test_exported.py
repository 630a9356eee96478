"""Detectors of torchvision: the part with the weights is the graph, boxes and their suppression stay outside."""

from __future__ import annotations

import importlib.util
from typing import Any

import pytest
import torch
from torch import nn

import compressor
from compressor.models import build, exported_form, left_outside, part_with_weights
from compressor.models.external import imported_beside_any_torch
from compressor.program import Program, parse_input

SIDE = 64


@pytest.fixture(scope="module")
def detection() -> Any:
    if importlib.util.find_spec("torchvision") is None:
        pytest.skip("torchvision is not installed")
    imported_beside_any_torch("torchvision")
    return imported_beside_any_torch("torchvision.models.detection")


def backbone() -> nn.Module:
    layers: Any = nn.Sequential(nn.Conv2d(3, 12, 3, 2, 1), nn.BatchNorm2d(12), nn.ReLU(), nn.Conv2d(12, 16, 3, 2, 1))
    layers.out_channels = 16
    return layers


def small(detection: Any, kind: str) -> nn.Module:
    """A detector that computes in no time."""
    anchors = detection.anchor_utils.AnchorGenerator(sizes=((16, 32),), aspect_ratios=((1.0,),))
    sides = {"min_size": SIDE, "max_size": SIDE}
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(0)
        if kind == "two stages":
            return detection.FasterRCNN(backbone(), num_classes=3, rpn_anchor_generator=anchors, **sides)
        return detection.RetinaNet(backbone(), num_classes=3, anchor_generator=anchors, **sides)


def captured(module: nn.Module) -> Program:
    with exported_form(module):
        return compressor.capture(module, [parse_input(f"3x{SIDE}x{SIDE}")])


@pytest.mark.parametrize(
    ("kind", "names"),
    [
        ("one stage", {"cls_logits", "bbox_regression"}),
        ("two stages", {"features_0", "objectness_0", "deltas_0"}),
    ],
)
def test_the_part_with_the_weights_is_captured_and_compact_as_masked(
    detection: Any, kind: str, names: set[str]
) -> None:
    module = small(detection, kind)
    assert "NMS stay outside" in left_outside(module)[0]
    program = captured(module)
    x = torch.rand(2, 3, SIDE, SIDE)
    found = program.module(x)
    assert set(found) == names and program.has_dynamic_batch
    features = module.backbone(x)  # type: ignore[operator]
    if kind == "one stage":
        theirs = module.head([features])  # type: ignore[operator]
        torch.testing.assert_close(found["cls_logits"], theirs["cls_logits"])
    else:
        torch.testing.assert_close(found["features_0"], features)
    pruned, _ = compressor.prune(program, compressor.PruneSettings(ratio=1.3, of="macs", round_to=1))
    smaller, proof = compressor.compact(pruned)
    assert proof.agreement is not None and smaller.n_parameters < program.n_parameters
    assert smaller.module(x).keys() == found.keys()


def test_its_own_training_prunes_it(detection: Any) -> None:
    """Losses, anchors and matching are torchvision's; the graph only says what goes together."""
    module = small(detection, "one stage")
    pruner = compressor.Pruner(module, f"3x{SIDE}x{SIDE}", ratio=1.3, of="macs", method="admm", steps=2, round_to=1)
    optimizer = torch.optim.SGD(module.parameters(), lr=1e-3, momentum=0.9)
    pruner.attach(optimizer)
    targets = [{"boxes": torch.tensor([[4.0, 4.0, 30.0, 30.0]]), "labels": torch.tensor([1])}]
    for _ in range(2):
        optimizer.zero_grad()
        losses = module([torch.rand(3, SIDE, SIDE)], targets)
        sum(losses.values()).backward()
        optimizer.step()
    assert pruner.finish().got >= 1.3
    _, proof = compressor.compact(pruner.program())
    assert proof.agreement is not None and "forward" not in vars(module)
    with torch.no_grad():
        module.head.classification_head.cls_logits.weight.add_(1.0)  # type: ignore[union-attr, operator]
    assert pruner.program().module(torch.rand(1, 3, SIDE, SIDE))["cls_logits"].shape[-1] == 3


def test_by_name_without_a_download_and_its_module_as_it_was(detection: Any) -> None:
    modules: list[nn.Module] = []
    program = compressor.load(
        "init", arch="torchvision:fasterrcnn_mobilenet_v3_large_320_fpn", inputs=[parse_input("3x64x64")],
        on_module=modules.append,
    )  # fmt: skip
    assert any("captured up to its features" in note for note in program.record.notes)
    assert any("roi_heads.box_head" in note for note in program.record.notes)
    assert "forward" not in vars(modules[0]) and part_with_weights(modules[0]) is not None
    assert build("torchvision:ssdlite320_mobilenet_v3_large", {}).input_shapes == ((3, 320, 320),)


def test_no_other_network_is_touched() -> None:
    module = nn.Sequential(nn.Linear(2, 2))
    assert part_with_weights(module) is None and left_outside(module) == ()
    with exported_form(module):
        assert "forward" not in vars(module)


def test_what_was_set_on_a_module_is_put_back() -> None:
    module = nn.Sequential(nn.Linear(2, 2))
    own = module.forward
    module.forward = own  # type: ignore[method-assign]
    with exported_form(module):
        module.forward = lambda x: x  # type: ignore[method-assign, assignment]
    assert module.forward is own


def test_its_part_with_weights_trains_as_its_graph_does(detection: Any) -> None:
    """In training mode the whole detector asks for boxes; up to its heads it does what the graph does, which trains."""
    from compressor.data import open_task
    from compressor.progress import Silent
    from compressor.pruning.training_form import find_form

    notes: list[str] = []

    class Told(Silent):
        def note(self, text: str) -> None:
            notes.append(text)

    for kind in ("one stage", "two stages"):
        module = small(detection, kind)
        assert find_form(captured(module), module, None, open_task(None), Told()) is None
    assert notes == []
