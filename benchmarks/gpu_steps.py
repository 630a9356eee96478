"""Epochs a minute of a ResNet-56 that learns from its teacher: `python -m benchmarks.gpu_steps --out FOLDER`.

The product's own loop, 50,000 images and batches of 128 to an epoch, as --precision and --compile say; then the fastest
of them in several processes at a time. Images are noise: what a step costs does not depend on them.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
from pathlib import Path

import torch

from benchmarks.side_by_side import Job, append_line, json_lines, side_by_side
from compressor.asking import Recipe
from compressor.data import Classification
from compressor.data.arrays import IMAGENET, Arrays, ArraySource
from compressor.models.resnet_cifar import ResNetCifar
from compressor.program import InputSpec, capture
from compressor.training import fit

WAYS = (("fp32", False), ("bf16", False), ("bf16", True))
EPOCH = 50_000 / 128
ONE_CORE = {"OMP_NUM_THREADS": "1", "TORCHINDUCTOR_COMPILE_THREADS": "1"}


def seconds_per_step(given: argparse.Namespace) -> float:
    """Of the last two of four short epochs: compilers and clocks have settled by then."""
    torch.manual_seed(0)
    images = torch.randint(0, 256, (given.steps * given.batch, 3, 32, 32), dtype=torch.uint8)
    part = Arrays(images, torch.arange(len(images)) % 10)
    val = Arrays(images[:2], part.target[:2] if part.target is not None else None)
    data = ArraySource("noise", part, val, 10, IMAGENET, shift_pad=4, flip=True)
    student, teacher = (
        capture(ResNetCifar(given.depth), [InputSpec("image", (None, 3, 32, 32))]).module for _ in range(2)
    )
    recipe = Recipe(
        epochs=4, batch_size=given.batch, optimizer="sgd", lr=1e-3, weight_decay=5e-4, augment=True, distill=0.5,
        precision=given.precision, compile=given.compile,
    )  # fmt: skip
    told = fit(
        student, data, Classification(), recipe, teacher=teacher, device=given.device, evaluate_every=recipe.epochs
    )
    return statistics.mean(epoch.seconds for epoch in told.history[1:3]) / given.steps


def parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("--out", type=Path, required=True, help="folder of rows.jsonl")
    made.add_argument("--device", default="cuda")
    made.add_argument("--depth", type=int, default=56, help="of the ResNet")
    made.add_argument("--batch", type=int, default=128)
    made.add_argument("--steps", type=int, default=50, help="of each short epoch")
    made.add_argument("--processes", type=int, default=8)
    made.add_argument("--one", action="store_true", help="one way in this process")
    made.add_argument("--precision", default="bf16", choices=("fp32", "bf16"), help="with --one")
    made.add_argument("--compile", action="store_true", help="with --one")
    made.add_argument("--side-by-side", type=int, default=1, help="with --one: what the row says of its neighbours")
    return made


def one(given: argparse.Namespace) -> None:
    found = seconds_per_step(given)
    row = {
        "part": "steps", "arch": f"resnet{given.depth}", "precision": given.precision, "compile": given.compile,
        "side_by_side": given.side_by_side, "seconds_per_step": found, "epochs_per_minute": 60 / (found * EPOCH),
    }  # fmt: skip
    append_line(given.out / "rows.jsonl", row)
    print(row, flush=True)


def main() -> None:
    given = parser().parse_args()
    if given.one:
        return one(given)
    base = [sys.executable, "-m", "benchmarks.gpu_steps", "--one", "--out", str(given.out.resolve())]
    base += [
        "--device",
        given.device,
        "--depth",
        str(given.depth),
        "--batch",
        str(given.batch),
        "--steps",
        str(given.steps),
    ]
    before, failed = len(json_lines(given.out / "rows.jsonl")), []
    with tempfile.TemporaryDirectory() as logs:
        for precision, compile in WAYS:
            job = Job(precision, (*base, "--precision", precision, *(["--compile"] if compile else [])))
            failed += [e for e in side_by_side([job], Path(logs), processes=1) if e.how != "done"]
        rows = json_lines(given.out / "rows.jsonl")[before:]
        best = max(rows, key=lambda row: row["epochs_per_minute"], default=None)
        if best is not None and given.processes > 1:
            words = ["--precision", best["precision"], *(["--compile"] if best["compile"] else [])]
            words += ["--side-by-side", str(given.processes)]
            jobs = [Job(str(number), (*base, *words)) for number in range(given.processes)]
            ended = side_by_side(jobs, Path(logs), processes=given.processes, environment=ONE_CORE)
            failed += [e for e in ended if e.how != "done"]
    for row in json_lines(given.out / "rows.jsonl")[before:]:
        print(row)
    for end in failed:
        print(f"{end.name}: {end.how}\n{end.said[-800:]}")
    if failed:
        raise SystemExit(1)


if __name__ == "__main__":
    main()
