"""ONNX files that packages ship: `python -m benchmarks.wild_onnx [--folder DIR] [--only GLOB] [--onnxsim DIR]`.

Every file of `benchmarks.wild_files` goes the whole way in a process of its own: import, analyze, prune to 1.5x of its
parameters with the defaults and without retraining, compact, export, bench. Where the file has not so much to give, the
ratio is the largest that the refusal names. *Right* is seen by other eyes than the tool's own: the program in torch
must answer as the file does in onnxruntime, and the pruned file as the masked network in torch. Where `--onnxsim` names
a folder that holds onnxsim 0.8.1, that prunes the file too, and ours is cut to its ratio: how far either is from the
file, on random inputs. One JSON line per file is appended, a file that has one is skipped; the tables in docs/onnx.md
are written from the lines each time.
"""

from __future__ import annotations

import argparse
import fnmatch
import json
import os
import re
import subprocess
import sys
import tempfile
import time
import warnings
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.wild_files import Package, all_files, inputs_of

HERE = Path(__file__).parent
LINES = HERE / "data" / "wild_onnx.jsonl"
PAGE = HERE.parent / "docs" / "onnx.md"
BEGIN, END = "<!-- wild: begin -->", "<!-- wild: end -->"
RATIO = 1.5
_LIMIT_S = 1500
_SIDES = 0.5
"""Share of filters that onnxsim is told to take from each layer that it can prune."""

_SMALLEST = 0.01
_BLOCK_S, _TURNS = 0.02, 41
_ALIKE = 1e-3
"""Distance up to which two networks are the same: float32 of deep networks with trained statistics."""

_FEASIBLE = re.compile(r"the largest feasible is (\d+\.\d+)x")
_OURS = re.compile(r"bug in compress|imported wrongly|please report", re.IGNORECASE)


@dataclass
class Found:
    """What became of one file; `error` is the refusal. Times in seconds, distances relative to the file's output."""

    file: str
    package: str
    version: str
    outcome: str = "right"
    """right, refused (with `error`), wrong or bug."""
    error: str = ""
    n_params: int = 0
    in_units: float = 0.0
    n_units: int = 0
    import_s: float = 0.0
    compact_s: float = 0.0
    export_s: float = 0.0
    asked: float = RATIO
    ratio: float = 0.0
    as_imported: float = float("nan")
    """Distance of the program in torch, unpruned, from the file in onnxruntime."""
    as_masked: float = float("nan")
    """Distance of the masked network in torch from the pruned file in onnxruntime."""
    kept: bool = False
    """Whether names, types, open sizes and properties are those of the file."""
    notes: list[str] = field(default_factory=list)
    dense_ms: float = 0.0
    speedup: float = 0.0
    low: float = 0.0
    high: float = 0.0
    theirs: str = ""
    """What onnxsim did not prune, or why it could not."""
    their_ratio: float = 0.0
    their_distance: float = float("nan")
    our_ratio: float = 0.0
    our_distance: float = float("nan")


def main() -> None:
    ask = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ask.add_argument("--folder", type=Path, default=Path(tempfile.gettempdir(), "wild_onnx"))
    ask.add_argument("--only", default="*")
    ask.add_argument("--onnxsim", type=Path)
    ask.add_argument(
        "--lines", type=Path, default=LINES, help="where the results stand; tables are written for ours only"
    )
    ask.add_argument("--one", nargs=3, metavar=("FILE", "PACKAGE", "VERSION"), help=argparse.SUPPRESS)
    told = ask.parse_args()
    if told.one:
        warnings.simplefilter("ignore")
        print(json.dumps(asdict(one(told.folder, *told.one, told.onnxsim))))
        return
    known = {found.file for found in read(told.lines)}
    for file, package in all_files(told.folder):
        if file not in known and fnmatch.fnmatch(file, told.only):
            _append(_apart(told, file, package), told.lines)
    if told.lines == LINES:
        write_tables(read(LINES))


