"""Batch norm statistics after a cut: `python -m benchmarks.recalibration --cifar DIR --checkpoints DIR`.

The published ResNets were trained on shifted and mirrored images. Statistics of plain images, of augmented ones, and of
plain ones corrected by what the network before the cut holds, for several cuts, with and without reconstruction.
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path
from typing import Literal

import torch

import compressor
from benchmarks.cifar10_runs import CHECKPOINTS
from benchmarks.peer import INPUT
from compressor.asking import PruneSettings, Recovery
from compressor.cli.memory import keep_freed_memory
from compressor.data import open_data, open_task
from compressor.data.arrays import Arrays, ArraySource
from compressor.program import Program
from compressor.pruning.recalibrate import recalibrate

CUTS: tuple[tuple[str, float, Literal["params", "macs"]], ...] = (
    ("none", 1.0, "params"), ("unstructured", 3.0, "params"), ("channel", 1.3, "macs"), ("channel", 2.0, "macs"),
)  # fmt: skip
FITTED = 16
"""Batches of `--reconstruct`."""


def accuracies(program: Program, dense: Program, data: ArraySource, n_batches: int) -> list[float]:
    """As it is, and re-calibrated on plain images, on augmented ones, and corrected. Units: %."""
    found = [accuracy(program, data)]
    for reference, augment in ((None, False), (None, True), (dense, False)):
        measured = program.clone()
        recalibrate(measured, data, n_batches=n_batches, reference=reference, augment=augment)
        found.append(accuracy(measured, data))
    return found


def accuracy(program: Program, data: ArraySource) -> float:
    return 100 * compressor.evaluate(program.module, data, open_task(None))["accuracy"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cifar", required=True, help="folder with the binary version of CIFAR-10")
    parser.add_argument("--checkpoints", required=True, type=Path, help="folder with the published checkpoints")
    parser.add_argument("--arch", default="resnet20", choices=sorted(CHECKPOINTS))
    parser.add_argument("--batches", type=int, default=40, help="of 64 images, for the statistics")
    parser.add_argument("--val", type=int, default=2000, help="test images that are looked at, from the first")
    given = parser.parse_args()
    keep_freed_memory()
    torch.set_num_threads(1)
    data = open_data(f"cifar10:{Path(given.cifar).resolve()}")
    assert isinstance(data, ArraySource)
    data = replace(data, val=Arrays(data.val.inputs[: given.val], data.val.target[: given.val]))
    dense = compressor.load(given.checkpoints / CHECKPOINTS[given.arch], arch=given.arch, inputs=[INPUT])
    print(f"| {given.arch} | as it is | plain images | augmented images | corrected |\n|---|--:|--:|--:|--:|")
    for pattern, ratio, of in CUTS:
        for fitted in (0, FITTED) if pattern != "none" else (0,):
            program, name = dense, "nothing cut"
            if pattern != "none":
                asked = PruneSettings(
                    round_to=1,
                    ratio=ratio,
                    method="magnitude",
                    pattern=pattern,
                    of=of,
                    seed=1,
                    recovery=Recovery(reconstruct=fitted),
                )
                program, _ = compressor.prune(dense, asked, data=data)
                name = f"{pattern}, {ratio:g}x {of}" + (f", `--reconstruct {fitted}`" if fitted else "")
            row = " | ".join(f"{found:.2f}" for found in accuracies(program, dense, data, given.batches))
            print(f"| {name} | {row} |", flush=True)


if __name__ == "__main__":
    main()
