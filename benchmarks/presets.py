"""What `--distill` and the presets should be: `python -m benchmarks.presets --mnist DIR --cifar DIR --checkpoints DIR`.

Chosen on training images that are held out, never on the test set; that one is looked at once, beside each row, to see
whether the choice carries over. LeNet-5 on MNIST (10,000 digits to learn from, its dense network trained on them here)
and ResNet-20 on CIFAR-10 (the published checkpoint, which has seen the held-out images: its own accuracy on them says
nothing, differences between rows do). Two parts:

*shares*: one search by ADMM for each network; its cut is compacted and retrained with each share of the soft loss,
which is what `retrain --teacher` does and how the last training of `prune` begins.
*presets*: `prune` with what each preset sets. An epoch is `preset_steps` steps, so that a preset of a hundred epochs
fits; widths are not rounded, because the machine that measures them would be in the table.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, cast

import torch

import compressor
from compressor.asking import PruneSettings, Recipe
from compressor.asking.presets import PRESETS, Preset
from compressor.cli.memory import keep_freed_memory
from compressor.data import open_data, open_task
from compressor.data.arrays import Arrays, ArraySource
from compressor.models import build
from compressor.program import InputSpec, Program, Record, capture
from compressor.training import fit

SHARES = (0.0, 0.5, 0.7, 0.9)
DENSE_EPOCHS = 6
SEARCH_EPOCHS = 4
_WATCHED = 256

Row = dict[str, Any]


@dataclass(frozen=True)
class Case:
    """A network, how it is cut, and how much of training there is; everything else is the default."""

    arch: str
    ratio: float
    of: Literal["params", "macs"]
    n_train: int
    n_held: int
    n_test: int
    epochs: int
    steps: int
    preset_steps: int
    seeds: tuple[int, ...]
    precision: Literal["fp32", "bf16"] = "fp32"


CASES = (
    Case("lenet5", 13.0, "params", 10_000, 10_000, 10_000, 8, 157, 40, (1, 2, 3)),
    Case("resnet20", 2.0, "macs", 45_000, 2_500, 2_500, 3, 40, 4, (1,), "bf16"),
)


def held_out(data: ArraySource, case: Case, *, test: bool = False) -> ArraySource:
    """The first training images to learn from; the last ones, or the test images, to be judged on."""

    def part(arrays: Arrays, which: slice) -> Arrays:
        assert arrays.target is not None
        return Arrays(arrays.inputs[which], arrays.target[which])

    judged = part(data.val, slice(case.n_test)) if test else part(data.train, slice(-case.n_held, None))
    return replace(data, train=part(data.train, slice(case.n_train)), val=judged)


def learned_from(data: ArraySource, case: Case) -> ArraySource:
    """The same to train on, with few images to look at behind every epoch: nothing is chosen by those."""
    source = held_out(data, case)
    assert source.val.target is not None
    return replace(source, val=Arrays(source.val.inputs[:_WATCHED], source.val.target[:_WATCHED]))


def accuracy(program: Program, data: ArraySource) -> float:
    return round(100 * compressor.evaluate(program.module, data, open_task(None))["accuracy"], 3)


def judged(case: Case, program: Program, data: ArraySource) -> Row:
    return {
        "held_out": accuracy(program, held_out(data, case)), "test": accuracy(program, held_out(data, case, test=True)),
    }  # fmt: skip


def recipe(case: Case, epochs: int, steps: int, distill: float = 0.0) -> Recipe:
    return Recipe(epochs=epochs, epoch_steps=steps, distill=distill, precision=case.precision)


def shares(case: Case, dense: Program, data: ArraySource) -> list[Row]:
    """Each share over all seeds, from the same cut."""
    learned = learned_from(data, case)
    asked = PruneSettings(
        ratio=case.ratio, of=case.of, round_to=1, prune_recipe=recipe(case, SEARCH_EPOCHS, case.steps), seed=1
    )
    small = compressor.compact(compressor.prune(dense, asked, data=learned)[0])[0]
    rows: list[Row] = [{"part": "shares", "arch": case.arch, "what": "cut", "seed": 1, **judged(case, small, data)}]
    for seed in case.seeds:
        for share in SHARES:
            began = time.process_time()
            taught, _ = compressor.retrain(
                small, recipe(case, case.epochs, case.steps, share), data=learned, seed=seed,
                teacher=dense if share else None,
            )  # fmt: skip
            row = {"part": "shares", "arch": case.arch, "what": f"{share:g}", "seed": seed}
            rows.append({**row, "cpu_s": round(time.process_time() - began, 1), **judged(case, taught, data)})
            print(json.dumps(rows[-1]), flush=True)
    return rows


def presets(case: Case, dense: Program, data: ArraySource) -> list[Row]:
    """`prune` as each preset asks for it."""
    rows: list[Row] = []
    for name, values in PRESETS["prune"].items():
        began = time.process_time()
        asked = PruneSettings(
            ratio=case.ratio, of=case.of, round_to=1, seed=1,
            prune_recipe=recipe(case, values["epochs"], case.preset_steps),
            retrain_recipe=recipe(case, values["retrain_epochs"], case.preset_steps, values["distill"]),
        )  # fmt: skip
        pruned, _ = compressor.prune(dense, asked, data=learned_from(data, case))
        row = {"part": "presets", "arch": case.arch, "what": cast(Preset, name), "seed": 1}
        rows.append({**row, "cpu_s": round(time.process_time() - began, 1), **judged(case, pruned, data)})
        print(json.dumps(rows[-1]), flush=True)
    return rows


def lenet5(case: Case, data: ArraySource) -> Program:
    """Trained here, on what there is to learn from."""
    built = build(case.arch, {}, seed=1)
    fit(built.module, learned_from(data, case), open_task(None), Recipe(epochs=DENSE_EPOCHS), seed=1)
    return capture(built.module, [InputSpec("image", (None, 1, 28, 28))], record=Record(arch=case.arch))


def table(rows: Sequence[Row]) -> str:
    """A line for each network, part and setting; the mean over seeds, with its spread where there are several."""
    lines = ["| network | part | setting | held out % | test % | CPU s | seeds |", "|---|---|---|--:|--:|--:|--:|"]
    for key in dict.fromkeys((row["arch"], row["part"], row["what"]) for row in rows):
        of = [row for row in rows if (row["arch"], row["part"], row["what"]) == key]
        told = " | ".join(_told([row[name] for row in of if name in row]) for name in ("held_out", "test"))
        cpu = statistics.mean(row.get("cpu_s", 0.0) for row in of)
        lines.append(f"| {' | '.join(key)} | {told} | {f'{cpu:.0f}' if cpu else ''} | {len(of)} |")
    return "\n".join(lines)


def _told(values: Sequence[float]) -> str:
    spread = f" ± {statistics.stdev(values):.2f}" if len(values) > 1 else ""
    return f"{statistics.mean(values):.2f}{spread}"


def opened(reference: str) -> ArraySource:
    data = open_data(reference)
    assert isinstance(data, ArraySource)
    return data


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--mnist", required=True, help="folder with the four files of MNIST")
    parser.add_argument("--cifar", required=True, help="folder with the binary version of CIFAR-10")
    parser.add_argument("--checkpoints", required=True, type=Path, help="folder with resnet20-12fca82f.th")
    parser.add_argument("--only", choices=[case.arch for case in CASES])
    parser.add_argument("--out", type=Path, default=Path("benchmarks/out/presets.json"))
    given = parser.parse_args()
    keep_freed_memory()
    torch.set_num_threads(1)
    sources = {"lenet5": f"mnist:{given.mnist}", "resnet20": f"cifar10:{given.cifar}"}
    makes: dict[str, Callable[[Case, ArraySource], Program]] = {
        "lenet5": lenet5,
        "resnet20": lambda case, _: compressor.load(given.checkpoints / "resnet20-12fca82f.th", arch=case.arch),
    }
    given.out.parent.mkdir(parents=True, exist_ok=True)
    rows: list[Row] = json.loads(given.out.read_text()) if given.out.exists() else []
    for case in (case for case in CASES if given.only in (None, case.arch)):
        data = opened(sources[case.arch])
        dense = makes[case.arch](case, data)
        rows.append({"part": "dense", "arch": case.arch, "what": "", "seed": 1, **judged(case, dense, data)})
        for part in (shares, presets):
            rows += part(case, dense, data)
            given.out.write_text(json.dumps(rows, indent=1), encoding="utf-8")
    print(table(rows))


if __name__ == "__main__":
    main()
