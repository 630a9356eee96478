"""One cut without any training, by score and by what heals it: `python -m benchmarks.one_shot`.

Sample LeNets on MNIST, the published ResNet-20 on CIFAR-10, and the small GPT of `benchmarks.text`, each cut by single
weights, to 2:4 and by channels: magnitude by `l2` and by `activation`, as cut and after `--reconstruct`, and ADMM on
each layer's least squares, with the budgets of either score. Everything is measured on images and texts that were held
out of training *and* of every choice made here. `--held-in` measures on the last samples of the training split instead:
by that the choices were made. Rows go to `--out` one by one; what stands there is not run again.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

import compressor
from benchmarks import text
from compressor.asking import PruneSettings, Recovery
from compressor.data import Batch, DataSource, Task, open_data, open_task
from compressor.errors import CompressError
from compressor.program import Program

Row = dict[str, Any]
WAYS: dict[str, dict[str, Any]] = {
    "l2": {"method": "magnitude"},
    "activation": {"method": "magnitude", "score": "activation"},
    "l2, reconstruct": {"method": "magnitude", "recovery": True},
    "activation, reconstruct": {"method": "magnitude", "score": "activation", "recovery": True},
    "ADMM on outputs, l2": {"method": "admm", "recovery": True},
    "ADMM on outputs, activation": {"method": "admm", "score": "activation", "recovery": True},
}
_HELD_IN, _TEST = 1000, 2000
"""Samples that are measured on."""


@dataclass(frozen=True)
class Subject:
    """A trained network, its data, and how it is cut: name of the cut to settings."""

    program: Program
    data: DataSource
    task: Task
    cuts: dict[str, dict[str, Any]]
    metric: str


class HeldIn:
    """A data set whose last training samples stand for the validation samples."""

    labelled, augments = True, False

    def __init__(self, source: DataSource, n: int) -> None:
        batches = list(source.batches("train", 500, seed=0))
        self._inputs = [torch.cat(parts) for parts in zip(*(batch.inputs for batch in batches), strict=True)]
        self._target = torch.cat([batch.target for batch in batches])
        self.ref, self.n_classes, self.input_shapes = f"{source.ref} held in", source.n_classes, source.input_shapes
        self.n_val = min(n, len(self._target) // 4)
        self.n_train = len(self._target) - self.n_val

    def batches(self, split: str, batch_size: int, *, limit: int | None = None, **_: Any) -> Iterator[Batch]:
        """In the order of the first pass."""
        first = 0 if split == "train" else self.n_train
        end = self.n_train if split == "train" else self.n_train + self.n_val
        end = end if limit is None else min(end, first + limit)
        for at in range(first, end, batch_size):
            part = slice(at, min(at + batch_size, end))
            yield Batch(tuple(x[part] for x in self._inputs), self._target[part])


class First:
    """A data set with the first of its validation samples alone."""

    def __init__(self, source: DataSource, n: int) -> None:
        self._source, self.n_val = source, min(n, source.n_val)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._source, name)

    def batches(self, split: str, batch_size: int, *, limit: int | None = None, **options: Any) -> Iterator[Batch]:
        """Those of the source."""
        limit = min(limit or self.n_val, self.n_val) if split == "val" else limit
        return self._source.batches(split, batch_size, limit=limit, **options)  # type: ignore[arg-type]


def subjects(given: argparse.Namespace) -> Iterator[tuple[str, Any]]:
    """Name and how to open each."""
    weights, two = "unstructured", {"pattern": "2:4"}
    root = Path(__file__).parents[1] / "sample_models"
    for name, ratio in (("lenet-300-100", 10.0), ("lenet5", 12.0)):
        cuts = {f"weights {ratio:g}x": {"pattern": weights, "ratio": ratio}}
        yield (
            name,
            lambda name=name, cuts=cuts: Subject(
                compressor.load(root / f"{name}.pt"),
                open_data(f"mnist:{given.mnist}"),
                open_task(None),
                cuts,
                "accuracy",
            ),
        )
    ref = f"cifar10:{given.cifar}"
    cuts = {
        "weights 4x": {"pattern": weights, "ratio": 4.0}, "2:4": two,
        "channel 1.3x MACs": {"pattern": "channel", "ratio": 1.3, "of": "macs"},
    }  # fmt: skip
    yield "resnet20", lambda: Subject(
        compressor.load(given.checkpoints / "resnet20-12fca82f.th", arch="resnet20", data=ref), open_data(ref),
        open_task(None), cuts, "accuracy",
    )  # fmt: skip
    of_text = {
        "weights 2x": {"pattern": weights, "ratio": 2.0}, "2:4": two, "channel 1.25x": {"ratio": 1.25},
    }  # fmt: skip

    def gpt() -> Subject:
        program, bench = text.dense("gpt", given)
        return Subject(program, bench.data, bench.task, of_text, "perplexity")

    yield "gpt", gpt


def measured(subject: Subject, cut: dict[str, Any], way: dict[str, Any], given: argparse.Namespace) -> Row:
    """One row; what cannot be asked for is one too, with the reason."""
    asked = {**cut, **way, "round_to": 1} if "channel" in cut.get("pattern", "channel") else {**cut, **way}
    healed = Recovery(reconstruct=given.batches) if asked.pop("recovery", False) else Recovery()
    try:
        settings = PruneSettings(recovery=healed, **asked)
        began = time.process_time()
        _, report = compressor.prune(subject.program, settings, data=subject.data, task=subject.task)
    except CompressError as error:
        return {"refused": str(error).splitlines()[0]}
    metrics = report.stages[-1].metrics or {}
    dense = (report.stages[0].metrics or {})[subject.metric]
    found = {"got": report.got, subject.metric: metrics[subject.metric], "dense": dense}
    return {**found, "cpu_s": round(time.process_time() - began, 1)}


def table(rows: list[Row]) -> str:
    """Markdown: a line for each network and cut, a column for each way."""
    lines = ["| network | cut | dense | " + " | ".join(WAYS) + " |", "|---|---|--:|" + "--:|" * len(WAYS)]
    for network, cut in dict.fromkeys((row["network"], row["cut"]) for row in rows):
        mine = {row["way"]: row for row in rows if (row["network"], row["cut"]) == (network, cut)}
        dense = next((_shown({**row, **_as_dense(row)}) for row in mine.values() if "dense" in row), "")
        cells = [_shown(mine[way]) if way in mine else "" for way in WAYS]
        lines.append(f"| {network} | {cut} | {dense} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _as_dense(row: Row) -> Row:
    return {name: row["dense"] for name in ("accuracy", "perplexity") if name in row}


def _shown(row: Row) -> str:
    if "refused" in row:
        return "–"
    return f"{100 * row['accuracy']:.2f} %" if "accuracy" in row else f"{row['perplexity']:.2f}"


def main() -> None:
    """Runs what is missing and prints the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--mnist", default="../shared/data/mnist")
    parser.add_argument("--cifar", default="cifar10")
    parser.add_argument("--checkpoints", type=Path, default=Path("../shared/checkpoints"))
    parser.add_argument("--work", type=Path, default=Path("benchmarks/out/text"), help="as of benchmarks.text")
    parser.add_argument("--out", type=Path, default=Path("benchmarks/data/one_shot.jsonl"))
    parser.add_argument("--networks", nargs="+", default=["lenet-300-100", "lenet5", "resnet20", "gpt"])
    parser.add_argument("--batches", type=int, default=8, help="of --reconstruct")
    parser.add_argument("--held-in", action="store_true", help="on training samples, to choose by")
    parser.add_argument("--dense", type=int, default=3, help="epochs of the GPT")
    parser.add_argument("--steps", type=int, default=100, help="steps of an epoch")
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--seed", type=int, default=1)
    given = parser.parse_args()
    rows = [json.loads(line) for line in given.out.read_text().splitlines()] if given.out.is_file() else []
    rows = [row for row in rows if (row["batches"], row["held_in"]) == (given.batches, given.held_in)]
    done = {(row["network"], row["cut"], row["way"]) for row in rows}
    for network, opened in subjects(given):
        if network not in given.networks:
            continue
        subject: Subject = opened()
        subject = replace(subject, data=HeldIn(subject.data, _HELD_IN) if given.held_in else First(subject.data, _TEST))
        for cut, asked in subject.cuts.items():
            for way, how in WAYS.items():
                if (network, cut, way) in done or ("ADMM" in way and asked.get("pattern", "channel") == "channel"):
                    continue
                row = {"network": network, "cut": cut, "way": way, **measured(subject, asked, how, given)}
                rows.append({**row, "batches": given.batches, "held_in": given.held_in})
                with given.out.open("a", encoding="utf-8") as file:
                    file.write(json.dumps(rows[-1]) + "\n")
                print(json.dumps(rows[-1]), flush=True)
    print(table(rows))


if __name__ == "__main__":
    main()
