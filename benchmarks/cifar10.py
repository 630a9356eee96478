"""ResNets on CIFAR-10 at a MAC ratio, against Torch-Pruning.

`python -m benchmarks.cifar10 --cifar DIR --checkpoints DIR [--epochs 40]`. Every method starts from the same published
checkpoint and gets the same number of training epochs on the same data with the same augmentation, optimizer and
schedule (SGD, cosine, from `--lr`); ADMM and group lasso spend 40 % of them before the cut. `--epochs 0` compares cuts
alone: as they are, with batch norm re-calibrated, and with the weights reconstructed too. Torch-Pruning is installed
into a temporary folder unless `--peer` names one; its ratio is bisected until the MACs fit, and its network then goes
through the same training. `scratch` trains the small network from fresh weights, `dense` goes on with the dense one.
Accuracy is that of the last epoch. CPU or CUDA: `--device`.
"""

from __future__ import annotations

import argparse
import copy
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

import compressor
from compressor.asking import PruneSettings, Recipe, Recovery
from compressor.cli.memory import keep_freed_memory
from compressor.cost import count_macs
from compressor.data import open_data
from compressor.data.arrays import Arrays, ArraySource
from compressor.models import build
from compressor.program import InputSpec, Program, capture
from compressor.pruning.recalibrate import recalibrate
from compressor.pruning.survivors import reinitialise

PEER = "torch-pruning==1.6.1"
CHECKPOINTS = {"resnet20": "resnet20-12fca82f.th", "resnet56": "resnet56-4bfd9763.th"}
CASES = (("resnet20", 2.0), ("resnet56", 2.1), ("resnet56", 2.6))
SEARCHES = ("admm", "group-lasso")
METHODS = ("magnitude", "taylor", *SEARCHES, "peer l1", "peer group", "scratch", "dense")
ONE_SHOT = ("l2", "l1", "taylor", "fisher", "bn", "fpgm", "peer l1", "peer group")
HEALING = Recovery(reconstruct=16, recalibrate=20)
LR = 0.01
EARLIER = {"precision": "fp32", "lr": LR, "keep": ""}
"""What rows had that were written before it was said."""
INPUT = InputSpec("image", (None, 3, 32, 32))

Row = dict[str, Any]


def recipe(given: argparse.Namespace, epochs: int, *, taught: bool = True) -> Recipe:
    """The training of every method, as the command line asks; a search is not `taught` by the dense network."""
    return Recipe(
        epochs=epochs, batch_size=128, optimizer="sgd", lr=given.lr, weight_decay=5e-4, augment=True,
        distill=given.distill if taught else 0.0, precision=given.precision,
    )  # fmt: skip


def ours(
    dense: Program, ratio: float, method: str, data: ArraySource, given: argparse.Namespace, seed: int
) -> tuple[Program, Row]:
    """The compact network after all epochs, and what was measured on the way.

    It is made compact before it is retrained: the same function and the same gradients, and epochs cost less.
    """
    find = round(0.4 * given.epochs) if method in SEARCHES else 0
    asked = PruneSettings(
        round_to=1, ratio=ratio, method="magnitude", pattern="channel", of="macs", seed=seed, device=given.device,
        score="taylor" if method == "taylor" else "l2", recovery=Recovery() if method == "scratch" else HEALING,
        keep=tuple(given.keep.split(",")) if given.keep else (),
    )  # fmt: skip
    if method in SEARCHES:
        asked = replace(asked, method=method, prune_recipe=recipe(given, find, taught=False))
    pruned, report = compressor.prune(dense, asked, data=data)
    small, _ = compressor.compact(pruned)
    if method == "scratch":
        reinitialise(small, seed)
    small, told = compressor.retrain(
        small, recipe(given, given.epochs - find), data=data, seed=seed, device=given.device,
        teacher=dense if given.distill else None,
    )  # fmt: skip
    stages = [(row.name, _error(row.metrics)) for row in (*report.stages, *told.stages)]
    course = [_error(epoch) for epoch in told.history]
    by_end = {name.rsplit(": ", 1)[-1]: error for name, error in stages}
    healed = {"cut": by_end["cut"], "healed": by_end["recovered"]} if "recovered" in by_end else {}
    return small, {**healed, "stages": stages, "course": course, "error": stages[-1][1], "widths": _widths(report)}


def _widths(report: Any) -> list[int]:
    return [layer.kept for layer in report.layers]


