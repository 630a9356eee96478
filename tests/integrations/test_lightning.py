"""Pruning inside Lightning's Trainer; skipped where Lightning is not installed, as it is no need of the tests."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

import compressor
from compressor.models.external import imported_beside_any_torch
from tests.integrations.processes import run_on_two

pytestmark = [
    pytest.mark.skipif(importlib.util.find_spec("lightning") is None, reason="lightning is not installed"),
    pytest.mark.filterwarnings("default"),
]
ASKED: dict[str, Any] = {"model": "net", "ratio": "1.5x", "round_to": 1}


def library() -> Any:
    if importlib.util.find_spec("torchvision") is not None:  # its metrics ask for it, and may find one of another torch
        imported_beside_any_torch("torchvision")
    return imported_beside_any_torch("lightning")


def module() -> Any:
    class Module(library().LightningModule):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.net = nn.Sequential(nn.Linear(6, 12), nn.ReLU(), nn.Linear(12, 3))

        def training_step(self, batch: Any, _: int) -> Tensor:
            return nn.functional.cross_entropy(self.net(batch[0]), batch[1])

        def configure_optimizers(self) -> Any:
            return torch.optim.SGD(self.parameters(), lr=0.05, momentum=0.9)

    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(0)
        return Module()


def loader() -> DataLoader[Any]:
    generator = torch.Generator().manual_seed(0)
    x, y = torch.randn(32, 6, generator=generator), torch.randint(0, 3, (32,), generator=generator)
    return DataLoader(TensorDataset(x, y), batch_size=4)


def trainer(*callbacks: Any, **more: Any) -> Any:
    asked = {"max_epochs": 2, "logger": False, "enable_checkpointing": False, "accelerator": "cpu", **more}
    return library().Trainer(callbacks=list(callbacks), enable_progress_bar=False, **asked)


def is_cut(network: nn.Module, masks: dict[str, Tensor]) -> bool:
    own = dict(network.named_parameters())
    return bool(masks) and all(not own[name].detach()[~mask].any() for name, mask in masks.items())


@pytest.mark.parametrize(
    ("method", "more", "n_steps"),
    [
        ("admm", {}, 16),
        ("magnitude", {}, 16),
        ("admm", {"accumulate_grad_batches": 2}, 8),
        ("admm", {"precision": "bf16-mixed"}, 16),
    ],
    ids=["admm", "masks", "accumulation", "AMP"],
)
def test_a_trainer_prunes(method: str, more: dict[str, Any], n_steps: int) -> None:
    library()
    from compressor.integrations.lightning import PruneCallback

    callback, network = PruneCallback("6", **ASKED, method=method), module()
    trainer(callback, **more).fit(network, loader())
    assert callback.pruner.is_finished and callback.pruner.n_done == n_steps
    assert is_cut(network.net, callback.pruner.masks)
    assert compressor.compact(callback.program())[1].agreement is not None


def test_a_broken_training_goes_on(tmp_path: Path) -> None:
    library()
    from compressor.integrations.lightning import PruneCallback

    asked = {**ASKED, "method": "admm", "share": 0.75}
    whole, network = PruneCallback("6", **asked), module()
    run = trainer(whole, max_epochs=4)
    run.fit(network, loader())

    class Stop(library().Callback):  # type: ignore[misc]
        def on_train_epoch_end(self, trainer: Any, pl_module: Any) -> None:
            if trainer.current_epoch == 1:
                trainer.save_checkpoint(tmp_path / "half.ckpt")
                trainer.should_stop = True

    first = trainer(PruneCallback("6", **asked), Stop(), max_epochs=4)
    first.fit(module(), loader())
    resumed, again = PruneCallback("6", **asked), module()
    trainer(resumed, max_epochs=4).fit(again, loader(), ckpt_path=tmp_path / "half.ckpt", weights_only=False)
    assert resumed.pruner.n_done == whole.pruner.n_done == 32
    assert all(torch.equal(mask, resumed.pruner.masks[name]) for name, mask in whole.pruner.masks.items())
    for name, value in network.state_dict().items():
        torch.testing.assert_close(again.state_dict()[name], value, rtol=1e-5, atol=1e-6)


def test_an_average_is_followed() -> None:
    library()
    from compressor.integrations.lightning import PruneCallback

    callback = PruneCallback("6", **ASKED, method="magnitude")

    class Average(library().Callback):  # type: ignore[misc]
        def on_train_start(self, trainer: Any, pl_module: Any) -> None:
            self.net = torch.optim.swa_utils.AveragedModel(pl_module.net)
            callback.pruner.follow(self.net)

        def on_train_batch_end(self, trainer: Any, pl_module: Any, *_: Any) -> None:
            self.net.update_parameters(pl_module.net)

    average, network = Average(), module()
    trainer(callback, average).fit(network, loader())
    assert is_cut(average.net.module, callback.pruner.masks)


PARALLEL = """
import os, sys
from pathlib import Path
sys.path.insert(0, sys.argv[2])
import torch
from tests.integrations.test_lightning import ASKED, library, loader, module, trainer
library()
from compressor.integrations.lightning import PruneCallback
folder, rank = Path(sys.argv[1]), os.environ["RANK"]
callback = PruneCallback("6", **ASKED, method="admm")
strategy = __import__("lightning").pytorch.strategies.DDPStrategy(process_group_backend="gloo")
trainer(callback, strategy=strategy, devices=2, num_nodes=1).fit(module(), loader())
assert torch.distributed.get_world_size() == 2
program = callback.program()
torch.save({"weights": program.module.state_dict(), "masks": dict(program.masks)}, folder / rank)
torch.distributed.barrier()
os._exit(0)
"""


def test_two_processes_cut_the_same(tmp_path: Path) -> None:
    run_on_two(PARALLEL, tmp_path)
    one, two = (torch.load(tmp_path / rank, weights_only=True) for rank in ("0", "1"))
    for part in ("weights", "masks"):
        assert one[part] and all(torch.equal(value, two[part][name]) for name, value in one[part].items())
