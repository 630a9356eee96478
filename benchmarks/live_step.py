"""What an attached Pruner costs a training step: bare and attached steps of one network, interleaved.

python -m benchmarks.live_step --arch resnet20 --batch 64 --rounds 30
"""

from __future__ import annotations

import argparse
import copy
import statistics
import time

import torch
from torch import nn

from compressor import Pruner
from compressor.models import build


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--arch", default="resnet20")
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=30)
    parser.add_argument("--methods", default="admm,group-lasso,magnitude")
    given = parser.parse_args()
    built = build(given.arch, {}, seed=0)
    shape = built.input_shapes[0]
    x, y = torch.randn(given.batch, *shape), torch.randint(0, 10, (given.batch,))
    spec = "x".join(map(str, shape))
    for method in given.methods.split(","):
        models = [copy.deepcopy(built.module).train() for _ in range(2)]
        optimizers = [torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9) for model in models]
        Pruner(models[1], spec, ratio="2x", of="macs", method=method, round_to=1, steps=40 * given.rounds).attach(
            optimizers[1]
        )
        seconds: list[list[float]] = [[], []]
        for turn in range(given.rounds + 2):
            for which in (0, 1) if turn % 2 else (1, 0):
                began = time.process_time()
                optimizers[which].zero_grad()
                nn.functional.cross_entropy(models[which](x), y).backward()
                optimizers[which].step()
                seconds[which].append(time.process_time() - began)
        pairs = [b / a for a, b in zip(seconds[0][2:], seconds[1][2:], strict=True)]
        print(f"{given.arch} batch {given.batch} {method}: {statistics.median(pairs):.3f} of a bare step")


if __name__ == "__main__":
    main()
