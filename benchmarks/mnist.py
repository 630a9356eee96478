"""Han et al. and ADMM on full MNIST: `python benchmarks/mnist.py --mnist DIR [--seeds 3] [--out results.json]`.

For every seed: trains the dense network, then prunes it by magnitude and by ADMM with the same number of training
epochs after the dense ones. Accuracy is that of the last epoch (no selection on the test set). The results file is
written after every run and runs that it already holds are skipped, so a broken-off benchmark continues.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from pathlib import Path

import torch

import compressor
from compressor.data import open_data, open_task
from compressor.models import build
from compressor.program import InputSpec, Program, Record, capture
from compressor.pruning import Admm, PruneSettings
from compressor.training import Recipe, fit

DENSE = {
    "lenet-300-100": Recipe(epochs=20, batch_size=128, weight_decay=1e-4),
    "lenet5": Recipe(epochs=10, batch_size=128, weight_decay=1e-4),
}
BUDGET = {"lenet-300-100": 40, "lenet5": 12}
"""Training epochs of each pruning run, the same for both methods."""

CASES = [
    ("lenet-300-100", "unstructured", 12.0),
    ("lenet5", "unstructured", 12.0),
    ("lenet5", "channel", 17.0),
]


def settings(arch: str, pattern: str, ratio: float, method: str, seed: int) -> PruneSettings:
    """Both methods get the same epochs: ADMM spends 40 % of them on finding the structure, magnitude on two of
    three rounds of cutting and retraining."""
    total = BUDGET[arch]
    retrain = Recipe(epochs=total - round(0.4 * total), batch_size=128, distill=0.5)
    if method == "admm":
        find = Recipe(epochs=round(0.4 * total), batch_size=128, schedule="constant")
        # the penalty has to reach about 0.1 by the last update, whatever the number of updates
        growth = (0.1 / 1e-3) ** (1 / (find.epochs - 1))
        admm = Admm(rho=1e-3, rho_growth=growth)
        return PruneSettings(ratio, "admm", pattern, admm=admm, prune_recipe=find, retrain_recipe=retrain, seed=seed)
    find = Recipe(epochs=round(0.2 * total), batch_size=128, distill=0.5)
    return PruneSettings(ratio, "magnitude", pattern, steps=3, prune_recipe=find, retrain_recipe=retrain, seed=seed)


def dense(arch: str, mnist: str, seed: int, cache: Path) -> Program:
    """The trained dense network of a seed, from the cache if it is there."""
    path = cache / f"{arch}-{seed}.pt"
    if path.exists():
        return compressor.load(path)
    data, built = open_data(mnist), build(arch, {}, seed=seed)
    built.module.to(memory_format=torch.channels_last)
    fit(built.module, data, open_task(None), DENSE[arch], seed=seed, evaluate_every=DENSE[arch].epochs)
    program = capture(built.module, [InputSpec("image", (None, 1, 28, 28))], record=Record(arch=arch, data=mnist))
    path.parent.mkdir(parents=True, exist_ok=True)
    compressor.save(program, path)
    return program


def run(arch: str, pattern: str, ratio: float, method: str, seed: int, mnist: str, cache: Path) -> dict[str, object]:
    """One pruning run, as a row."""
    program = dense(arch, mnist, seed, cache)
    began = time.perf_counter()
    pruned, report = compressor.prune(program, settings(arch, pattern, ratio, method, seed), data=open_data(mnist))
    row = {
        "arch": arch, "pattern": pattern, "asked": ratio, "method": method, "seed": seed, "got": report.got,
        "kept": report.kept_params, "widths": {c.name: c.kept for c in report.layers},
        "stages": [{"stage": s.name, "error": 100 - 100 * (s.metrics or {})["accuracy"]} for s in report.stages],
        "dense_error": 100 - 100 * (report.stages[0].metrics or {})["accuracy"],
        "error": 100 - 100 * (report.stages[-1].metrics or {})["accuracy"],
        "epochs": BUDGET[arch], "seconds": time.perf_counter() - began,
    }  # fmt: skip
    if pattern == "channel":
        _, proof = compressor.compact(pruned, data=open_data(mnist))
        row |= {
            "compact_ratio": proof.dense_params / proof.compact_params,
            "mac_ratio": proof.dense_macs / proof.compact_macs,
            "compact_error": 100 - 100 * (proof.metrics or {})["accuracy"],
            "float32_relative": proof.agreement.float32_relative,
        }
    return row


def table(rows: list[dict[str, object]]) -> str:
    """Mean and spread over the seeds, one line per case and method."""
    lines = [
        "| net | pattern | method | ratio | dense error % | error % (mean ± sd) | difference | seeds |",
        "|---|---|---|---|---|---|---|---|",
    ]
    keys = dict.fromkeys((r["arch"], r["pattern"], r["asked"], r["method"]) for r in rows)
    for arch, pattern, asked, method in keys:
        of = [r for r in rows if (r["arch"], r["pattern"], r["asked"], r["method"]) == (arch, pattern, asked, method)]
        errors, before = [float(r["error"]) for r in of], [float(r["dense_error"]) for r in of]
        got = statistics.mean(float(r.get("compact_ratio", r["got"])) for r in of)
        spread = statistics.stdev(errors) if len(errors) > 1 else 0.0
        lines.append(
            f"| {arch} | {pattern} | {method} | {got:.2f}x | {statistics.mean(before):.2f} |"
            f" {statistics.mean(errors):.2f} ± {spread:.2f} |"
            f" {statistics.mean(errors) - statistics.mean(before):+.2f} | {len(of)} |"
        )
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--mnist", required=True, help="folder with the four IDX files")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--first-seed", type=int, default=1, help="to spread seeds over processes")
    parser.add_argument("--out", type=Path, default=Path("benchmarks/out/mnist.json"))
    parser.add_argument("--only", help="run one network only")
    parser.add_argument("--pattern", help="run one pattern only")
    parser.add_argument("--threads", type=int, default=0)
    options = parser.parse_args()
    if options.threads:
        torch.set_num_threads(options.threads)
    options.out.parent.mkdir(parents=True, exist_ok=True)
    rows: list[dict[str, object]] = json.loads(options.out.read_text()) if options.out.exists() else []
    done = {(r["arch"], r["pattern"], r["asked"], r["method"], r["seed"]) for r in rows}
    cases = [c for c in CASES if options.only in (None, c[0]) and options.pattern in (None, c[1])]
    mnist = f"mnist:{Path(options.mnist).resolve()}"
    for seed in range(options.first_seed, options.first_seed + options.seeds):
        for arch, pattern, ratio in cases:
            for method in ("magnitude", "admm"):
                if (arch, pattern, ratio, method, seed) in done:
                    continue
                rows.append(run(arch, pattern, ratio, method, seed, mnist, options.out.parent / "dense"))
                options.out.write_text(json.dumps(rows, indent=1))
                print(json.dumps({k: v for k, v in rows[-1].items() if k != "stages"}), flush=True)
    print(table(rows))


if __name__ == "__main__":
    main()
