"""Operators that the walk has no rule for: pinned and listed; and rules that a user registers."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.fx import Node

import compressor
from compressor.analysis import analyze
from compressor.asking import WalkOptions
from compressor.axes import Arguments, Context, Value, find_units, unify
from compressor.axes.table import RULES
from compressor.compaction import slice_program
from compressor.errors import ModelError
from compressor.formats import save
from compressor.program import InputSpec, Program
from tests.axes.attention_networks import difference, masked_and_compact, program_of
from tests.axes.attention_networks import random_keep as keep_of

aten = torch.ops.aten
TOKENS = (InputSpec("x", (None, 6, 5, 3)),)


@pytest.fixture(autouse=True)
def own_rules_end_with_the_test() -> Iterator[None]:
    before = dict(RULES)
    yield
    RULES.clear()
    RULES.update(before)


@torch.library.custom_op("compressortests::damp", mutates_args=())
def damp(x: Tensor, strength: float) -> Tensor:
    """x / (1 + strength · |x|): an operator that torch has never heard of."""
    return x / (1 + strength * x.abs())


@damp.register_fake
def _(x: Tensor, strength: float) -> Tensor:
    return torch.empty_like(x)


class Spectrum(nn.Module):
    """A global filter: forwards, backwards, over the two middle dimensions."""

    def __init__(self) -> None:
        super().__init__()
        self.up, self.other, self.down = nn.Linear(3, 16), nn.Linear(16, 12), nn.Linear(12, 2)

    def forward(self, x: Tensor) -> Tensor:
        spectrum = torch.fft.rfft2(self.up(x), dim=(1, 2), norm="ortho")
        return self.down(torch.relu(self.other(torch.fft.irfft2(spectrum, s=(6, 5), dim=(1, 2), norm="ortho"))))


class Damped(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.up, self.other, self.down = nn.Linear(3, 16), nn.Linear(16, 12), nn.Linear(12, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.down(torch.relu(self.other(damp(self.up(x), 0.5))))


def register_transforms() -> None:
    @compressor.register_axis_rule(aten.fft_rfft2.default, aten.fft_irfft2.default)
    def transform(ctx: Context, node: Node, a: Arguments) -> Value:
        """The transformed dimensions are pinned, the others pass; a transform of zeros is 0."""
        x = a["self"]
        dims = [x.normal_dim(dim) for dim in a["dim"]]
        for dim in dims:
            ctx.pin(x.along(dim), "a Fourier transform mixes this dimension")
        return Value(ctx.out.sizes, x.apart_from(dims))


def test_an_operator_without_a_rule_pins_what_reaches_it_and_is_listed() -> None:
    program = program_of(Spectrum(), TOKENS)
    found = analyze(program)
    assert found.unknown_operators == ("aten.fft_rfft2.default",)
    assert found.n_units == 12
    assert find_units(program).pin_at["up.weight", 0].reason == "no axis rule for aten.fft_rfft2.default"


def test_a_rule_of_ones_own_frees_it() -> None:
    register_transforms()
    program = program_of(Spectrum(), TOKENS)
    assert analyze(program).unknown_operators == ()
    masked, small, units, _ = masked_and_compact(program, WalkOptions())
    assert units.n_units == 12 + 16
    assert small.n_parameters < program.n_parameters
    assert difference(masked, small) <= 1e-12


def test_a_wrong_rule_is_found_before_anything_is_written() -> None:
    """The twin: a rule that forgets the labels makes a graph that does not fit together."""

    @compressor.register_axis_rule(aten.fft_rfft2.default)
    def forgetful(ctx: Context, node: Node, a: Arguments) -> Value:
        return Value(ctx.out.sizes)

    program = program_of(Spectrum(), TOKENS)
    units = find_units(program)
    with pytest.raises(ModelError, match=r"aten\.linear\.default does not fit its inputs"):
        slice_program(program, units, keep_of(units))


def test_a_second_rule_for_one_operator_is_an_error() -> None:
    register_transforms()
    with pytest.raises(ValueError, match=r"aten\.fft_rfft2\.default already has an axis rule: transform"):
        register_transforms()


def damped() -> Program:
    return program_of(Damped(), TOKENS)


def test_an_operator_outside_aten_can_be_analysed_but_not_kept(tmp_path: Path) -> None:
    program = damped()
    found = analyze(program)
    assert found.unknown_operators == ("compressortests.damp.default",)
    assert any("can be analysed but not kept in a file" in note for note in found.notes)
    assert found.n_units == 12
    with pytest.raises(ModelError, match=r"damp\.default cannot be kept in a checkpoint: it is not an ATen operator"):
        save(program, tmp_path / "damped.pt")
    assert not (tmp_path / "damped.pt").exists()


def test_a_rule_for_an_operator_outside_aten() -> None:
    @compressor.register_axis_rule(torch.ops.compressortests.damp.default)
    def elementwise(ctx: Context, node: Node, a: Arguments) -> Value:
        return unify(ctx, [a["x"]], all)

    masked, small, units, _ = masked_and_compact(damped(), WalkOptions())
    assert units.n_units == 12 + 16
    assert difference(masked, small) <= 1e-12


def test_every_rule_says_in_one_row_what_it_does() -> None:
    without = [rule.__name__ for rule in RULES.values() if not (rule.__doc__ or "").strip().splitlines()[:1]]
    assert without == []
