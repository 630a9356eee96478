"""The control: dense networks of the pruned sizes, trained from scratch with the same total budget.

`python -m benchmarks.control --mnist DIR --rows benchmarks/data/mnist_reach.json`, the rows being what
`python -m benchmarks.mnist --cases reach` wrote. For a structured row the small network has the widths that pruning
found, and the inputs, for which the search is run again; for an unstructured one all layers are thinned alike until the
network has as many parameters as the pruned one has weights left. It starts from fresh weights and gets the epochs of
the dense network's training *and* of the pruning run, with the same optimizer, peak rate and batch size, images and
teacher (the dense network, or none) as in the run that it stands against. Accuracy is that of the last epoch.

Source:  Liu et al. 2019, "Rethinking the Value of Network Pruning", sec. 3 (Scratch-B).
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

import compressor
from benchmarks.mnist import CASES, Case, dense, dense_recipe, find, grouped, heal
from compressor.asking import PruneSettings
from compressor.data import open_data
from compressor.data.arrays import ArraySource
from compressor.program import Program
from compressor.pruning.survivors import reinitialise

EARLIER = {"augment": False, "distill": 0.7, "settle": 0}
"""What rows had that were written before it was said."""

Row = dict[str, Any]


def fresh(case: Case, program: Program, data: ArraySource, row: Row, device: str) -> Program:
    """A dense network of the row's size, with fresh weights."""
    seed = row["seed"]
    if row["select_inputs"]:
        # Which pixels were kept is not in the row, and no other choice would be a fair control.
        small = find(case, program, data, seed, device).program
        if small.n_parameters != row["kept"]:
            raise SystemExit(f"the search left {small.n_parameters:,} parameters, in the row are {row['kept']:,}")
    else:
        asked = PruneSettings(
            round_to=1,
            ratio=row["got"],
            method="magnitude",
            pattern="channel",
            allocation="uniform",
            floor=0.0,
            seed=seed,
        )
        if row["pattern"] != "unstructured":
            full = {name: program.parameters[f"{name}.weight"].shape[0] for name in row["widths"]}
            shares = tuple((name, kept / full[name]) for name, kept in row["widths"].items() if kept < full[name])
            asked = PruneSettings(
                round_to=1, ratio=1.0, method="magnitude", pattern="channel", layers=shares, floor=0.0, seed=seed
            )
        pruned, _ = compressor.prune(program, asked)
        small, _ = compressor.compact(pruned)
    reinitialise(small, seed)
    return small


def case_of(row: Row) -> Case:
    """The case that a row came from.

    Raises:  SystemExit if it is of another version of the script.
    """
    wanted = EARLIER | row
    same = ("group", "arch", "pattern", "select_inputs", "augment", "distill", "settle")
    for case in CASES:
        if case.ratio == wanted["asked"] and all(getattr(case, name) == wanted[name] for name in same):
            return case
    raise SystemExit(f"no case of benchmarks.mnist has made this row: {row['arch']}, {row['asked']:g}x")


def run(row: Row, mnist: str, cache: Path, device: str) -> Row:
    """One control, as a row beside the error of the pruned network."""
    seed, case = row["seed"], case_of(row)
    program, data = dense(case.arch, mnist, seed, cache, device, augment=case.augment), open_data(mnist)
    assert isinstance(data, ArraySource)
    small, began = fresh(case, program, data, row, device), time.process_time()
    epochs = dense_recipe(case.arch, case.augment).epochs + row["epochs"]
    trained, course = heal(case, small, program, data, epochs - case.settle, seed, device)
    return {
        **{key: row[key] for key in ("group", "arch", "pattern", "asked", "method", "seed", "select_inputs")},
        "augment": case.augment, "distill": case.distill,
        "pruned_error": row["error"], "pruned_kept": row["kept"], "dense_error": row["dense_error"],
        "scratch_error": round(100 - 100 * course[-1]["accuracy"], 4),
        "scratch_params": trained.n_parameters, "epochs": epochs, "cpu_seconds": time.process_time() - began,
    }  # fmt: skip


def table(rows: Sequence[Row]) -> str:
    """Pruned against fresh, mean over the seeds."""
    lines = [
        "| net | pattern | weights left | pruned error % | parameters | from scratch, error % | difference | seeds |",
        "|---|---|--:|--:|--:|--:|--:|--:|",
    ]
    for (arch, pattern, inputs, moved, _, _), of in grouped(rows):

        def mean(name: str, of: Sequence[Row] = of) -> float:
            return statistics.mean(row[name] for row in of)

        lines.append(
            f"| {arch} | {pattern}{' + inputs' if inputs else ''}{', moved' if moved else ''} |"
            f" {mean('pruned_kept'):,.0f} |"
            f" {mean('pruned_error'):.2f} | {mean('scratch_params'):,.0f} | {mean('scratch_error'):.2f} |"
            f" {mean('scratch_error') - mean('pruned_error'):+.2f} | {len(of)} |"
        )
    return "\n".join(lines)


def _key(row: Row) -> tuple[Any, ...]:
    return row["arch"], row["pattern"], row["asked"], row["seed"], row.get("augment", False)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--mnist", required=True, help="folder with the four IDX files")
    parser.add_argument("--rows", required=True, type=Path, help="what benchmarks.mnist --cases reach wrote")
    parser.add_argument("--out", type=Path, default=Path("benchmarks/out/control.json"))
    parser.add_argument("--only", help="run one network only")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int, default=0)
    options = parser.parse_args()
    if options.threads:
        torch.set_num_threads(options.threads)
    options.out.parent.mkdir(parents=True, exist_ok=True)
    rows: list[Row] = json.loads(options.out.read_text()) if options.out.exists() else []
    done = {_key(row) for row in rows}
    mnist = f"mnist:{Path(options.mnist).resolve()}"
    for row in json.loads(options.rows.read_text()):
        if _key(row) in done or row["group"] != "reach" or options.only not in (None, row["arch"]):
            continue
        rows.append(run(row, mnist, options.out.parent / "dense", options.device))
        options.out.write_text(json.dumps(rows, indent=1))
        print(json.dumps(rows[-1]), flush=True)
    print(table(rows))


if __name__ == "__main__":
    main()
