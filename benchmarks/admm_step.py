"""What ADMM costs a training step: `python benchmarks/admm_step.py [--arch resnet20] [--batch 128]`.

Plain, masked and ADMM steps of one network are interleaved in one run (A B C A B C …), so that a drift of the machine
hits all of them; the ratio of each round is taken and the median over the rounds is printed. An update of Z and U is
timed by itself.
"""

from __future__ import annotations

import argparse
import statistics
import time

import torch
import torch.nn.functional as F

from compressor.asking import Admm, Cut
from compressor.axes import find_units
from compressor.models import build
from compressor.program import InputSpec, capture
from compressor.pruning.admm import AdmmHook
from compressor.pruning.hooks import MaskHook
from compressor.sparsity import Choice, make_selector
from compressor.training import BaseHook


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--arch", default="resnet20")
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--rounds", type=int, default=30)
    parser.add_argument("--pattern", default="channel")
    options = parser.parse_args()

    built = build(options.arch, {}, seed=0)
    shape = (built.input_shapes or ((3, 32, 32),))[0]
    program = capture(built.module, [InputSpec("image", (None, *shape))])
    module = program.module.to(memory_format=torch.channels_last).train()  # pyright: ignore[reportCallIssue]
    selector = make_selector(program, find_units(program), Choice(Cut(pattern=options.pattern, round_to=1)))
    admm = AdmmHook(module, selector, 2.0, Admm(), n_steps=10**9)  # no update among the steps that are timed
    hooks: dict[str, BaseHook] = {
        "plain": BaseHook(),
        "masked": MaskHook(module, selector.select(program.parameters, 2.0).masks),
        "admm": admm,
    }
    inputs = torch.randn(options.batch, *shape)
    target = torch.randint(0, 10, (options.batch,))
    optimizer = torch.optim.Adam(module.parameters(), lr=1e-4, fused=True)

    def step(hook: BaseHook) -> float:
        began = time.perf_counter()
        optimizer.zero_grad(set_to_none=True)
        F.cross_entropy(module(inputs), target).backward()
        hook.on_gradients()
        optimizer.step()
        hook.on_update()
        return time.perf_counter() - began

    for hook in hooks.values():
        step(hook)
    times: dict[str, list[float]] = {name: [] for name in hooks}
    for _ in range(options.rounds):
        for name, hook in hooks.items():
            times[name].append(step(hook))
    began = time.perf_counter()
    admm.renew()
    update_s = time.perf_counter() - began

    print(f"{options.arch}, batch {options.batch}, {options.rounds} rounds, {torch.get_num_threads()} threads")
    print(f"plain step {1e3 * statistics.median(times['plain']):.2f} ms")
    for name in ("masked", "admm"):
        ratios = [b / a for a, b in zip(times["plain"], times[name], strict=True)]
        low, high = sorted(ratios)[len(ratios) // 4], sorted(ratios)[3 * len(ratios) // 4]
        print(f"{name} ÷ plain: {statistics.median(ratios):.3f} (quartiles {low:.3f} to {high:.3f})")
    print(f"one update of Z and U ({options.pattern}): {update_s:.3f} s")


if __name__ == "__main__":
    main()
