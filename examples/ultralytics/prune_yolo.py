"""A YOLO pruned inside Ultralytics' own trainer, compacted, exported, and evaluated by Ultralytics' own validator.

    python examples/ultralytics/prune_yolo.py --out runs/shapes                  # yolov8n, 2x MACs by ADMM
    python examples/ultralytics/prune_yolo.py --model yolo11n.yaml --method magnitude --ratio 1.5x

Needs `pip install ultralytics`. Everything else is made here: the data (shapes on noise) and the dense network.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import Any, NamedTuple

from shapes import write_shapes

import compressor
from compressor.cost import count_macs
from compressor.integrations.ultralytics import PruneCallback, metadata_of, named_as_exported
from compressor.models.external import imported_beside_any_torch


class Stage(NamedTuple):
    """What the network was worth after a stage. Units: seconds."""

    name: str
    map50: float
    seconds: float


def main(arguments: list[str] | None = None) -> dict[str, float]:
    """Runs the whole way and prints it; the mAP50 of each stage and the speed-up by name."""
    asked = _parser().parse_args(arguments)
    YOLO = _library()
    asked.out.mkdir(parents=True, exist_ok=True)
    data = write_shapes(asked.out / "data", n_images=asked.images, side=asked.imgsz)
    common = {
        "data": str(data), "imgsz": asked.imgsz, "batch": asked.batch, "nbs": asked.batch, "workers": 0, "plots": False,
        "project": str(asked.out.absolute()), "exist_ok": True, "verbose": False, "device": "cpu", "seed": 0,
        "optimizer": "AdamW", "lr0": 1e-3, "warmup_epochs": 1, "close_mosaic": 0, "mosaic": 0.0, "amp": asked.amp,
    }  # fmt: skip
    stages: list[Stage] = []

    model = YOLO(asked.model)
    began = time.perf_counter()
    model.train(epochs=asked.epochs, name="dense", **common)
    stages.append(Stage("dense", _map50(model.trainer.metrics), time.perf_counter() - began))

    model = YOLO(str(model.trainer.best))
    callback = PruneCallback(ratio=asked.ratio, of="macs", method=asked.method, share=asked.share).attach(model)
    cut = _TheEpochOfTheCut(callback)
    model.add_callback("on_fit_epoch_end", cut)
    began = time.perf_counter()
    model.train(epochs=asked.prune_epochs, name="pruned", **common)
    stages.append(Stage("cut", cut.map50, cut.seconds - began))
    stages.append(Stage("retrained", _map50(model.trainer.metrics), time.perf_counter() - began))

    program = callback.program()
    small, proof = compressor.compact(program)
    assert proof.agreement is not None
    files = [asked.out / "dense.onnx", asked.out / "small.onnx"]
    dense = compressor.load(asked.out / "dense" / "weights" / "best.pt", trust_pickle=True)  # made above, by ourselves
    _export_dense(dense, callback, files[0])
    callback.export(small, files[1], force=True)
    metrics = YOLO(str(files[1]), task="detect").val(
        data=str(data), imgsz=asked.imgsz, batch=1, workers=0, plots=False, verbose=False, device="cpu",
        project=str(asked.out.absolute()), name="onnx", exist_ok=True,
    )  # fmt: skip
    stages.append(Stage("from ONNX", _map50(metrics.results_dict), 0.0))
    return _told(stages, (count_macs(program), count_macs(small)), (dense.n_parameters, small.n_parameters), files)


class _TheEpochOfTheCut:
    """The validation right after the hard prune: that of the epoch at whose end the search is over."""

    def __init__(self, callback: PruneCallback) -> None:
        self._callback, self.map50, self.seconds = callback, float("nan"), time.perf_counter()
        self._is_told = False

    def __call__(self, trainer: Any) -> None:
        if not self._is_told and self._callback.pruner.is_finished:
            self.map50, self.seconds, self._is_told = _map50(trainer.metrics), time.perf_counter(), True


def _export_dense(dense: compressor.Program, callback: PruneCallback, path: Path) -> None:
    """The network as it was, in the same form as the small one, to be timed against it."""
    told = metadata_of(callback.average, dense, batch=1)
    compressor.export(named_as_exported(dense), path, batch=1, metadata=told, force=True)


def _told(
    stages: list[Stage], macs: tuple[int, int], parameters: tuple[int, int], files: list[Path]
) -> dict[str, float]:
    report = compressor.bench(files, min_seconds=1.0)
    timings = report.timings
    print(f"\n{'Stage':12}{'mAP50':>8}{'Time':>9}")
    for stage in stages:
        print(f"{stage.name:12}{stage.map50:8.3f}{stage.seconds:8.0f}s")
    print(f"\n{'':12}{'dense':>12}{'compact':>12}{'ratio':>8}")
    for name, (a, b) in {"parameters": parameters, "MACs": macs}.items():
        print(f"{name:12}{a:12,}{b:12,}{a / b:7.2f}x")
    a, b = (timing.median_s for timing in timings)
    print(f"{'onnxruntime':12}{a * 1e3:10.2f}ms{b * 1e3:10.2f}ms{a / b:7.2f}x")
    return {**{stage.name: stage.map50 for stage in stages}, "MACs": macs[0] / macs[1], "speed-up": a / b}


def _map50(metrics: dict[str, float]) -> float:
    return float(metrics["metrics/mAP50(B)"])


def _library() -> Any:
    """Ultralytics' `YOLO`. Its validator calls torchvision's nms, which a torchvision that was built for another torch
    has not; Ultralytics has the same in Python."""
    torchvision: Any = imported_beside_any_torch("torchvision")
    from ultralytics import YOLO
    from ultralytics.utils.nms import TorchNMS

    if not torchvision.extension._has_ops():
        torchvision.ops.nms = TorchNMS.nms
    return YOLO


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="yolov8n.yaml", help="a YAML of the package, or a checkpoint")
    parser.add_argument("--method", default="admm", choices=("admm", "magnitude"))
    parser.add_argument("--ratio", default="2x", help="of MACs")
    parser.add_argument("--share", type=float, default=0.5, help="of the steps that search; the rest heals")
    parser.add_argument("--epochs", type=int, default=16)
    parser.add_argument("--prune-epochs", type=int, default=16)
    parser.add_argument("--images", type=int, default=300)
    parser.add_argument("--imgsz", type=int, default=96)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--amp", default="fp32", help="as of Ultralytics: fp32, fp16, bf16")
    parser.add_argument("--out", type=Path, default=Path("runs/shapes"))
    return parser


if __name__ == "__main__":
    main()
