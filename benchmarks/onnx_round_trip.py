"""ONNX in, ONNX out, beside the torch road: `python -m benchmarks.onnx_round_trip [--only GLOB]`.

Every torchvision classifier of the coverage table is exported, imported again without its class, cut by a random 40 %
of its units and compacted, and so is the network it came from, by the same units: both must compute the same. The
compacted import is exported once more and run in onnxruntime. One JSON line per network is appended, and a network
that the file already holds is skipped; the table in docs/onnx.md is written from the file each time.
"""

from __future__ import annotations

import argparse
import fnmatch
import io
import json
import multiprocessing
import tempfile
import time
import warnings
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
import onnxruntime as ort
import torch
from torch import Tensor

from benchmarks.coverage import Job, jobs
from benchmarks.zoo import make_difficult, random_keep, set_statistics
from compressor.axes import Keep, UnitMap, find_units
from compressor.compaction.slicing import slice_program
from compressor.exporting.convert import to_onnx
from compressor.formats import load
from compressor.models import build
from compressor.program import InputSpec, Program, capture

HERE = Path(__file__).parent
PAGE = HERE.parent / "docs" / "onnx.md"
BEGIN, END = "<!-- round trip: begin -->", "<!-- round trip: end -->"
LIMITS = {"imported": 1e-4, "roads": 1e-5, "exported": 1e-5}
"""Of the largest output, in float32. The import may differ by more than the roads: its exporter folded batch norms, and
float32 alone moves a deep network's output by 1e-5 (regnet_x_400mf: 1.2e-5 between torch in float32 and in float64).
"""


@dataclass
class RoundTrip:
    """What was found out about one network; `error` is empty when everything held. Times in seconds."""

    name: str
    side: int = 0
    n_params: int = 0
    n_imported: int = 0
    n_units: int = 0
    n_units_imported: int = 0
    n_compact: int = 0
    import_s: float = 0.0
    imported: float = float("nan")
    """Largest difference between import and original, over the largest output."""
    roads: float = float("nan")
    """The same between both compacted networks."""
    exported: float = float("nan")
    """The same between the compacted import and its ONNX file in onnxruntime."""
    seconds: float = 0.0
    error: str = ""


def check(name: str, side: int) -> RoundTrip:
    """Both roads of one network; a failure is in `error`, with the stage it came from."""
    found, began, stage = RoundTrip(name, side), time.perf_counter(), "build"
    try:
        with tempfile.TemporaryDirectory() as folder:
            model = build(name, {}, seed=0).module.eval()
            stage = "capture"
            program = capture(model, [InputSpec("input", (None, 3, side, side))])
            del model
            make_difficult(program, zero_biases=False)
            inputs = [program.example_inputs(batch, seed=batch) for batch in (1, 3)]
            set_statistics(program, inputs[1])
            program.module.eval()
            stage = "export"
            path = Path(folder) / "model.onnx"
            _write(program, path)
            stage = "import"
            started = time.perf_counter()
            other = load(path)
            found.import_s = time.perf_counter() - started
            found.n_params, found.n_imported = program.n_parameters, other.n_parameters
            found.imported = _difference(program, other, inputs)
            stage = "units"
            small, small_other = _cut_alike(program, other, found)
            del program, other
            found.n_compact = small_other.n_parameters
            found.roads = _difference(small, small_other, inputs)
            stage = "export of the compact one"
            del small
            found.exported = _in_onnxruntime(small_other, path, inputs)
            stage = "comparison"
            _judge(found)
    except Exception as error:  # whatever it is, it belongs into the table
        lines = [line for line in str(error).splitlines() if line.strip()]
        found.error = f"{stage}: {type(error).__name__}: {lines[0][:300] if lines else ''}"
    found.seconds = time.perf_counter() - began
    return found


def _judge(found: RoundTrip) -> None:
    """Raises:  ArithmeticError naming the first comparison that does not hold."""
    for what, limit in LIMITS.items():
        if not getattr(found, what) <= limit:
            raise ArithmeticError(f"{what}: differs by {getattr(found, what):.1e}, allowed {limit:.0e}")
    if found.n_units != found.n_units_imported:
        raise ArithmeticError(f"{found.n_units_imported} units where there were {found.n_units}")


def _write(program: Program, path: Path) -> None:
    model = to_onnx(program, program.module, None)
    large = sum(parameter.numel() * 4 for parameter in program.module.parameters()) > 1.5e9
    ir.save(model, path, external_data="weights.bin" if large else None)


@torch.no_grad()
def _difference(a: Program, b: Program, inputs: list[tuple[Tensor, ...]]) -> float:
    worst = 0.0
    for x in inputs:
        wanted, got = _only(a.module(*x)), _only(b.module(*x))
        found = float((wanted - got).abs().max() / wanted.abs().max())
        worst = found if not found <= worst else worst  # a NaN stays
    return worst


def _only(output: Any) -> Tensor:
    return output if isinstance(output, Tensor) else next(iter(output.values() if isinstance(output, dict) else output))


def _cut_alike(program: Program, other: Program, found: RoundTrip) -> tuple[Program, Program]:
    """Both without the same units, which are matched by the tensors that kept their names and sizes."""
    units, theirs = find_units(program), find_units(other)
    found.n_units, found.n_units_imported = units.n_units, theirs.n_units
    partner = _partners(program, other, units, theirs)
    keep = random_keep(units, seed=1)
    keep[np.setdiff1d(np.arange(units.n_units), partner)] = True
    keep_other = np.ones(theirs.n_units, dtype=bool)
    keep_other[partner >= 0] = keep[partner[partner >= 0]]
    if keep.all():
        raise ArithmeticError("no unit of one network was found in the other")
    return slice_program(program, units, keep), slice_program(other, theirs, keep_other)


