"""What the comparison of an imported network with its file costs: `python -m benchmarks.onnx_import FILE.onnx …`.

Each file is imported with the comparison and without it, in turn, three times. What counts is the processor time of
one thread, the smallest of each: it is far less noisy than the clock on a machine that others use too. `--write FOLDER`
makes the files first, of torchvision networks with random weights and statistics.
"""

from __future__ import annotations

import argparse
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import onnx_ir as ir
import torch

from benchmarks.zoo import make_difficult, set_statistics
from compressor.exporting.convert import to_onnx
from compressor.formats import load
from compressor.formats.onnx_import import attempts
from compressor.models import build
from compressor.program import InputSpec, capture

NETWORKS = (
    "shufflenet_v2_x1_0", "mobilenet_v2", "efficientnet_b0", "densenet121", "resnet50", "swin_t", "vit_b_16",
)  # fmt: skip
SIDE = 224
N_ROUNDS = 3


def write(folder: Path) -> list[Path]:
    """The files of all networks."""
    folder.mkdir(parents=True, exist_ok=True)
    made = []
    for name in NETWORKS:
        made.append(folder / f"{name}.onnx")
        if made[-1].exists():
            continue
        program = capture(
            build(f"torchvision:{name}", {}, seed=0).module.eval(), [InputSpec("x", (None, 3, SIDE, SIDE))]
        )
        make_difficult(program, zero_biases=False)
        set_statistics(program, program.example_inputs(2, seed=3))
        ir.save(to_onnx(program, program.module.eval(), None), made[-1])
    return made


@contextmanager
def without_comparison() -> Iterator[None]:
    """Imports in the block are not compared with their files."""
    real: Callable[..., str] = attempts.compare
    attempts.compare = lambda *args: "not compared"
    try:
        yield
    finally:
        attempts.compare = real


def seconds(path: Path) -> float:
    """Processor time of one import."""
    started = time.process_time()
    load(path)
    return time.process_time() - started


def measured(path: Path) -> tuple[float, float, str]:
    """Smallest time without and with the comparison, and what the comparison noted."""
    alone, compared = [], []
    for _ in range(N_ROUNDS):
        with without_comparison():
            alone.append(seconds(path))
        compared.append(seconds(path))
    return min(alone), min(compared), load(path).record.notes[-1]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("files", nargs="*", type=Path)
    parser.add_argument("--write", type=Path, help="make the files of the torchvision networks here")
    told = parser.parse_args()
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    files = [*told.files, *(write(told.write) if told.write is not None else [])]
    load(files[0])  # what is loaded once belongs to no network
    print("| network | without, CPU s | with, CPU s | batches |\n|---|--:|--:|---|")
    for path in files:
        alone, compared, note = measured(path)
        print(f"| {path.stem} | {alone:.2f} | {compared:.2f} | {note.partition('batches ')[2] or note} |", flush=True)


if __name__ == "__main__":
    main()
