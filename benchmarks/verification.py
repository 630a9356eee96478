"""What the check of an export still catches: `python -m benchmarks.verification [--only GLOB] [--onnx FILE=SHAPE …]`.

One weight of a network, the largest of its tensor, is moved until the check against the file of the unmoved network
fails: the smallest relative move that is caught, for the first, a middle and the last weight. Beside it stands what a
fixed limit of 1e-4 of the largest output catches, and whether that limit lets the right file through at all.
"""

from __future__ import annotations

import argparse
import fnmatch
import tempfile
import time
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path

import onnx_ir as ir
import torch
from torch import Tensor

from compressor.exporting.convert import to_onnx
from compressor.exporting.verify import LIMITS
from compressor.formats import load
from compressor.formats.onnx_session import OnnxFile
from compressor.models import build
from compressor.program import InputSpec, Program, capture, parse_input
from compressor.program.runs import Yardstick
from tests.program.hard_to_compare import KINDS, captured

FIXED = 1e-4
BATCHES = (1, 2)
MOVES = [10.0**-k for k in range(8, 0, -1)] + [0.3, 1.0]
ZOO = (
    "resnet20", "resnet56", "torchvision:resnet50", "torchvision:mobilenet_v2", "torchvision:densenet121",
    "torchvision:efficientnet_b0", "torchvision:regnet_y_400mf", "timm:vit_tiny_patch16_224",
)  # fmt: skip


def lively(name: str) -> Program:
    """A bundled or foreign network with statistics and biases that are not trivial."""
    built = build(name, {}, seed=0)
    generator = torch.Generator().manual_seed(1)
    for module in built.module.modules():
        if isinstance(module, torch.nn.BatchNorm2d) and module.running_mean is not None:
            module.running_mean.normal_(0, 0.3, generator=generator)
            module.running_var.uniform_(0.5, 2, generator=generator)  # type: ignore[union-attr]
    side = 32 if ":" not in name else 224 if name.startswith("timm:vit") else 96
    return capture(built.module.eval(), [InputSpec("x", (None, 3, side, side))])


def fixed_limit(expected: list[Tensor], got: list[Tensor]) -> float:
    """The largest difference of an output relative to its largest value; infinite where one is not finite."""
    worst = 0.0
    for x, y in zip(expected, got, strict=True):
        if x.numel():
            scale = float(x.double().abs().max()) or 1.0
            worst = max(worst, float((x.double() - y.double()).abs().nan_to_num(float("inf")).max()) / scale)
    return worst


@torch.no_grad()
def moved(program: Program, name: str, by: float) -> Program:
    other = program.clone()
    weight = other.parameters[name].view(-1)
    weight[weight.abs().argmax()] *= 1 + by
    return other


def smallest(caught: Callable[[float], bool]) -> str:
    """The smallest of the moves that is caught, all larger ones being caught too."""
    found = ""
    for by in reversed(MOVES):
        if not caught(by):
            break
        found = f"{by:.0e}"
    return found or "none"


def measure(label: str, program: Program, path: Path) -> None:
    file, limit = OnnxFile(path), LIMITS[torch.float64 if label == "float64" else torch.float32]
    inputs = [program.example_inputs(batch, seed=batch) for batch in BATCHES]
    others = [file.other(given) for given in inputs]

    def by_fixed(candidate: Program) -> float:
        yardstick = Yardstick(candidate)
        return max(fixed_limit(yardstick.own(o.inputs), list(o.outputs)) for o in others)

    def judged(candidate: Program) -> bool:
        yardstick = Yardstick(candidate)
        return all(yardstick.agreement([other], limit).passed for other in others)

    started = time.perf_counter()
    before = by_fixed(program)
    fixed_s, started = time.perf_counter() - started, time.perf_counter()
    found = [Yardstick(program).agreement([other], limit) for other in others]
    judged_s = time.perf_counter() - started
    names = [name for name, tensor in program.parameters.items() if tensor.dim() > 1 and tensor.numel() > 8]
    row = [label, f"{before:.1e}" + (" refused" if not before <= FIXED else "")]
    row += [", ".join(dict.fromkeys(("passed by " if x.passed else "refused by ") + x.judgment for x in found))]
    for name in (names[0], names[len(names) // 2], names[-1]):
        new = smallest(lambda by, name=name: not judged(moved(program, name, by)))
        old = (
            smallest(lambda by, name=name: not by_fixed(moved(program, name, by)) <= FIXED) if before <= FIXED else "-"
        )
        row.append(f"{old} / {new}")
    print("| " + " | ".join([*row, f"{fixed_s:.2f} / {judged_s:.2f} s"]) + " |", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", default="*")
    parser.add_argument("--onnx", nargs="*", default=[], help="files to take as they are, as det.onnx=3x160x160")
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    print("| Network | fixed limit | judged | first weight | middle weight | last weight | check |")
    print("|---|---|---|---|---|---|---|", flush=True)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "m.onnx")
        makers: Mapping[str, Callable[[], Program]] = {
            **{name: (lambda name=name: captured(name)) for name in KINDS},
            **{name: (lambda name=name: lively(name)) for name in ZOO},
        }
        for name, make in makers.items():
            if fnmatch.fnmatch(name, options.only):
                program = make()
                ir.save(to_onnx(program, program.module.clone().eval(), None), path)
                measure(name, program, path)
    for entry in options.onnx:
        file, shape = entry.split("=")
        measure(Path(file).stem, load(file, inputs=[parse_input(shape)]), Path(file))


if __name__ == "__main__":
    main()
