"""ResNets on CIFAR-10 at a MAC ratio, against Torch-Pruning.

`python -m benchmarks.cifar10 --cifar DIR --checkpoints DIR [--epochs 40] --out FOLDER`. Every method starts from the
same published checkpoint and gets the same number of training epochs by the same recipe (benchmarks/cifar10_runs.py);
accuracy is that of the last epoch. `--epochs 0` compares cuts alone: as they are, with batch norm re-calibrated, and
with the weights reconstructed too. `scratch` trains the small network from fresh weights, `dense` goes on with the
dense one.

Every run adds a line to --out/rows.jsonl after every epoch and its row at the end; runs that have a row are not made
again. With `--processes N` N of them run side by side, each in a process of its own.

`--sweep` is the whole comparison in one command: the rate of every method, and the power of widths in our allocation,
are chosen on held-out training images first (one seed, a teacher and none), then every method runs with what was chosen
for it, on all seeds. CPU or CUDA: `--device`; on a GPU with `--compile --precision bf16 --processes 8`.
"""

from __future__ import annotations

import argparse
import itertools
import os
import statistics
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch

from benchmarks.cifar10_runs import (
    CHECKPOINTS,
    LR,
    METHODS,
    ONE_SHOT,
    PEERS,
    POWER,
    Course,
    Row,
    open_images,
    row_of,
    run,
)
from benchmarks.peer import torch_pruning_at
from benchmarks.side_by_side import Ended, Job, json_lines, side_by_side
from compressor.cli.memory import keep_freed_memory

CASES = (("resnet20", 2.0), ("resnet56", 2.1), ("resnet56", 2.6))
RATES = (0.005, 0.01, 0.02, 0.05)
POWERS = (0.5, 1.0, 1.5)
HELD_OUT = 5000
OURS = ("magnitude", "taylor", "admm", "group-lasso")
"""Methods whose allocation has a power."""


def cases(given: argparse.Namespace) -> Iterator[argparse.Namespace]:
    """Every run that was asked for, as arguments of its own."""
    methods = given.methods.split(",") if given.methods else ONE_SHOT if given.epochs == 0 else METHODS
    for seed in range(given.first_seed, given.first_seed + given.seeds):
        for arch, ratio in CASES:
            if given.only in (None, arch) and given.ratio in (None, ratio):
                for method in methods:
                    yield changed(given, only=arch, ratio=ratio, methods=method, first_seed=seed, seeds=1)


def changed(given: argparse.Namespace, **values: Any) -> argparse.Namespace:
    return argparse.Namespace(**{**vars(given), **values})


def wanted_row(one: argparse.Namespace) -> Row:
    return row_of(one.only, one.ratio, one.methods, one.first_seed, one)


def name_of(row: Row) -> str:
    """A name that no other run has, fit for a file."""
    told = "-".join(str(value).replace(" ", "_").replace("*", "all").replace(",", "+") for value in row.values())
    return told.replace("/", "_")


def rows_file(given: argparse.Namespace) -> Path:
    return given.out / "rows.jsonl"


def found_rows(given: argparse.Namespace) -> dict[str, Row]:
    """Rows of the runs that came to their end, by name."""
    return {line["run"]: line["row"] for line in json_lines(rows_file(given)) if "row" in line}


def run_one(one: argparse.Namespace) -> None:
    """In this process."""
    course = Course(rows_file(one), name_of(wanted_row(one)))
    row = run(one.only, one.ratio, one.methods, one.first_seed, open_images(one), one, course)
    course.write({"row": row})
    print(row, flush=True)


