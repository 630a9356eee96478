"""What README and pages show is run: Python as it stands, command lines on small models under the names of the page.

`tests/test_code_blocks.py` reads every block; this runs them. What is not run here has a reason, which names the test
that runs it or what it needs. Trainings are shortened by the variables of the environment, no line is changed.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import compressor
from compressor.cli.main import main
from compressor.models import build
from tests.test_code_blocks import PAGES, Block, blocks, commands

ROOT = Path(__file__).parents[1]
SHORT = {
    "EPOCHS": "1", "RETRAIN_EPOCHS": "1", "EPOCH_STEPS": "4", "MIN_SECONDS": "0.01", "MIN_RUNS": "3",
    "MAX_SECONDS": "1", "SAMPLES": "40", "ROUND_TO": "1",
}  # fmt: skip
ELSEWHERE = {
    "docs/ci.md": "its script is run as it stands by tests/cli/test_ci_page.py",
    "docs/transformers.md": "its lines are run in turn by tests/cli/test_transformers_walk.py",
    "docs/first-ten-minutes.md": "written by the script that runs it, benchmarks/first_ten_minutes.py",
    "docs/ultralytics.md": "needs Ultralytics and its data; tests/integrations/test_ultralytics.py",
}
"""Pages whose commands are not run here."""
NOT_RUN = {
    "bert": "a directory of transformers: tests/cli/test_transformers_walk.py, tests/cli/test_transformers.py",
    "retinanet": "34 million parameters: tests/models",
    "pruned-elsewhere": "45 MB of weights: tests/cli/test_compact_foreign.py does it on a small network",
    "net.py:unet": "needs diffusers: benchmarks/group_norms.py",
    "unet.pruned.pt": "needs diffusers: benchmarks/group_norms.py",
    "unet.compact.pt": "needs diffusers: benchmarks/group_norms.py",
    "net.py:Detector": "code that no graph holds, and where it may end: tests/cli/test_until.py",
    "torch-compile": "needs a compiler of C++: tests/timing",
    "--of latency": "measures for a minute: tests/cli/test_latency.py",
    "--allocation latency": "measures for a minute: tests/cli/test_latency.py",
    "--data photos/": "a folder of photographs: tests/cli/test_no_labels.py",
}  # fmt: skip
"""Words of a line that is not run here."""
PYTHON_NOT_RUN = {
    "from ultralytics": ELSEWHERE["docs/ultralytics.md"],
    "import diffusers": "needs diffusers: benchmarks/group_norms.py",
    "fasterrcnn_resnet50_fpn": "41 million parameters: tests/models/test_boundary.py does it on a small head",
    "transformers.Trainer": "needs accelerate and a training: tests/integrations/test_transformers.py, examples/",
}  # fmt: skip


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """An own folder with the files that pages speak of, small; rule tables stay as they are."""
    from compressor.axes.table import RULES as AXES
    from compressor.cost.products import RULES as PRODUCTS

    here = tmp_path / "here"
    here.mkdir()
    for name in ("lenet5.pt", "mnist_5k.npz"):
        shutil.copy(ROOT / "sample_models" / name, here / name)
    for name in ("model.pt", "m.pt"):
        shutil.copy(ROOT / "sample_models" / "lenet-300-100.pt", here / name)
    monkeypatch.chdir(here)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    for name, value in SHORT.items():
        monkeypatch.setenv(f"COMPRESS_{name}", value)
    before = dict(AXES), dict(PRODUCTS)
    yield here
    for table, entries in zip((AXES, PRODUCTS), before, strict=True):
        table.clear()
        table.update(entries)


def exported(*names: str) -> None:
    for name in names:
        compressor.export(compressor.load("model.pt"), name)


def pruned(*names: str) -> None:
    settings = compressor.PruneSettings(ratio=2.0, method="magnitude", round_to=1)
    program, _ = compressor.prune(compressor.load("model.pt"), settings)
    for name in names:
        compressor.save(compressor.compact(program)[0] if "compact" in name else program, name)


def digits(folder: str = "data", n: int = 60) -> None:
    """MNIST's four files, with a few of the bundled digits."""
    with np.load("mnist_5k.npz") as file:
        held = dict(file)
    Path(folder).mkdir()
    for part, name in (("train", "train"), ("test", "t10k")):
        images, labels = held[f"x_{part}"][:n].astype(np.uint8).reshape(n, 28, 28), held[f"y_{part}"][:n]
        head = np.array([0x803, n, 28, 28], ">u4").tobytes()
        Path(folder, f"{name}-images-idx3-ubyte").write_bytes(head + images.tobytes())
        Path(folder, f"{name}-labels-idx1-ubyte").write_bytes(
            np.array([0x801, n], ">u4").tobytes() + labels.astype(np.uint8).tobytes()
        )


