"""The good files that the bad ones are made from, and the call that must be refused."""

from __future__ import annotations

import copy
import io
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from compressor.errors import CompressError
from compressor.formats import save, to_bytes
from compressor.formats.digest import digest
from compressor.program import InputSpec, Program, Record, capture
from tests.bad.forging import DELETE, check_message, no_hang, saved

Refused = Callable[..., str]
Forge = Callable[[dict[str, Any]], bytes]


def net() -> nn.Module:
    layers = [nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(64, 3)]
    return nn.Sequential(*layers)


@pytest.fixture(scope="session")
def program() -> Program:
    """A small trained-looking network, masked."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        module = net()
    made = capture(module, [InputSpec("image", (None, 1, 6, 6))], record=Record(arch="small"))
    mask = torch.ones(4, 1, 3, 3, dtype=torch.bool)
    mask[0] = False
    return made.replace(masks={"0.weight": mask}).apply_masks()


@pytest.fixture(scope="session")
def good(program: Program) -> bytes:
    """The bytes of its checkpoint."""
    return to_bytes(program)


@pytest.fixture
def content(good: bytes) -> dict[str, Any]:
    """The dictionary inside the checkpoint, to be edited."""
    return torch.load(io.BytesIO(good), weights_only=True)


@pytest.fixture
def forge() -> Forge:
    """The bytes of an edited dictionary with a right digest, as an attacker would write them."""

    def make(edited: dict[str, Any]) -> bytes:
        metadata = edited["compressor"]
        if isinstance(metadata, dict):
            aliases = metadata.get("aliases", {})
            state = {name: tensor for name, tensor in edited["state_dict"].items() if name not in aliases}
            metadata["sha256"] = digest(edited["graph"], metadata, state, edited["masks"])
        return saved(edited)

    return make


@pytest.fixture
def folder(tmp_path: Path, program: Program, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The working directory of a case; nothing may appear beside it, and no canary inside."""
    inside = tmp_path / "a" / "b"
    inside.mkdir(parents=True)
    monkeypatch.chdir(inside)
    for variable in [name for name in os.environ if name.startswith("COMPRESS_")]:
        monkeypatch.delenv(variable)
    save(program, inside / "good.pt")
    yield inside
    outside = [path for path in tmp_path.rglob("*") if not path.is_relative_to(inside)]
    assert outside == [tmp_path / "a"]
    assert list(inside.rglob("canary*")) == []


@pytest.fixture
def refused() -> Refused:
    """Calls; what it raises is one of our errors, short and in words. The message comes back."""

    def call(function: Callable[..., Any], *arguments: Any, **named: Any) -> str:
        with no_hang(), pytest.raises(CompressError, match=r"\w") as caught:
            function(*arguments, **named)
        check_message(str(caught.value))
        assert caught.value.exit_code in (1, 2, 3)
        return str(caught.value)

    return call


@pytest.fixture
def edited(content: dict[str, Any]) -> Callable[[str, Any], dict[str, Any]]:
    """A copy of the checkpoint's dictionary with the value at `a/b/0` exchanged; DELETE takes it away."""

    def edit(path: str, value: Any) -> dict[str, Any]:
        found = copy.deepcopy(content)
        *parents, last = (int(part) if part.isdecimal() else part for part in path.split("/"))
        at: Any = found
        for part in parents:
            at = at[part]
        if value is DELETE:
            del at[last]
        else:
            at[last] = value
        return found

    return edit
