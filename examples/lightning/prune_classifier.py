"""A classifier pruned inside Lightning's Trainer, compacted and exported.

    python examples/lightning/prune_classifier.py --out runs/lightning

Needs `pip install lightning`. The data are made here: on which side of a noisy image is the bright spot?
"""

from __future__ import annotations

import argparse
import contextlib
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

import compressor
from compressor.models.external import imported_beside_any_torch

SIDE = 16


def main(arguments: list[str] | None = None) -> dict[str, float]:
    """Runs the whole way and prints it; accuracies and the ratio by name."""
    asked = _parser().parse_args(arguments)
    with contextlib.suppress(ImportError):
        imported_beside_any_torch("torchvision")  # Lightning's metrics ask for it, and may find one of another torch
    lightning: Any = imported_beside_any_torch("lightning")
    from compressor.integrations.lightning import PruneCallback

    module = _module(lightning, asked.width)
    train, test = _spots(asked.images, seed=1), _spots(500, seed=2)
    loader = DataLoader(train, batch_size=32, shuffle=True)
    options = {
        "max_epochs": asked.epochs, "logger": False, "enable_checkpointing": False, "accelerator": "cpu",
        "enable_progress_bar": False, "enable_model_summary": False,
    }  # fmt: skip
    lightning.Trainer(**options).fit(module, loader)
    found = {"dense": _accuracy(module.network, test)}

    callback = PruneCallback(f"1x{SIDE}x{SIDE}", model="network", ratio=asked.ratio, of="macs", method=asked.method)
    lightning.Trainer(callbacks=[callback], **options).fit(module, loader)
    program = callback.program()
    small, proof = compressor.compact(program)
    assert proof.agreement is not None
    found["pruned"] = _accuracy(small.module, test)
    found["ratio"] = program.n_parameters / small.n_parameters
    asked.out.mkdir(parents=True, exist_ok=True)
    compressor.export(small, asked.out / "classifier.onnx", force=True)
    report = callback.pruner.report()
    print(f"MACs: asked {report.asked:.2f}x, got {report.got:.2f}x")
    print(f"parameters: {program.n_parameters:,} -> {small.n_parameters:,}")
    print(f"accuracy: {found['dense']:.1%} dense, {found['pruned']:.1%} pruned; wrote {asked.out / 'classifier.onnx'}")
    return found


def _module(lightning: Any, width: int) -> Any:
    class Classifier(lightning.LightningModule):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.network = _network(width)

        def training_step(self, batch: Any, _: int) -> Tensor:
            images, labels = batch
            return nn.functional.cross_entropy(self.network(images), labels)

        def configure_optimizers(self) -> Any:
            return torch.optim.Adam(self.parameters(), lr=2e-3)

    return Classifier()


def _network(width: int) -> nn.Sequential:
    def block(channels: int, filters: int) -> list[nn.Module]:
        return [nn.Conv2d(channels, filters, 3, padding=1), nn.BatchNorm2d(filters), nn.ReLU(), nn.MaxPool2d(2)]

    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(0)
        n_left = 2 * width * (SIDE // 4) ** 2
        return nn.Sequential(*block(1, width), *block(width, 2 * width), nn.Flatten(), nn.Linear(n_left, 4))


def _spots(n: int, seed: int) -> TensorDataset:
    """Shapes: (n, 1, SIDE, SIDE), (n,)"""
    generator = torch.Generator().manual_seed(seed)
    images = torch.randn(n, 1, SIDE, SIDE, generator=generator)
    labels = torch.randint(0, 4, (n,), generator=generator)
    half = SIDE // 2
    for image, label in zip(images, labels.tolist(), strict=True):
        y, x = (int(v) for v in torch.randint(0, half - 3, (2,), generator=generator))
        image[:, y + half * (label // 2) :, x + half * (label % 2) :][:, :3, :3] += 1.5
    return TensorDataset(images, labels)


@torch.no_grad()
def _accuracy(network: nn.Module, data: TensorDataset) -> float:
    images, labels = data.tensors
    right = network.eval()(images).argmax(1) == labels
    network.train()  # Lightning trains a module in the mode that it finds
    return float(right.float().mean())


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--ratio", default="2x", help="of MACs")
    parser.add_argument("--method", default="admm", choices=("admm", "magnitude"))
    parser.add_argument("--epochs", type=int, default=6, help="of each of the two trainings")
    parser.add_argument("--images", type=int, default=3000)
    parser.add_argument("--width", type=int, default=16)
    parser.add_argument("--out", type=Path, default=Path("runs/lightning"))
    return parser


if __name__ == "__main__":
    main()