def pictures(folder: str = "data", n: int = 12) -> None:
    """CIFAR-10's six files, with a few random pictures."""
    Path(folder).mkdir()
    rows = np.random.default_rng(0).integers(0, 10, (n, 3073), dtype=np.uint8)
    for name in (*(f"data_batch_{i}.bin" for i in range(1, 6)), "test_batch.bin"):
        Path(folder, name).write_bytes(rows.tobytes())


NET = """from torch import nn


def Net():
    return nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Flatten(), nn.Linear(7200, 3))
"""
BATCHES = """import torch

loader = [(torch.randn(4, 3, 32, 32), torch.tensor([0, 1, 2, 0])) for _ in range(3)]


"""
STEPS = """        for x, y in loader:
            optimizer.zero_grad()
            torch.nn.functional.cross_entropy(model(x), y).backward()
            optimizer.step()
"""


def your_training() -> None:
    """net.py, weights.pth, and the page's own function in mine.py with a loop where it has an ellipsis."""
    (block,) = (b.text for b in blocks("docs/training.md") if b.text.startswith("def train("))
    Path("net.py").write_text(NET)
    held: dict[str, Any] = {}
    exec(NET, held)
    torch.save(held["Net"]().state_dict(), "weights.pth")
    assert "        ...\n" in block
    Path("mine.py").write_text(BATCHES + block.replace("        ...\n", STEPS))


def adopted() -> None:
    pruned("m.pruned.pt")
    torch.save(compressor.load("m.pruned.pt").module.state_dict(), "trained.pth")
    Path("m.pruned.pt").unlink()


SETUP: dict[str, Callable[[], None]] = {
    "README.md": lambda: exported("dense.onnx"),
    "docs/bench.md": lambda: exported("dense.onnx", "small.onnx"),
    "docs/data.md": lambda: shutil.copytree(ROOT / "sample_models", "sample_models"),  # type: ignore[dict-item]
    "docs/export.md": lambda: (digits(), pruned("model.pruned.pt", "model.compact.pt")),  # type: ignore[dict-item]
    "docs/json.md": lambda: exported("a.onnx", "b.onnx"),
    "docs/lowering.md": lambda: pruned("model.pruned.pt"),
    "docs/onnx.md": lambda: (exported("model.onnx"), shutil.copy("mnist_5k.npz", "my_data.npz")),  # type: ignore[dict-item]
    "docs/training.md": lambda: (your_training(), adopted()),  # type: ignore[dict-item]
}
UNSHORTENED = {"docs/training.md"}
"""Where `--train` refuses lengths of the tool's own training, from wherever they come."""


def reason(block: Block, words: list[str]) -> str | None:
    line = " ".join(words)
    if block.page in ELSEWHERE:
        return ELSEWHERE[block.page]
    return next((why for part, why in NOT_RUN.items() if part in line), None)


def piped(words: list[str], read: str) -> list[str]:
    """A command of a pipe with files in the place of its ends."""
    out = [i for i, word in enumerate(words[:-1]) if word == "-o" and words[i + 1] == "-"]
    ends = {i + 1: read + "+" for i in out}
    return [ends.get(i, read if word == "-" else word) for i, word in enumerate(words)]


