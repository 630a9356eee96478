"""Pruning inside Ultralytics' own trainers, and files that its `YOLO` opens like those of `yolo export`; it must never
train."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.fx import Node

from compressor.errors import UsageError
from compressor.exporting import ExportReport, export_onnx
from compressor.integrations.course import Course
from compressor.program import Program

FILE = "pruner.pt"
"""Beside `last.pt` and `best.pt`."""
_INPUT, _OUTPUT = "images", "output{}"
"""Names of `yolo export`."""


class PruneCallback:
    """Prunes a network while Ultralytics' trainer trains it.

        model = YOLO("yolov8n.pt")
        callback = PruneCallback(ratio="2x", of="macs", method="admm").attach(model)
        model.train(data="coco8.yaml", epochs=100, imgsz=640)
        small, proof = compressor.compact(callback.program())
        callback.export(small, "small.onnx")

    The first `share` of the optimizer's steps searches, then the network is cut and trains on under the masks, and so
    does its average (EMA), which is what the trainer validates, saves and `program` gives. `best.pt` is one of the
    epochs after the cut, and nothing stops early before it. Checkpoints have the state of the pruning beside them, and
    `resume=True` goes on with it.
    """

    def __init__(self, inputs: Any = None, *, share: float = 0.5, **asked: Any) -> None:
        self._course = Course(inputs, share=share, **asked)
        self._trainer: Any = None
        self._optimizer: Any = None
        self._followed: Any = None

    def attach(self, model: Any) -> PruneCallback:
        """Rides on the next training of a `YOLO`, or on a trainer of its own."""
        for event in ("on_pretrain_routine_end", "on_train_batch_start", "on_train_batch_end", "on_train_epoch_end",
                      "on_model_save", "on_train_end"):  # fmt: skip
            model.add_callback(event, getattr(self, event))
        return self

    @property
    def pruner(self) -> Any:
        return self._course.pruner

    def program(self) -> Program:
        """The masked program with the weights of the average.

        Raises:  UsageError before the training has begun.
        """
        return self._course.end(self.average)

    def export(self, program: Program, target: str | Path, **options: Any) -> ExportReport:
        """An ONNX file with the names, the batch of 1 and the metadata of `yolo export`; options as for
        `compressor.export`."""
        options.setdefault("batch", 1)
        metadata = metadata_of(self.average, program, batch=options["batch"])
        return export_onnx(named_as_exported(program), target, metadata=metadata, **options)

    def on_pretrain_routine_end(self, trainer: Any) -> None:
        if trainer.world_size > 1:
            raise UsageError(
                "Ultralytics trains on several devices in processes that it starts itself, which know no callbacks\n"
                "train on one device (device=0)"
            )
        if trainer.args.time:
            raise UsageError("time= leaves the number of steps open, and pruning needs it; give epochs=")
        self._trainer = trainer
        if trainer.start_epoch and not self._course.has_begun:
            self._course.load_state_dict(_saved(Path(trainer.wdir)))
        self._optimizer = trainer.optimizer
        self._course.begin(trainer.model, trainer.optimizer, n_optimizer_steps(trainer), _image_of(trainer))
        self._follow()

    def on_train_batch_start(self, trainer: Any) -> None:
        if trainer.optimizer is not self._optimizer:
            self._course.move(trainer.optimizer)
            self._optimizer = trainer.optimizer
        self._follow()

    def on_train_batch_end(self, trainer: Any) -> None:
        if self._course.after_step() is not None:  # what was best was dense
            trainer.best_fitness, trainer.stopper.best_fitness = None, 0.0

    def on_train_epoch_end(self, trainer: Any) -> None:
        if not self.pruner.is_finished:
            trainer.stopper.best_epoch = trainer.epoch + 1

    def on_model_save(self, trainer: Any) -> None:
        torch.save(self._course.state_dict(), Path(trainer.wdir) / FILE)

    def on_train_end(self, trainer: Any) -> None:
        self.pruner.finish()

    @property
    def average(self) -> Any:
        """The trainer's EMA of the network, what it validates and saves.

        Raises:  UsageError before the training has begun.
        """
        if self._trainer is None:
            raise UsageError("the training has not begun: attach() to a YOLO, then train it")
        return self._trainer.ema.ema

    def _follow(self) -> None:
        """The average is another object after a recovery."""
        if self._followed is not self.average:
            self._followed = self.average
            self.pruner.follow(self._followed)


def n_optimizer_steps(trainer: Any) -> int:
    """Steps of a whole training: during the warm-up fewer batches are accumulated than later."""
    n_batches, steps, last = len(trainer.train_loader), 0, -1
    n_warm = round(min(trainer.args.warmup_epochs, max(trainer.epochs - 1, 0)) * n_batches)
    for batch in range(n_batches * trainer.epochs):
        accumulated = trainer.accumulate
        if n_warm and batch <= n_warm:
            accumulated = max(1, int(np.interp(batch, [0, n_warm], [1, trainer.accumulate]).round()))
        if batch - last >= accumulated:
            steps, last = steps + 1, batch
    return steps


def named_as_exported(program: Program) -> Program:
    """The program with the names of `yolo export`: `images` in, `output0`, `output1` … out."""
    named = program.clone()
    (output,) = (node for node in named.module.graph.nodes if node.op == "output")
    found: Any = output.args[0]
    parts = list(found) if isinstance(found, (tuple, list)) else [found]
    if not all(isinstance(part, Node) for part in parts):
        raise UsageError("named_as_exported: the outputs are no list of tensors; is it a network of Ultralytics?")
    output.args = ({_OUTPUT.format(i): part for i, part in enumerate(parts)},)
    named.module.recompile()
    return named.replace(inputs=(replace(named.inputs[0], name=_INPUT), *named.inputs[1:]), traced=program.traced)


def metadata_of(model: Any, program: Program, *, batch: int | None) -> dict[str, str]:
    """What `yolo export` writes beside a graph, and what `YOLO("x.onnx")` reads: class names, stride, task, sizes."""
    _, channels, height, width = program.inputs[0].concrete(1)
    head = model.model[-1]
    known: dict[str, Any] = {
        "description": f"Ultralytics {Path(str(model.yaml.get('yaml_file', 'model'))).stem}, pruned",
        "author": "Ultralytics",
        "license": "AGPL-3.0 License (https://ultralytics.com/license)",
        "stride": int(max(model.stride)),
        "task": model.task if hasattr(model, "task") else _task_of(model),
        "head": type(head).__name__,
        "batch": batch or 1,
        "imgsz": [height, width],
        "names": dict(model.names) if isinstance(model.names, Mapping) else dict(enumerate(model.names)),
        "args": {"batch": batch or 1, "dynamic": batch is None},
        "channels": channels,
        "end2end": bool(getattr(model, "end2end", False)),
    }
    if hasattr(head, "kpt_shape"):
        known["kpt_shape"] = list(head.kpt_shape)
    return {key: str(value) for key, value in known.items()}


def _task_of(model: Any) -> str:
    from ultralytics.nn.tasks import guess_model_task

    return str(guess_model_task(model))


def _image_of(trainer: Any) -> str:
    side = trainer.args.imgsz
    height, width = side if isinstance(side, (list, tuple)) else (side, side)
    return f"{trainer.data.get('channels', 3)}x{height}x{width}"


def _saved(folder: Path) -> dict[str, Any]:
    path = folder / FILE
    return torch.load(path, weights_only=True) if path.is_file() else {}
