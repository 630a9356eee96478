"""Each ingredient on and off: `python -m benchmarks.ablation --mnist DIR [--seeds 3]`.

LeNet-300-100 on full MNIST, single weights, one ratio for each part; every run that trains gets the same number of
epochs. Rows are Han et al. 2015 (quality thresholds, iterative steps, surviving weights, L1, L2, allocations), then
ADMM (penalty, updates, learning rate, stages), then 33 % sparsity, which is said to be free. Every script row is one
run; the table is the difference to the base of its part, over the same seeds. Accuracy is that of the last epoch.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

import compressor
from benchmarks.mnist import dense
from compressor.asking import PruneSettings, Recipe, Recovery, Sensitivity
from compressor.data import DataSource, open_data, open_task
from compressor.program import Program

ARCH = "lenet-300-100"
RATIO = 20.0
ADMM_RATIO = 64.0
"""What ADMM adds drowns in the noise of the test set (0.12 points) where magnitude alone still loses nothing."""
EPOCHS = 15
QUALITY = 0.8
"""Threshold in standard deviations that comes to about the same ratio in three rounds."""
SENSITIVITY = "sensitivity allocation"
SCAN_SHARES = (0.25, 0.5, 0.75, 0.9, 0.95, 0.98)
SCAN_SAMPLES = 10_000

Row = dict[str, Any]
Make = Callable[[PruneSettings], PruneSettings]


def recipe(epochs: int, **changes: Any) -> Recipe:
    return Recipe(epochs=epochs, batch_size=128, **changes)


def han(seed: int, device: str) -> PruneSettings:
    """Three rounds of cutting and retraining, as in the paper."""
    third = recipe(EPOCHS // 3)
    return PruneSettings(
        ratio=RATIO,
        method="magnitude",
        pattern="unstructured",
        steps=3,
        prune_recipe=third,
        retrain_recipe=third,
        seed=seed,
        device=device,
    )


def admm(seed: int, device: str) -> PruneSettings:
    """40 % of the epochs to find the structure, the rest to retrain it."""
    find = round(0.4 * EPOCHS)
    return PruneSettings(
        ratio=ADMM_RATIO,
        method="admm",
        pattern="unstructured",
        prune_recipe=recipe(find),
        retrain_recipe=recipe(EPOCHS - find),
        seed=seed,
        device=device,
    )


def both(**changes: Any) -> Make:
    """The same change to the training before and after the last cut."""

    def make(base: PruneSettings) -> PruneSettings:
        recipes = (base.prune_recipe, base.retrain_recipe)
        first, last = (r and replace(r, **changes) for r in recipes)
        return replace(base, prune_recipe=first, retrain_recipe=last)

    return make


def one_round(base: PruneSettings) -> PruneSettings:
    return replace(base, steps=1, prune_recipe=None, retrain_recipe=recipe(EPOCHS))


def with_admm(**changes: Any) -> Make:
    return lambda base: replace(base, admm=replace(base.admm, **changes))


def one_cycle(base: PruneSettings) -> PruneSettings:
    """One cosine over all ADMM epochs instead of a new one at every update."""
    assert base.prune_recipe is not None
    return replace(base, prune_recipe=replace(base.prune_recipe, cycle_epochs=base.prune_recipe.epochs))


def staged(base: PruneSettings) -> PruneSettings:
    assert base.prune_recipe is not None
    half = replace(base.prune_recipe, epochs=base.prune_recipe.epochs // 2)
    return replace(base, admm=replace(base.admm, stages=2), prune_recipe=half)


def untrained(base: PruneSettings) -> PruneSettings:
    return replace(base, method="magnitude", steps=1, prune_recipe=None, retrain_recipe=None)


def mild(base: PruneSettings) -> PruneSettings:
    return replace(base, ratio=1.5)


HAN: dict[str, Make] = {
    "base: 3 rounds, survivors kept, global": lambda base: base,
    "one round": one_round,
    "one round, no retraining": untrained,
    "one round, no retraining, reconstructed": lambda b: replace(untrained(b), recovery=Recovery(reconstruct=32)),
    "cubic schedule": lambda b: replace(b, schedule="cubic"),
    "fresh weights for the last retraining": lambda b: replace(b, reinit=True),
    "L2 1e-4": both(weight_decay=1e-4),
    "L1 1e-5": both(l1=1e-5),
    "L1 1e-4": both(l1=1e-4),
    "distillation 0.7": both(distill=0.7),
    "uniform allocation": lambda b: replace(b, allocation="uniform"),
    SENSITIVITY: lambda b: b,
    f"threshold {QUALITY:g} std per round": lambda b: replace(b, ratio=1.0, quality=(("*", QUALITY),)),
    "score L1": lambda b: replace(b, score="l1"),
    "score Taylor": lambda b: replace(b, score="taylor"),
    "score Fisher": lambda b: replace(b, score="fisher"),
    "random": lambda b: replace(b, method="random"),
}
ADMM: dict[str, Make] = {
    "base: 40 updates, rate anew at every one": lambda base: base,
    "no ADMM epochs (cut, then all epochs)": lambda b: one_round(replace(b, method="magnitude")),
    "penalty constant 1e-3": with_admm(rho_growth=1.0),
    "penalty grows to 0.1": with_admm(rho_max=0.1),
    "updates: 3": with_admm(updates=3),
    "updates: 6, one an epoch": with_admm(updates=6),
    "updates: 160": with_admm(updates=160),
    "one learning-rate cycle": one_cycle,
    "two stages": staged,
    "no retraining": lambda b: replace(b, retrain_recipe=None),
    "distillation 0.7": both(distill=0.7),
}
MILD: dict[str, Make] = {
    "33 %: no retraining": lambda b: untrained(mild(b)),
    "33 %: retrained": lambda b: one_round(mild(b)),
    "33 %: ADMM": lambda b: mild(admm(b.seed, b.device)),
}
PARTS: dict[str, tuple[Callable[[int, str], PruneSettings], dict[str, Make]]] = {
    "han": (han, HAN), "admm": (admm, ADMM), "33 %": (han, MILD),
}  # fmt: skip


def scan(program: Program, data: DataSource, cache: Path, seed: int) -> Sensitivity:
    """What each layer loses alone, from the cache if it is there; on training images, so that the test set decides
    nothing."""
    path = cache / f"{ARCH}-{seed}-scan.json"
    if path.exists():
        return Sensitivity.from_mapping(json.loads(path.read_text()))
    found = _train_losses(program, data)
    path.write_text(json.dumps(found.to_mapping()))
    return found


def _train_losses(program: Program, data: DataSource) -> Sensitivity:
    def accuracy(pruned: Program) -> float:
        return compressor.evaluate(pruned.module, data, open_task(None), split="train", limit=SCAN_SAMPLES)["accuracy"]

    curves: dict[str, list[tuple[float, float]]] = {}
    for layer in ("fc1", "fc2", "fc3"):
        for removed in SCAN_SHARES:
            alone = PruneSettings(ratio=1.0, method="magnitude", pattern="unstructured", layers=((layer, 1 - removed),))
            pruned, _ = compressor.prune(program, alone)
            curves.setdefault(layer, []).append((removed, accuracy(pruned)))
    points = {layer: tuple(curve) for layer, curve in curves.items()}
    return Sensitivity("accuracy", accuracy(program), SCAN_SAMPLES, "unstructured", points)


def run(part: str, name: str, seed: int, mnist: str, cache: Path, device: str) -> Row:
    """One run, as a row."""
    program, data = dense(ARCH, mnist, seed, cache, device), open_data(mnist)
    base, variants = PARTS[part]
    asked = variants[name](base(seed, device))
    if name == SENSITIVITY:  # the only one that needs a measurement first
        asked = replace(asked, allocation="sensitivity", sensitivity=scan(program, data, cache, seed))
    began = time.perf_counter()
    _, report = compressor.prune(program, asked, data=data)
    first, last = (100 - 100 * (report.stages[i].metrics or {})["accuracy"] for i in (0, -1))
    return {
        "part": part, "name": name, "seed": seed, "got": report.got, "dense_error": round(first, 4),
        "error": round(last, 4), "epochs": sum(row.epochs for row in report.stages),
        "kept": {cut.name: cut.kept for cut in report.layers}, "seconds": time.perf_counter() - began,
    }  # fmt: skip


def table(rows: Sequence[Row]) -> str:
    """Every variant with its difference to the base of its part, seed by seed."""
    lines = [
        "| part | variant | ratio | epochs | error % (mean ± sd) | to the base | seeds |",
        "|---|---|--:|--:|--:|--:|--:|",
    ]
    for part, (_, variants) in PARTS.items():
        of_part = [row for row in rows if row["part"] == part]
        base = {row["seed"]: row["error"] for row in of_part if row["name"] == next(iter(variants))}
        for name in variants:
            of = [row for row in of_part if row["name"] == name]
            if not of:
                continue
            errors = [row["error"] for row in of]
            spread = f" ± {statistics.stdev(errors):.2f}" if len(errors) > 1 else ""
            apart = [row["error"] - base[row["seed"]] for row in of if row["seed"] in base]
            lines.append(
                f"| {part} | {name} | {statistics.mean(row['got'] for row in of):.1f}x | {of[0]['epochs']} |"
                f" {statistics.mean(errors):.2f}{spread} | {statistics.mean(apart):+.2f} | {len(of)} |"
            )
    dense_errors = {row["seed"]: row["dense_error"] for row in rows}
    return "\n".join([*lines, "", f"dense error % by seed: {dense_errors}"])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--mnist", required=True, help="folder with the four IDX files")
    parser.add_argument("--parts", default=",".join(PARTS), help="parts of the table")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--first-seed", type=int, default=1)
    parser.add_argument("--out", type=Path, default=Path("benchmarks/out/ablation.json"))
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int, default=0)
    options = parser.parse_args()
    if options.threads:
        torch.set_num_threads(options.threads)
    options.out.parent.mkdir(parents=True, exist_ok=True)
    rows: list[Row] = json.loads(options.out.read_text()) if options.out.exists() else []
    done = {(row["part"], row["name"], row["seed"]) for row in rows}
    mnist = f"mnist:{Path(options.mnist).resolve()}"
    for seed in range(options.first_seed, options.first_seed + options.seeds):
        for part in options.parts.split(","):
            for name in PARTS[part][1]:
                if (part, name, seed) in done:
                    continue
                rows.append(run(part, name, seed, mnist, options.out.parent / "dense", options.device))
                options.out.write_text(json.dumps(rows, indent=1))
                print(json.dumps(rows[-1]), flush=True)
    print(table(rows))


if __name__ == "__main__":
    main()
