"""Checkpoints as training scripts leave them, with settings beside the weights: opened, nothing of it imported."""

from __future__ import annotations

import argparse
import datetime
import io
import pathlib
import sys
import types
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from compressor.errors import UnsafeFileError
from compressor.formats import load
from compressor.formats.archive import open_archive
from compressor.models import build
from compressor.program import InputSpec

LAYOUTS: dict[str, dict[str, Any]] = {
    "zip": {}, "legacy": {"_use_new_zipfile_serialization": False}, "protocol 4": {"pickle_protocol": 4},
}  # fmt: skip


def saved(value: Any, **options: Any) -> io.BytesIO:
    buffer = io.BytesIO()
    torch.save(value, buffer, **options)
    buffer.seek(0)
    return buffer


def foreign(module: str, name: str, base: type) -> type:
    """A class of a package that is not installed when the file is read."""
    made = type(name, (base,), {"__module__": module})
    parts = module.split(".")
    for i in range(1, len(parts) + 1):
        sys.modules.setdefault(".".join(parts[:i]), types.ModuleType(".".join(parts[:i])))
    setattr(sys.modules[module], name, made)
    return made


@pytest.fixture
def packages() -> Any:
    """Drops what `foreign` made: when the file is read, no such package is there."""
    before = set(sys.modules)
    yield lambda: [sys.modules.pop(name) for name in set(sys.modules) - before]
    for name in set(sys.modules) - before:
        del sys.modules[name]


@pytest.mark.parametrize("layout", ["zip", "legacy"])  # torch's safe reader knows protocol 2 only
def test_settings_beside_the_weights_are_passed_over(layout: str, packages: Any) -> None:
    hyper = foreign("lightning_fabric.utilities.data", "AttributeDict", dict)(lr=0.1, layers=[1, 2])
    config = foreign("omegaconf.dictconfig", "DictConfig", object)()
    config.content = {"a": 1}
    file = saved(
        {
            "state_dict": {"model.w": torch.ones(3)},
            "hyper_parameters": hyper,
            "cfg": config,
            "args": argparse.Namespace(lr=0.1, out=pathlib.PurePosixPath("/x")),
            "best": np.float64(0.5),
            "when": datetime.date(2020, 1, 1),
            "epoch": 3,
        },
        **LAYOUTS[layout],
    )
    packages()
    found = open_archive(file, "net.ckpt")
    assert torch.equal(found["state_dict"]["model.w"], torch.ones(3))
    assert (found["hyper_parameters"]["lr"], found["epoch"]) == (0.1, 3)
    assert not hasattr(found["args"], "lr")
    assert "omegaconf" not in sys.modules and "lightning_fabric" not in sys.modules


def test_a_lightning_checkpoint_is_a_state_dict(tmp_path: Path) -> None:
    state = build("lenet-300-100", {}, seed=4).module.state_dict()
    checkpoint = {
        "epoch": 9, "global_step": 100, "pytorch-lightning_version": "2.4.0", "loops": {},
        "callbacks": {"a": {"best": None}},
        "optimizer_states": [{"state": {0: {"step": torch.tensor(1.0)}}}], "lr_schedulers": [],
        "hparams_name": "kwargs", "hyper_parameters": argparse.Namespace(width=4),
        "state_dict": {f"net.{key}": value for key, value in state.items()},
    }  # fmt: skip
    torch.save(checkpoint, tmp_path / "last.ckpt")
    program = load(tmp_path / "last.ckpt", arch="lenet-300-100", inputs=[InputSpec("image", (None, 1, 28, 28))])
    assert all(torch.equal(program.parameters[key], value) for key, value in state.items())


class Attack:
    def __init__(self, canary: Path) -> None:
        self.canary = str(canary)

    def __reduce__(self) -> Any:
        import os

        return os.mkdir, (self.canary,)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_code_within_settings_does_not_run(tmp_path: Path, layout: str) -> None:
    settings = argparse.Namespace(attack=Attack(tmp_path / "canary"))
    file = saved({"state_dict": {"w": torch.zeros(1)}, "args": settings}, **LAYOUTS[layout])
    with pytest.raises(UnsafeFileError, match="could run any code"):
        open_archive(file, "net.pt")
    assert not (tmp_path / "canary").exists()


def test_twin_other_classes_are_refused(packages: Any) -> None:
    file = saved({"state_dict": {"w": torch.zeros(1)}, "cfg": foreign("ownlib.config", "Config", object)()})
    packages()
    with pytest.raises(UnsafeFileError, match=r"ownlib\.config\.Config"):
        open_archive(file, "net.pt")
