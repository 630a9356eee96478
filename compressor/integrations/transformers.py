"""Pruning inside the `Trainer` of the transformers library; it must never train."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from transformers import TrainerCallback

from compressor.integrations.course import Course
from compressor.program import Program

FILE = "pruner.pt"
"""Beside the optimizer's state in every checkpoint of the Trainer."""


class PruneCallback(TrainerCallback):
    """Prunes the Trainer's model while it trains.

        callback = PruneCallback(ratio="2x", of="macs", method="admm")
        trainer = Trainer(model, args, train_dataset=data, callbacks=[callback])
        trainer.train()
        program = callback.program()

    The first `share` of the steps searches, then the model is cut and trains on under the masks. What goes into the
    model is read off the first training batch, without its labels, unless `inputs` says it. Checkpoints hold the state
    of the pruning too, and `trainer.train(resume_from_checkpoint=…)` goes on with it.
    """

    def __init__(self, inputs: Any = None, *, share: float = 0.5, **asked: Any) -> None:
        self._course = Course(inputs, share=share, **asked)

    def program(self) -> Program:
        """The masked program with the trained weights."""
        return self._course.end()

    @property
    def pruner(self) -> Any:
        return self._course.pruner

    def on_train_begin(self, args: Any, state: Any, control: Any, **given: Any) -> None:
        if state.global_step and not self._course.has_begun:
            self._course.load_state_dict(_saved(Path(args.output_dir), state.global_step))
        optimizer = getattr(given["optimizer"], "optimizer", given["optimizer"])
        self._course.begin(given["model"], optimizer, state.max_steps, _inputs(given.get("train_dataloader")))

    def on_step_end(self, args: Any, state: Any, control: Any, **given: Any) -> None:
        self._course.after_step()

    def on_save(self, args: Any, state: Any, control: Any, **given: Any) -> None:
        if state.is_world_process_zero:
            folder = Path(args.output_dir, f"checkpoint-{state.global_step}")
            torch.save(self._course.state_dict(), folder / FILE)


def _saved(folder: Path, step: int) -> dict[str, Any]:
    path = folder / f"checkpoint-{step}" / FILE
    return torch.load(path, weights_only=True) if path.is_file() else {}


def _inputs(loader: Any) -> dict[str, Any] | None:
    """The model's inputs in the first batch; the caller's random numbers stay as they were."""
    if loader is None:
        return None
    with torch.random.fork_rng(devices=[]):
        batch = next(iter(loader))
    return {name: value for name, value in batch.items() if name not in ("labels", "label", "label_ids")}
