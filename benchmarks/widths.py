"""What default widths do to latency: networks cut to half and a quarter of their MACs, in onnxruntime.

    python benchmarks/widths.py [--out FILE] [--only NAME …] [--ratio 2 …] [--network NAME=ARCH@3x32x32 …]

Each network is cut twice, by its initial weights and without training: as the scores have it (`--round-to 1`) and in
widths that the runtime likes (the default). Dense, first and second are exported and timed side by side, one thread,
batch 1. Rows are added to FILE one by one, so that a run that was broken off goes on where it stopped.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median

import numpy as np
import torch
from torch import Tensor, nn

from compressor.asking import PruneSettings
from compressor.compaction import compact
from compressor.cost import count_macs, filled_work, find_preferences
from compressor.exporting import feeds_of, to_runnable
from compressor.formats import load
from compressor.program import InputSpec, Program, capture
from compressor.pruning import prune
from compressor.timing import OperatorClock, compare, default_cache, side_by_side

IMAGE = "3x224x224"
NETWORKS = {
    "lenet-300-100": ("lenet-300-100", ""),
    "lenet5": ("lenet5", ""),
    "resnet20": ("resnet20", ""),
    "resnet56": ("resnet56", ""),
    "vgg16-cifar": ("vgg16-cifar", ""),
    "small residual": (":residual", "3x32x32"),
    "separable, 127 and 255": (":separable", "3x96x96"),
    "resnet18": ("torchvision:resnet18", IMAGE),
    "resnet50": ("torchvision:resnet50", IMAGE),
    "mobilenet_v2": ("torchvision:mobilenet_v2", IMAGE),
    "mobilenet_v3_small": ("torchvision:mobilenet_v3_small", IMAGE),
    "efficientnet_b0": ("torchvision:efficientnet_b0", IMAGE),
    "shufflenet_v2_x1_0": ("torchvision:shufflenet_v2_x1_0", IMAGE),
    "squeezenet1_1": ("torchvision:squeezenet1_1", IMAGE),
    "densenet121": ("torchvision:densenet121", IMAGE),
    "googlenet": ("torchvision:googlenet", IMAGE),
    "regnet_y_400mf": ("torchvision:regnet_y_400mf", IMAGE),
    "vit_tiny_patch16_224": ("timm:vit_tiny_patch16_224", IMAGE),
    "convnext_atto": ("timm:convnext_atto", IMAGE),
}
ROUNDINGS = {"exact": 1, "default": 0}
SECONDS = 3.0


class Residual(nn.Module):
    """A small residual network as people write them for 32x32 images: three stages of two blocks."""

    def __init__(self, widths: tuple[int, ...] = (32, 64, 64)) -> None:
        super().__init__()
        blocks: list[nn.Module] = []
        before = widths[0]
        for number, width in enumerate(widths):
            blocks += [_Block(before, width, 1 if number == 0 else 2), _Block(width, width, 1)]
            before = width
        self.stem = nn.Sequential(nn.Conv2d(3, widths[0], 3, 1, 1, bias=False), nn.BatchNorm2d(widths[0]), nn.ReLU())
        self.blocks, self.head = nn.Sequential(*blocks), nn.Linear(before, 10)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.blocks(self.stem(x)).mean((2, 3)))


class _Block(nn.Module):
    def __init__(self, n_in: int, n_out: int, stride: int) -> None:
        super().__init__()
        self.conv1, self.norm1 = nn.Conv2d(n_in, n_out, 3, stride, 1, bias=False), nn.BatchNorm2d(n_out)
        self.conv2, self.norm2 = nn.Conv2d(n_out, n_out, 3, 1, 1, bias=False), nn.BatchNorm2d(n_out)
        same = n_in == n_out and stride == 1
        self.short = nn.Identity() if same else nn.Conv2d(n_in, n_out, 1, stride, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return (self.norm2(self.conv2(self.norm1(self.conv1(x)).relu())) + self.short(x)).relu()


def separable() -> nn.Module:
    """Depthwise and pointwise convolutions at widths of 127 and 255, as another pruner left them."""
    layers: list[nn.Module] = [nn.Conv2d(3, 32, 3, 2, 1), nn.ReLU()]
    for n_in, n_out, stride in ((32, 64, 1), (64, 127, 2), (127, 127, 1), (127, 255, 2), (255, 255, 1), (255, 255, 1)):
        layers += [nn.Conv2d(n_in, n_in, 3, stride, 1, groups=n_in, bias=False), nn.BatchNorm2d(n_in), nn.ReLU()]
        layers += [nn.Conv2d(n_in, n_out, 1, bias=False), nn.BatchNorm2d(n_out), nn.ReLU()]
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(255, 10))


OWN: dict[str, Callable[[], nn.Module]] = {":residual": Residual, ":separable": separable}


@dataclass(frozen=True)
class Row:
    """One network at one ratio under one rounding: what was asked and got in MACs, and how many times faster it is.

    `work` is the estimate by widths alone; `prune_s` the seconds of the choice, measuring of preferences left out.
    """

    name: str
    ratio: float
    rounding: str
    got: float
    speedup: float
    low: float
    high: float
    dense_s: float
    compact_s: float
    work: float
    prune_s: float


def opened(arch: str, shape: str) -> Program:
    """The network with initial weights, always the same."""
    torch.manual_seed(0)
    if arch in OWN:
        return capture(OWN[arch]().eval(), [InputSpec("x", (None, *map(int, shape.split("x"))))])
    inputs = [InputSpec("x", (None, *map(int, shape.split("x"))))] if shape else []
    return load("init", arch=arch, inputs=inputs)


def rows_of(name: str, arch: str, shape: str, ratio: float, clock: OperatorClock) -> Iterator[Row]:
    """The network's rows at one ratio, measured side by side."""
    dense = opened(arch, shape)
    preferences = find_preferences(clock)
    cut: dict[str, tuple[Program, float, float, float]] = {}
    for rounding, multiple in ROUNDINGS.items():
        settings = PruneSettings(ratio=ratio, method="magnitude", pattern="channel", of="macs", round_to=multiple)
        began = time.perf_counter()
        masked, _ = prune(dense, settings, stopwatch=clock)
        took = time.perf_counter() - began
        small, _ = compact(masked, stopwatch=clock)
        work = filled_work(dense, preferences) / filled_work(small, preferences)
        cut[rounding] = (small, count_macs(dense) / count_macs(small), work, took)
    models = [to_runnable(program) for program in (dense, *(small for small, *_ in cut.values()))]
    seconds, opening = side_by_side(models, feeds_of(dense), 1, SECONDS)
    for column, (rounding, (_, got, work, took)) in enumerate(cut.items(), 1):
        found = compare(seconds[:, 0], seconds[:, column], np.random.default_rng(0), opening)
        medians = np.median(seconds, axis=0)
        yield Row(
            name, ratio, rounding, got, found.speedup, found.low, found.high, float(medians[0]), float(medians[column]),
            work, took,
        )  # fmt: skip


