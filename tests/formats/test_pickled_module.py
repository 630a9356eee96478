"""Whole modules out of trusted pickles: in full precision and as something to train, if nothing else can be meant."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

from compressor.errors import UsageError
from compressor.formats import load
from compressor.formats.pickled_module import fit_to_train
from compressor.program import parse_input

IMAGE = [parse_input("3x8x8")]


def network() -> nn.Sequential:
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(0)
        return nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Flatten(), nn.Linear(288, 2))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_becomes_float32_and_that_is_said(dtype: torch.dtype, tmp_path: Path) -> None:
    torch.save({"model": network().to(dtype), "epoch": 3}, tmp_path / "best.pt")
    program = load(tmp_path / "best.pt", trust_pickle=True, inputs=IMAGE)
    assert {p.dtype for p in program.parameters.values()} == {torch.float32}
    said = str(dtype).removeprefix("torch.")
    assert f"weights stored as {said} were loaded as float32" in program.record.notes


def test_a_module_that_mixes_types_is_left_as_it_is() -> None:
    module = network()
    module[4].half()
    fitted, said = fit_to_train(module)
    assert fitted[4].weight.dtype is torch.float16 and said == []  # type: ignore[index, union-attr]


def test_nothing_to_train_means_all_of_it_but_something_fixed_stays() -> None:
    frozen = network().requires_grad_(False)
    fitted, said = fit_to_train(frozen)
    assert all(p.requires_grad for p in fitted.parameters()) and "all of its weights are taken as trainable" in said[0]
    partly = network()
    partly[0].requires_grad_(False)
    fitted, said = fit_to_train(partly)
    assert not fitted[0].weight.requires_grad and said == []  # type: ignore[index, union-attr]


def test_the_key_says_which_of_two_modules(tmp_path: Path) -> None:
    first, second = network(), network()
    with torch.no_grad():
        second[4].bias.add_(1.0)
    torch.save({"model": first, "ema": second}, tmp_path / "last.pt")
    program = load(tmp_path / "last.pt", trust_pickle=True, inputs=IMAGE)
    assert any("taken from model; the file also holds ema (--weights ema)" in note for note in program.record.notes)
    other = load(tmp_path / "last.pt", trust_pickle=True, inputs=IMAGE, weights="ema")
    torch.testing.assert_close(other.parameters["4.bias"], second[4].bias)
    with pytest.raises(UsageError, match="give --input"):
        load(tmp_path / "last.pt", trust_pickle=True)