def one_shot(
    dense: Program, ratio: float, score: str, data: ArraySource, given: argparse.Namespace, seed: int
) -> tuple[Program, Row]:
    """The cut alone, then each way to heal it without training."""
    settings = PruneSettings(
        round_to=1, ratio=ratio, method="magnitude", of="macs", score=score, seed=seed, device=given.device
    )
    cut, _ = compressor.prune(dense, settings, data=data)
    errors: Row = {"cut": _measured(cut, data, given.device)}
    for name, recovery in (("recalibrated", replace(HEALING, reconstruct=0)), ("healed", HEALING)):
        _, told = compressor.retrain(
            cut, None, data=data, recovery=recovery, teacher=dense, seed=seed, device=given.device
        )  # fmt: skip
        errors[name] = _error(told.stages[-1].metrics)
    small, _ = compressor.compact(cut)
    return small, {**errors, "error": errors["healed"]}


def peer(
    dense: Program, arch: str, ratio: float, kind: str, data: ArraySource, given: argparse.Namespace, seed: int
) -> tuple[Program, Row]:
    """Torch-Pruning's cut at that ratio, trained by the same recipe."""
    small = peer_cut(dense, arch, ratio, kind)
    errors: Row = {"cut": _measured(small, data, given.device)}
    # There is no reference of its widths to say what the images of its training were like; we know it.
    recalibrate(small, data, n_batches=HEALING.recalibrate, seed=seed, device=given.device, augment=True)
    errors["recalibrated"] = errors["healed"] = _measured(small, data, given.device)
    if given.epochs == 0:
        return small, {**errors, "error": errors["healed"]}
    small, told = compressor.retrain(
        small, recipe(given, given.epochs), data=data, seed=seed, device=given.device,
        teacher=dense if given.distill else None,
    )  # fmt: skip
    course = [_error(epoch) for epoch in told.history]
    return small, {**errors, "course": course, "error": _error(told.stages[-1].metrics)}


def peer_cut(dense: Program, arch: str, ratio: float, kind: str) -> Program:
    """The network that Torch-Pruning leaves, at the smallest of its ratios that saves enough."""
    wanted, low, high = count_macs(dense) / ratio, 0.0, 0.95
    best = _peer_at(dense, arch, high, kind)
    for _ in range(7):
        middle = (low + high) / 2
        tried = _peer_at(dense, arch, middle, kind)
        if count_macs(tried) <= wanted:
            best, high = tried, middle
        else:
            low = middle
    return best


def _peer_at(dense: Program, arch: str, pruning_ratio: float, kind: str) -> Program:
    import torch_pruning  # pyright: ignore[reportMissingImports]

    module = build(arch, {}, seed=0).module
    module.load_state_dict(copy.deepcopy(dense.module.state_dict()), strict=False)
    importance = torch_pruning.importance
    pruner = torch_pruning.pruner.BasePruner(
        module.eval(), torch.randn(1, 3, 32, 32), pruning_ratio=pruning_ratio, global_pruning=kind == "peer group",
        importance=importance.GroupMagnitudeImportance(p=2) if kind == "peer group"
        else importance.MagnitudeImportance(p=1),
        ignored_layers=[layer for layer in module.modules() if isinstance(layer, nn.Linear)],
    )  # fmt: skip
    pruner.step()
    return capture(module, [INPUT])


def _measured(program: Program, data: ArraySource, device: str) -> float:
    from compressor.data import open_task

    error = _error(compressor.evaluate(program.module, data, open_task(None), device=device))
    program.module.to("cpu")
    return error


def _error(metrics: Any) -> float:
    return round(100 - 100 * metrics["accuracy"], 4)


def run(arch: str, ratio: float, method: str, seed: int, data: ArraySource, given: argparse.Namespace) -> Row:
    """One network by one method, as a row."""
    dense = compressor.load(given.checkpoints / CHECKPOINTS[arch], arch=arch, inputs=[INPUT])
    began = time.perf_counter()
    before = _measured(dense, data, given.device)
    if method == "dense":
        small, told = compressor.retrain(
            dense, recipe(given, given.epochs, taught=False), data=data, seed=seed, device=given.device
        )  # fmt: skip
        row: Row = {"error": _error(told.stages[-1].metrics)}
    elif method.startswith("peer"):
        small, row = peer(dense, arch, ratio, method, data, given, seed)
    elif given.epochs == 0:
        small, row = one_shot(dense, ratio, method, data, given, seed)
    else:
        small, row = ours(dense, ratio, method, data, given, seed)
    return row_of(arch, ratio, method, seed, data, given) | {
        "dense_error": before, **row,
        "mac_ratio": count_macs(dense) / count_macs(small),
        "param_ratio": dense.n_parameters / small.n_parameters, "seconds": time.perf_counter() - began,
    }  # fmt: skip