def table(rows: list[Row]) -> str:
    """Markdown: a line for each network and ratio, as the scores have it and by default; then the medians."""
    lines = [
        "| network | asked | exact: MACs | speed-up | share | default: MACs | speed-up | share | 95 % |",
        "|---|--:|--:|--:|--:|--:|--:|--:|---|",
    ]
    pairs: dict[tuple[float, str], dict[str, Row]] = {}
    for row in rows:
        pairs.setdefault((row.ratio, row.name), {})[row.rounding] = row
    for ratio in sorted({row.ratio for row in rows}):
        for both in (both for (of, _), both in pairs.items() if of == ratio):
            now = both["default"]
            cells = " | ".join(_cells(both[rounding]) for rounding in ROUNDINGS)
            lines.append(f"| {now.name} | {ratio:g}x | {cells} | {now.low:.2f} to {now.high:.2f} |")
    for rounding in ROUNDINGS:
        own = [row for row in rows if row.rounding == rounding]
        share, slower = median(row.speedup / row.got for row in own), sum(row.speedup < 1 for row in own)
        lines.append(f"\n{rounding}: median {share:.0%} of the MAC ratio, {slower} of {len(own)} slower than dense")
    return "\n".join(lines)


def _cells(row: Row) -> str:
    speedup = f"**{row.speedup:.2f}x**" if row.speedup < 1 else f"{row.speedup:.2f}x"
    return f"{row.got:.2f}x | {speedup} | {row.speedup / row.got:.0%}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("widths.jsonl"))
    parser.add_argument("--only", nargs="*", default=[])
    parser.add_argument("--ratio", nargs="*", type=float, default=[2.0, 4.0])
    parser.add_argument("--network", nargs="*", default=[], metavar="NAME=ARCH@SHAPE", help="more networks")
    asked = parser.parse_args()
    torch.set_num_threads(1)
    networks = dict(NETWORKS)
    for text in asked.network:
        name, _, rest = text.partition("=")
        networks[name] = (rest.partition("@")[0], rest.partition("@")[2])
    rows = [Row(**json.loads(line)) for line in asked.out.read_text().splitlines()] if asked.out.exists() else []
    clock = OperatorClock(1, default_cache())
    for name, (arch, shape) in networks.items():
        for ratio in asked.ratio:
            done = any((row.name, row.ratio) == (name, ratio) for row in rows)
            if done or (asked.only and name not in asked.only):
                continue
            try:
                found = list(rows_of(name, arch, shape, ratio, clock))
            except Exception as error:  # one network that cannot be cut so far must not end the others
                print(f"{name} {ratio:g}x: {type(error).__name__}: {str(error).splitlines()[0]}", flush=True)
                continue
            rows += found
            with asked.out.open("a") as file:
                file.writelines(json.dumps(asdict(row)) + "\n" for row in found)
            print(*found, sep="\n", flush=True)
    print(table(rows))


if __name__ == "__main__":
    main()
