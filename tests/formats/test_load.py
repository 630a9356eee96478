"""Every accepted source becomes a program; every other one gets a short, fitting error."""

from __future__ import annotations

import io
import os
import random
import zipfile
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
from torch import nn

from compressor.errors import CompressError, ModelError, UnsafeFileError, UsageError
from compressor.formats import load, save
from compressor.models import build
from compressor.program import InputSpec, Program

NET = """
import torch
class Net(torch.nn.Module):
    def __init__(self, width=4):
        super().__init__()
        self.fc = torch.nn.Linear(3, width)
    def forward(self, x):
        return self.fc(x)
"""


@pytest.fixture
def net_py(tmp_path: Path) -> str:
    (tmp_path / "net.py").write_text(NET)
    return f"{tmp_path}/net.py:Net"


def lenet() -> dict[str, torch.Tensor]:
    return build("lenet-300-100", {}, seed=5).module.state_dict()


@pytest.mark.parametrize("layout", ["zip", "legacy", "safetensors", "wrapped", "parallel"])
def test_state_dicts(tmp_path: Path, layout: str) -> None:
    path, state = tmp_path / "model.anything", lenet()
    if layout == "safetensors":
        safetensors.torch.save_file(state, path)
    else:
        wrapped = {"state_dict": state, "epoch": 3} if layout == "wrapped" else state
        if layout == "parallel":
            wrapped = {f"module.{key}": value for key, value in state.items()}
        torch.save(wrapped, path, _use_new_zipfile_serialization=layout != "legacy")
    program = load(path, arch="lenet-300-100", data="classification", task="classification")
    module = build("lenet-300-100", {}).module
    module.load_state_dict(state)
    x = program.example_inputs(4)[0]
    assert torch.equal(program.module(x), module.eval()(x))
    assert program.inputs[0].shape == (None, 1, 28, 28)
    assert (program.record.arch, program.record.task) == ("lenet-300-100", "classification")


def test_initial_weights_are_seeded() -> None:
    first, second, third = (load("init", arch="lenet-300-100", seed=seed) for seed in (1, 1, 2))
    x = first.example_inputs(2)[0]
    assert torch.equal(first.module(x), second.module(x))
    assert not torch.equal(first.module(x), third.module(x))
    assert "seed 1: not trained" in first.record.notes[0]
    with pytest.raises(UsageError, match="init: needs --arch"):
        load("init")


def test_an_architecture_of_the_user(tmp_path: Path, net_py: str) -> None:
    torch.save({"fc.weight": torch.ones(5, 3), "fc.bias": torch.zeros(5)}, tmp_path / "w.pt")
    with pytest.raises(UsageError, match=r"does not say what goes in; give --input"):
        load(tmp_path / "w.pt", arch=net_py, arch_args={"width": 5})
    program = load(tmp_path / "w.pt", arch=net_py, arch_args={"width": 5}, inputs=[InputSpec("x", (None, 3))])
    assert program.record.arch_args == {"width": 5}
    assert torch.equal(program.module(torch.ones(2, 3)), torch.full((2, 5), 3.0))
    with pytest.raises(ModelError, match=r"w\.pt: does not fit --arch .*2 of another shape"):
        load(tmp_path / "w.pt", arch=net_py, inputs=[InputSpec("x", (None, 3))])


def test_half_precision_and_choices_are_noted(tmp_path: Path) -> None:
    half = {key: value.half() for key, value in lenet().items()}
    torch.save({"model": half, "ema": half}, tmp_path / "w.pt")
    notes = load(tmp_path / "w.pt", arch="lenet-300-100").record.notes
    assert notes == (
        "weights taken from model; the file also holds ema (--weights ema)",
        "weights stored as float16 were loaded as float32",
    )


def test_the_weights_of_a_choice(tmp_path: Path) -> None:
    state = lenet()
    averaged = {key: value + 1 for key, value in state.items()}
    torch.save({"model": state, "ema": {"state_dict": averaged}, "epoch": 3}, tmp_path / "w.pt")
    name = next(iter(state))
    for key, expected in ((None, state), ("model", state), ("ema", averaged), ("ema.state_dict", averaged)):
        program = load(tmp_path / "w.pt", arch="lenet-300-100", weights=key)
        assert torch.equal(program.parameters[name], expected[name])
    with pytest.raises(UsageError, match=r"--weights emma: .* has no emma; it holds model, ema"):
        load(tmp_path / "w.pt", arch="lenet-300-100", weights="emma")
    with pytest.raises(UsageError, match="has no x; it holds state_dict"):
        load(tmp_path / "w.pt", arch="lenet-300-100", weights="ema.x")


