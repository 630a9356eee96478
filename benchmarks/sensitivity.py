"""Sensitivity scan against the naive loop: `python benchmarks/sensitivity.py CHECKPOINT --arch resnet56 --data REF`.

The naive loop is what one writes with the public API: for every layer and removed share clone the program, set the
weights to 0, call `evaluate`, once with its own batch size (1000) and once with the scan's, which shows what the batch
and what the order of work is worth. It is timed on a sample of the cuts spread over the network (`--naive-cuts`; the
cost of one does not depend on the layer) and scaled to all of them, in CPU time of this process, interleaved. Every
number of the naive loop must be the scan's, exactly; the script fails if one is not.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Iterator
from typing import Any

import torch

from compressor import load, open_data
from compressor.analysis.cuts import Cut, plan_cuts
from compressor.analysis.sensitivity import _Scan, scan_sensitivity
from compressor.asking import ScanSettings
from compressor.axes import find_units
from compressor.data import Batch, DataSource, open_task
from compressor.program import Program, find_layers
from compressor.progress import Silent
from compressor.training import evaluate


class Spread:
    """Every stride-th sample of the validation split, as the scan takes them."""

    def __init__(self, data: DataSource, n: int) -> None:
        self._data, self._stride, self.ref = data, data.n_val // n, data.ref
        self.n_val, self.n_train = n, data.n_train

    def batches(self, split: Any, batch_size: int, **given: Any) -> Iterator[Batch]:
        given |= {"limit": self._stride * self.n_val, "shard": (0, self._stride)}
        return self._data.batches(split, batch_size, **given)


def naive(program: Program, cut: Cut, data: Any, batch_size: int) -> float:
    changed = program.clone()
    parameters = changed.parameters
    with torch.no_grad():
        for name, tensor in cut.apply(parameters).items():
            parameters[name].copy_(tensor)
    return evaluate(changed.module, data, open_task(None), batch_size=batch_size)["accuracy"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model")
    parser.add_argument("--arch")
    parser.add_argument("--data", required=True)
    parser.add_argument("--samples", type=int, default=100)
    parser.add_argument("--naive-cuts", type=int, default=12)
    parser.add_argument("--patterns", default="unstructured,filter,channel")
    options = parser.parse_args()
    torch.set_num_threads(1)
    program = load(options.model, arch=options.arch, data=options.data)
    data = open_data(options.data)
    spread = Spread(data, options.samples)
    print(f"{options.arch}, {options.samples} samples, shares {ScanSettings().shares}, 1 thread, CPU seconds")
    for pattern in options.patterns.split(","):
        if not compare(program, data, spread, pattern, options.naive_cuts):
            sys.exit("the two loops disagree")


def compare(program: Program, data: DataSource, spread: Spread, pattern: str, n_naive: int) -> bool:
    settings = ScanSettings(pattern=pattern, n_samples=spread.n_val)
    cuts = plan_cuts(program, find_units(program), find_layers(program), pattern, settings.shares)
    batch = _Scan(program, cuts, open_task(None), "cpu", None, Silent()).batch_size
    points = [(layer, share, i) for layer, curve in cuts.points.items() for share, i in curve]
    picked = points[:: max(1, len(points) // n_naive)]
    naive(program, cuts.cuts[0], spread, batch)  # warm

    seconds: dict[int, float] = {1000: 0.0, batch: 0.0}
    values: dict[tuple[str, float], float] = {}
    began = time.process_time()
    found = scan_sensitivity(program, data, settings)
    scan_s = time.process_time() - began
    for layer, share, i in picked:
        for size in seconds:
            began = time.process_time()
            values[layer, share] = naive(program, cuts.cuts[i], spread, size)
            seconds[size] += time.process_time() - began
    same = all(dict(found.curves[layer])[share] == value for (layer, share), value in values.items())
    scaled = {size: spent * len(points) / len(picked) for size, spent in seconds.items()}
    print(
        f"{pattern}: {len(points)} points, {len(cuts.cuts)} different cuts; scan {scan_s:.1f} s;"
        f" naive at batch 1000 {scaled[1000]:.1f} s ({scaled[1000] / scan_s:.2f}x), at the scan's batch {batch}"
        f" {scaled[batch]:.1f} s ({scaled[batch] / scan_s:.2f}x); {len(picked)} points compared:"
        f" {'identical' if same else 'DIFFERENT'}",
        flush=True,
    )
    return same


if __name__ == "__main__":
    main()
