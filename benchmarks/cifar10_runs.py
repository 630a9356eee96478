"""One network on CIFAR-10 by one method, as a row of numbers; it must never know of sweeps, tables, other processes.

Every method starts from the same published checkpoint and gets the same number of training epochs on the same data with
the same augmentation, optimizer and schedule. What searches (ADMM, group lasso, Torch-Pruning's sparse learning) spends
40 % of them before the cut.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import compressor
from benchmarks.peer import INPUT, cut_once, sparse_cut
from benchmarks.side_by_side import append_line
from compressor.asking import PruneSettings, Recipe, Recovery
from compressor.cost import count_macs
from compressor.data import open_data, open_task
from compressor.data.arrays import Arrays, ArraySource
from compressor.program import Program
from compressor.progress import Silent
from compressor.pruning.recalibrate import recalibrate
from compressor.pruning.survivors import reinitialise
from compressor.sparsity import select_units

CHECKPOINTS = {"resnet20": "resnet20-12fca82f.th", "resnet56": "resnet56-4bfd9763.th"}
SEARCHES = ("admm", "group-lasso")
PEERS = ("peer l1", "peer group", "peer sparse", "peer inner")
"""`sparse` is its own best recipe, `inner` the same with the residual sums left whole (benchmarks/peer.py)."""
METHODS = ("magnitude", "taylor", *SEARCHES, "peer l1", "peer group", "peer sparse", "peer inner", "scratch", "dense")
ONE_SHOT = ("l2", "l1", "taylor", "fisher", "bn", "fpgm", "peer l1", "peer group")
HEALING = Recovery(reconstruct=16, recalibrate=20)
LR = 0.01
POWER = 1.0
"""Of a width, in what our global allocation multiplies LAMP scores with, counted by MACs (sparsity/allocation.py)."""

Row = dict[str, Any]


class Course(Silent):
    """Writes what every epoch came to as a line under the name of the run, at once; many runs share one file."""

    def __init__(self, path: Path, run: str) -> None:
        self._path, self._run, self._stage, self._epoch, self._began = path, run, "", 0, time.perf_counter()

    def start(self, stage: str, total: int, unit: str) -> None:
        self._stage, self._epoch = stage, 0

    def advance(self, n: int = 1, **values: float) -> None:
        if n == 0:  # the end of an epoch; a step advances by one
            self.epoch(values)

    def epoch(self, values: dict[str, float]) -> None:
        self._epoch += 1
        seconds = round(time.perf_counter() - self._began, 2)
        self.write({"stage": self._stage, "epoch": self._epoch, "seconds": seconds, **values})

    def write(self, line: Row) -> None:
        append_line(self._path, {"part": "cifar", "run": self._run, **line})


def open_images(given: argparse.Namespace) -> ArraySource:
    """The images to train on and those to look at: test images, or with `held_out` the last images of training."""
    data = open_data(f"cifar10:{Path(given.cifar).resolve()}")
    assert isinstance(data, ArraySource)
    train, val = data.train, data.val
    if given.held_out:
        train, val = _part(train, slice(None, -given.held_out)), _part(train, slice(-given.held_out, None))
    return replace(data, train=_part(train, slice(given.train)), val=_part(val, slice(given.val)))


def _part(arrays: Arrays, which: slice) -> Arrays:
    return Arrays(arrays.inputs[which], None if arrays.target is None else arrays.target[which])


def recipe(given: argparse.Namespace, epochs: int, *, taught: bool = True) -> Recipe:
    """The training of every method, as the command line asks; a search is not `taught` by the dense network."""
    return Recipe(
        epochs=epochs, batch_size=128, optimizer="sgd", lr=given.lr, weight_decay=5e-4, augment=True,
        distill=given.distill if taught else 0.0, precision=given.precision, compile=given.compile,
    )  # fmt: skip


def n_search(given: argparse.Namespace, method: str) -> int:
    """Epochs before the cut; those after it are at least one, too."""
    return max(1, round(0.4 * given.epochs)) if method in (*SEARCHES, "peer sparse", "peer inner") else 0


@contextmanager
def allocation_power(power: float) -> Iterator[None]:
    """The block with another power of the widths in the global allocation by MACs: a constant of the product."""
    ours = select_units.rank_scores

    def ranked(scores: Any, rules: Any, allocation: str, of: str = "params") -> Any:
        return ours(scores, rules, allocation, of) * rules.sizes[rules.group] ** (power - POWER)

    select_units.rank_scores = ranked if power != POWER else ours
    try:
        yield
    finally:
        select_units.rank_scores = ours


def ours(
    dense: Program, ratio: float, method: str, data: ArraySource, given: argparse.Namespace, seed: int, course: Course
) -> tuple[Program, Row]:
    """The compact network after all epochs, and what was measured on the way.

    It is made compact before it is retrained: the same function and the same gradients, and epochs cost less.
    """
    find = n_search(given, method)
    asked = PruneSettings(
        round_to=1, ratio=ratio, method="magnitude", pattern="channel", of="macs", seed=seed, device=given.device,
        score="taylor" if method == "taylor" else "l2", recovery=Recovery() if method == "scratch" else HEALING,
        keep=tuple(given.keep.split(",")) if given.keep else (),
    )  # fmt: skip
    if method in SEARCHES:
        asked = replace(asked, method=method, prune_recipe=recipe(given, find, taught=False))
    with allocation_power(given.power):
        pruned, report = compressor.prune(dense, asked, data=data, progress=course)
    small, _ = compressor.compact(pruned)
    if method == "scratch":
        reinitialise(small, seed)
    small, told = _retrained(small, dense, data, given, given.epochs - find, seed, course)
    stages = [(row.name, _error(row.metrics)) for row in (*report.stages, *told.stages)]
    by_end = {name.rsplit(": ", 1)[-1]: error for name, error in stages}
    healed = {"cut": by_end["cut"], "healed": by_end["recovered"]} if "recovered" in by_end else {}
    widths = [layer.kept for layer in report.layers]
    return small, {**healed, "stages": stages, "error": stages[-1][1], "widths": widths}


def _retrained(
    small: Program, teacher: Program | None, data: ArraySource, given: argparse.Namespace, epochs: int, seed: int,
    course: Course,
) -> tuple[Program, Any]:  # fmt: skip
    """The network after so many epochs; with a share for the teacher, it learns from one if there is one."""
    return compressor.retrain(
        small, recipe(given, epochs, taught=teacher is not None), data=data, seed=seed, device=given.device,
        progress=course, teacher=teacher if given.distill else None,
    )  # fmt: skip


def one_shot(
    dense: Program, ratio: float, score: str, data: ArraySource, given: argparse.Namespace, seed: int
) -> tuple[Program, Row]:
    """The cut alone, then each way to heal it without training."""
    settings = PruneSettings(
        round_to=1, ratio=ratio, method="magnitude", of="macs", score=score, seed=seed, device=given.device
    )
    with allocation_power(given.power):
        cut, _ = compressor.prune(dense, settings, data=data)
    errors: Row = {"cut": measured(cut, data, given.device)}
    for name, recovery in (("recalibrated", replace(HEALING, reconstruct=0)), ("healed", HEALING)):
        _, told = compressor.retrain(
            cut, None, data=data, recovery=recovery, teacher=dense, seed=seed, device=given.device
        )  # fmt: skip
        errors[name] = _error(told.stages[-1].metrics)
    small, _ = compressor.compact(cut)
    return small, {**errors, "error": errors["healed"]}


def peer(
    dense: Program, arch: str, ratio: float, method: str, data: ArraySource, given: argparse.Namespace, seed: int,
    course: Course,
) -> tuple[Program, Row]:  # fmt: skip
    """Torch-Pruning's network at that ratio, trained by the same recipe."""
    find = n_search(given, method)
    if method in ("peer l1", "peer group"):
        small = cut_once(dense, arch, ratio, group=method == "peer group")
    else:
        course.start("sparse learning", find, "epoch")
        # Its own loop takes no L2 beside its regulariser.
        sparse = replace(recipe(given, find, taught=False), weight_decay=0.0)
        small = sparse_cut(
            dense, arch, ratio, data, sparse, inner_only=method == "peer inner", seed=seed, device=given.device,
            on_epoch=lambda epoch: course.epoch({"loss": epoch.train_loss, **epoch.metrics}),
        )  # fmt: skip
    errors: Row = {"cut": measured(small, data, given.device)}
    # There is no reference of its widths to say what the images of its training were like; we know it.
    recalibrate(small, data, n_batches=HEALING.recalibrate, seed=seed, device=given.device, augment=True)
    errors["recalibrated"] = errors["healed"] = measured(small, data, given.device)
    if given.epochs == 0:
        return small, {**errors, "error": errors["healed"]}
    small, told = _retrained(small, dense, data, given, given.epochs - find, seed, course)
    return small, {**errors, "error": _error(told.stages[-1].metrics)}


