"""Everything that needs an NVIDIA GPU, in one command and within a time, for whoever has one for ten minutes.

    python -m benchmarks.gpu --plan                     # what runs in which order, and how long each part may take
    python -m benchmarks.gpu --out FOLDER --cifar DIR --checkpoints DIR [--packed PART PART] [--peer DIR]

Meant for one H100 or H200 with 16 cores and no network: nothing is installed and nothing fetched. Every part runs in a
process of its own; one that fails or runs out of its time is told of and ends nothing else. FOLDER/rows.jsonl grows by
a line after every epoch, command and measurement, FOLDER/report.md is written anew after every part. Of --cifar the
binary files are read, or with --packed written first (benchmarks/packed.py); without them the last part is left out.
--rehearse runs the same small on the CPU, which checks the script and measures nothing.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks import packed
from benchmarks.side_by_side import ROOT, Ended, Job, append_line, json_lines, side_by_side

OFFLINE = {"PIP_NO_INDEX": "1", "HF_HUB_OFFLINE": "1", "PYTHONUNBUFFERED": "1"}
_LEAST_S = 5.0


@dataclass(frozen=True)
class Part:
    """`seconds` is the most it may take; `command` gets what was asked and the seconds that there are."""

    name: str
    seconds: float
    about: str
    command: Callable[[argparse.Namespace, float], list[str]]


def python(module: str, *words: object) -> list[str]:
    return [sys.executable, "-m", module, *map(str, words)]


def tests(given: argparse.Namespace, seconds: float) -> list[str]:
    found = sorted(path for path in (ROOT / "tests").rglob("test_*.py") if "mark.gpu" in path.read_text("utf-8"))
    files = [str(path.relative_to(ROOT)) for path in found]
    return python("pytest", "-q", "-m", "gpu", "-p", "no:cacheprovider", *(files[:1] if given.rehearse else files))


def commands(given: argparse.Namespace, seconds: float) -> list[str]:
    words = ["--out", given.out, "--device", given.device, "--provider", given.device]
    return python("benchmarks.gpu_commands", *words, *(["--only", "^env|^export sample"] if given.rehearse else []))


def steps(given: argparse.Namespace, seconds: float) -> list[str]:
    small = ["--depth", 8, "--batch", 2, "--steps", 1, "--processes", 2] if given.rehearse else []
    return python("benchmarks.gpu_steps", "--out", given.out, "--device", given.device, *small)


def latency(given: argparse.Namespace, seconds: float) -> list[str]:
    small = ["--cpu", "--parts", "admm"] if given.rehearse else []
    return python("benchmarks.gpu_latency", "--out", given.out / "latency.json", *small)


def cifar(given: argparse.Namespace, seconds: float) -> list[str]:
    """As many epochs as there is time for: nine runs of 20 are 180, of which there should be 40 a minute."""
    words = ["--cifar", given.cifar, "--checkpoints", given.checkpoints, "--out", given.out, "--device", given.device]
    methods = "magnitude,admm" + (",peer inner" if given.peer else "")
    words += [*(["--peer", given.peer] if given.peer else []), "--methods", methods, "--precision", "bf16"]
    words += ["--distill", 0.5, "--lr", 0.02, "--seconds", round(seconds - _LEAST_S, 1)]
    if given.rehearse:
        return python("benchmarks.cifar10", *words, "--only", "resnet20", "--epochs", 2, "--processes", 2)
    if compiled_is_faster(json_lines(given.out / "rows.jsonl")):
        words.append("--compile")
    words += ["--only", "resnet56", "--ratio", 2.1, "--epochs", 20, "--processes", 8, "--seeds", 3]
    return python("benchmarks.cifar10", *words, *given.cifar_words)


def compiled_is_faster(rows: Sequence[dict[str, Any]]) -> bool:
    """What the steps that were just measured say; a compiler that does not work there has no row."""
    alone = [row for row in rows if row.get("part") == "steps" and row["side_by_side"] == 1]
    return bool(alone) and bool(max(alone, key=lambda row: row["epochs_per_minute"])["compile"])


PARTS = (
    Part("tests", 45, "the tests that skip themselves where there is no GPU", tests),
    Part("commands", 70, "every command with --device cuda, bench with --provider cuda", commands),
    Part("steps", 180, "epochs a minute of a ResNet-56 with its teacher: fp32, bf16, compiled, 8 side by side", steps),
    Part("latency", 100, "dense against compact: CaffeNet, ResNet-50, an ADMM step", latency),
    Part("cifar", 420, "ResNet-56 at 2.1x, one process for each method and seed, 8 side by side", cifar),
)


def plan(parts: Sequence[Part], seconds: float) -> str:
    """What runs when; the times are limits that were never measured on a GPU, the last part takes what is left."""
    lines = [f"within {seconds:.0f} s, in this order:"]
    lines += [f"{part.name:10} at most {part.seconds:4.0f} s  {part.about}" for part in parts]
    return "\n".join(lines)


def run(parts: Sequence[Part], given: argparse.Namespace) -> list[Ended]:
    """How every part ended; each is a line of rows.jsonl, and the report is new after each."""
    given.out.mkdir(parents=True, exist_ok=True)
    until, ended = time.monotonic() + given.seconds, []
    append_line(given.out / "rows.jsonl", {"part": "machine", **machine(given.device)})
    for part in parts:
        left = until - time.monotonic()
        left = left if given.rehearse else min(part.seconds, left)  # a slow machine rehearses too
        if left < _LEAST_S:
            ended.append(Ended(part.name, "not begun", 0.0, ""))
        else:
            job = Job(part.name, tuple(part.command(given, left)), left)
            ended += side_by_side([job], given.out / "logs", processes=1, environment=OFFLINE)
        row = {"part": "end of a part", "name": part.name, "how": ended[-1].how, "seconds": ended[-1].seconds}
        append_line(given.out / "rows.jsonl", row)
        (given.out / "report.md").write_text(report(ended, json_lines(given.out / "rows.jsonl")))
        print(f"{part.name}: {ended[-1].how} after {ended[-1].seconds:.0f} s", flush=True)
    return ended


def machine(device: str) -> dict[str, Any]:
    import torch

    there = device != "cpu" and torch.cuda.is_available()
    gpu = torch.cuda.get_device_properties(0) if there else None
    return {
        "device": device, "gpu": gpu.name if gpu else None, "memory_bytes": gpu.total_memory if gpu else None,
        "torch": torch.__version__, "cuda": torch.version.cuda, "measures": bool(gpu),
        "cudnn": torch.backends.cudnn.version() if gpu else None,
    }  # fmt: skip


def report(ended: Sequence[Ended], rows: Sequence[dict[str, Any]]) -> str:
    """All that is known so far, as Markdown."""
    lines = ["# On a GPU", "", *(f"    {json.dumps(row)}" for row in rows if row.get("part") == "machine")]
    lines += [
        "",
        "| part | | seconds |",
        "|---|---|--:|",
        *(f"| {e.name} | {e.how} | {e.seconds:.0f} |" for e in ended),
    ]
    for name in ("steps", "commands"):
        lines += ["", f"## {name}", "", *(f"    {json.dumps(row)}" for row in rows if row.get("part") == name)]
    epochs = [row for row in rows if row.get("part") == "cifar" and "epoch" in row]
    lines += ["", "## epochs of training", "", f"{len(epochs)} in {len({row['run'] for row in epochs})} runs"]
    for end in ended:
        lines += ["", f"## what {end.name} said", "", "```", end.said.strip(), "```"]
    return "\n".join(lines) + "\n"


def parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("--plan", action="store_true", help="say what runs and for how long, and end")
    made.add_argument("--out", type=Path, default=Path("benchmarks/out/gpu"))
    made.add_argument("--parts", nargs="+", default=[part.name for part in PARTS], choices=[p.name for p in PARTS])
    made.add_argument("--seconds", type=float, default=570, help="for all parts together")
    made.add_argument("--cifar", type=Path, help="folder with the binary version of CIFAR-10")
    made.add_argument("--packed", type=Path, nargs="+", help="write the files of --cifar from these parts first")
    made.add_argument("--checkpoints", type=Path, help="folder with the published checkpoints")
    made.add_argument("--peer", type=Path, help="a folder that holds Torch-Pruning")
    made.add_argument("--rehearse", action="store_true", help="the same small on the CPU")
    made.add_argument("cifar_words", nargs="*", help="after --: more arguments for benchmarks/cifar10.py")
    return made


def main() -> None:
    given = parser().parse_args()
    chosen = [part for part in PARTS if part.name in given.parts]
    if given.cifar is None or given.checkpoints is None:
        chosen = [part for part in chosen if part.name != "cifar"]
    print(plan(chosen, given.seconds), flush=True)
    if given.plan:
        return
    given.device = "cpu" if given.rehearse else "cuda"
    for name in ("out", "cifar", "checkpoints", "peer"):
        if getattr(given, name) is not None:
            setattr(given, name, getattr(given, name).resolve())
    if given.packed:
        packed.read(given.packed, given.cifar)
    ended = run(chosen, given)
    print(f"wrote {given.out / 'report.md'} and rows.jsonl")
    if any(end.how != "done" for end in ended):
        raise SystemExit(1)


if __name__ == "__main__":
    main()
