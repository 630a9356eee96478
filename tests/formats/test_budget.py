"""What a graph may take is held against what its file holds, before anything runs."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from compressor.errors import ModelError
from compressor.formats import budget
from compressor.formats.budget import check_budget
from compressor.program import InputSpec, Program, capture


class Calls(nn.Module):
    """x and a weight, given to a function."""

    def __init__(self, function: Callable[[Tensor, Tensor], Tensor], *sizes: int) -> None:
        super().__init__()
        self.w = nn.Parameter(torch.ones(*sizes))
        self.function = function

    def forward(self, x: Tensor) -> Tensor:
        return self.function(x, self.w)


def program_of(function: Callable[[Tensor, Tensor], Tensor], *sizes: int, width: int = 4) -> Program:
    return capture(Calls(function, *sizes), [InputSpec("x", (None, 3, width, width))])


def check(program: Program) -> None:
    check_budget(program.module.graph, program.module.tensors(), program.shapes)


WORK = {
    "a convolution": (lambda x, w: nn.functional.conv2d(x, w), (8, 3, 3, 3), 2 * 8 * 2 * 2 * 27),
    "one with groups": (lambda x, w: nn.functional.conv2d(x, w, groups=3), (6, 1, 3, 3), 2 * 6 * 2 * 2 * 9),
    "a transposed one": (lambda x, w: nn.functional.conv_transpose2d(x, w), (3, 8, 3, 3), 2 * 3 * 16 * 8 * 9),
    "a linear layer": (lambda x, w: nn.functional.linear(x, w), (5, 4), 2 * 3 * 4 * 5 * 4),
    "a product": (lambda x, w: x[0, 0] @ w, (4, 5), 4 * 4 * 5),
    "letters": (lambda x, w: torch.einsum("nchw,wk->nk", x, w), (4, 5), 2 * 3 * 4 * 4 * 5),
    "letters and dots": (lambda x, w: torch.einsum("...w,wk->...k", x, w), (4, 5), 2 * 3 * 4 * 4 * 5),
    "attention": (
        lambda x, w: nn.functional.scaled_dot_product_attention(x, x, x) * w, (4,), 2 * (2 * 3 * 4 * 4) * 4,
    ),
    "a window": (lambda x, w: nn.functional.max_pool2d(x * w, 2, 1), (4,), 2 * 3 * 9 * 4),
}  # fmt: skip


@pytest.mark.parametrize("what", WORK)
def test_products_are_at_least_those_that_are_multiplied(what: str, monkeypatch: pytest.MonkeyPatch) -> None:
    function, sizes, products = WORK[what]
    program = program_of(function, *sizes)
    monkeypatch.setattr(budget, "_OF_AN_ELEMENT", 0)
    monkeypatch.setattr(budget, "_WORK_PER_ELEMENT", 0)
    monkeypatch.setattr(budget, "_WORK_PER_PAIR", 0)
    monkeypatch.setattr(budget, "_SOME_WORK", products - 1)
    with pytest.raises(ModelError, match="running it takes more than"):
        check(program)
    monkeypatch.setattr(budget, "_SOME_WORK", 50 * products)
    assert check(program) is None


def test_a_recurrent_layer_counts_its_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    class Reads(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.lstm = nn.LSTM(4, 4)

        def forward(self, x: Tensor) -> Tensor:
            return self.lstm(x.flatten(1, 2))[0]

    program = capture(Reads(), [InputSpec("x", (None, 3, 4, 4))])
    monkeypatch.setattr(budget, "_WORK_PER_ELEMENT", 0)
    monkeypatch.setattr(budget, "_WORK_PER_PAIR", 0)
    monkeypatch.setattr(budget, "_SOME_WORK", 2 * budget._OF_A_STEP)
    with pytest.raises(ModelError, match="running it takes more than"):
        check(program)


def test_values_that_live_at_once_are_counted_and_those_that_died_are_not(monkeypatch: pytest.MonkeyPatch) -> None:
    def in_a_row(x: Tensor, w: Tensor) -> Tensor:
        for _ in range(20):
            x = x * w
        return x

    def all_at_once(x: Tensor, w: Tensor) -> Tensor:
        return torch.stack([x * (w + i) for i in range(20)]).sum(0)

    one = 2 * 3 * 8 * 8 * 4
    monkeypatch.setattr(budget, "_TIMES_THE_FILE", 0)
    monkeypatch.setattr(budget, "_TIMES_THE_INPUT", 0)
    monkeypatch.setattr(budget, "_SOME_BYTES", 5 * one)
    assert check(program_of(in_a_row, 8, width=8)) is None
    with pytest.raises(ModelError, match="would be held at once"):
        check(program_of(all_at_once, 8, width=8))


def test_a_view_takes_nothing_until_it_is_copied_or_returned(monkeypatch: pytest.MonkeyPatch) -> None:
    def stretched(x: Tensor, w: Tensor) -> Tensor:
        return w.expand(1000, 8)[:2].sum() + x

    monkeypatch.setattr(budget, "_TIMES_THE_FILE", 0)
    monkeypatch.setattr(budget, "_TIMES_THE_INPUT", 0)
    monkeypatch.setattr(budget, "_SOME_BYTES", 1000 * 8 * 4)
    assert check(program_of(stretched, 8)) is None
    for copied in (
        lambda x, w: w.expand(1000, 8).reshape(500, 16)[:2].sum() + x,
        lambda x, w: (w.expand(1001, 8), x.sum())[0],
    ):
        with pytest.raises(ModelError, match="would be held at once"):
            check(program_of(copied, 8))


def test_what_a_file_holds_raises_its_limits(monkeypatch: pytest.MonkeyPatch) -> None:
    program = program_of(lambda x, w: nn.functional.conv2d(x, w), 8, 3, 3, 3)
    monkeypatch.setattr(budget, "_SOME_WORK", 1)
    monkeypatch.setattr(budget, "_SOME_BYTES", 1)
    assert check(program) is None
    monkeypatch.setattr(budget, "memory_bytes", lambda: 64)
    with pytest.raises(ModelError, match="more than 64 B"):
        check(program)


def test_a_dimension_is_as_long_as_a_networks_or_as_one_of_its_tensors(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(budget, "_LARGEST_DIMENSION", 40)
    assert check(program_of(lambda x, w: x.flatten(1).sum() + w.sum(), 48)) is None
    with pytest.raises(ModelError, match=r"has a dimension of 48; more than 40"):
        check(program_of(lambda x, w: x.flatten(1) + w.sum(), 8))


@pytest.mark.parametrize("cap", [False, True])
def test_a_large_input_raises_the_limits_up_to_a_cap(cap: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Few weights at many positions: what makes a picture larger."""
    program = program_of(lambda x, w: nn.functional.conv2d(x, w, padding=1), 64, 3, 3, 3, width=16)
    for name in ("_SOME_WORK", "_SOME_BYTES", "_WORK_PER_ELEMENT", "_TIMES_THE_FILE"):
        monkeypatch.setattr(budget, name, 1)
    if not cap:
        assert check(program) is None
        return
    for name, told in (("_MOST_BYTES_BY_INPUT", "held at once"), ("_MOST_WORK_BY_INPUT", "running it takes more")):
        with monkeypatch.context() as patch, pytest.raises(ModelError, match=told):
            patch.setattr(budget, name, 1)
            check(program)