def measured(program: Program, data: ArraySource, device: str) -> float:
    error = _error(compressor.evaluate(program.module, data, open_task(None), device=device))
    program.module.to("cpu")
    return error


def _error(metrics: Any) -> float:
    return round(100 - 100 * metrics["accuracy"], 4)


def run(
    arch: str, ratio: float, method: str, seed: int, data: ArraySource, given: argparse.Namespace, course: Course
) -> Row:
    """One network by one method, as a row."""
    dense = compressor.load(given.checkpoints / CHECKPOINTS[arch], arch=arch, inputs=[INPUT])
    began = time.perf_counter()
    before = measured(dense, data, given.device)
    if method == "dense":
        small, told = _retrained(dense, None, data, given, given.epochs, seed, course)
        row: Row = {"error": _error(told.stages[-1].metrics)}
    elif method in PEERS:
        small, row = peer(dense, arch, ratio, method, data, given, seed, course)
    elif given.epochs == 0:
        small, row = one_shot(dense, ratio, method, data, given, seed)
    else:
        small, row = ours(dense, ratio, method, data, given, seed, course)
    return row_of(arch, ratio, method, seed, given) | {
        "dense_error": before, **row,
        "mac_ratio": count_macs(dense) / count_macs(small),
        "param_ratio": dense.n_parameters / small.n_parameters, "seconds": time.perf_counter() - began,
    }  # fmt: skip


def row_of(arch: str, ratio: float, method: str, seed: int, given: argparse.Namespace) -> Row:
    """What tells one row from another: one that has all of this is not run again."""
    return {
        "arch": arch, "asked": ratio, "method": method, "seed": seed, "epochs": given.epochs, "train": given.train,
        "val": given.val, "held_out": given.held_out, "distill": given.distill, "precision": given.precision,
        "lr": given.lr, "power": given.power, "keep": given.keep,
    }  # fmt: skip
