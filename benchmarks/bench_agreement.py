"""How far `compress bench` can be believed: `python -m benchmarks.bench_agreement [--runs 100] [--out FILE.json]`.

Two questions, asked on this machine as busy as it is. *Alike*: one ONNX file against a copy of itself, many short
benches; the verdict must be "no difference" in 95 of 100. *Outside*: a dense and a smaller network timed in processes
of their own that do nothing but run a session on a bound input in a loop, as `onnxruntime_perf_test` does, before and
after benches of the two; the loop's speed-up must lie in the bench's interval. The processes alternate, dense and
small, so that a drift of the machine hits both.
"""

from __future__ import annotations

import argparse
import json
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

from compressor.exporting import export_onnx
from compressor.formats import load
from compressor.timing import bench

_LOOP = """
import sys, time, statistics, numpy as np, onnxruntime as ort
path, seconds = sys.argv[1], float(sys.argv[2])
options = ort.SessionOptions()
options.intra_op_num_threads = options.inter_op_num_threads = 1
session = ort.InferenceSession(path, options, providers=["CPUExecutionProvider"])
given = session.get_inputs()[0]
array = np.random.default_rng(0).standard_normal((1, *given.shape[1:])).astype(np.float32)
binding = session.io_binding()
binding.bind_ortvalue_input(given.name, ort.OrtValue.ortvalue_from_numpy(array))
for output in session.get_outputs():
    binding.bind_output(output.name)
end = time.perf_counter() + 0.2
while time.perf_counter() < end:
    session.run_with_iobinding(binding)
samples, end = [], time.perf_counter() + seconds
while time.perf_counter() < end:
    started = time.perf_counter()
    session.run_with_iobinding(binding)
    samples.append(time.perf_counter() - started)
print(statistics.median(samples))
"""


def main() -> None:
    parser = argparse.ArgumentParser(description="How far `compress bench` can be believed.")
    parser.add_argument("--runs", type=int, default=100, help="benches of a file against its copy; 0 for none")
    parser.add_argument("--seconds", type=float, default=0.5, help="least measured time of each model in these")
    parser.add_argument("--rounds", type=int, default=4, help="benches of the two networks, with loops around them")
    parser.add_argument("--loops", type=int, default=3, help="processes per network around each of these benches")
    parser.add_argument("--out", type=Path, help="JSON file for the numbers")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        dense, small = _networks(Path(folder))
        found = {
            "alike": _alike(small, options.runs, options.seconds) if options.runs else None,
            "outside": _outside(dense, small, options.rounds, options.loops),
        }
    if options.out is not None:
        options.out.write_text(json.dumps(found, indent=1) + "\n")


def _networks(folder: Path) -> tuple[Path, Path]:
    """ResNet-20 and LeNet-5 as ONNX files: some 1 and 0.1 ms, where calls, caches and clocks still show."""
    files: list[Path] = []
    for arch in ("resnet20", "lenet5"):
        files.append(folder / f"{arch}.onnx")
        export_onnx(load("init", arch=arch), files[-1])
    return files[0], files[1]


def _alike(model: Path, runs: int, seconds: float) -> dict[str, Any]:
    twin = model.with_name("twin.onnx")
    shutil.copyfile(model, twin)
    verdicts: Counter[str] = Counter()
    speedups: list[float] = []
    load_average: list[float] = []
    started = time.perf_counter()
    for seed in range(runs):
        report = bench([model, twin], min_runs=50, min_seconds=seconds, max_seconds=5.0, warmup=5, seed=seed)
        verdicts[report.timings[1].verdict] += 1
        speedups.append(report.timings[1].speedup)
        load_average.append(report.environment.load or 0.0)
    same = verdicts["no difference"]
    print(f"alike: no difference in {same} of {runs} benches ({time.perf_counter() - started:.0f} s)")
    print(f"  speed-up from {min(speedups):.3f} to {max(speedups):.3f}, load {statistics.mean(load_average):.1f}")
    return {"runs": runs, "verdicts": dict(verdicts), "speedups": speedups, "load": load_average}


def _outside(dense: Path, small: Path, rounds: int, loops: int) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    for seed in range(rounds):
        before = _loops(dense, small, loops)
        timings = bench([dense, small], min_runs=100, min_seconds=2.0, seed=seed).timings
        timing = timings[1]
        after = _loops(dense, small, loops)
        ratios = sorted(a / b for a, b in before + after)
        ratio = statistics.median(ratios)
        inside = timing.speedup_low <= ratio <= timing.speedup_high
        agree = ratios[0] <= timing.speedup_high and timing.speedup_low <= ratios[-1]
        print(
            f"outside: bench {timing.speedup:.3f}x ({timing.speedup_low:.3f} to {timing.speedup_high:.3f}), loops "
            f"{ratio:.3f}x ({ratios[0]:.3f} to {ratios[-1]:.3f}): {'inside' if inside else 'outside'}, "
            f"{'the ranges meet' if agree else 'THE RANGES DO NOT MEET'}"
        )
        found.append(
            {
                "median_s": [t.median_s for t in timings],
                "speedup": timing.speedup,
                "low": timing.speedup_low,
                "high": timing.speedup_high,
                "loops": [list(pair) for pair in before + after],
                "ratio": ratio,
                "inside": inside,
                "agree": agree,
            }
        )
    return found


def _loops(dense: Path, small: Path, n: int) -> list[tuple[float, float]]:
    """Medians of a tight loop over both networks, each from a process of its own, dense and small in turn."""
    return [(_loop(dense), _loop(small)) for _ in range(n)]


def _loop(model: Path, seconds: float = 1.0) -> float:
    done = subprocess.run(
        [sys.executable, "-c", _LOOP, str(model), str(seconds)], capture_output=True, text=True, check=True
    )
    return float(done.stdout)


if __name__ == "__main__":
    main()
