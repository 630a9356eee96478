"""Pruning inside Lightning's `Trainer`; it must never train."""

from __future__ import annotations

from typing import Any

try:
    from lightning.pytorch.callbacks import Callback
except ImportError:
    from pytorch_lightning.callbacks import Callback  # type: ignore[no-redef]

from compressor.integrations.course import Course
from compressor.program import Program


class PruneCallback(Callback):
    """Prunes a LightningModule, or the part of it that `model` names, while it trains.

        callback = PruneCallback("3x224x224", ratio="2x", of="macs", method="admm")
        Trainer(max_epochs=20, callbacks=[callback]).fit(module, loader)
        program = callback.program()

    The first `share` of the steps searches, then the model is cut and trains on under the masks. Lightning keeps the
    state of the pruning in its own checkpoints. With several optimizers the first one counts the steps.
    """

    def __init__(self, inputs: Any, *, model: str = "", share: float = 0.5, **asked: Any) -> None:
        self._course, self._model = Course(inputs, share=share, **asked), model

    def program(self) -> Program:
        """The masked program with the trained weights."""
        return self._course.end()

    @property
    def pruner(self) -> Any:
        return self._course.pruner

    def on_train_start(self, trainer: Any, pl_module: Any) -> None:
        network = pl_module.get_submodule(self._model) if self._model else pl_module
        optimizer = getattr(trainer.optimizers[0], "optimizer", trainer.optimizers[0])
        self._course.begin(network, optimizer, int(trainer.estimated_stepping_batches))

    def on_train_batch_end(self, trainer: Any, pl_module: Any, *_: Any) -> None:
        self._course.after_step()

    def state_dict(self) -> dict[str, Any]:
        return self._course.state_dict()

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self._course.load_state_dict(state_dict)
