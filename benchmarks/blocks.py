"""Residual blocks against widths at equal MACs: accuracy as cut, re-calibrated, and latency, without any training.

    python benchmarks/blocks.py CHECKPOINT --arch resnet56 --data cifar10:DIR [--ratio 1.3 1.5] [--out FILE]

Blocks go in the order that training images give (`--score output`), the widths are those that the runtime likes.
Dense and all that is cut are timed side by side in onnxruntime, one thread, batch 1. Test images are read at the end.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np
import torch

from compressor.asking import PruneSettings, Recovery
from compressor.axes import find_units
from compressor.compaction import compact
from compressor.cost import count_macs, find_preferences
from compressor.data import DataSource, open_data, open_task
from compressor.exporting import feeds_of, to_runnable
from compressor.formats import load
from compressor.program import Program
from compressor.progress import Silent
from compressor.pruning.block_order import order_of
from compressor.pruning.recovery import recover
from compressor.sparsity import Choice, apply_masks, make_selector
from compressor.timing import OperatorClock, compare, default_cache, side_by_side
from compressor.training import evaluate

PATTERNS = ("layer", "channel", "layer+channel")
SECONDS = 5.0
BATCHES = 20
"""Training batches for the statistics of batch norm."""


def cut(dense: Program, order: tuple[str, ...] | None, pattern: str, ratio: float, clock: OperatorClock) -> Program:
    """The masked network, nothing trained."""
    settings = PruneSettings(ratio=ratio, of="macs", pattern=pattern, method="magnitude")
    choice = Choice(settings, clock, find_preferences(clock), order)
    chosen = make_selector(dense, find_units(dense, settings.walk), choice).select(dense.parameters, ratio)
    program = dense.clone()
    apply_masks(program.module, chosen.masks)
    return program.replace(masks=chosen.masks)


def healed(masked: Program, dense: Program, data: DataSource) -> Program:
    program = masked.clone()
    recover(program, Recovery(recalibrate=BATCHES), data, dense=dense)
    return program


def accuracy(program: Program, data: DataSource, limit: int | None) -> float:
    return evaluate(program.module, data, open_task(None), batch_size=250, limit=limit)["accuracy"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("--arch", required=True)
    parser.add_argument("--data", required=True)
    parser.add_argument("--ratio", nargs="*", type=float, default=[1.3, 1.5])
    parser.add_argument("--limit", type=int, help="test images; default: all")
    parser.add_argument("--out", type=Path, default=Path("blocks.jsonl"))
    asked = parser.parse_args()
    torch.set_num_threads(1)
    dense, data, clock = (
        load(asked.checkpoint, arch=asked.arch),
        open_data(asked.data),
        OperatorClock(1, default_cache()),
    )
    names = [(pattern, ratio) for ratio in asked.ratio for pattern in PATTERNS]
    order = order_of(dense, PruneSettings(ratio=2, of="macs", pattern="layer", method="magnitude"), data, Silent())
    masked = [cut(dense, order, pattern, ratio, clock) for pattern, ratio in names]
    small = [compact(program, stopwatch=clock)[0] for program in masked]
    models = [to_runnable(program) for program in (dense, *small)]
    seconds, opening = side_by_side(models, feeds_of(dense), 1, SECONDS)
    for column, (pattern, ratio) in enumerate(names, 1):
        found = compare(seconds[:, 0], seconds[:, column], np.random.default_rng(0), opening)
        row = {
            "pattern": pattern, "asked": ratio, "macs": count_macs(dense) / count_macs(small[column - 1]),
            "params": dense.n_parameters / small[column - 1].n_parameters, "speedup": found.speedup, "low": found.low,
            "high": found.high, "cut": accuracy(small[column - 1], data, asked.limit),
            "recalibrated": accuracy(healed(masked[column - 1], dense, data), data, asked.limit),
        }  # fmt: skip
        print(json.dumps(row), flush=True)
        with asked.out.open("a", encoding="utf-8") as file:
            file.write(json.dumps(row) + "\n")


if __name__ == "__main__":
    main()
