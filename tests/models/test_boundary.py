"""Networks that end where the user says: outputs, names, state, refusals."""

from __future__ import annotations

import importlib
import io
import itertools
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import compressor
from compressor.errors import ModelError, UsageError
from compressor.models import ending_at
from tests.models.test_exported import SIDE, detection, small

_ = detection  # a fixture


class Head(nn.Module):
    """Two branches, on every level."""

    def __init__(self) -> None:
        super().__init__()
        self.cls, self.box = nn.Conv2d(8, 4, 1), nn.Conv2d(8, 6, 1)

    def forward(self, levels: list[Tensor]) -> tuple[list[Tensor], list[Tensor]]:
        return [self.cls(x) for x in levels], [self.box(x) for x in levels]


class Detector(nn.Module):
    """A network whose end decides by values, takes numbers out of tensors, and swallows every error."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(3, 8, 3, 2, 1), nn.Conv2d(8, 8, 3, 2, 1)
        self.head, self.late, self.never = Head(), nn.Linear(4, 4), nn.Linear(4, 4)

    def forward(self, x: Tensor) -> list[Tensor]:
        try:
            levels = list(itertools.accumulate([self.first, self.second], lambda y, layer: layer(y).relu(), initial=x))
            scores, _ = self.head(levels[1:])
        except Exception as error:
            raise RuntimeError("swallowed") from error
        kept = [s.flatten(2).amax(2) for s in scores]
        return [self.late(s[s.amax(1) > 0.1]) for s in kept if float(s.max()) > 0]


def detector() -> Detector:
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(3)
        return Detector().eval()


def levels_of(module: Detector, x: Tensor) -> list[Tensor]:
    first = module.first(x).relu()
    return [first, module.second(first).relu()]


@pytest.mark.parametrize(
    ("until", "names"),
    [
        (["first"], None),
        (["head"], None),
        (["head.cls"], ["head_cls_0", "head_cls_1"]),
        (["head.box", "head.cls"], ["head_box_0", "head_box_1", "head_cls_0", "head_cls_1"]),
        (["first", "second"], ["first", "second"]),
    ],
)
def test_the_output_is_what_the_layers_return(until: list[str], names: list[str] | None) -> None:
    module = detector()
    program = compressor.load(module, "3x16x16", until=until)
    x = torch.randn(5, 3, 16, 16)
    found: Any = program.module(x)
    levels = levels_of(module, x)
    scores, boxes = module.head(levels)
    theirs: dict[str, Any] = {
        "first": module.first(x), "second": module.second(levels[0]), "head": (*scores, *boxes),
        **{f"head_cls_{i}": s for i, s in enumerate(scores)}, **{f"head_box_{i}": b for i, b in enumerate(boxes)},
    }  # fmt: skip
    if names is None:
        flat = [found] if isinstance(found, Tensor) else [y for part in found for y in part]
        expected = theirs[until[0]]
        torch.testing.assert_close(flat, [expected] if isinstance(expected, Tensor) else list(expected))
    else:
        assert list(found) == names
        for name in names:
            torch.testing.assert_close(found[name], theirs[name])
    assert program.has_dynamic_batch and program.record.until == tuple(until)
    assert any("as --until says" in note for note in program.record.notes)
    assert "forward" not in vars(module) and not module.head.cls._forward_hooks


def test_it_is_pruned_compacted_and_remembered(tmp_path: Path) -> None:
    program = compressor.load(detector(), "3x16x16", until=["head"])
    pruned, _ = compressor.prune(program, compressor.PruneSettings(ratio=1.5, round_to=1, retrain_recipe=None))
    compact, proof = compressor.compact(pruned)
    assert proof.agreement is not None and compact.n_parameters < program.n_parameters
    file = io.BytesIO()
    compressor.save(compact, file)
    again = compressor.load(io.BytesIO(file.getvalue()))
    assert again.record.until == ("head",)
    assert compressor.load(io.BytesIO(file.getvalue()), until=["head"]).record.until == ("head",)
    with pytest.raises(UsageError, match="whose graph was made already"):
        compressor.load(io.BytesIO(file.getvalue()), until=["first"])
    report = compressor.export(compact, tmp_path / "small.onnx")
    assert report.max_rel < 1e-5
    with pytest.raises(UsageError, match="extract_model"):
        compressor.load(tmp_path / "small.onnx", until=["head"])


def test_a_failed_capture_names_the_last_layer_and_that_one_does() -> None:
    with pytest.raises(ModelError, match=r"--until head$") as refused:
        compressor.load(detector(), "3x16x16")
    assert len(str(refused.value).splitlines()) <= 3
    assert compressor.load(detector(), "3x16x16", until=["head"]).record.until == ("head",)


@pytest.mark.parametrize(
    ("until", "error", "told"),
    [
        ("haed", UsageError, "did you mean head"),
        ("never", ModelError, "the network does not call that layer for such inputs"),
        ("late", ModelError, "decides by values"),
    ],
)
def test_what_cannot_be_an_end_is_refused(until: str, error: type[Exception], told: str) -> None:
    module = detector()
    with pytest.raises(error, match=told) as refused:
        compressor.load(module, "3x16x16", until=[until])
    assert "bug" not in str(refused.value) and "forward" not in vars(module)


def test_a_network_that_fails_behind_its_layers_is_no_obstacle_and_one_before_them_is_told() -> None:
    class Fails(Detector):
        def forward(self, x: Tensor) -> list[Tensor]:
            self.head([self.first(x)])
            raise ValueError("no such file")

    program = compressor.load(Fails(), "3x16x16", until=["head.box"])
    assert list(program.module(torch.rand(2, 3, 16, 16)).shape) == [2, 6, 8, 8]
    with pytest.raises(ModelError, match="stops before, with ValueError: no such file"):
        compressor.load(Fails(), "3x16x16", until=["late"])


def test_a_call_that_never_gets_there_is_an_error_not_another_output() -> None:
    module = detector()
    with ending_at(module, ["head.cls"], [torch.rand(1, 3, 16, 16)]):
        module.head.forward = lambda levels: ([torch.zeros(1, 4, 2, 2)], [])  # type: ignore[method-assign, assignment]
        with pytest.raises(ModelError, match="called less often here"):
            module(torch.rand(1, 3, 16, 16))


def test_a_detector_of_torchvision_may_end_before_its_heads(detection: Any) -> None:
    module = small(detection, "one stage")
    program = compressor.load(module, f"3x{SIDE}x{SIDE}", until=["backbone"])
    x = torch.rand(2, 3, SIDE, SIDE)
    torch.testing.assert_close(program.module(x), module.backbone(x))  # type: ignore[operator]
    assert "normalised images" in program.record.notes[0] and "its heads" not in program.record.notes[0]


def test_the_second_stage_is_a_network_of_its_own_and_goes_back(detection: Any) -> None:
    """The recipe in docs/models.md: with the compact box head the detector says of regions what it says with the masked
    one, and finds the same boxes where torchvision's compiled operators are there to pool and suppress."""
    module = small(detection, "two stages").eval()
    heads: Any = module.roi_heads
    program = compressor.load(nn.Sequential(heads.box_head, heads.box_predictor), "16x7x7")
    pruned, _ = compressor.prune(program, compressor.PruneSettings(ratio=2.0, method="magnitude", retrain_recipe=None))
    compact, proof = compressor.compact(pruned)
    assert proof.agreement is not None and compact.n_parameters * 1.9 < program.n_parameters
    regions, images = torch.rand(9, 16, 7, 7), [torch.rand(3, SIDE, SIDE)]
    is_whole = importlib.import_module("torchvision.extension")._has_ops()
    said, found = [], []
    for stage in (pruned, compact):
        heads.box_head, heads.box_predictor = nn.Identity(), stage.module.eval()
        with torch.no_grad():
            said.append(heads.box_predictor(heads.box_head(regions)))
            found += [module(images)[0]] if is_whole else []
    assert [tuple(part.shape) for part in said[0]] == [(9, 3), (9, 12)]
    torch.testing.assert_close(said[1], said[0], rtol=1e-4, atol=1e-4)
    if is_whole:
        torch.testing.assert_close(found[1], found[0], rtol=1e-4, atol=1e-4)
