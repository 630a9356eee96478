"""Analysis time against Torch-Pruning: `python -m benchmarks.analysis [--runs 5] [--count torchvision]`.

Both tools find out what must be removed together in the same network, one after the other in the same process on one
thread, several times; CPU seconds, so that other work on the machine does not count. `--count` tries Torch-Pruning's
magnitude pruner on every network of the coverage table and counts where it works without help. The peer is installed
without its needs into a temporary folder, unless `--peer` names one.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import statistics
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from benchmarks.coverage import Job, jobs
from compressor.axes import find_units
from compressor.models import build
from compressor.program import InputSpec, capture, infer_shapes

PEER = "torch-pruning==1.6.1"
NETWORKS = {
    "torchvision:resnet50": 224,
    "torchvision:densenet121": 224,
    "torchvision:vit_b_16": 224,
    "torchvision:efficientnet_b0": 224,
    "torchvision:mobilenet_v2": 224,
    "torchvision:squeezenet1_0": 224,
    "torchvision:convnext_tiny": 224,
}


def cpu_seconds(work: Callable[[], object]) -> float:
    began = time.process_time()
    work()
    return time.process_time() - began


def compare(name: str, side: int, n_runs: int) -> dict[str, Any]:
    """Medians of interleaved runs: export once, then walk, walk with shapes, and the peer's graph, in turns."""
    import torch_pruning

    torch.manual_seed(0)
    model = build(name, {}, seed=0).module.eval()
    spec, example = InputSpec("input", (None, 3, side, side)), torch.randn(1, 3, side, side)
    began = time.process_time()
    program = capture(model, [spec])
    export_s = time.process_time() - began

    def loaded() -> None:
        bare = program.replace(module=program.module)
        assert bare.traced is None
        find_units(bare)

    works: dict[str, Callable[[], object]] = {
        "analysis after export": lambda: find_units(program),
        "shapes": lambda: infer_shapes(program.module, program.inputs, 2),
        "analysis of a checkpoint": loaded,
        "peer": lambda: torch_pruning.DependencyGraph().build_dependency(model, example_inputs=example),
    }
    times: dict[str, list[float]] = {key: [] for key in works}
    for _ in range(n_runs):
        for key, work in works.items():
            times[key].append(cpu_seconds(work))
    return {"name": name, "export": export_s, **{key: statistics.median(given) for key, given in times.items()}}


def works_out_of_the_box(job: Job) -> str:
    """What Torch-Pruning's magnitude pruner makes of a network at ratio 0.4: `works`, or why not."""
    import torch_pruning

    model = build(job.name, {}, seed=0).module.eval()
    example = torch.randn(1, 3, job.side, job.side)
    widths = ((m, getattr(m, "out_features", getattr(m, "out_channels", 0))) for m in model.modules())
    classifiers = [module for module, width in widths if width == 1000]  # SqueezeNet's is a convolution
    before = sum(p.numel() for p in model.parameters())
    importance = torch_pruning.importance.MagnitudeImportance(p=2)
    pruner = torch_pruning.pruner.MagnitudePruner(
        model, example, importance=importance, pruning_ratio=0.4, ignored_layers=classifiers
    )
    pruner.step()
    with torch.no_grad():
        output = model(example)
    if output.shape[-1] != 1000:
        return f"the output has {output.shape[-1]} classes"
    return "works" if sum(p.numel() for p in model.parameters()) < before else "nothing was removed"


def count(todo: list[Job], limit_s: float, out: Path) -> dict[str, str]:
    """The verdict on each network, in a process of its own each; what `out` holds already is not tried again."""
    known: dict[str, str] = json.loads(out.read_text()) if out.exists() else {}
    context = multiprocessing.get_context("fork")
    for job in todo:
        if job.name in known:
            continue
        receiver, sender = context.Pipe(duplex=False)
        process = context.Process(target=_verdict, args=(job, sender))
        process.start()
        sender.close()
        known[job.name] = _received(receiver, limit_s)
        process.terminate()
        process.join()
        out.write_text(json.dumps(known, indent=1))
        print(f"{job.name}: {known[job.name]}", flush=True)
    return known


def _received(receiver: Any, limit_s: float) -> str:
    if not receiver.poll(limit_s):
        return f"no result in {limit_s:.0f} s"
    try:
        return receiver.recv()
    except EOFError:
        return "the process died"


def _verdict(job: Job, sender: Any) -> None:
    try:
        sender.send(works_out_of_the_box(job))
    except Exception as error:  # whatever it is, it is what a user would see
        lines = str(error).strip().splitlines() or [""]
        sender.send(f"{type(error).__name__}: {lines[0][:120]}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--peer", type=Path, help="a folder that holds Torch-Pruning")
    parser.add_argument("--count", default="", help="torchvision, timm or : for both; skips the timing")
    parser.add_argument("--seconds", type=float, default=60.0, help="limit for one network of --count")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "out" / "peer.json")
    given = parser.parse_args()
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    build("torchvision:alexnet", {})
    with tempfile.TemporaryDirectory() as folder:
        if given.peer is None:
            pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target", folder, PEER]
            subprocess.run(pip, check=True)
        sys.path.append(str(given.peer or folder))
        if given.count:
            given.out.parent.mkdir(parents=True, exist_ok=True)
            wanted = [job for job in jobs() if job.name.startswith(given.count.rstrip(":"))]
            found = count(wanted, given.seconds, given.out)
            tried = [found[job.name] for job in wanted]
            print(f"Torch-Pruning works out of the box on {tried.count('works')} of {len(tried)}")
            return
        print("| network | export s | analysis s | of a checkpoint s | Torch-Pruning s | ratio | of a checkpoint |")
        print("|---|--:|--:|--:|--:|--:|--:|")
        for name, side in NETWORKS.items():
            row = compare(name, side, given.runs)
            ours, loaded, peer = (row[key] for key in ("analysis after export", "analysis of a checkpoint", "peer"))
            print(
                f"| {name} | {row['export']:.2f} | {ours:.3f} | {loaded:.3f} | {peer:.3f}"
                f" | {ours / peer:.2f} | {loaded / peer:.2f} |",
                flush=True,
            )


if __name__ == "__main__":
    main()
