"""The first ten minutes of a stranger: own network, own data, 4x by ADMM, compact, export, a gate; with CPU seconds.

The package is built into a wheel, unpacked beside nothing else of this tree, and run from an empty folder.

    python benchmarks/first_ten_minutes.py --out docs/first-ten-minutes.md
"""

from __future__ import annotations

import argparse
import os
import resource
import shlex
import shutil
import subprocess
import sys
import tempfile
import time
import zipfile
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[1]

NET = """\
from torch import nn


class Block(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.conv1 = nn.Conv2d(width, width, 3, padding=1)
        self.conv2 = nn.Conv2d(width, width, 3, padding=1)

    def forward(self, x):
        return (x + self.conv2(self.conv1(x).relu())).relu()


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(1, 32, 3, padding=1)
        self.block = Block(32)
        self.conv = nn.Conv2d(32, 64, 3, padding=1)
        self.fc1 = nn.Linear(64 * 7 * 7, 32)
        self.fc2 = nn.Linear(32, 10)
        self.pool = nn.MaxPool2d(2)

    def forward(self, x):
        x = self.pool(self.block(self.stem(x).relu()))
        x = self.pool(self.conv(x).relu())
        return self.fc2(self.fc1(x.view(-1, 64 * 7 * 7)).relu())
"""
DATA = """\
import numpy as np
import torch
from torch.utils.data import DataLoader, TensorDataset

held = np.load("digits.npz")


def split(name):
    images = torch.tensor(held[f"x_{name}"]).float().view(-1, 1, 28, 28) / 255
    return TensorDataset(images, torch.tensor(held[f"y_{name}"]).long())


def loaders():
    return DataLoader(split("train"), batch_size=64, shuffle=True), DataLoader(split("test"), batch_size=256)
"""
TRAIN = """\
import torch
from data import loaders
from net import Net

torch.manual_seed(0)
net, (train, _) = Net(), loaders()
optimizer = torch.optim.Adam(net.parameters(), 1e-3)
for epoch in range(4):
    for x, y in train:
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(net(x), y).backward()
        optimizer.step()
torch.save(net.state_dict(), "net.pth")
"""
WALK = (
    ("Look at it first. The input is that of the data, and `net.py` has one network that needs no arguments.",
     "compress analyze net.pth --arch net.py --data data.py:loaders", 0),
    ("What would go?", "compress prune net.pth --arch net.py --data data.py:loaders --ratio 4x --dry-run", 0),
    ("Four times fewer parameters, by ADMM.",
     "compress prune net.pth --arch net.py --data data.py:loaders --ratio 4x --epochs 8 --retrain-epochs 8 "
     "-o net.pruned.pt", 0),
    ("Remove what is masked, and prove that nothing else changed.", "compress compact net.pruned.pt --trust-code", 0),
    ("Both as ONNX.", "compress export net.pruned.pt -o dense.onnx", 0),
    ("", "compress export net.compact.pt -o small.onnx", 0),
    ("Is it faster, and still right? The gate decides.",
     "compress bench dense.onnx small.onnx --accuracy --data data.py:loaders --require 'speedup>=1.2' "
     "--require 'ratio>=4' --require 'accuracy>=95%'", 0),
)  # fmt: skip
STUMBLES = (
    ("A file that is not there.", "compress analyze nte.pth", 1),
    ("An option that is nearly one.", "compress prune net.pth --ration 4x", 2),
    ("A colour image for a grey one.", "compress analyze net.pth --arch net.py --input 3x28x28", 1),
    ("A checkpoint whose data are code, without saying so.", "compress retrain net.pruned.pt --epochs 1", 2),
    ("A ratio in per cent.", "compress prune net.pruned.pt --ratio 75% --method magnitude --no-retrain --dry-run", 0),
)


@dataclass(frozen=True)
class Done:
    command: str
    code: int
    shown: str
    cpu_s: float
    wall_s: float