@pytest.mark.parametrize("page", PAGES)
def test_command_lines_run(
    page: str, world: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    lines = [(words, reason(block, words)) for block in blocks(page) for words in commands(block.text)]
    if all(why is not None for _, why in lines):
        pytest.skip("; ".join(dict.fromkeys(why for _, why in lines if why)) or "shows no commands")
    SETUP.get(page, lambda: None)()
    if page in UNSHORTENED:
        for name in ("EPOCHS", "RETRAIN_EPOCHS", "EPOCH_STEPS"):
            monkeypatch.delenv(f"COMPRESS_{name}")
    read = "pipe"
    for words, why in lines:
        if why is not None:
            continue
        asked = piped(words, read)
        read = read + "+" if read + "+" in asked else read
        again = [] if words[0] in ("analyze", "bench", "env") and "-o" not in words else ["--force"]
        code = main([*asked, *again])
        told = capsys.readouterr()
        allowed = (0, 3) if "--require" in words else (0,)  # of a short training or a busy machine both are an answer
        assert code in allowed, (page, words, told.err)


def named(page: str) -> dict[str, Any]:
    """What the Python of a page takes for granted."""
    x, y = torch.randn(6, 1, 28, 28), torch.randint(0, 10, (6,))
    held: dict[str, Any] = {"torch": torch, "nn": nn, "F": torch.nn.functional, "numpy": np, "compressor": compressor}
    held |= {"x": x, "y": y, "v": x, "w": y, "TensorDataset": torch.utils.data.TensorDataset}
    if page == "README.md":
        pictures()
        torch.save(build("resnet20", {}, seed=0).module.state_dict(), "model.pth")
    if page == "docs/training.md":
        model = build("lenet5", {}, seed=0).module
        loader = [torch.randn(2, 1, 28, 28) for _ in range(3)]
        held |= {"model": model, "inputs": loader[0], "loader": loader, "epochs": 1}
        held |= {"optimizer": torch.optim.SGD(model.parameters(), lr=0.01)}
        program = compressor.load("lenet5.pt")
        settings = compressor.PruneSettings(ratio=2.0, method="magnitude", round_to=1)
        compressor.save(compressor.prune(program, settings)[0], "model.pruned.pt")
    if page == "docs/first-ten-minutes.md":
        shutil.copy("mnist_5k.npz", "digits.npz")
    if page == "docs/axes.md":
        from compressor.axes.table import RULES as AXES
        from compressor.cost.products import RULES as PRODUCTS

        AXES.pop(torch.ops.aten.fft_rfft2.default, None)
        PRODUCTS.pop(torch.ops.aten.cdist.default, None)
    return held


@pytest.mark.parametrize("page", [page for page in PAGES if any(b.language == "python" for b in blocks(page))])
def test_python_runs(page: str, world: Path) -> None:
    shown = [b.text for b in blocks(page) if b.language == "python"]
    whys = [next((why for part, why in PYTHON_NOT_RUN.items() if part in text), None) for text in shown]
    run = [text for text, why in zip(shown, whys, strict=True) if why is None]
    if not run:
        pytest.skip("; ".join(why for why in whys if why))
    held = named(page)
    for text in run:
        exec(compile(text, page, "exec"), held)
    if page == "docs/first-ten-minutes.md":
        assert len(next(iter(held["loaders"]()[1]))[0]) == 256
        held["held"].close()
    if page == "README.md":
        assert held["smaller"].n_parameters < held["program"].n_parameters and (world / "model.onnx").is_file()
    if page == "docs/training.md":
        assert held["report"].removed > 0 and (world / "model.onnx").is_file()


def test_most_of_what_is_shown_is_run_here() -> None:
    lines = [(block, words) for page in PAGES for block in blocks(page) for words in commands(block.text)]
    run = [words for block, words in lines if reason(block, words) is None]
    assert len(run) >= 0.5 * len(lines), f"{len(run)} of {len(lines)} command lines"
    used = {why for block, words in lines if (why := reason(block, words))}
    assert used == {*ELSEWHERE.values(), *NOT_RUN.values()}, "a reason that excuses nothing goes"
    python = [b.text for page in PAGES for b in blocks(page) if b.language == "python"]
    excused = [text for text in python if any(part in text for part in PYTHON_NOT_RUN)]
    assert len(excused) == len(PYTHON_NOT_RUN) and len(python) >= 15


@pytest.mark.parametrize("why", sorted({*ELSEWHERE.values(), *NOT_RUN.values(), *PYTHON_NOT_RUN.values()}))
def test_a_reason_names_what_is_there(why: str) -> None:
    named_paths = re.findall(r"(?:tests|benchmarks)/[\w/]*\w(?:\.py)?", why)
    assert named_paths and all((ROOT / path).exists() for path in named_paths), why


def test_twin_a_line_that_fails_is_found(world: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["compact", "nothing.pt"]) != 0 and main(["export", "model.pt", "--opset", "3"]) != 0
    assert piped(["compact", "-", "-o", "-"], "a") == ["compact", "a", "-o", "a+"]
    capsys.readouterr()
