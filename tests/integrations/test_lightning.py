"""Pruning inside Lightning's Trainer; skipped where Lightning is not installed, as it is no need of the tests."""

from __future__ import annotations

import importlib.util
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

import compressor
from compressor.models.external import imported_beside_any_torch


@pytest.mark.skipif(importlib.util.find_spec("lightning") is None, reason="lightning is not installed")
@pytest.mark.filterwarnings("default")
def test_a_trainer_prunes() -> None:
    if importlib.util.find_spec("torchvision") is not None:  # its metrics ask for it, and may find one of another torch
        imported_beside_any_torch("torchvision")
    lightning = imported_beside_any_torch("lightning")
    from compressor.integrations.lightning import PruneCallback

    class Module(lightning.LightningModule):  # type: ignore[name-defined, misc]
        def __init__(self) -> None:
            super().__init__()
            self.net = nn.Sequential(nn.Linear(6, 12), nn.ReLU(), nn.Linear(12, 3))

        def training_step(self, batch: Any, _: int) -> Tensor:
            return nn.functional.cross_entropy(self.net(batch[0]), batch[1])

        def configure_optimizers(self) -> Any:
            return torch.optim.SGD(self.parameters(), lr=0.05)

    callback = PruneCallback("6", model="net", ratio="1.5x", round_to=1)
    data = DataLoader(TensorDataset(torch.randn(32, 6), torch.randint(0, 3, (32,))), batch_size=4)
    trainer = lightning.Trainer(max_epochs=2, callbacks=[callback], logger=False, enable_checkpointing=False)
    trainer.fit(Module(), data)
    assert callback.pruner.is_finished
    assert compressor.compact(callback.program())[1].agreement is not None
