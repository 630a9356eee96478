"""Pruning inside Ultralytics' trainer, and the files that its YOLO opens; skipped where it is not installed."""

from __future__ import annotations

import copy
import importlib.util
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

import compressor
from compressor.data import Batch, Classification
from compressor.data.arrays import Arrays, ArraySource
from compressor.errors import UsageError

pytestmark = [
    pytest.mark.skipif(importlib.util.find_spec("ultralytics") is None, reason="ultralytics is not installed"),
    pytest.mark.filterwarnings("default"),
]
EXAMPLE = Path(__file__).parents[2] / "examples" / "ultralytics"
SIDE = 64


@pytest.fixture(scope="module")
def example(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """The example's module; the settings of the package in a folder of the test's own."""
    patch = pytest.MonkeyPatch()
    patch.setenv("YOLO_CONFIG_DIR", str(tmp_path_factory.mktemp("settings")))
    patch.setenv("YOLO_OFFLINE", "true")
    patch.setenv("YOLO_AUTOINSTALL", "false")
    patch.syspath_prepend(str(EXAMPLE))
    import prune_yolo  # type: ignore[import-not-found]

    yield prune_yolo
    sys.modules.pop("prune_yolo")
    sys.modules.pop("shapes")
    patch.undo()


@pytest.fixture(scope="module")
def data(example: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return Path(example.write_shapes(tmp_path_factory.mktemp("shapes"), n_images=10, side=SIDE))


@pytest.fixture
def yolo(example: Any) -> Any:
    """A tiny network that nobody trained: an eighth of yolov8n's width."""
    import ultralytics.nn.tasks as tasks
    from ultralytics.utils import YAML

    YOLO = example._library()
    folder = Path(tasks.__file__).parents[1] / "cfg" / "models" / "v8" / "yolov8.yaml"
    content = {**YAML.load(folder), "scales": {"n": [0.33, 0.125, 1024]}, "nc": 3}

    def make(folder: Path) -> Any:
        YAML.save(folder / "yolov8n.yaml", content)
        return YOLO(str(folder / "yolov8n.yaml"))

    return make


def train(model: Any, data: Path, folder: Path, **more: Any) -> Any:
    options: dict[str, Any] = {
        "data": str(data), "imgsz": SIDE, "batch": 4, "nbs": 4, "epochs": 2, "workers": 0, "plots": False,
        "project": str(folder), "name": "run", "exist_ok": True, "verbose": False, "device": "cpu", "mosaic": 0.0,
        "optimizer": "SGD", "amp": "fp32", "warmup_epochs": 0,
    }  # fmt: skip
    model.train(**{**options, **more})
    return model.trainer


def cut(module: Any, masks: dict[str, torch.Tensor]) -> float:
    """The largest weight that masks cut."""
    own = dict(module.named_parameters())
    return max(float(own[name].detach()[~mask].abs().max()) for name, mask in masks.items() if not mask.all())


@pytest.mark.parametrize(
    ("method", "more"),
    [
        ("admm", {"nbs": 8, "warmup_epochs": 1}),
        ("magnitude", {"optimizer": "MuSGD"}),
    ],
    ids=["admm, accumulation, warm-up", "magnitude, an optimizer of its own"],
)
def test_its_trainer_prunes_and_its_average_is_masked(
    yolo: Any, data: Path, tmp_path: Path, method: str, more: dict[str, Any]
) -> None:
    from compressor.integrations.ultralytics import FILE, PruneCallback, n_optimizer_steps

    model = yolo(tmp_path)
    callback = PruneCallback(ratio="1.5x", of="macs", method=method, round_to=1).attach(model)
    steps: list[int] = []
    model.add_callback("on_train_start", lambda trainer: steps.append(n_optimizer_steps(trainer)))
    trainer = train(model, data, tmp_path, **more)
    pruner = callback.pruner
    assert pruner.is_finished and pruner.n_done == steps[0], "the steps were counted beforehand"
    assert pruner.masks and pruner.report().got >= 1.5
    assert cut(trainer.model, pruner.masks) == 0.0
    assert cut(trainer.ema.ema, pruner.masks) == 0.0
    held = torch.load(tmp_path / "run" / "weights" / FILE, weights_only=True)
    assert held["step"] == pruner.n_done
    best = compressor.load(tmp_path / "run" / "weights" / "best.pt", trust_pickle=True)
    assert cut(best.module, pruner.masks) == 0.0, "what is saved as best is of the epochs after the cut"

    program = callback.program()
    x = torch.rand(1, 3, SIDE, SIDE)
    decoded = trainer.ema.ema.eval()(x)[0]
    torch.testing.assert_close(program.module(x), decoded, rtol=1e-4, atol=1e-3)
    smaller, proof = compressor.compact(program)
    assert proof.agreement is not None and smaller.n_parameters < program.n_parameters


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs an NVIDIA GPU: on a CPU its trainer has no fp16")
def test_its_mixed_precision_on_a_gpu(yolo: Any, data: Path, tmp_path: Path) -> None:
    from compressor.integrations.ultralytics import PruneCallback

    model = yolo(tmp_path)
    callback = PruneCallback(ratio="1.5x", of="macs", method="admm", round_to=1).attach(model)
    trainer = train(model, data, tmp_path, device=0, amp=True)
    assert callback.pruner.is_finished and trainer.scaler.is_enabled()
    assert cut(trainer.model, callback.pruner.masks) == cut(trainer.ema.ema, callback.pruner.masks) == 0.0
    assert compressor.compact(callback.program())[1].agreement is not None


def test_a_broken_training_goes_on(yolo: Any, data: Path, tmp_path: Path, example: Any) -> None:
    from compressor.integrations.ultralytics import PruneCallback

    class BreakError(Exception):
        pass

    def stop(trainer: Any) -> None:
        if trainer.epoch == 1:
            raise BreakError

    asked: dict[str, Any] = {"ratio": "1.5x", "of": "macs", "method": "admm", "round_to": 1, "share": 0.75}
    model = yolo(tmp_path)
    first = PruneCallback(**asked).attach(model)
    model.add_callback("on_train_epoch_start", stop)
    with pytest.raises(BreakError):
        train(model, data, tmp_path, epochs=4)
    n_done = first.pruner.n_done
    again = example._library()(str(tmp_path / "run" / "weights" / "last.pt"))
    second = PruneCallback(**asked).attach(again)
    begun: list[int] = []
    again.add_callback("on_train_start", lambda trainer: begun.append(second.pruner.n_done))
    again.train(resume=True)
    assert begun == [n_done] and n_done > 0
    assert second.pruner.is_finished and second.pruner.n_done == second.pruner.n_steps * 4 // 3


def test_the_file_is_like_that_of_yolo_export(yolo: Any, data: Path, tmp_path: Path, example: Any) -> None:
    import onnx

    from compressor.integrations.ultralytics import PruneCallback

    model = yolo(tmp_path)
    callback = PruneCallback(ratio="1.5x", of="macs", method="magnitude", round_to=1).attach(model)
    train(model, data, tmp_path, epochs=1)
    small, _ = compressor.compact(callback.program())
    callback.export(small, tmp_path / "small.onnx")
    theirs = onnx.load(model.export(format="onnx", imgsz=SIDE, simplify=False, opset=18))
    ours = onnx.load(tmp_path / "small.onnx")
    for mine, its in ((ours.graph.input, theirs.graph.input), (ours.graph.output, theirs.graph.output)):
        assert [value.name for value in mine] == [value.name for value in its]
        for a, b in zip(mine, its, strict=True):
            assert a.type.tensor_type == b.type.tensor_type
    told, of_theirs = ({entry.key: entry.value for entry in m.metadata_props} for m in (ours, theirs))
    for key in ("stride", "task", "batch", "imgsz", "names", "channels", "end2end", "head"):
        assert told[key] == of_theirs[key], key
    options = {"data": str(data), "imgsz": SIDE, "batch": 1, "workers": 0, "plots": False, "device": "cpu"}
    found = example._library()(str(tmp_path / "small.onnx")).val(**options, project=str(tmp_path))
    assert 0.0 <= found.results_dict["metrics/mAP50(B)"] <= 1.0
    assert found.names == {0: "square", 1: "disc", 2: "triangle"}


def test_its_loss_trains_in_the_tools_own_loop(yolo: Any, tmp_path: Path) -> None:
    """A task that reads the raw maps of the training forward: its heads train as their author trains them."""
    from ultralytics.cfg import get_cfg
    from ultralytics.utils.loss import v8DetectionLoss

    model = yolo(tmp_path).model
    model.args = get_cfg()
    program = compressor.load(copy.deepcopy(model), [f"3x{SIDE}x{SIDE}"])

    class Boxes(Classification):
        def loss(self, outputs: Any, batch: Batch, *, smoothing: float = 0.0) -> torch.Tensor:
            return outputs.square().mean()  # of decoded boxes, which are only measured

        def metrics(self, outputs: Any, batch: Batch) -> dict[str, tuple[float, int]]:
            return {"accuracy": (0.0, len(batch.target))}

        def training_loss(self, outputs: Any, batch: Batch, *, smoothing: float = 0.0) -> torch.Tensor:
            n = len(batch.target)
            given = {"batch_idx": torch.arange(n), "cls": batch.target[:, None], "bboxes": torch.full((n, 4), 0.5)}
            losses.append(v8DetectionLoss(model)(outputs, given)[0].sum())
            return losses[-1]

    losses: list[torch.Tensor] = []
    images, labels = torch.rand(8, 3, SIDE, SIDE), torch.arange(8) % 3
    data = ArraySource("boxes", Arrays(images, labels), Arrays(images[:2], labels[:2]), 3)
    recipe = compressor.Recipe(epochs=2, batch_size=4, optimizer="sgd", lr=0.001)
    settings = compressor.PruneSettings(ratio=1.5, of="macs", method="magnitude", round_to=1, retrain_recipe=recipe)
    pruned, _ = compressor.prune(program, settings, data=data, task=Boxes(), model=model)
    assert len(losses) == 4 and losses[-1] < losses[0]
    smaller, proof = compressor.compact(pruned)
    assert proof.agreement is not None
    smaller.module.train()(images[:2]).square().mean().backward()
    trained = {name: p.grad for name, p in smaller.module.named_parameters() if p.requires_grad}
    assert all(g is not None and bool(torch.isfinite(g).all()) and bool(g.any()) for g in trained.values())


def test_what_cannot_be_is_refused() -> None:
    from compressor.integrations.ultralytics import PruneCallback

    callback = PruneCallback(ratio="2x")
    with pytest.raises(UsageError, match="has not begun: attach"):
        callback.program()
    with pytest.raises(UsageError, match="train on one device"):
        callback.on_pretrain_routine_end(SimpleNamespace(world_size=2))
    with pytest.raises(UsageError, match="time= leaves the number of steps open"):
        callback.on_pretrain_routine_end(SimpleNamespace(world_size=1, args=SimpleNamespace(time=1.0)))
