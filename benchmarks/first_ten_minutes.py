"""The first ten minutes of a stranger: own network, own data, 4x by ADMM, compact, export, a gate; with CPU seconds.

The package is built into a wheel, installed by pip into an empty environment, and run from an empty folder.

    python benchmarks/first_ten_minutes.py --out docs/first-ten-minutes.md --reports FOLDER
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
from dataclasses import dataclass
from importlib.util import find_spec
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
     "-o net.pruned.pt --report prune.html", 0),
    ("Remove what is masked, and prove that nothing else changed.", "compress compact net.pruned.pt --trust-code", 0),
    ("Both as ONNX.", "compress export net.pruned.pt -o dense.onnx", 0),
    ("", "compress export net.compact.pt -o small.onnx", 0),
    ("Is it faster, and still right? The gate decides.",
     "compress bench dense.onnx small.onnx --accuracy --data data.py:loaders --require 'speedup>=1.2' "
     "--require 'ratio>=4' --require 'accuracy>=95%' --report bench.html", 0),
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


def empty_environment(folder: Path) -> Path:
    """The `bin` of a fresh virtual environment without anything of ours; what the tool needs is read from where it is.

    Its folders stand behind the environment's own packages, as lines that import nothing: an editable install of this
    tree stays out of it.
    """
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(folder)], check=True)
    (packages,) = (folder / "lib").glob("python*/site-packages")
    found = [find_spec(name) for name in ("torch", "onnx", "rich", "setuptools")]
    needs = {str(Path(spec.origin).parents[1]) for spec in found if spec is not None and spec.origin is not None}
    (packages / "needs.pth").write_text("\n".join(sorted(needs)) + "\n")
    return folder / "bin"


def installed(what: Path, folder: Path) -> Path:
    """The `bin` of an empty environment into which pip has put an archive or a tree, without asking any index.

    Raises:  SystemExit with what pip said.
    """
    programs = empty_environment(folder)
    pip = [sys.executable, "-m", "pip", "--python", str(programs / "python"), "install", "--quiet", "--no-index"]
    command = [*pip, "--no-deps", "--no-build-isolation", "--ignore-installed", str(what)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=folder)
    if done.returncode:
        raise SystemExit(f"pip could not install {what}\n{done.stderr[-2000:]}")
    return programs


def built(folder: Path) -> Path:
    """The wheel of this tree."""
    tree = folder / "tree"
    tree.mkdir()
    shutil.copytree(ROOT / "compressor", tree / "compressor", ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, tree / name)
    code = f"import setuptools.build_meta as b; b.build_wheel({str(folder)!r})"
    subprocess.run([sys.executable, "-W", "ignore", "-c", code], cwd=tree, check=True, capture_output=True)
    shutil.rmtree(tree)
    return next(folder.glob("*.whl"))


def walked(command: str, here: Path, programs: Path) -> Done:
    environment = {
        **{name: value for name, value in os.environ.items() if not name.startswith(("COMPRESS_", "PYTHON"))},
        "PATH": f"{programs}:/usr/bin:/bin", "OMP_NUM_THREADS": "1", "XDG_STATE_HOME": str(here / ".state"),
        "XDG_CACHE_HOME": str(here / ".cache"),
    }  # fmt: skip
    words = shlex.split(command)
    before, began = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    program = [str(programs / words[0]), *words[1:]]
    done = subprocess.run(program, cwd=here, env=environment, capture_output=True, text=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu_s = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    # A chain of words on a terminal: what is told, then the result.
    shown = (done.stderr + done.stdout).replace(f"{here}/", "")
    return Done(command, done.returncode, shown, cpu_s, time.perf_counter() - began)


def walk(here: Path, programs: Path) -> tuple[Done, list[Done], list[Done]]:
    """The training, the way, and the stumbles.

    Raises:  SystemExit where a command ends otherwise than it should.
    """
    for name, text in (("net.py", NET), ("data.py", DATA), ("train.py", TRAIN)):
        (here / name).write_text(text)
    shutil.copy(ROOT / "sample_models" / "mnist_5k.npz", here / "digits.npz")
    training = walked("python train.py", here, programs)
    found: list[list[Done]] = [[], []]
    for part, steps in zip(found, (WALK, STUMBLES), strict=True):
        for _, command, code in steps:
            done = walked(command, here, programs)
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
        "written by `python benchmarks/first_ten_minutes.py`, which walks it in an empty folder, in a fresh",
        f"environment into which pip has put the wheel. One thread; all commands below take {total:.0f} CPU seconds",
        f"together (the training before them {training.cpu_s:.0f}).", "",
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
    # A log says every half minute how far it is; on the page once is enough.
    again = {i for i, line in enumerate(told) if i and all(" so far, about " in each for each in (told[i - 1], line))}
    told = [line for i, line in enumerate(told) if i not in again]
    cut = [*told[:most], "…"] if len(told) > most else told
    return ["```console", f"$ {done.command}", *cut, "```"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=ROOT / "docs" / "first-ten-minutes.md")
    parser.add_argument("--reports", type=Path, help="a folder to keep the pages of --report in, to look at them")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        here = Path(folder, "mine")
        here.mkdir()
        programs = installed(built(Path(folder)), Path(folder, "empty"))
        given.out.write_text(page(*walk(here, programs)), encoding="utf-8")
        if given.reports is not None:
            given.reports.mkdir(parents=True, exist_ok=True)
            for report in here.glob("*.html"):
                shutil.copy(report, given.reports)


if __name__ == "__main__":
    main()
