"""A tiny trained-looking network with data, and the command line called in this process."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.pinning import PINNED

ROOT = Path(__file__).parents[2]

NET = """
from torch import nn

class Net(nn.Module):
    def __init__(self, width: int = 8) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(1, width, 3, padding=1)
        self.conv2 = nn.Conv2d(width, 12, 3, padding=1)
        self.fc = nn.Linear(12 * 4, 3)

    def forward(self, x):
        x = nn.functional.max_pool2d(self.conv1(x).relu(), 2)
        x = nn.functional.max_pool2d(self.conv2(x).relu(), 2)
        return self.fc(x.flatten(1))
"""


@dataclass(frozen=True)
class Done:
    """How a command ended and what it said."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> dict[str, Any]:
        """The one JSON object on stdout."""
        assert self.out.count("\n") == 1, self.out
        return json.loads(self.out)


Run = Callable[..., Done]


@pytest.fixture(scope="session")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with net.py, data.npz and model.pt, to be read only."""
    from compressor.formats import load, save

    folder = tmp_path_factory.mktemp("files")
    (folder / "net.py").write_text(NET)
    generator = np.random.default_rng(0)
    labels = np.arange(96) % 3
    images = generator.normal(size=(96, 1, 8, 8)).astype(np.float32) * 0.3
    for i, label in enumerate(labels):
        images[i, 0, int(label) * 2 : int(label) * 2 + 3] += 1.0
    np.savez(folder / "data.npz", x_train=images, y_train=labels, x_test=images[:48], y_test=labels[:48])
    from compressor.program import InputSpec

    program = load(
        "init",
        arch=f"{folder / 'net.py'}:Net",
        inputs=[InputSpec("input", (None, 1, 8, 8))],
        data=str(folder / "data.npz"),
    )
    save(program, folder / "model.pt")
    return folder


@pytest.fixture
def here(tmp_path: Path, files: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An own folder with links to the files, as working directory, without variables of ours but the pinned ones."""
    for file in files.iterdir():
        if file.is_file():
            (tmp_path / file.name).write_bytes(file.read_bytes())
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path.with_name(f"{tmp_path.name} state")))
    for variable in [name for name in os.environ if name.startswith("COMPRESS_") and name not in PINNED]:
        monkeypatch.delenv(variable)
    return tmp_path


@pytest.fixture
def run(here: Path, capsys: pytest.CaptureFixture[str]) -> Run:
    """`run("prune", "model.pt", ...)` in this process."""
    from compressor.cli.main import main

    def call(*arguments: str) -> Done:
        capsys.readouterr()
        code = main(list(arguments))
        captured = capsys.readouterr()
        return Done(code, captured.out, captured.err)

    return call


@pytest.fixture
def environment() -> dict[str, str]:
    """The environment of a command in a process of its own."""
    return {
        **{name: value for name, value in os.environ.items() if not name.startswith("COMPRESS_") or name in PINNED},
        "PYTHONPATH": str(ROOT),
        "OMP_NUM_THREADS": "1",
    }


@pytest.fixture
def shell(here: Path, environment: dict[str, str]) -> Callable[[str], subprocess.CompletedProcess[bytes]]:
    """A shell line in which `compress` is this tree's."""

    def call(line: str) -> subprocess.CompletedProcess[bytes]:
        script = f'compress() {{ "{sys.executable}" -m compressor "$@"; }}; set -o pipefail; {line}'
        return subprocess.run(
            ["bash", "-c", script],
            cwd=here,
            env=environment,
            capture_output=True,
            timeout=120,
            check=False,
        )

    return call