def row_of(arch: str, ratio: float, method: str, seed: int, data: ArraySource, given: argparse.Namespace) -> Row:
    """What tells one row from another: one that has all of this is not run again."""
    return {
        "arch": arch, "asked": ratio, "method": method, "seed": seed, "epochs": given.epochs, "val": data.n_val,
        "distill": given.distill, "precision": given.precision, "lr": given.lr, "keep": given.keep,
    }  # fmt: skip


def table(rows: Sequence[Row]) -> str:
    """Mean and spread over the seeds, one line per case and method."""
    lines = [
        "| net | method | distil | rate | epochs | MACs | params"
        " | dense % | cut % | healed % | accuracy % | change | seeds |",
        "|---|---|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|",
    ]
    same = ("arch", "asked", "method", "epochs", "val", "distill", "lr", "keep")
    rows = [EARLIER | row for row in rows]
    for key in dict.fromkeys(tuple(r[name] for name in same) for r in rows):
        of = [r for r in rows if tuple(r[name] for name in same) == key]

        def mean(name: str, of: list[Row] = of) -> float:
            return statistics.mean(row[name] for row in of)

        def shown(name: str, of: list[Row] = of) -> str:
            return f"{100 - statistics.mean(row[name] for row in of):.2f}" if name in of[0] else ""

        spread = f" ± {statistics.stdev(row['error'] for row in of):.2f}" if len(of) > 1 else ""
        lines.append(
            f"| {key[0]} | {key[2]}{f', {key[7]} whole' if key[7] else ''} | {key[5] or ''} | {key[6]:g} | {key[3]} |"
            f" {mean('mac_ratio'):.2f}x | {mean('param_ratio'):.2f}x |"
            f" {shown('dense_error')} | {shown('cut')} | {shown('healed')} | {shown('error')}{spread} |"
            f" {mean('dense_error') - mean('error'):+.2f} | {len(of)} |"
        )
    return "\n".join(lines)


def parsed() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cifar", required=True, help="folder with the binary version of CIFAR-10")
    parser.add_argument(
        "--checkpoints", required=True, type=Path, help=f"folder with {', '.join(CHECKPOINTS.values())}"
    )
    parser.add_argument("--epochs", type=int, default=40, help="training epochs of every method; 0: the cuts alone")
    parser.add_argument("--distill", type=float, default=0.0, help="share of the dense network's soft loss, for all")
    parser.add_argument("--precision", default="fp32", choices=("fp32", "bf16"), help="of the training of every method")
    parser.add_argument("--lr", type=float, default=LR, help="peak learning rate; 0.05 was used for 20 epochs")
    parser.add_argument("--keep", default="", help="layers that our cuts leave whole, as NAME,NAME; * and ? match")
    parser.add_argument("--methods", help=f"default: {','.join(METHODS)}; with --epochs 0 {','.join(ONE_SHOT)}")
    parser.add_argument("--only", help="run one network only")
    parser.add_argument("--ratio", type=float, help="run one ratio only")
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--first-seed", type=int, default=1)
    parser.add_argument("--val", type=int, default=10_000, help="test images that are looked at, from the first")
    parser.add_argument("--peer", type=Path, help="a folder that holds Torch-Pruning")
    parser.add_argument("--out", type=Path, default=Path("benchmarks/out/cifar10.json"))
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int, default=0)
    return parser.parse_args()


def run_all(given: argparse.Namespace) -> list[Row]:
    """Every row that `--out` lacks, written as it comes; all rows."""
    given.out.parent.mkdir(parents=True, exist_ok=True)
    rows: list[Row] = json.loads(given.out.read_text()) if given.out.exists() else []
    data = open_data(f"cifar10:{Path(given.cifar).resolve()}")
    assert isinstance(data, ArraySource)
    data = replace(data, val=Arrays(data.val.inputs[: given.val], data.val.target[: given.val]))
    methods = given.methods.split(",") if given.methods else ONE_SHOT if given.epochs == 0 else METHODS
    for seed in range(given.first_seed, given.first_seed + given.seeds):
        for arch, ratio in CASES:
            if given.only not in (None, arch) or given.ratio not in (None, ratio):
                continue
            for method in methods:
                wanted = row_of(arch, ratio, method, seed, data, given)
                if any(wanted.items() <= (EARLIER | row).items() for row in rows):
                    continue
                rows.append(run(arch, ratio, method, seed, data, given))
                given.out.write_text(json.dumps(rows, indent=1))
                print(json.dumps(rows[-1]), flush=True)
    return rows


def main() -> None:
    given = parsed()
    keep_freed_memory()
    if given.threads:
        torch.set_num_threads(given.threads)
    with tempfile.TemporaryDirectory() as folder:
        if given.peer is None:
            pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target", folder, PEER]
            subprocess.run(pip, check=True)
        sys.path.append(str(given.peer or folder))
        print(table(run_all(given)))


if __name__ == "__main__":
    main()