def built(folder: Path) -> Path:
    """The package, out of its wheel."""
    tree = folder / "tree"
    tree.mkdir()
    shutil.copytree(ROOT / "compressor", tree / "compressor", ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, tree / name)
    code = f"import setuptools.build_meta as b; b.build_wheel({str(folder)!r})"
    subprocess.run([sys.executable, "-W", "ignore", "-c", code], cwd=tree, check=True, capture_output=True)
    with zipfile.ZipFile(next(folder.glob("*.whl"))) as wheel:
        wheel.extractall(folder / "site")
    shutil.rmtree(tree)
    return folder / "site"


def walked(words: list[str], command: str, here: Path, site: Path) -> Done:
    environment = {
        **{name: value for name, value in os.environ.items() if not name.startswith("COMPRESS_")},
        "PYTHONPATH": str(site), "OMP_NUM_THREADS": "1", "XDG_STATE_HOME": str(here / ".state"),
        "XDG_CACHE_HOME": str(here / ".cache"),
    }  # fmt: skip
    before, began = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    done = subprocess.run(words, cwd=here, env=environment, capture_output=True, text=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu_s = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    # A chain of words on a terminal: what is told, then the result.
    shown = (done.stderr + done.stdout).replace(f"{here}/", "")
    return Done(command, done.returncode, shown, cpu_s, time.perf_counter() - began)


def walk(here: Path, site: Path) -> tuple[Done, list[Done], list[Done]]:
    """The training, the way, and the stumbles.

    Raises:  SystemExit where a command ends otherwise than it should.
    """
    for name, text in (("net.py", NET), ("data.py", DATA), ("train.py", TRAIN)):
        (here / name).write_text(text)
    shutil.copy(ROOT / "sample_models" / "mnist_5k.npz", here / "digits.npz")
    training = walked([sys.executable, "train.py"], "python train.py", here, site)
    found: list[list[Done]] = [[], []]
    for part, steps in zip(found, (WALK, STUMBLES), strict=True):
        for _, command, code in steps:
            words = shlex.split(command)
            program = [sys.executable, "-c", "from compressor.cli.main import run; run()", *words[1:]]
            done = walked(program, command, here, site)
            if done.code != code:
                raise SystemExit(f"{command}: ended with {done.code}, not {code}\n{done.shown}")
            part.append(done)
            print(f"{done.cpu_s:6.1f} s  {command}", flush=True)
    return training, found[0], found[1]


def page(training: Done, way: list[Done], stumbles: list[Done]) -> str:
    """The walk as a page."""
    total = sum(done.cpu_s for done in way)
    lines = [
        "# The first ten minutes", "",
        "A network and data of your own, from trained weights to a smaller ONNX file with a gate. This page is",
        "written by `python benchmarks/first_ten_minutes.py`, which walks it from an empty folder, the wheel and its",
        f"needs. One thread; all commands below take {total:.0f} CPU seconds together (the training before them "
        f"{training.cpu_s:.0f}).", "",
        "The network has a hard-coded `view` and a residual block; the data are ordinary loaders.", "",
        "```python", NET.rstrip(), "```", "", "```python", DATA.rstrip(), "```", "",
    ]  # fmt: skip
    for (text, _, _), done in zip(WALK, way, strict=True):
        lines += [*([text, ""] if text else []), f"{done.cpu_s:.1f} CPU seconds:", "", *_shown(done), ""]
    lines += ["## What goes wrong", ""]
    for (text, _, code), done in zip(STUMBLES, stumbles, strict=True):
        lines += [f"{text} {done.cpu_s:.1f} CPU seconds, exit code {code}:", "", *_shown(done, most=6), ""]
    return "\n".join(lines).rstrip() + "\n"


def _shown(done: Done, most: int = 40) -> list[str]:
    told = [line.rstrip() for line in done.shown.strip().splitlines()]
    cut = [*told[:most], "…"] if len(told) > most else told
    return ["```console", f"$ {done.command}", *cut, "```"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=ROOT / "docs" / "first-ten-minutes.md")
    out = parser.parse_args().out
    with tempfile.TemporaryDirectory() as folder:
        here = Path(folder, "mine")
        here.mkdir()
        out.write_text(page(*walk(here, built(Path(folder)))), encoding="utf-8")


if __name__ == "__main__":
    main()
