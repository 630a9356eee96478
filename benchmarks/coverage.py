"""Coverage of torchvision and timm: `python -m benchmarks.coverage [--only GLOB] [--jobs 2] [--seconds 300]`.

Every network is exported, analysed, cut at random, compared and trained for one step, each in a process of its own.
What was found is appended to a file, one line a network, and a network that the file already holds is skipped, so a
scan that was broken off continues; the table is written from the file each time. `--fresh GLOB` checks some again.
"""

from __future__ import annotations

import argparse
import csv
import fnmatch
import json
import multiprocessing
import time
import warnings
from collections.abc import Iterator
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any, NamedTuple

import torch

from benchmarks.wild import BEGIN, END
from benchmarks.zoo import check
from compressor.models import build
from compressor.models.external import imported_beside_any_torch

HERE = Path(__file__).parent
SIDE = {"inception_v3": 96, "maxvit_t": 224, "vit": 224, "swin": 112}
"""Sides of the images of torchvision networks by the start of the name; 64 where nothing here fits."""

LARGE = ("torchvision:vit_h", "torchvision:vit_l", "torchvision:regnet_y_128gf", "timm:deepseek")
"""Too large for copies in float64: these are compared in float32."""


class Job(NamedTuple):
    name: str
    family: str
    side: int
    dtype: torch.dtype


def jobs() -> list[Job]:
    """Every network of the table, torchvision first."""
    models = imported_beside_any_torch("torchvision.models")
    found = []
    for name in models.list_models(module=models):
        side = next((side for start, side in SIDE.items() if name.startswith(start)), 64)
        found.append((f"torchvision:{name}", name.split("_")[0].rstrip("0123456789"), side))
    with (HERE / "timm_families.csv").open() as rows:
        found += [(f"timm:{row['model']}", row["family"], int(row["side"])) for row in csv.DictReader(rows)]
    return [Job(*row, torch.float32 if row[0].startswith(LARGE) else torch.float64) for row in found]


def scan(todo: list[Job], out: Path, n_processes: int, limit_s: float) -> None:
    """Check networks in processes of their own and append what each says; one that takes too long is stopped."""
    context = multiprocessing.get_context("fork")
    running: list[tuple[Job, BaseProcess, Any, float]] = []
    waiting = list(todo)
    while waiting or running:
        while waiting and len(running) < n_processes:
            job = waiting.pop(0)
            receiver, sender = context.Pipe(duplex=False)
            process = context.Process(target=_work, args=(job, sender))
            process.start()
            sender.close()
            running.append((job, process, receiver, time.monotonic()))
        for entry in list(running):
            found = _result(*entry, limit_s)
            if found is not None:
                running.remove(entry)
                with out.open("a") as lines:
                    lines.write(json.dumps(found) + "\n")
                print(f"{found['name']}: {found['error'] or 'exact'} ({found['seconds']:.0f} s)", flush=True)
        time.sleep(0.1)


def _work(job: Job, sender: Any) -> None:
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    sender.send(check(job.name, job.side, job.dtype).to_mapping())


def _result(job: Job, process: BaseProcess, receiver: Any, began: float, limit_s: float) -> dict[str, Any] | None:
    """What a process found, why it found nothing, or None while it works."""
    seconds = time.monotonic() - began
    found: dict[str, Any] = {"name": job.name, "side": job.side}
    if receiver.poll():
        try:
            found = receiver.recv()
        except EOFError:
            found["error"] = "the process died"
    elif seconds > limit_s:
        process.terminate()
        found["error"] = f"no result in {limit_s:.0f} s"
    else:
        return None
    process.join()
    return {**found, "family": job.family, "seconds": seconds}


def table(known: dict[str, dict[str, Any]], order: list[Job]) -> Iterator[str]:
    """The page, line by line."""
    rows = [known[job.name] for job in order if job.name in known]
    yield from _heading(rows)
    for library in ("torchvision", "timm"):
        yield f"\n## {library}\n"
        yield (
            "| network | side | parameters | in units | with `--through-norm exact` | units | export s | shapes s"
            " | analysis s | removed | difference | in no unit, and why |"
        )
        yield "|---|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|---|"
        for row in rows:
            if row["name"].startswith(library):
                yield _row(row)


