"""CaffeNet's conv2-conv5 at 13.2x, dense against compact in onnxruntime: `python -m benchmarks.caffenet [--out FILE]`.

The published case of structured ADMM (arXiv 1807.11091): four convolutions cut to 1/13.2 of their weights. Latency
does not depend on what the weights are, so the network keeps its initial ones (or takes --weights) and the cut is by
magnitude, without training. Each way to spread the cut is pruned and compacted by the tool, and its layers are timed
next to the dense ones in the same rounds: each convolution by itself with the form it was lowered to, conv2 to conv5
with the poolings and response normalisations between them, and the whole network. The dense network has its response
normalisations as products, too, as the tool writes every one: as poolings over channels they alone would make conv2 to
conv5 1.2 ms slower.

The whole run takes some minutes. A table is printed and everything is written to --out as JSON. With `--widths` nothing
is timed: of the ways that no measured time decides, widths and ratios are the same on any machine.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
import torch

from compressor.asking import PruneSettings
from compressor.asking.bench import Plan
from compressor.atomic import atomic_write
from compressor.compaction import CompactReport, compact
from compressor.exporting.convert import to_onnx
from compressor.models import build
from compressor.program import Excerpt, InputSpec, Program, TensorShape, between, capture, find_layers
from compressor.pruning import prune
from compressor.timing import OperatorClock, default_cache
from compressor.timing.environment import environment
from compressor.timing.measure import measure
from compressor.timing.onnx_runner import OnnxRunner
from compressor.timing.operator_clock import take_times
from compressor.timing.providers import find_provider

LAYERS = ("conv2", "conv3", "conv4", "conv5")
SCOPE = ("conv1", *LAYERS)
"""conv2's inputs are conv1's filters: they can go as whole units only if conv1 is in scope."""

WAYS: dict[str, dict[str, Any]] = {
    "channel": {"pattern": "channel", "scope": SCOPE},
    "channel by work": {"pattern": "channel", "of": "macs", "scope": SCOPE},
    "filter+shape": {"pattern": "filter+shape", "scope": LAYERS},
    "filter+shape:channel": {"pattern": "filter+shape:channel", "scope": LAYERS},
    "filter+shape 0.9": {"pattern": "filter+shape", "unit_share": 0.9, "scope": LAYERS},
    "filter+shape 0.9, conv1": {"pattern": "filter+shape", "unit_share": 0.9, "scope": SCOPE},
    "latency": {"pattern": "channel", "allocation": "latency", "scope": SCOPE},
}
"""How the 13.2x are spread: by what the weights are worth, but for the last, which measured time decides. `by work`
counts multiply-adds, which leaves less of conv2: its weights work on four times as many positions. With 0.9 whole units
carry most of the ratio and columns the rest; by default they share it. With conv1, its filters may go."""

BY = "what the table shows; processor: least time on the processor (one thread), for a machine that is not quiet"
_BATCH = torch.ops.aten.sym_size.int
_TRIES = 5
_TOLERANCE = 0.03


@dataclass(frozen=True)
class Case:
    """One pruned and compacted network: `ratio` of conv2-conv5 by the masks, `in_file` where a layer that is faster
    dense has kept its zeros."""

    way: str
    program: Program
    ratio: float
    in_file: float
    asked: float
    report: CompactReport


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--ratio", type=float, default=13.2, help="dense ÷ kept weights of conv2-conv5")
    parser.add_argument("--groups", nargs="+", type=int, default=[2, 1], help="2: as published; 1: without groups")
    parser.add_argument("--ways", nargs="+", default=list(WAYS), choices=list(WAYS))
    parser.add_argument("--round-to", type=int, default=16, help="a multiple of filters in every group of a layer")
    parser.add_argument("--threads", nargs="+", type=int, default=[1, 2])
    parser.add_argument("--batches", nargs="+", type=int, default=[1, 16])
    parser.add_argument("--by", choices=("median", "min", "processor"), default="median", help=BY)
    parser.add_argument("--seconds", type=float, default=0.4, help="measured time per subject and configuration")
    parser.add_argument("--weights", type=Path, help="a state dict for the network")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--widths", action="store_true", help="only cut and print: what does not depend on the load")
    parser.add_argument("--out", type=Path, default=Path("benchmarks/out/caffenet.json"))
    options = parser.parse_args()
    began, rows = time.perf_counter(), []
    for groups in options.groups:
        rows.append(run(options, groups))
    result = {"options": {k: str(v) for k, v in vars(options).items()}, "environment": asdict(environment())}
    result |= {"seconds": time.perf_counter() - began, "networks": rows}
    options.out.parent.mkdir(parents=True, exist_ok=True)
    with atomic_write(options.out, force=True) as path:
        path.write_text(json.dumps(result, indent=1))
    print(f"\nwrote {options.out} after {result['seconds']:.0f} s")


def run(options: argparse.Namespace, groups: int) -> dict[str, Any]:
    """Everything about CaffeNet with so many groups, printed on the way."""
    program = load(groups, options.weights, options.seed)
    clock = OperatorClock(1, default_cache())
    cases = [cut(program, way, options.ratio, clock, options.round_to * groups) for way in options.ways]
    print(f"\nCaffeNet, {'two groups in conv2, conv4, conv5' if groups == 2 else 'no groups'}")
    for case in cases:
        print_case(case)
    timings: list[dict[str, Any]] = []
    if options.widths:
        return {"groups": groups, "cases": [describe(case) for case in cases], "timings": timings}
    with tempfile.TemporaryDirectory() as folder:
        files = write_pieces(program, cases, Path(folder))
        for threads in options.threads:
            for batch in options.batches:
                timings += time_pieces(files, threads, batch, options.seconds)
    print_speedups(timings, [case.way for case in cases], f"{options.by}_s")
    return {"groups": groups, "cases": [describe(case) for case in cases], "timings": timings}


def load(groups: int, weights: Path | None, seed: int) -> Program:
    built = build("caffenet", {"grouped": groups == 2}, seed=seed)
    if weights is not None:
        built.module.load_state_dict(torch.load(weights, weights_only=True))
    return capture(built.module, [InputSpec("image", (None, *(built.input_shapes or ((3, 227, 227),))[0]))])


def weights_in(program: Program, layers: Sequence[str]) -> int:
    return sum(program.parameters[f"{name}.weight"].numel() for name in layers)


def cut(program: Program, way: str, ratio: float, clock: OperatorClock, round_to: int) -> Case:
    """The compact network whose conv2-conv5 have 1/ratio of their weights or a little less.

    What is asked of the layers in scope is adjusted until conv2-conv5 come out right; widths are whole blocks, so that
    the closest one above is taken.
    """
    dense, asked, best = weights_in(program, LAYERS), ratio, None
    too_little, enough = 0.0, float("inf")
    for _ in range(_TRIES):
        settings = PruneSettings(ratio=asked, method="magnitude", round_to=round_to, **WAYS[way])
        pruned, _ = prune(program, settings, stopwatch=clock)
        cut_away = sum(int((~pruned.masks[f"{n}.weight"]).sum()) for n in LAYERS if f"{n}.weight" in pruned.masks)
        got = dense / (dense - cut_away)
        if got >= ratio and (best is None or got < best[1]):
            best = pruned, got, asked
        if ratio <= got <= ratio * (1 + _TOLERANCE):
            break
        too_little, enough = (max(too_little, asked), enough) if got < ratio else (too_little, min(enough, asked))
        guess = asked * ratio * (1 + _TOLERANCE / 2) / got
        asked = guess if too_little < guess < enough else (too_little + enough) / 2
    if best is None:
        raise SystemExit(f"{way}: found no {ratio:g}x of conv2-conv5")
    small, report = compact(best[0], stopwatch=clock)
    return Case(way, small, best[1], dense / weights_in(small, LAYERS), best[2], report)


def part(program: Program, source: str, result: str) -> Program:
    """The nodes between two values as a program of their own, `source` its input."""
    nodes, tensors = {node.name: node for node in program.module.graph.nodes}, program.module.tensors()
    shape = program.shapes[source]
    assert isinstance(shape, TensorShape)
    cut = Excerpt((None, *shape.sizes[1:]))
    made = {nodes[source]: cut.input}
    sizes = [node for node in nodes.values() if node.target is _BATCH]
    if any(node in sizes for node in between(made, nodes[result])):  # read off the part's own input
        made.update(dict.fromkeys(sizes, cut.call(_BATCH, cut.input, 0)))
    cut.copy(between(made, nodes[result]), made, lambda node: tensors[str(node.target)])
    return cut.program(made[nodes[result]])


def pieces(dense: Program) -> dict[str, tuple[str, str]]:
    """What is timed: name -> first and last value. A convolution ends with its ReLU. Names survive compaction."""
    nodes = {node.name: node for node in dense.module.graph.nodes}
    at = {layer.name: nodes[layer.node] for layer in find_layers(dense)}
    ends = {name: next(iter(at[name].users)).name for name in LAYERS}
    starts = {name: at[name].all_input_nodes[0].name for name in LAYERS}
    (output,) = (node for node in dense.module.graph.nodes if node.op == "output")
    image = next(node.name for node in dense.module.graph.nodes if node.op == "placeholder")
    return {
        **{name: (starts[name], ends[name]) for name in LAYERS},
        "conv2 to conv5": (starts["conv2"], ends["conv5"]),
        "network": (image, output.all_input_nodes[0].name),
    }


def write_pieces(dense: Program, cases: Sequence[Case], folder: Path) -> dict[str, list[tuple[str, Path]]]:
    """ONNX files of every piece: (subject, path), the dense one first."""
    found: dict[str, list[tuple[str, Path]]] = {}
    for name, (source, result) in pieces(dense).items():
        found[name] = []
        for subject, program in [("dense", dense), *((case.way, case.program) for case in cases)]:
            path = folder / f"{name}-{subject}.onnx".replace(" ", "_").replace(":", "_")
            piece = program if name == "network" else part(program, source, result)
            ir.save(to_onnx(piece, piece.module.clone().eval(), None), path)
            found[name].append((subject, path))
    return found


def time_pieces(
    files: dict[str, list[tuple[str, Path]]], threads: int, batch: int, seconds: float
) -> list[dict[str, Any]]:
    """Medians and quartiles of every piece and subject, the subjects of a piece in the same rounds."""
    plan = Plan(min_runs=12, min_seconds=seconds, max_seconds=30, warmup=2)
    provider = find_provider("cpu")
    rows: list[dict[str, Any]] = []
    for piece, subjects in files.items():

        def open_all(subjects: list[tuple[str, Path]] = subjects) -> list[OnnxRunner]:
            runners = [OnnxRunner(path, provider, threads) for _, path in subjects]
            for runner in runners:
                runner.prepare(batch, 0)
            return runners

        samples = measure(open_all, plan).seconds
        processor = take_times([path.read_bytes() for _, path in subjects], threads, batch)
        for i, (subject, _) in enumerate(subjects):
            low, middle, high = np.quantile(samples[:, i], (0.25, 0.5, 0.75))
            ratio = np.quantile(samples[:, 0] / samples[:, i], (0.25, 0.5, 0.75))
            row = {"piece": piece, "subject": subject, "threads": threads, "batch": batch, "n": len(samples)}
            row |= {
                "median_s": middle,
                "min_s": samples[:, i].min(),
                "processor_s": processor[i],
                "quartiles_s": [low, high],
                "speedup": ratio[1],
                "speedup_quartiles": ratio[::2],
            }
            rows.append({key: v.tolist() if isinstance(v, np.ndarray | np.generic) else v for key, v in row.items()})
    return rows


def describe(case: Case) -> dict[str, Any]:
    shapes = {name: list(case.program.parameters[f"{name}.weight"].shape) for name in SCOPE}
    lowered = [asdict(layer) for layer in case.report.lowered]
    agreement = asdict(case.report.agreement) if case.report.agreement else None
    return {
        "way": case.way, **WAYS[case.way], "asked": case.asked, "ratio": case.ratio, "ratio_in_file": case.in_file,
        "shapes": shapes, "lowered": lowered, "agreement": agreement, "macs": int(case.report.compact_macs),
        "dense_macs": int(case.report.dense_macs),
    }  # fmt: skip


def print_case(case: Case) -> None:
    widths = "  ".join(f"{n} {'×'.join(map(str, case.program.parameters[f'{n}.weight'].shape))}" for n in SCOPE)
    in_file = f" ({case.in_file:.1f}x in the file)" if case.in_file < case.ratio * 0.999 else ""
    print(f"{case.way}: {case.ratio:.1f}x of conv2-conv5{in_file}   {widths}")
    for layer in case.report.lowered:
        times = ", ".join(f"{name} {1e6 * s:,.0f}" for name, s in layer.seconds.items())
        print(f"    {layer.name}: {layer.n_used} of {layer.n_columns} columns, {layer.form} (µs: {times})")


def print_speedups(timings: Sequence[dict[str, Any]], ways: Sequence[str], by: str) -> None:
    """One line per piece and configuration: dense µs and the speed-up of every way."""
    print(f"\n{'piece':16}{'threads':>8}{'batch':>6}{'dense µs':>12}" + "".join(f"{way:>22}" for way in ways))
    configurations = dict.fromkeys((row["threads"], row["batch"]) for row in timings)
    for threads, batch in configurations:
        here = [row for row in timings if (row["threads"], row["batch"]) == (threads, batch)]
        by_piece = {name: {r["subject"]: r for r in here if r["piece"] == name} for name in {r["piece"] for r in here}}
        sums = {s: sum(by_piece[name][s][by] for name in LAYERS) for s in ("dense", *ways)}
        shown = {name: {s: r[by] for s, r in by_piece[name].items()} for name in LAYERS}
        shown |= {"sum of the four": sums}
        shown |= {n: {s: r[by] for s, r in by_piece[n].items()} for n in ("conv2 to conv5", "network")}
        for name, median in shown.items():
            speedups = "".join(f"{median['dense'] / median[way]:>21.1f}x" for way in ways)
            print(f"{name:16}{threads:>8}{batch:>6}{1e6 * median['dense']:>12,.0f}{speedups}")


if __name__ == "__main__":
    main()
