"""`analyze --sensitivity`: how the metric falls when one layer at a time is cut; it must never train or keep a cut.

Data are read once. Each batch goes through the network once as it is; wherever a layer is reached whose cuts are to be
tried, only the rest of the network runs again, once per cut, from the values that are there at that moment. Nothing is
stored for later, so memory is that of one pass, and the batch is small enough for the caches of the processor.
"""

from __future__ import annotations

import math
import time
from collections import defaultdict
from collections.abc import Mapping
from typing import Any

import torch

from compressor.analysis.cuts import Cuts, plan_cuts
from compressor.analysis.suffix import Steps, live_bytes
from compressor.asking import WalkOptions
from compressor.asking.scan import ScanSettings, Sensitivity
from compressor.axes import find_units
from compressor.data import Batch, DataSource, Task, means_of, open_task
from compressor.errors import DataError
from compressor.program import Program, find_layers
from compressor.progress import Progress, Silent
from compressor.sparsity.choice import matching_layers
from compressor.training import with_targets

_CACHE_BYTES = 16 << 20
_ACCELERATOR_BYTES = 1 << 30
_LARGEST_BATCH = 256
_SMALLEST_BATCH = 8
"""Live values of a batch should stay near the processor: ResNet-56 on one core takes 0.64 of the time per image at
batch 50 that it takes at 500. Below 8 the calls themselves begin to count."""


def scan_sensitivity(
    program: Program,
    data: DataSource,
    settings: ScanSettings | None = None,
    *,
    task: Task | None = None,
    device: str = "cpu",
    options: WalkOptions | None = None,
    progress: Progress | None = None,
) -> Sensitivity:
    """The task's primary metric for every layer and removed share, without retraining.

    The samples are spread evenly over the validation split, which may be sorted by class. When the time budget ends
    in the first batch, the layers not reached are named; later, all layers are measured on the batches that were done.

    Raises:  PatternError if nothing can be cut; DataError if the data are empty or do not fit.
    Source:  Han et al. 2015, "Learning both Weights and Connections", fig. 6.
    """
    program.check_masks()
    settings = settings or ScanSettings()
    layers = find_layers(program)
    scoped = matching_layers(layers, settings.scope, "--scope")
    units = find_units(program, options or WalkOptions.from_mapping(program.record.walk))
    cuts = plan_cuts(program, units, [x for x in layers if x.name in scoped], settings.pattern, settings.shares)
    known, task = with_targets(data, task, program.clone().module)
    scan = _Scan(program, cuts, task or open_task(None), device, settings.budget_s, progress or Silent())
    with torch.inference_mode():
        scan.run(known, settings.n_samples)
    return scan.result(settings.pattern)


class _Scan:
    """Sums of the metric for the dense network (None) and each cut, batch by batch."""

    def __init__(
        self, program: Program, cuts: Cuts, task: Task, device: str, budget_s: float | None, progress: Progress
    ) -> None:
        self.cuts, self.task, self.device, self.progress = cuts, task, device, progress
        self.steps = Steps(program, device)
        self.batch_size = _batch_size(program, device)
        self.sums: dict[int | None, tuple[float, float]] = {}
        self.n_samples = 0
        self._deadline = math.inf if budget_s is None else time.monotonic() + budget_s
        self._by_place: dict[int, list[int]] = defaultdict(list)
        for i, cut in enumerate(cuts.cuts):
            self._by_place[self.steps.first_reader(cut.masks)].append(i)

    def run(self, data: DataSource, n_samples: int) -> None:
        """Raises:  DataError if there is no sample to measure on."""
        n = min(n_samples, data.n_val)
        if n < 1:
            raise DataError(f"{data.ref}: the validation split is empty; there is nothing to measure on")
        # Every stride-th sample: a folder of images is sorted by class, and its front would be a few classes.
        stride = data.n_val // n
        batches = data.batches("val", self.batch_size, limit=stride * n, device=self.device, shard=(0, stride))
        n_batches = -(-n // self.batch_size)
        self.progress.start("sensitivity", n_batches * len(self.cuts.cuts), "cut")
        for batch in batches:
            sums, complete = self._measure(batch)
            if complete or not self.sums:
                self._add(sums, len(batch.inputs[0]))
            if not complete:
                break
        self.progress.finish("sensitivity", samples=self.n_samples)

    def _measure(self, batch: Batch) -> tuple[dict[int | None, tuple[float, float]], bool]:
        """Sums over one batch, and whether it was finished in time; the dense network always is."""
        live = self.steps.begin(batch.inputs)
        sums: dict[int | None, tuple[float, float]] = {}
        complete, place = True, 0
        for start in sorted(self._by_place):
            self.steps.run(live, place, start)
            place = start
            for i in self._by_place[start]:
                if time.monotonic() > self._deadline:
                    complete = False
                    break
                outputs = self.steps.outputs(live, start, self.cuts.cuts[i].apply(self.steps.tensors))
                sums[i] = self._value(outputs, batch)
                self.progress.advance(1)
        sums[None] = self._value(self.steps.run(live, place, self.steps.end), batch)
        return sums, complete

    def _value(self, outputs: Any, batch: Batch) -> tuple[float, float]:
        values = self.task.metrics(outputs, batch)
        if self.task.primary in values:
            return values[self.task.primary]
        n = len(batch.inputs[0])
        return float(self.task.loss(outputs, batch)) * n, n

    def _add(self, sums: Mapping[int | None, tuple[float, float]], n_samples: int) -> None:
        for key, (value, count) in sums.items():
            so_far, n_so_far = self.sums.get(key, (0.0, 0))
            self.sums[key] = (so_far + value, n_so_far + count)
        self.n_samples += n_samples

    def result(self, pattern: str) -> Sensitivity:
        primary = self.task.primary
        means = {key: means_of(self.task, {primary: pair})[primary] for key, pair in self.sums.items()}
        curves = {
            layer: tuple((share, means[i]) for share, i in points)
            for layer, points in self.cuts.points.items()
            if all(i in means for _, i in points)
        }
        return Sensitivity(
            metric=self.task.primary,
            dense=means[None],
            n_samples=self.n_samples,
            pattern=pattern,
            curves=curves,
            higher_is_better=self.task.higher_is_better,
            unmeasured=tuple(layer for layer in self.cuts.points if layer not in curves),
        )


def _batch_size(program: Program, device: str) -> int:
    """Samples per batch; a network that fixes its batch gets that."""
    if not program.has_dynamic_batch:
        return program.sampled_batch
    room = _CACHE_BYTES if torch.device(device).type == "cpu" else _ACCELERATOR_BYTES
    return max(_SMALLEST_BATCH, min(room // max(live_bytes(program), 1), _LARGEST_BATCH))
