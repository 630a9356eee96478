"""Weights that a training loop of the user's own gave values again: refused by whatever takes a program, and mended."""

from __future__ import annotations

import inspect
import io
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import nn

import compressor
from compressor.data.arrays import Arrays, ArraySource
from compressor.errors import ModelError
from compressor.exporting import check_onnx, export_pt2
from compressor.program import InputSpec, Program, capture

TOLD = r"36 weights that the masks cut are not 0 \(two.weight 27, one.weight 9\): trained without them"
SAMPLES = Arrays(torch.randn(24, 1, 8, 8, generator=torch.Generator().manual_seed(0)), torch.arange(24) % 3)
DATA = ArraySource("noise", SAMPLES, SAMPLES, 3)


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.one, self.two, self.out = nn.Conv2d(1, 4, 3), nn.Conv2d(4, 3, 3), nn.Linear(3, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.out(self.two(self.one(x).relu()).relu().mean((2, 3)))


@pytest.fixture
def pruned() -> Program:
    """Filter 1 of the first convolution is cut, its bias apart."""
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(0)
        program = capture(Net(), [InputSpec("x", (None, 1, 8, 8))])
    first, second = torch.ones(4, 1, 3, 3, dtype=torch.bool), torch.ones(3, 4, 3, 3, dtype=torch.bool)
    first[1], second[:, 1] = False, False
    masks = {"one.weight": first, "two.weight": second, "one.bias": torch.tensor([True, False, True, True])}
    return program.replace(masks=masks).apply_masks()


@pytest.fixture
def trained(pruned: Program) -> Program:
    """The same after a loop that knows nothing of masks."""
    with torch.no_grad():
        for name in ("one.weight", "two.weight"):
            pruned.parameters[name].add_(0.01)
    return pruned


VERBS: dict[str, Callable[[Program], object]] = {
    "analyze": compressor.analyze,
    "bench": lambda program: compressor.bench([program]),
    "compact": compressor.compact,
    "export": lambda program: compressor.export(program, io.BytesIO()),
    "prune": lambda program: compressor.prune(program, compressor.PruneSettings(ratio=2, method="magnitude")),
    "retrain": lambda program: compressor.retrain(program, compressor.Recipe(epochs=1), data=DATA),
    "save": lambda program: compressor.save(program, io.BytesIO()),
    "scan_sensitivity": lambda program: compressor.scan_sensitivity(program, DATA),
}
"""Every public function that takes a program and reads its weights."""

READ_NO_WEIGHTS = {"explain"}


@pytest.mark.parametrize("verb", VERBS)
def test_refused_and_then_taken(verb: str, trained: Program) -> None:
    with pytest.raises(ModelError, match=TOLD) as raised:
        VERBS[verb](trained)
    assert "call program.apply_masks()" in str(raised.value) and len(str(raised.value).splitlines()) == 2
    assert trained.apply_masks() is trained
    if verb != "bench":  # takes seconds
        VERBS[verb](trained)


def test_no_public_function_that_takes_a_program_is_forgotten() -> None:
    functions = {name: getattr(compressor, name) for name in compressor.__all__}
    take = {
        name
        for name, function in functions.items()
        if inspect.isfunction(function)
        and any("Program" in str(p.annotation) for p in inspect.signature(function).parameters.values())
    }
    assert take == VERBS.keys() | READ_NO_WEIGHTS


def test_files_beside_the_public_ones(trained: Program, tmp_path: Path) -> None:
    for write in (lambda: export_pt2(trained, tmp_path / "m.pt2"), lambda: check_onnx(trained, tmp_path / "m.onnx")):
        with pytest.raises(ModelError, match=TOLD):
            write()
    assert not list(tmp_path.iterdir())


def test_a_loop_of_ones_own(pruned: Program) -> None:
    """With momentum a cut weight gets values from the first step on; with the line in the loop it never has any."""
    for holds in (False, True):
        program = pruned.clone()
        optimizer = torch.optim.Adam(program.module.parameters(), lr=0.1)
        with torch.no_grad():
            program.parameters["one.bias"][1] = 0.5  # a live filter again, as if the user had set it
        program.module.train()
        for batch in DATA.batches("train", 8):
            optimizer.zero_grad()
            nn.functional.cross_entropy(program.module(*batch.inputs), batch.target).backward()
            optimizer.step()
            if holds:
                program.apply_masks()
        if holds:
            program.check_masks()
            compressor.compact(program)
        else:
            with pytest.raises(ModelError, match="weights that the masks cut are not 0"):
                program.check_masks()


def test_masks_that_hold_are_no_news_and_a_number_that_is_none_breaks_them(pruned: Program) -> None:
    pruned.check_masks()
    with torch.no_grad():
        pruned.parameters["one.weight"][1, 0, 0, 0] = -0.0
    pruned.check_masks()
    with torch.no_grad():
        pruned.parameters["one.weight"][1, 0, 0, 0] = float("nan")
    with pytest.raises(ModelError, match=r"1 weights that the masks cut are not 0 \(one.weight 1\)"):
        pruned.check_masks()
    assert not pruned.apply_masks().parameters["one.weight"][1].any()


def test_masks_are_applied_in_place_and_kept_weights_stay(pruned: Program) -> None:
    before = pruned.parameters["two.weight"]
    kept = before[:, 0].clone()
    with torch.no_grad():
        before.add_(1.0)
    assert pruned.apply_masks().parameters["two.weight"] is before
    assert torch.equal(before[:, 0], kept + 1.0) and not before[:, 1].any()


def test_twin_without_the_check_a_broken_program_is_saved(trained: Program, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Program, "check_masks", lambda self: None)
    held = io.BytesIO()
    compressor.save(trained, held)
    assert held.tell() > 0
