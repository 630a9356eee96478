"""What people have is taken: shapes from data, files alone, teachers, remembered code, per cent."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from compressor.cli.main import main
from tests.cli.conftest import Run

TWO = """
from torch import nn
class Block(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.fc = nn.Linear(width, width)
    def forward(self, x):
        return x + self.fc(x).relu()
class Wide(nn.Module):
    def __init__(self, width=8):
        super().__init__()
        self.inner = nn.Sequential(nn.Flatten(), nn.Linear(64, width), Block(width), nn.Linear(width, 3))
    def forward(self, image):
        return self.inner(image)
"""
LOADERS = """
import numpy as np, torch
from torch.utils.data import DataLoader, TensorDataset
with np.load("data.npz") as opened:
    held = {name: opened[name] for name in opened.files}
def split(name):
    return TensorDataset(torch.tensor(held[f"x_{name}"]), torch.tensor(held[f"y_{name}"]))
class Walk(torch.utils.data.IterableDataset):
    def __init__(self, items):
        self.items = items
    def __iter__(self):
        return iter(self.items)
def loaders():
    return DataLoader(split("train"), batch_size=7, shuffle=True), DataLoader(split("test"), batch_size=5)
def iterable():
    return Walk(split("train")), Walk(split("test"))
def named():
    return {name: [{"image": x, "label": int(y), "path": "a"} for x, y in split(of)] for name, of in
            (("train", "train"), ("val", "test"))}
"""


@pytest.fixture
def written(here: Path) -> Path:
    (here / "two.py").write_text(TWO)
    (here / "mine.py").write_text(LOADERS)
    return here


@pytest.mark.parametrize("function", ["loaders", "iterable", "named"])
def test_data_as_people_have_them_train_measure_and_say_the_input(run: Run, written: Path, function: str) -> None:
    first = run("retrain", "init", "--arch", "net.py:Net", "--data", f"mine.py:{function}", "--epochs", "4",
                "--lr", "0.01", "-o", "a.pt", "--json")  # fmt: skip
    assert first.code == 0, first.err
    assert first.json["stages"][-1]["metrics"]["accuracy"] > 0.7
    assert first.json["stages"][-1]["metrics"]["n"] == 48
    measured = run("bench", "a.pt", "--accuracy", "--trust-code", "--min-runs", "2", "--min-seconds", "0", "--json")
    assert measured.code == 0, measured.err
    assert measured.json["timings"][0]["accuracy"] == pytest.approx(first.json["stages"][-1]["metrics"]["accuracy"])


@pytest.mark.parametrize("data", ["data.npz", "mine.py:named"])
def test_the_input_is_that_of_the_data(run: Run, written: Path, data: str) -> None:
    from compressor.formats import load

    words = ("--arch", "net.py:Net", "--data", data, "-r", "1.5x", "-m", "magnitude", "--no-retrain", "-o", "a.pt")
    assert run("prune", "init", *words).code == 0
    assert load("a.pt").inputs[0].shape == (None, 1, 8, 8)
    neither = run("analyze", "init", "--arch", "net.py:Net")
    assert neither.code == 2 and "give --input, such as 3x224x224, or --data" in neither.err


def test_a_file_alone_is_its_only_network(run: Run, written: Path) -> None:
    done = run("prune", "init", "--arch", "net.py", "--input", "1x8x8", "-r", "1.5x", "-m", "magnitude", "--no-retrain",
               "-o", "a.pt")  # fmt: skip
    assert done.code == 0 and "--arch net.py: net.py:Net was taken" in done.err
    from compressor.formats import load

    assert load("a.pt").record.arch == "net.py:Net", "what is remembered names it in full"
    one = run("analyze", "init", "--arch", "two.py", "--input", "1x8x8")
    assert one.code == 0 and "two.py:Wide was taken" in one.err, "a block needs arguments"
    block = run("analyze", "init", "--arch", "two.py", "--arch-arg", "width=64", "--input", "64")
    assert block.code == 1 and "two.py: defines Block, Wide; say which one, as two.py:Block" in block.err
    (written / "none.py").write_text("import torch\nVALUE = 3\n\ndef helper(x):\n    return x\n\nclass Other: ...\n")
    none = run("analyze", "init", "--arch", "data.py", "--input", "1x8x8")
    assert none.code == 1 and "data.py: no such file" in none.err
    (written / "empty.py").write_text("VALUE = 3\n")
    empty = run("analyze", "init", "--arch", "empty.py", "--input", "1x8x8")
    assert empty.code == 1 and "nothing in it can be used as arch; it defines nothing" in empty.err


def test_a_file_alone_is_its_only_data_or_task(run: Run, written: Path) -> None:
    several = run("analyze", "model.pt", "--data", "mine.py")
    assert several.code == 1 and "mine.py: defines loaders, iterable, named; say which one, as " in several.err
    (written / "one.py").write_text(LOADERS.partition("def iterable")[0])
    (written / "task.py").write_text("from compressor.data import Classification\nclass Own(Classification): ...\n")
    done = run("analyze", "model.pt", "--data", "one.py", "--task", "task.py", "--json")
    assert done.code == 0 and done.json["metrics"]["n"] == 48, done.err


def test_a_bare_teacher_is_of_the_models_architecture(run: Run, written: Path) -> None:
    from compressor.formats import load, save

    program = load("init", arch="lenet-300-100", seed=3)
    save(program, "dense.pt")
    torch.save(program.module.state_dict(), "dense.pth")
    (written / "flat.py").write_text(
        "import torch\nfrom torch.utils.data import TensorDataset\n"
        "def make():\n    s = TensorDataset(torch.randn(64, 1, 28, 28), torch.arange(64) % 10)\n    return s, s\n"
    )
    data = ("--data", "flat.py:make")
    assert run("prune", "dense.pt", "-r", "4x", "-m", "magnitude", "--no-retrain", "-o", "p.pt", *data).code == 0
    assert run("compact", "p.pt", "-o", "c.pt", "--no-latency").code == 0
    for model in ("p.pt", "c.pt"):
        done = run("retrain", model, "--teacher", "dense.pth", "--epochs", "1", "-o", f"r-{model}", *data)
        assert done.code == 0, done.err
    torch.save(load("model.pt").module.state_dict(), "net.pth")
    words = ("retrain", "model.pt", "--teacher", "net.pth", "--epochs", "1", "-o", "t.pt")
    refused = run(*words)
    assert refused.code == 2 and "net.py:Net to run that code, or give --trust-code" in refused.err
    assert run(*words, "--trust-code").code == 0


REMEMBERED = {
    "analyze": ("analyze", "{m}"),
    "prune": ("prune", "{m}", "-r", "1.3x", "--epochs", "1", "--retrain-epochs", "1", "--no-latency"),
    "retrain": ("retrain", "{m}", "--epochs", "1"),
    "compact": ("compact", "{m}", "--require", "accuracy>=0", "--no-latency", "--allow-noop"),
    "bench": ("bench", "{m}", "--accuracy", "--min-runs", "2", "--min-seconds", "0"),
    "export": ("export", "{m}", "--int8", "static", "-o", "{m}.onnx"),
}


@pytest.mark.parametrize("command", REMEMBERED)
def test_remembered_code_runs_with_one_word(run: Run, written: Path, command: str) -> None:
    made = run("retrain", "model.pt", "--data", "mine.py:loaders", "--epochs", "1", "-o", "m.pt")
    assert made.code == 0, made.err
    words = [word.format(m="m.pt") for word in REMEMBERED[command]]
    refused = run(*words)
    if command != "analyze":
        assert refused.code == 2 and "give --trust-code" in refused.err, refused.err
    trusted = run(*words, "--trust-code")
    assert trusted.code == 0 and "trust-code" not in trusted.err, trusted.err


def test_a_file_must_not_say_that_code_is_trusted(run: Run, here: Path) -> None:
    (here / "compress.toml").write_text("trust-code = true\n")
    done = run("analyze", "model.pt")
    assert done.code == 2 and "goes on the command line only" in done.err


@pytest.mark.parametrize(
    ("given", "meant"),
    [
        ("3x8x8", "1x8x8"), ("8x8", "1x8x8"), ("64", "1x8x8"), ("8x8x1", "1x8x8"), ("1x1x8x8", "1x8x8"),
        ("1x8x8x1", "1x8x8"),
    ],
)  # fmt: skip
def test_a_wrong_input_is_blamed_by_its_name(run: Run, here: Path, given: str, meant: str) -> None:
    done = run("analyze", "init", "--arch", "net.py:Net", "--input", given)
    assert done.code == 1, done.out
    assert done.err.startswith(f"compress analyze: --input {given}: the model ")
    assert f"did you mean --input {meant}?" in done.err
    assert "s77" not in done.err and "SymInt" not in done.err and len(done.err.strip().splitlines()) <= 3


def test_a_wrong_number_of_inputs_names_what_it_takes(run: Run, here: Path) -> None:
    done = run("analyze", "init", "--arch", "net.py:Net", "--input", "1x8x8", "--input", "mask:8")
    assert done.code == 1 and "it takes x; give --input once for each" in done.err


@pytest.mark.parametrize(
    ("words", "asked"),
    [
        (("--ratio", "50%"), 2.0), (("--sparsity", "50%"), 2.0), (("--sparsity", "0.5"), 2.0), (("--ratio", "2x"), 2.0),
        (("-r", " 75 %"), 4.0), (("--sparsity", "33.3%"), 1 / 0.667),
    ],
)  # fmt: skip
def test_per_cent_are_what_goes(run: Run, here: Path, words: tuple[str, ...], asked: float) -> None:
    done = run("prune", "model.pt", *words, "-m", "magnitude", "-n", "--json", "--no-latency", "--round-to", "1")
    assert done.code == 0, done.err
    assert done.json["asked"] == pytest.approx(asked) and done.json["got"] >= asked


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("--sparsity", "92"), "92 % is 92%"),
        (("--sparsity", "100%"), "must lie between 0 and 1"),
        (("--sparsity", "lots"), "not a share; write it as 0.92 or 92%"),
        (("--ratio", "0%"), "must lie between 0 and 1"),
        (("--ratio", "0.92"), "to remove 92 % of it 92%"),
    ],
)
def test_what_is_no_share_says_how_to_write_one(run: Run, here: Path, words: tuple[str, ...], told: str) -> None:
    done = run("prune", "model.pt", *words, "-n")
    assert done.code == 2 and told in done.err


def test_layers_take_per_cent_too(run: Run, here: Path) -> None:
    done = run("prune", "model.pt", "--layer", "conv1=50%", "-m", "magnitude", "-n", "--json", "--no-latency")
    assert next(cut["kept"] for cut in done.json["layers"] if cut["name"] == "conv1") == 4


def test_an_unknown_word_is_no_trust(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["analyze", "m.pt", "--trust"]) == 2
    assert "--trust-code" in capsys.readouterr().err
