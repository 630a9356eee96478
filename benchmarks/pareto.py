"""Accuracy against parameters on the ResNet family: `python -m benchmarks.pareto --cifar DIR --checkpoints DIR`.

L1, Fisher and ADMM, whole channels and single weights, at several parameter ratios, from the published checkpoints,
each with the same number of training epochs (ADMM spends 30 % of them before the cut) by the recipe of
`benchmarks.cifar10_runs`. Writes the rows and a picture. Accuracy is that of the last epoch. `--train N` trains on the
first N images only, which is what a machine without a GPU has time for; the row says so.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

import compressor
from benchmarks.cifar10_runs import CHECKPOINTS, HEALING, LR, recipe
from benchmarks.peer import INPUT
from compressor.asking import PruneSettings
from compressor.cli.memory import keep_freed_memory
from compressor.data import open_data
from compressor.data.arrays import Arrays, ArraySource

METHODS = ("l1", "fisher", "admm")
PATTERNS = ("channel", "unstructured")
RATIOS = (2.0, 4.0, 8.0)

Row = dict[str, Any]


def run(
    arch: str, pattern: str, method: str, ratio: float, seed: int, data: ArraySource, given: argparse.Namespace
) -> Row:
    """One point of the picture."""
    dense = compressor.load(given.checkpoints / CHECKPOINTS[arch], arch=arch, inputs=[INPUT])
    find = round(0.3 * given.epochs) if method == "admm" else 0
    began = time.perf_counter()
    asked = PruneSettings(
        round_to=1,
        ratio=ratio,
        method="admm" if find else "magnitude",
        pattern=pattern,
        score=method if method != "admm" else "l2",
        seed=seed,
        device=given.device,
        recovery=HEALING,
        retrain_recipe=recipe(given, given.epochs - find),
        prune_recipe=recipe(given, find, taught=False) if find else None,
    )
    _, report = compressor.prune(dense, asked, data=data)
    errors = [round(100 - 100 * (row.metrics or {})["accuracy"], 4) for row in report.stages]
    return {
        "arch": arch, "pattern": pattern, "method": method, "asked": ratio, "got": report.got, "seed": seed,
        "epochs": given.epochs, "train": data.n_train, "val": data.n_val, "precision": given.precision,
        "lr": given.lr, "distill": given.distill, "kept": report.kept_params,
        "dense_error": errors[0], "error": errors[-1],
        "stages": [(row.name, error) for row, error in zip(report.stages, errors, strict=True)],
        "seconds": time.perf_counter() - began,
    }  # fmt: skip


def table(rows: Sequence[Row]) -> str:
    lines = ["| net | pattern | method | ratio | parameters | accuracy % | change |", "|---|---|---|--:|--:|--:|--:|"]
    for row in sorted(rows, key=lambda row: (row["arch"], row["pattern"], row["asked"], row["error"])):
        lines.append(
            f"| {row['arch']} | {row['pattern']} | {row['method']} | {row['got']:.2f}x | {row['kept']:,} |"
            f" {100 - row['error']:.2f} | {row['dense_error'] - row['error']:+.2f} |"
        )
    return "\n".join(lines)


def picture(rows: Sequence[Row]) -> str:
    """Error against parameters, a line for each pattern and method, as a file of its own."""
    from benchmarks.mnist import standalone
    from compressor.report.html.charts import Axis, Line, line_chart

    lines: list[Line] = []
    for pattern in PATTERNS:
        for method in METHODS:
            of = [r for r in rows if r["pattern"] == pattern and r["method"] == method]
            points = sorted((row["kept"] / 1e3, row["error"]) for row in of)
            if points:
                lines.append(Line(f"{method}, {pattern}", points, f"s{len(lines) + 1}", dots=True))
    chart = line_chart(
        "Error against parameters", "Test error on CIFAR-10 by method and pattern at one budget of training", lines,
        Axis("thousand parameters left", log=True), Axis("error %", log=True),
    )  # fmt: skip
    return standalone(chart, f"{rows[0]['arch']} on CIFAR-10: test error %")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cifar", required=True, help="folder with the binary version of CIFAR-10")
    parser.add_argument("--checkpoints", required=True, type=Path, help="folder with the published checkpoints")
    parser.add_argument("--arch", default="resnet20", choices=sorted(CHECKPOINTS))
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--train", type=int, default=50_000, help="training images, from the first")
    parser.add_argument("--val", type=int, default=10_000, help="test images that are looked at, from the first")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--precision", default="fp32", choices=("fp32", "bf16"))
    parser.add_argument("--compile", action="store_true", help="training steps through torch.compile")
    parser.add_argument("--lr", type=float, default=LR, help="peak learning rate")
    parser.add_argument("--distill", type=float, default=0.0, help="share of the dense network's soft loss")
    parser.add_argument("--out", type=Path, default=Path("benchmarks/out/pareto.json"))
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int, default=0)
    given = parser.parse_args()
    keep_freed_memory()
    if given.threads:
        torch.set_num_threads(given.threads)
    given.out.parent.mkdir(parents=True, exist_ok=True)
    rows: list[Row] = json.loads(given.out.read_text()) if given.out.exists() else []
    keys = ("arch", "pattern", "method", "asked", "seed", "epochs", "train", "val", "precision", "lr", "distill")
    done = {tuple(row[key] for key in keys) for row in rows}
    data = open_data(f"cifar10:{Path(given.cifar).resolve()}")
    assert isinstance(data, ArraySource)
    (x, y), (v, w) = data.train, data.val
    data = replace(
        data, train=Arrays(x[: given.train], y[: given.train]), val=Arrays(v[: given.val], w[: given.val])
    )  # fmt: skip
    for ratio in RATIOS:
        for pattern in PATTERNS:
            for method in METHODS:
                point = (given.arch, pattern, method, ratio, given.seed)
                how = (given.epochs, data.n_train, data.n_val, given.precision, given.lr, given.distill)
                if (*point, *how) in done:
                    continue
                rows.append(run(*point, data, given))
                given.out.write_text(json.dumps(rows, indent=1))
                print(json.dumps(rows[-1]), flush=True)
    print(table(rows))
    given.out.with_suffix(".svg").write_text(picture(rows))


if __name__ == "__main__":
    main()