def _apart(told: argparse.Namespace, file: str, package: Package) -> Found:
    """The file in a process of its own, ended after some minutes."""
    asked = ["--folder", str(told.folder), "--one", file, package.name, package.version]
    asked += ["--onnxsim", str(told.onnxsim)] if told.onnxsim else []
    print(file, flush=True)
    try:
        done = subprocess.run(
            [sys.executable, "-m", "benchmarks.wild_onnx", *asked],
            capture_output=True, text=True, timeout=_LIMIT_S, check=False, cwd=HERE.parent,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        return Found(file, package.name, package.version, "bug", error=f"took more than {_LIMIT_S} s")
    lines = done.stdout.splitlines()
    if done.returncode or not lines:
        told_of = f"ended with {done.returncode}: {done.stderr[-300:]}"
        return Found(file, package.name, package.version, "bug", error=told_of)
    return Found(**json.loads(lines[-1]))


def one(folder: Path, file: str, package: str, version: str, onnxsim: Path | None) -> Found:
    """The whole way of one file."""
    import torch

    import compressor
    from compressor.errors import CompressError

    torch.set_num_threads(1)
    found, path = Found(file, package, version), folder / file
    started = time.perf_counter()
    try:
        program = compressor.load(path, inputs=inputs_of(file))
        found.import_s = time.perf_counter() - started
        report = compressor.analyze(program)
        found.n_params, found.n_units = report.n_params, report.n_units
        found.in_units = report.prunable_params / max(report.n_params, 1)
        found.as_imported = _from_torch(program, path)
        small = path.with_suffix(".small.onnx")
        _whole_way(found, program, path, small)
        _time(found, program, path, small, file)
    except CompressError as error:
        told = str(error).removeprefix(f"{path}: ")
        found.outcome, found.error = "bug" if _OURS.search(told) else "refused", told[:400]
        return found
    if not max(found.as_imported, found.as_masked) <= _ALIKE:
        found.outcome = "wrong"
    if onnxsim is not None:
        _beside(found, program, path, onnxsim, file)
    return found


def _whole_way(found: Found, program: Any, path: Path, small: Path) -> None:
    """Pruned, at the ratio that a refusal names where 1.5x is more than there is, compacted, exported, looked at."""
    from compressor.errors import CompressError

    try:
        cut = _cut(program, RATIO, small)
    except CompressError as error:
        most = _FEASIBLE.search(str(error))
        if most is None or float(most[1]) < 1.02:
            raise
        found.asked = float(most[1]) - 0.01
        cut = _cut(program, found.asked, small)
    found.ratio = program.n_parameters / cut.compact.n_parameters
    found.compact_s, found.export_s = cut.compact_s, cut.export_s
    found.as_masked = _from_torch(cut.pruned, small)
    # what agrees at which batches is of no interest here
    found.notes = [n for n in (*program.record.notes, *cut.exported.notes) if " fixed" in n or "bound" in n]
    found.kept = contract(path) == contract(small)


@dataclass
class _Cut:
    pruned: Any
    compact: Any
    exported: Any
    compact_s: float
    export_s: float


def _cut(program: Any, ratio: float, small: Path) -> _Cut:
    """The file at `small`, and what led to it."""
    import compressor

    settings = compressor.PruneSettings(ratio=ratio, method="magnitude", retrain_recipe=None)
    pruned = compressor.prune(program, settings)[0]
    started = time.perf_counter()
    compact, _ = compressor.compact(pruned)
    between = time.perf_counter()
    exported = compressor.export(compact, small, force=True)
    return _Cut(pruned, compact, exported, between - started, time.perf_counter() - between)


def contract(path: Path) -> Any:
    """Name, type and open sizes behind the batch of the inputs; names and types of the outputs; the properties."""
    import onnx

    model = onnx.load(str(path), load_external_data=False)
    held = {tensor.name for tensor in model.graph.initializer}
    inputs = [value for value in model.graph.input if value.name not in held]
    own = {entry.key: entry.value for entry in model.metadata_props if not entry.key.startswith("compress.")}
    ins = [
        (v.name, v.type.tensor_type.elem_type, [d.dim_value > 0 for d in v.type.tensor_type.shape.dim][1:])
        for v in inputs
    ]
    return ins, [(value.name, value.type.tensor_type.elem_type) for value in model.graph.output], own


def _time(found: Found, program: Any, dense: Path, small: Path, file: str) -> None:
    """`bench` runs both; what counts here is the processor's time of one thread, which other work on the machine
    stretches less than the clock on the wall. Blocks of both take turns; the interval is a bootstrap over the turns.
    """
    import numpy as np
    import onnxruntime as ort

    from compressor.timing import bench

    bench([dense, small], inputs=inputs_of(file), min_seconds=0.2, max_seconds=20.0)
    options = ort.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    sessions = [ort.InferenceSession(str(p), options, providers=["CPUExecutionProvider"]) for p in (dense, small)]
    feeds = _feeds(program, 0)
    took = [_cpu_seconds(session, feeds, 1) for session in sessions for _ in range(2)]
    n_inner = max(1, round(_BLOCK_S / max(took[1], 1e-6)))
    turns = np.array([[_cpu_seconds(s, feeds, n_inner) for s in sessions] for _ in range(_TURNS)])
    drawn = np.median(turns[np.random.default_rng(0).integers(0, _TURNS, (500, _TURNS))], axis=1)
    found.dense_ms, small_ms = np.median(turns, axis=0) * 1e3
    found.speedup = float(found.dense_ms / small_ms)
    found.low, found.high = map(float, np.quantile(drawn[:, 0] / drawn[:, 1], [0.025, 0.975]))


def _cpu_seconds(session: Any, feeds: dict[str, Any], n_inner: int) -> float:
    started = time.process_time()
    for _ in range(n_inner):
        session.run(None, feeds)
    return (time.process_time() - started) / n_inner


def _beside(found: Found, program: Any, path: Path, site: Path, file: str) -> None:
    """onnxsim on the same file, and ours at its ratio."""
    sys.path.append(str(site))
    import onnx

    from compressor.errors import CompressError

    theirs = path.with_suffix(".theirs.onnx")
    try:
        from onnxsim import apply_structured_pruning

        model = onnx.load(str(path))
        dense = n_elements(model)
        pruned = apply_structured_pruning(model, sparsity=_SIDES)
        onnx.save(pruned, theirs)
        found.their_ratio = dense / max(n_elements(pruned), 1)
        if found.their_ratio < 1.01:
            found.theirs = "prunes nothing"
            return
        found.their_distance = distance(program, path, theirs)
    except Exception as error:  # whatever a foreign tool raises is its result
        found.theirs = f"{type(error).__name__}: {str(error)[:120]}"
        return
    try:
        small = path.with_suffix(".ours.onnx")
        cut = _cut(program, found.their_ratio, small)
        found.our_ratio = program.n_parameters / cut.compact.n_parameters
        found.our_distance = distance(program, path, small)
    except CompressError as error:
        found.notes.append(f"at {found.their_ratio:.2f}x: {error}")


def n_elements(model: Any) -> int:
    """Elements of all tensors in a file, those in `Constant` nodes too, where some exporters keep the weights."""
    import math

    held = [
        *model.graph.initializer,
        *(entry.t for n in model.graph.node if n.op_type == "Constant" for entry in n.attribute),
    ]
    return sum(math.prod(tensor.dims) for tensor in held if len(tensor.dims))


def distance(program: Any, dense: Path, other: Path) -> float:
    """Norm of the difference of the first output over that of the output, on eight random samples."""
    import onnxruntime as ort

    a, b = (ort.InferenceSession(str(path), providers=["CPUExecutionProvider"]) for path in (dense, other))
    return _apart_by(program, lambda feeds: a.run(None, feeds)[0], lambda feeds: b.run(None, feeds)[0])


def _from_torch(program: Any, path: Path) -> float:
    """The same for a file in onnxruntime and a program in torch."""
    import onnxruntime as ort
    import torch

    session = ort.InferenceSession(str(path), providers=["CPUExecutionProvider"])

    def in_torch(feeds: dict[str, Any]) -> Any:
        given = [torch.from_numpy(feeds[spec.name].copy()) for spec in program.inputs]
        with torch.no_grad():
            out = program.module(*given)
        return next(iter(out.values())) if isinstance(out, dict) else out

    return _apart_by(program, in_torch, lambda feeds: session.run(None, feeds)[0])


def _feeds(program: Any, seed: int) -> dict[str, Any]:
    """Random inputs of one sample by name, and the numbers that inputs are bound to."""
    import numpy as np

    given = dict(zip([s.name for s in program.inputs], program.example_inputs(1, seed=seed), strict=True))
    bound = [port for port in program.record.interface.inputs if port.value is not None]
    return {n: x.numpy() for n, x in given.items()} | {p.name: np.full(p.shape, p.value, p.dtype) for p in bound}


def _apart_by(program: Any, one_way: Any, other_way: Any) -> float:
    """Maps of probabilities that are 0 throughout on random inputs (of a finder of text) are measured against 0.01."""
    import numpy as np

    squares = [0.0, 0.0]
    for seed in range(8):
        feeds = _feeds(program, seed)
        a, b = (np.asarray(way(feeds), np.float64) for way in (one_way, other_way))
        squares[0] += float(((a - b) ** 2).sum())
        squares[1] += max(float((a**2).sum()), a.size * _SMALLEST**2)
    return float(np.sqrt(squares[0] / max(squares[1], 1e-30)))


def read(lines: Path) -> list[Found]:
    if not lines.exists():
        return []
    return [Found(**json.loads(line)) for line in lines.read_text(encoding="utf-8").splitlines()]


def _append(found: Found, lines: Path) -> None:
    with lines.open("a", encoding="utf-8") as file:
        file.write(json.dumps(asdict(found)) + "\n")


def write_tables(found: list[Found]) -> None:
    """The tables in docs/onnx.md."""
    through = [f for f in found if f.outcome == "right"]
    counts = {kind: sum(f.outcome == kind for f in found) for kind in ("right", "refused", "wrong", "bug")}
    lines = [
        f"{len(found)} files of {len({f.package for f in found})} packages: "
        f"{', '.join(f'{n} {kind}' for kind, n in counts.items())}; "
        f"{sum(f.kept for f in through)} of the results keep the whole contract.", "",
        "| file | package | parameters | in units | ratio | as imported | as masked | contract | "
        "import, compact, export s | dense ms | speed-up |",
        "|---|---|--:|--:|--:|--:|--:|---|--:|--:|--:|",
    ]  # fmt: skip
    lines += [
        f"| {Path(f.file).name} | {f.package} {f.version} | {f.n_params:,} | {f.in_units:.1%} | "
        f"{f.ratio:.2f}x{'' if f.asked == RATIO else ' (all)'} | {f.as_imported:.0e} | {f.as_masked:.0e} | "
        f"{'kept' if f.kept else _plain('; '.join(f.notes)) or 'no'} | "
        f"{f.import_s:.1f}, {f.compact_s:.1f}, {f.export_s:.1f} | "
        f"{f.dense_ms:.2f} | {f.speedup:.2f}x ({f.low:.2f} to {f.high:.2f}) |"
        for f in through
    ]
    lines += ["", "| not right | package | parameters | | why |", "|---|---|--:|---|---|"]
    lines += [
        f"| {Path(f.file).name} | {f.package} {f.version} | {f.n_params or '':} | {f.outcome} | {_plain(f.error)} |"
        for f in found
        if f.outcome != "right"
    ]
    beside = [f for f in through if f.their_ratio]
    lines += ["", "| file | onnxsim's ratio | distance | our ratio | distance |", "|---|--:|--:|--:|--:|"]
    lines += [
        f"| {Path(f.file).name} | {f.their_ratio:.2f}x | {_shown(f.their_distance, f.theirs)} | "
        f"{f'{f.our_ratio:.2f}x' if f.our_ratio else ''} | {_shown(f.our_distance, '')} |"
        for f in beside
    ]
    text = PAGE.read_text(encoding="utf-8")
    before, _, rest = text.partition(BEGIN)
    PAGE.write_text(f"{before}{BEGIN}\n\n" + "\n".join(lines) + f"\n\n{END}{rest.partition(END)[2]}", encoding="utf-8")


def _plain(text: str) -> str:
    return " ".join(text.replace("|", "\\|").split())[:220]


def _shown(value: float, otherwise: str) -> str:
    return otherwise if otherwise or value != value else f"{value:.3f}"


if __name__ == "__main__":
    main()
