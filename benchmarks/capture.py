"""What the comparison of a capture with its module costs: python benchmarks/capture.py [ARCH ...]

Captures with and without the comparison alternate in one process, one thread; CPU seconds, and the median ratio of the
pairs.
"""

from __future__ import annotations

import argparse
import importlib
import statistics
import time
from collections.abc import Iterator
from contextlib import contextmanager
from unittest import mock

import torch
from torch import nn

from compressor.models import build
from compressor.program import InputSpec, capture
from compressor.program.original import Original

ARCHITECTURES = (
    "lenet5",
    "resnet20",
    "resnet110",
    "torchvision:mobilenet_v3_small",
    "torchvision:resnet50",
    "torchvision:densenet121",
    "timm:vit_tiny_patch16_224",
    "vgg16",
)


@contextmanager
def without_comparison() -> Iterator[None]:
    """Captures as they were before: the module is never called."""
    module = importlib.import_module("compressor.program.capture")
    with (
        mock.patch.object(Original, "batches", (1, 3)),
        mock.patch.object(module, "find_difference", lambda *given: None),
        mock.patch.object(module, "_not_compared", lambda *given: []),
    ):
        yield


def seconds(net: nn.Module, specs: list[InputSpec]) -> float:
    began = time.process_time()
    capture(net, specs)
    return time.process_time() - began


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("archs", nargs="*", default=ARCHITECTURES)
    parser.add_argument("--pairs", type=int, default=5)
    options = parser.parse_args()
    torch.set_num_threads(1)
    print("| network | without, CPU s | with, CPU s | ratio |\n|---|---|---|---|")
    for arch in options.archs:
        built = build(arch, {}, seed=0)
        specs = [InputSpec("input", (None, *shape)) for shape in built.input_shapes or ()]
        net = built.module.eval()
        seconds(net, specs)
        pairs = []
        for _ in range(options.pairs):
            with without_comparison():
                before = seconds(net, specs)
            pairs.append((before, seconds(net, specs)))
        before, after = (statistics.median(times) for times in zip(*pairs, strict=True))
        ratio = statistics.median(b / a for a, b in pairs)
        print(f"| {arch} | {before:.2f} | {after:.2f} | {ratio:.2f}x |", flush=True)


if __name__ == "__main__":
    main()