def _partners(program: Program, other: Program, units: UnitMap, theirs: UnitMap) -> Keep:
    """For every unit of the import the unit that it is in the original, -1 for none. Shapes: -> (n_units,)"""
    partner = np.full(theirs.n_units, -1)
    mine, imported = program.parameters, other.parameters
    for (name, dim), ids in theirs.axes.items():
        if name not in mine or name not in imported or mine[name].shape != imported[name].shape:
            continue
        if not torch.equal(mine[name], imported[name]) and mine[name].dim() < 2:
            continue
        pairs = np.stack([ids, units.axes[name, dim]])[:, ids >= 0]
        known = partner[pairs[0]]
        if ((known >= 0) & (known != pairs[1])).any() or (pairs[1] < 0).any():
            raise ArithmeticError(f"{name}, dimension {dim}: its units differ from those of the original")
        partner[pairs[0]] = pairs[1]
    return partner


def _in_onnxruntime(program: Program, path: Path, inputs: list[tuple[Tensor, ...]]) -> float:
    _write(program, path)
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    session = ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    worst = 0.0
    for x in inputs:
        with torch.no_grad():
            wanted = _only(program.module(*x)).numpy()
        got = np.asarray(session.run(None, {session.get_inputs()[0].name: x[0].numpy()})[0])
        found = float(np.abs(wanted - got).max() / np.abs(wanted).max())
        worst = found if not found <= worst else worst  # a NaN stays
    return worst


def table(rows: list[dict[str, Any]]) -> str:
    """The part of docs/onnx.md between its marks."""
    exact = sum(not row["error"] for row in rows)
    page = io.StringIO()
    page.write(f"{exact} of {len(rows)} torchvision classifiers come through alike.\n\n")
    page.write("| network | side | parameters | imported | units | import s | import | roads | export |\n")
    page.write("|---|--:|--:|--:|--:|--:|--:|--:|--:|\n")
    for row in rows:
        page.write(f"| {row['name'].partition(':')[2]} | {row['side']} | ")
        if row["error"] and not row["n_units"]:
            page.write(f"| | | | | | **{row['error']}** |\n".replace("\n", " ").strip() + "\n")
            continue
        page.write(
            f"{row['n_params']:,} | {row['n_imported']:,} | {row['n_units_imported']:,} | {row['import_s']:.1f} | "
            f"{row['imported']:.0e} | {row['roads']:.0e} | {row['exported']:.0e}"
            + (f" **{row['error']}**" if row["error"] else "")
            + " |\n"
        )
    return page.getvalue()


def write_table(rows: list[dict[str, Any]]) -> None:
    page = PAGE.read_text(encoding="utf-8")
    head, _, rest = page.partition(BEGIN)
    tail = rest.partition(END)[2]
    PAGE.write_text(f"{head}{BEGIN}\n\n{table(rows)}\n{END}{tail}", encoding="utf-8")


def _work(job: Job, sender: Any) -> None:
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    sender.send(asdict(check(job.name, job.side)))


def _checked(job: Job, limit_s: float) -> dict[str, Any]:
    """One network in a process of its own."""
    context = multiprocessing.get_context("fork")
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=_work, args=(job, sender))
    process.start()
    sender.close()
    found: dict[str, Any] = asdict(RoundTrip(job.name, job.side, error=f"no result in {limit_s:.0f} s"))
    try:
        if receiver.poll(limit_s):
            found = receiver.recv()
    except EOFError:
        found["error"] = "the process died"
    if process.is_alive():
        process.terminate()
    process.join()
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", default="torchvision:*", help="names, as torchvision:resnet*")
    parser.add_argument("--seconds", type=float, default=1800.0, help="limit for one network")
    parser.add_argument("--cache", type=Path, default=HERE / "data" / "onnx_round_trip.jsonl")
    parser.add_argument("--fresh", default="", help="names to check again")
    parser.add_argument("--table-only", action="store_true", help="write the table from the file, check nothing")
    given = parser.parse_args()
    warnings.simplefilter("ignore")
    build("torchvision:alexnet", {})  # in the parent: every process that is forked has the library loaded then
    order = [job for job in jobs() if job.name.startswith("torchvision:")]
    known = {}
    if given.cache.exists():
        known = {row["name"]: row for row in map(json.loads, given.cache.read_text().splitlines())}
    if not given.table_only:
        todo = [job for job in _small_first(order) if fnmatch.fnmatch(job.name, given.only)]
        for job in todo:
            if job.name in known and not (given.fresh and fnmatch.fnmatch(job.name, given.fresh)):
                continue
            known[job.name] = found = _checked(job, given.seconds)
            with given.cache.open("a") as lines:
                lines.write(json.dumps(found) + "\n")
            print(f"{job.name}: {found['error'] or 'alike'} ({found['seconds']:.0f} s)", flush=True)
    write_table([known[job.name] for job in order if job.name in known])


def _small_first(order: list[Job]) -> list[Job]:
    """By parameters, as the coverage file knows them, one of every family before the others: what is found early is
    found cheaply, and a scan that is broken off has seen every kind of network.
    """
    lines = (HERE / "data" / "coverage.jsonl").read_text().splitlines()
    n_params = {row["name"]: row.get("n_params", 0) for row in map(json.loads, lines)}
    by_size = sorted(order, key=lambda job: n_params.get(job.name, 0))
    first = {job.family: job.name for job in reversed(by_size)}
    return sorted(by_size, key=lambda job: first[job.family] != job.name)


if __name__ == "__main__":
    main()
