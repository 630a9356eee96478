"""Networks of Ultralytics: by name from its YAML files, and out of its pickles; skipped where it is not installed."""

from __future__ import annotations

import importlib.util
import os
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

import compressor
from compressor.errors import ModelError, UnsafeFileError, UsageError
from compressor.models import build
from compressor.program import parse_input

installed = pytest.mark.skipif(importlib.util.find_spec("ultralytics") is None, reason="ultralytics is not installed")


@pytest.fixture(autouse=True)
def settings_of_its_own(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """The package writes a settings file as soon as it is imported."""
    monkeypatch.setenv("YOLO_CONFIG_DIR", str(tmp_path_factory.getbasetemp()))


def test_what_to_install_is_said(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in [name for name in sys.modules if name.partition(".")[0] == "ultralytics"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "ultralytics", None)
    with pytest.raises(ModelError, match=r"ultralytics:yolov8n: ultralytics cannot be imported.*\npip install"):
        build("ultralytics:yolov8n", {})
    assert "YOLO_OFFLINE" not in os.environ


@installed
@pytest.mark.filterwarnings("default")
@pytest.mark.parametrize(
    ("name", "n_outputs", "size"),
    [
        ("yolov8n", 1, (2, 84, 84)),
        ("yolo11n-seg", 2, (2, 116, 84)),
        ("yolov8n-pose", 1, (2, 56, 84)),
        ("yolov8n-obb", 1, (2, 85, 84)),
        ("yolo26n", 1, (2, 84, 84)),
        ("yolov8n-cls", 1, (2, 1000)),
    ],
)
def test_a_network_enters_and_is_compact_as_masked(name: str, n_outputs: int, size: tuple[int, ...]) -> None:
    dense = compressor.load("init", arch=f"ultralytics:{name}", inputs=[parse_input("3x64x64")])
    outputs = torch.utils._pytree.tree_leaves(dense.module(torch.rand(2, 3, 64, 64)))
    assert len(outputs) == n_outputs and tuple(outputs[0].shape) == size
    assert dense.has_dynamic_batch
    pruned, _ = compressor.prune(dense, compressor.PruneSettings(ratio=1.5, of="macs"))
    smaller, proof = compressor.compact(pruned)
    assert proof.agreement is not None and dense.n_parameters / smaller.n_parameters > 1.2


@installed
@pytest.mark.filterwarnings("default")
def test_names_and_arguments(capsys: pytest.CaptureFixture[str]) -> None:
    built = build("ultralytics:yolov8s-p2", {"nc": 3, "ch": 1})
    assert built.input_shapes == ((1, 640, 640),)
    assert build("ultralytics:yolov8n-cls", {}).input_shapes == ((3, 224, 224),)
    assert capsys.readouterr().out == "", "its words are no results"
    with pytest.raises(UsageError, match="no such YAML; did you mean yolov"):
        build("ultralytics:yolov88n", {})
    with pytest.raises(UsageError, match="no --arch-arg width; its names: ch, nc"):
        build("ultralytics:yolov8n", {"width": 2})


@pytest.fixture
def stripped(tmp_path: Path) -> Path:
    """A file as its trainer leaves it: the averaged module, half precision, nothing to train."""
    module: Any = build("ultralytics:yolov8n", {"nc": 4}, seed=0).module
    module.args = {"imgsz": 96}
    for parameter in module.parameters():
        parameter.requires_grad = False
    torch.save({"epoch": -1, "model": module.half(), "ema": None, "train_args": {}}, tmp_path / "best.pt")
    return tmp_path / "best.pt"


@installed
@pytest.mark.filterwarnings("default")
def test_a_pickle_opens_when_it_is_trusted(stripped: Path, tmp_path: Path) -> None:
    with pytest.raises(UnsafeFileError, match=r"YOLO\(path\).model.state_dict\(\).*--arch ultralytics:NAME") as told:
        compressor.load(stripped)
    assert "DetectionModel" in str(told.value) and "--trust-pickle" in str(told.value)
    program = compressor.load(stripped, trust_pickle=True)
    assert program.inputs[0].shape == (None, 3, 96, 96)
    assert any("float16 were loaded as float32" in note for note in program.record.notes)
    assert [name for name, p in program.parameters.items() if not p.requires_grad] == ["model.22.dfl.conv.weight"]
    compressor.save(program, tmp_path / "kept.pt")
    assert compressor.load(tmp_path / "kept.pt").n_parameters == program.n_parameters


@installed
@pytest.mark.filterwarnings("default")
def test_of_two_modules_the_first_counts_and_the_other_can_be_asked_for(tmp_path: Path) -> None:
    first, second = (build("ultralytics:yolov8n-cls", {"nc": n}, seed=0).module for n in (3, 5))
    torch.save({"model": first, "ema": second}, tmp_path / "last.pt")
    image = [parse_input("3x64x64")]
    program = compressor.load(tmp_path / "last.pt", trust_pickle=True, inputs=image)
    assert any("weights taken from model; the file also holds ema" in note for note in program.record.notes)
    other = compressor.load(tmp_path / "last.pt", trust_pickle=True, inputs=image, weights="ema")
    assert other.module(torch.rand(1, 3, 64, 64)).shape == (1, 5)


@installed
@pytest.mark.filterwarnings("default")
def test_a_state_dict_fits_its_architecture(tmp_path: Path) -> None:
    module = build("ultralytics:yolov8n-cls", {"nc": 3}, seed=1).module
    torch.save(module.state_dict(), tmp_path / "w.pt")
    live: list[Any] = []
    program = compressor.load(
        tmp_path / "w.pt", arch="ultralytics:yolov8n-cls", arch_args={"nc": 3}, inputs=[parse_input("3x64x64")],
        on_module=live.append,
    )  # fmt: skip
    x = torch.rand(1, 3, 64, 64)
    scores, raw = module.eval()(x)
    torch.testing.assert_close(program.module(x), scores)
    assert len(live[0].eval()(x)) == 2 and raw.shape == scores.shape, "its module is as its author wrote it"