def run_all(ones: Sequence[argparse.Namespace], given: argparse.Namespace) -> tuple[list[Row], list[str]]:
    """The rows of these runs, and what failed; those that are not there yet are made."""
    found, failed = found_rows(given), []
    missing = [one for one in ones if name_of(wanted_row(one)) not in found]
    if given.processes:
        threads = str(given.threads or max(1, (os.cpu_count() or 1) // given.processes))
        names = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "TORCHINDUCTOR_COMPILE_THREADS")
        environment = dict.fromkeys(names, threads)
        jobs = [Job(name_of(wanted_row(one)), tuple(command_of(one))) for one in missing]
        ended = side_by_side(
            jobs, given.out / "logs", processes=given.processes, seconds=given.seconds, environment=environment,
            on_end=told,
        )  # fmt: skip
        failed = [end.name for end in ended if end.how == "failed"]
    else:
        for one in missing:
            run_one(one)
    found = found_rows(given)
    return [found[name] for one in ones if (name := name_of(wanted_row(one))) in found], failed


def told(ended: Ended) -> None:
    end = "" if ended.how == "done" else f"\n{ended.said[-800:]}"
    print(f"{ended.name}: {ended.how} after {ended.seconds:.0f} s{end}", flush=True)


def command_of(one: argparse.Namespace) -> list[str]:
    """The command of one run in a process of its own."""
    words = [sys.executable, "-m", "benchmarks.cifar10"]
    for name, value in vars(changed(one, processes=0, seconds=None, sweep=False)).items():
        if value is True:
            words.append(f"--{name.replace('_', '-')}")
        elif isinstance(value, list):
            continue  # what a sweep goes through
        elif value is not None and value is not False and value != "":
            words += [f"--{name.replace('_', '-')}", str(value)]
    return words


def swept(given: argparse.Namespace) -> list[argparse.Namespace]:
    """The runs on held-out training images: every rate, and for what is ours every power at the rate in the middle."""
    held = changed(given, held_out=given.held_out or HELD_OUT, epochs=given.sweep_epochs or given.epochs, seeds=1)
    found = []
    for one, distill in itertools.product(list(cases(held)), given.distills):
        settings = [{"lr": lr} for lr in given.rates]
        if one.methods in OURS:
            settings += [{"lr": given.rates[len(given.rates) // 2], "power": power} for power in given.powers]
        named = [changed(one, distill=distill, **setting) for setting in settings]
        found += list({name_of(wanted_row(each)): each for each in named}.values())
    return found


def chosen(rows: Sequence[Row], one: argparse.Namespace) -> dict[str, float]:
    """The rate, and the power, with the least error on held-out images of this net, ratio, method and teacher."""
    same = {"arch": one.only, "asked": one.ratio, "method": one.methods, "distill": one.distill}
    of = [row for row in rows if same.items() <= row.items()]
    if not of:
        return {}
    best: dict[str, float] = {}
    for name, other in (("lr", "power"), ("power", "lr")):
        usual = [row for row in of if row[other] == statistics.mode(row[other] for row in of)]
        best[name] = min(usual, key=lambda row: row["error"])[name]
    return best


def sweep(given: argparse.Namespace) -> tuple[list[Row], list[str]]:
    """First what is chosen on held-out images, then the comparison on test images."""
    held, failed = run_all(swept(given), given)
    print("chosen on held-out training images\n" + table(held), flush=True)
    test = changed(given, held_out=0)
    finals = [changed(one, distill=distill) for one in cases(test) for distill in given.distills]
    rows, failed_too = run_all([changed(one, **chosen(held, one)) for one in finals], given)
    return rows, failed + failed_too


def table(rows: Sequence[Row]) -> str:
    """Mean and spread over the seeds, one line per case and method."""
    lines = [
        "| net | method | distil | rate | power | epochs | MACs | params"
        " | dense % | cut % | healed % | accuracy % | change | seeds |",
        "|---|---|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|",
    ]
    same = ("arch", "asked", "method", "epochs", "val", "held_out", "train", "distill", "lr", "power", "keep")
    for key in dict.fromkeys(tuple(row[name] for name in same) for row in rows):
        of = [row for row in rows if tuple(row[name] for name in same) == key]
        one = dict(zip(same, key, strict=True))
        spread = f" ± {statistics.stdev(row['error'] for row in of):.2f}" if len(of) > 1 else ""
        whole = f", {one['keep']} whole" if one["keep"] else ""
        lines.append(
            f"| {one['arch']} | {one['method']}{whole} | {one['distill'] or ''} | {one['lr']:g} | {one['power']:g} |"
            f" {one['epochs']} | {_mean(of, 'mac_ratio'):.2f}x | {_mean(of, 'param_ratio'):.2f}x |"
            f" {_accuracy(of, 'dense_error')} | {_accuracy(of, 'cut')} | {_accuracy(of, 'healed')} |"
            f" {_accuracy(of, 'error')}{spread} | {_mean(of, 'dense_error') - _mean(of, 'error'):+.2f} | {len(of)} |"
        )
    return "\n".join(lines)


def _mean(rows: Sequence[Row], name: str) -> float:
    return statistics.mean(row[name] for row in rows)


def _accuracy(rows: Sequence[Row], name: str) -> str:
    return f"{100 - _mean(rows, name):.2f}" if name in rows[0] else ""


def parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("--cifar", required=True, help="folder with the binary version of CIFAR-10")
    made.add_argument("--checkpoints", required=True, type=Path, help=f"folder with {', '.join(CHECKPOINTS.values())}")
    made.add_argument("--epochs", type=int, default=40, help="of every method, 2 or more; 0: the cuts alone")
    made.add_argument("--distill", type=float, default=0.0, help="share of the dense network's soft loss, for all")
    made.add_argument("--precision", default="fp32", choices=("fp32", "bf16"), help="of the training of every method")
    made.add_argument("--compile", action="store_true", help="training steps through torch.compile")
    made.add_argument("--lr", type=float, default=LR, help="peak learning rate; 0.05 was used for 20 epochs")
    made.add_argument("--power", type=float, default=POWER, help="of widths in our allocation, for one seen apart")
    made.add_argument("--keep", default="", help="layers that our cuts leave whole, as NAME,NAME; * and ? match")
    made.add_argument("--methods", help=f"default: {','.join(METHODS)}; with --epochs 0 {','.join(ONE_SHOT)}")
    made.add_argument("--only", help="run one network only")
    made.add_argument("--ratio", type=float, help="run one ratio only")
    made.add_argument("--seeds", type=int, default=1)
    made.add_argument("--first-seed", type=int, default=1)
    made.add_argument("--train", type=int, default=50_000, help="training images that are learned from, from the first")
    made.add_argument("--val", type=int, default=10_000, help="images that are looked at, from the first")
    made.add_argument("--held-out", type=int, default=0, help="look at so many last training images, not at test ones")
    made.add_argument("--peer", type=Path, help="a folder that holds Torch-Pruning")
    made.add_argument("--out", type=Path, default=Path("benchmarks/out/cifar10"), help="folder of the rows")
    made.add_argument("--device", default="cpu")
    made.add_argument("--threads", type=int, default=0)
    made.add_argument("--processes", type=int, default=0, help="runs side by side; 0: one by one, in this process")
    made.add_argument("--seconds", type=float, help="end runs that are not done by then; their epochs stay in --out")
    made.add_argument("--sweep", action="store_true", help="choose rates and powers on held-out images, then compare")
    made.add_argument("--sweep-epochs", type=int, help="of the runs that choose; default: --epochs")
    made.add_argument("--rates", type=float, nargs="+", default=list(RATES))
    made.add_argument("--powers", type=float, nargs="+", default=list(POWERS))
    made.add_argument("--distills", type=float, nargs="+", default=[0.0, 0.5], help="shares that --sweep compares")
    return made


def main() -> None:
    given = parser().parse_args()
    keep_freed_memory()
    if given.threads:
        torch.set_num_threads(given.threads)
    given = changed(given, cifar=str(Path(given.cifar).resolve()), out=given.out.resolve())
    ones = list(cases(given))
    with torch_pruning_at(given.peer, asked=any(one.methods in PEERS for one in ones)) as peer:
        given = changed(given, peer=peer)
        rows, failed = sweep(given) if given.sweep else run_all(list(cases(given)), given)
    print(table(rows))
    if failed:
        raise SystemExit(f"{len(failed)} runs failed: {', '.join(failed)}")


if __name__ == "__main__":
    main()