def _heading(rows: list[dict[str, Any]]) -> Iterator[str]:
    yield "# Coverage\n"
    yield "Written by `benchmarks/coverage.py`; do not edit. One thread; networks of the libraries' own initial shape,"
    yield "with every constant parameter replaced by noise and batch-norm statistics near those of a batch.\n"
    for library in ("torchvision", "timm"):
        own = [row for row in rows if row["name"].startswith(library)]
        exact = sum(not row["error"] for row in own)
        yield f"- {library}: {exact} of {len(own)} networks exact"
    yield "- in the wild, ONNX: files that packages ship, in [onnx.md](onnx.md#files-that-packages-ship)"
    yield ""
    yield _LEGEND


_LEGEND = """\
*In units*: share of the parameters that lie in at least one removable unit. *Removed*: share of the parameters that
went with a random 40 % of the units of each group (at least one of each stayed). *Difference*: largest |masked −
compact| over how much the masked output varies between samples, over batches of 1 and 3, random and zero biases, and
the units that `--through-norm exact` frees where that column is filled; in float64 (allowed: 1e-9) or, marked f32, in
float32 (allowed: 1e-4). After it the compact network made one optimizer step. *Export* is torch.export, *shapes* a run
of the graph without data (needed for a loaded checkpoint only), *analysis* the walk. Reasons: parameters that lie in
no unit, as shares of all, by why (filter axis and channel axis); together with *in units* they add up to 100 %."""


def _row(row: dict[str, Any]) -> str:
    name = row["name"].partition(":")[2]
    if not row.get("n_params"):
        return f"| {name} | {row['side']} | | | | | | | | | **{row['error']}** | |"
    worst = max(row["difference"].values(), default=float("nan"))
    shown = f"{worst:.0e}" + (" f32" if row["dtype"] == "float32" else "")
    if row["error"]:
        shown = f"**{row['error']}**"
    through = "" if row["exact_share"] is None else f"{row['exact_share']:.1%}"
    return (
        f"| {name} | {row['side']} | {row['n_params']:,} | {row['prunable_share']:.1%} | {through} | {row['n_units']:,}"
        f" | {row['export_s']:.1f} | {row['shapes_s']:.2f} | {row['analysis_s']:.2f} | {row['removed_share']:.0%}"
        f" | {shown} | {_reasons(row)} |"
    )


def _reasons(row: dict[str, Any]) -> str:
    """The reasons of more than 0.1 % each, and what the others sum up to."""
    n_params = row["n_params"]
    large = [(reason, n) for reason, n in row["reasons"] if n / n_params >= 0.001]
    small = [n for reason, n in row["reasons"] if n / n_params < 0.001]
    parts = [f"{n / n_params:.1%} {reason}" for reason, n in large]
    if small:
        parts.append(f"{sum(small) / n_params:.2%} {len(small)} smaller: {row['reasons'][len(large)][0]} …")
    unknown = [f"no rule for {name} ({n}x)" for name, n in row["unknown"].items()]
    notes = [note for note in row["notes"] if "batch fixed" in note]
    return "; ".join([*parts, *unknown, *notes]).replace("|", "/")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", default="*", help="names, as torchvision:resnet*")
    parser.add_argument("--fresh", default="", help="names to check again")
    parser.add_argument("--jobs", type=int, default=1, help="processes side by side")
    parser.add_argument("--seconds", type=float, default=600.0, help="limit for one network")
    parser.add_argument("--cache", type=Path, default=HERE / "data" / "coverage.jsonl")
    parser.add_argument("--table", type=Path, default=HERE.parent / "docs" / "coverage.md")
    given = parser.parse_args()
    warnings.simplefilter("ignore")
    build("torchvision:alexnet", {})  # in the parent: every process that is forked has both libraries loaded then
    build("timm:resnet18", {})
    given.cache.parent.mkdir(parents=True, exist_ok=True)
    lines = given.cache.read_text().splitlines() if given.cache.exists() else []
    known = {row["name"]: row for row in map(json.loads, lines)}
    order = jobs()
    again = {job.name for job in order if given.fresh and fnmatch.fnmatch(job.name, given.fresh)}
    todo = [
        job for job in order if fnmatch.fnmatch(job.name, given.only) and (job.name not in known or job.name in again)
    ]
    scan(todo, given.cache, given.jobs, given.seconds)
    known.update((row["name"], row) for row in map(json.loads, given.cache.read_text().splitlines()))
    given.table.parent.mkdir(parents=True, exist_ok=True)
    kept = given.table.read_text() if given.table.exists() else ""
    wild = kept[kept.index(BEGIN) : kept.index(END) + len(END) + 1] if BEGIN in kept else ""
    page = "\n".join(table(known, order)) + "\n"
    given.table.write_text(f"{page}\n{wild}" if wild else page)


if __name__ == "__main__":
    main()
