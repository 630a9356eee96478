"""Train the bundled sample networks on the bundled digits, reproducibly: `python sample_models/train.py`.

Writes lenet-300-100.pt and lenet5.pt (self-contained checkpoints that remember their data) and
lenet5-state-dict.pth (the plain weights, for the `--arch lenet5` road) beside this file.
"""

from __future__ import annotations

from pathlib import Path

import torch

import compressor
from compressor.asking import Recipe
from compressor.data import open_data, open_task
from compressor.models import build
from compressor.program import InputSpec, Record, Step, capture
from compressor.training import fit

HERE = Path(__file__).parent
DATA = HERE / "mnist_5k.npz"
SEED = 1
RECIPE = Recipe(epochs=30, batch_size=64, optimizer="adam", lr=1e-3, weight_decay=1e-4)


def train(arch: str, out: Path) -> None:
    """Train one bundled architecture and write its checkpoint."""
    torch.set_num_threads(1)  # the same bits on every number of cores
    data = open_data(str(DATA))
    built = build(arch, {}, seed=SEED)
    result = fit(built.module, data, open_task(None), RECIPE, seed=SEED, evaluate_every=RECIPE.epochs)
    metrics = {key: round(value, 6) for key, value in result.history[-1].metrics.items()}
    step = Step("train", RECIPE.to_mapping(), metrics, SEED, versions={"torch": torch.__version__})
    record = Record(arch=arch, data=data.ref, steps=(step,))
    shape = (None, *(built.input_shapes or data.input_shapes)[0])
    compressor.save(capture(built.module, [InputSpec("image", shape)], record=record), out, force=True)
    print(f"{out.name}: {metrics}")
    if arch == "lenet5":
        torch.save(built.module.state_dict(), HERE / "lenet5-state-dict.pth")


if __name__ == "__main__":
    train("lenet-300-100", HERE / "lenet-300-100.pt")
    train("lenet5", HERE / "lenet5.pt")
