"""Seconds of one ADMM update: `python benchmarks/projection.py [--arch torchvision:resnet50] [--pattern shape …]`.

An update is the choice of what stays (Z-step, the projection of W + U) and what follows from it for Z, U and the
residual. Both are timed, on the architecture's initial weights; the best of `--rounds` counts, because the first one
allocates. Beside the seconds that pass stand those that the processors spend: what counts on a busy machine.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from functools import partial

import torch

from compressor.asking import Admm, Cut
from compressor.asking.pattern import parse_pattern
from compressor.axes import find_units
from compressor.models import build
from compressor.program import InputSpec, capture
from compressor.pruning.admm import AdmmHook
from compressor.sparsity import Choice, make_selector

PATTERNS = ("unstructured", "filter", "channel", "shape", "filter+shape", "channel+shape", "2:4", "block:4x4")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--arch", default="torchvision:resnet50")
    parser.add_argument("--pattern", nargs="*", default=list(PATTERNS))
    parser.add_argument("--ratio", type=float, default=4.0)
    parser.add_argument("--of", default="params")
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()

    built = build(options.arch, {}, seed=0)
    shape = (built.input_shapes or ((3, 224, 224),))[0]
    program = capture(built.module, [InputSpec("image", (None, *shape))])
    units = find_units(program)
    threads = torch.get_num_threads()
    print("wall seconds (processor seconds)")
    print(f"{options.arch}: {program.n_parameters:,} parameters, {units.n_units} units, {threads} threads")
    for text in options.pattern:
        ratio = parse_pattern(text).implied_ratio or options.ratio
        selector = make_selector(program, units, Choice(Cut(pattern=text, of=options.of, round_to=1)))
        hook = AdmmHook(program.module, selector, ratio, Admm(), n_steps=1)
        lifted = {name: p.detach() for name, p in program.parameters.items()}
        got = selector.select(lifted, ratio).ratio
        choice = [_timed(partial(selector.select, lifted, ratio)) for _ in range(options.rounds)]
        update = [_timed(hook.renew) for _ in range(options.rounds)]
        print(f"{text:14s} {ratio:g}x -> {got:.3f}x: choice {_best(choice)}, whole update {_best(update)}")


def _timed(run: Callable[[], object]) -> tuple[float, float]:
    """Seconds that pass, and seconds of all processors."""
    wall, cpu = time.perf_counter(), time.process_time()
    run()
    return time.perf_counter() - wall, time.process_time() - cpu


def _best(times: list[tuple[float, float]]) -> str:
    return f"{min(wall for wall, _ in times):.3f} s ({min(cpu for _, cpu in times):.3f} s)"


if __name__ == "__main__":
    main()