def test_weights_without_architecture_name_the_bundled_one_that_fits(tmp_path: Path) -> None:
    torch.save(lenet(), tmp_path / "w.pt")
    with pytest.raises(ModelError, match=r"say which with --arch; --arch lenet-300-100 fits"):
        load(tmp_path / "w.pt")
    torch.save({"w": torch.zeros(3)}, tmp_path / "v.pt")
    with pytest.raises(ModelError, match=r"say which with --arch, such as torchvision"):
        load(tmp_path / "v.pt")


def test_a_pickled_module_needs_trust_and_inputs(tmp_path: Path) -> None:
    torch.save(nn.Sequential(nn.Linear(3, 4), nn.ReLU()), tmp_path / "m.pt")
    with pytest.raises(UnsafeFileError, match="could run any code"):
        load(tmp_path / "m.pt", arch="lenet5")
    with pytest.raises(UsageError, match="give --input"):
        load(tmp_path / "m.pt", trust_pickle=True)
    program = load(tmp_path / "m.pt", trust_pickle=True, inputs=[InputSpec("x", (None, 3))])
    assert program.module(torch.zeros(5, 3)).shape == (5, 4)
    torch.save({"model": nn.Linear(3, 2), "epoch": 1}, tmp_path / "m.pt")
    program = load(tmp_path / "m.pt", trust_pickle=True, inputs=[InputSpec("x", (None, 3))])
    assert program.n_parameters == 8


@pytest.mark.parametrize("dynamic", [True, False])
def test_an_exported_archive_needs_trust(tmp_path: Path, dynamic: bool) -> None:
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Flatten()).eval()
    shapes = {"input": {0: torch.export.Dim.AUTO}} if dynamic else None
    exported = torch.export.export(net, (torch.zeros(2 if dynamic else 1, 3, 5, 5),), dynamic_shapes=shapes)
    torch.export.save(exported, tmp_path / "m.pt2")
    with pytest.raises(UnsafeFileError, match="can run code"):
        load(tmp_path / "m.pt2")
    program = load(tmp_path / "m.pt2", trust_pickle=True)
    x = program.example_inputs(1)[0]
    assert torch.equal(program.module(x), net(x))
    assert {"0.weight", "1.running_mean"} <= program.module.tensors().keys()


def torchscript_bytes() -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name in ("net/data.pkl", "net/code/a.py", "net/constants.pkl"):
            archive.writestr(name, b"x")
    return buffer.getvalue()


def saved(value: Any) -> bytes:
    buffer = io.BytesIO()
    torch.save(value, buffer)
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is empty"),
        (b"hello\n", "a text file"),
        (random.Random(0).randbytes(1000), "no model|damaged"),
        (saved({"w": torch.zeros(100)})[:300], "cut-off"),
        (torchscript_bytes(), r"TorchScript archive, which cannot be edited any more\n.*state dict"),
        (saved({"epoch": 3}), r"no weights by name \(its keys are epoch\)"),
        (saved({}), "empty dictionary"),
        (saved([1]), "it is a list"),
        (saved(torch.zeros(3)), "it is a tensor"),
        (saved({"graph": 1, "compressor": 2}), "no schema number"),
    ],
)
def test_what_is_no_model(tmp_path: Path, content: bytes, message: str) -> None:
    (tmp_path / "file").write_bytes(content)
    with pytest.raises(ModelError, match=message) as caught:
        load(tmp_path / "file")
    assert str(caught.value).startswith(f"{tmp_path}/file: ")
    assert str(caught.value).count("\n") <= 2
    with pytest.raises(ModelError, match=f"^standard input: .*{message}"):
        load(io.BytesIO(content))


def test_paths_that_cannot_be_read(tmp_path: Path, small: Program) -> None:
    save(small, tmp_path / "model.pruned.pt")
    with pytest.raises(ModelError, match=r"is a directory; name the model file"):
        load(tmp_path)
    with pytest.raises(ModelError, match=r"no such file; did you mean .*model\.pruned\.pt\?"):
        load(tmp_path / "model.prunde.pt")
    with pytest.raises(ModelError, match=r"no such file; for initial weights give the word init"):
        load(tmp_path / "nowhere" / "zzz")
    with pytest.raises(CompressError, match="cannot be read"):
        load(tmp_path / "model.pruned.pt" / "x")


def test_a_named_pipe_is_read_whole(tmp_path: Path, small: Program) -> None:
    import threading

    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    buffer = io.BytesIO()
    save(small, buffer)
    writer = threading.Thread(target=pipe.write_bytes, args=(buffer.getvalue(),))
    writer.start()
    back = load(pipe)
    writer.join()
    x = back.example_inputs(2)[0]
    assert torch.equal(back.module(x), small.module(x))
