"""The order of residual blocks by what the output loses: what goes first, what is measured again, data or none."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Any

import pytest
import torch

from compressor.asking import PruneSettings
from compressor.axes import find_blocks, without_blocks
from compressor.data import Batch
from compressor.program import Program
from compressor.progress import Silent
from compressor.pruning.block_order import _distance, _Outputs, block_order, order_of
from compressor.sparsity import block_prices
from tests.axes.residual_networks import residual_program


def lost(program: Program, names: tuple[str, ...], x: torch.Tensor) -> float:
    """What the outputs lose, from the definition."""
    blocks = [block for block in find_blocks(program).free if block.name in names]
    whole, left = program.module(x), without_blocks(program, blocks).module(x)
    return float((whole - left).square().sum() / whole.square().sum())


@pytest.mark.parametrize("name", ["attention", "parallel", "pre-activation", "nested", "tied"])
@torch.no_grad()
def test_each_block_is_the_one_that_costs_least_behind_those_before_it(name: str) -> None:
    """Against trying them all at every place."""
    program = residual_program(name)
    (x,) = program.example_inputs(8, seed=2)
    expected: list[str] = []
    left = [block.name for block in find_blocks(program).free]
    while left:
        cheapest = min(left, key=lambda one: lost(program, (*expected, one), x))
        left.remove(cheapest)
        expected.append(cheapest)
    assert block_order(program, dict.fromkeys(find_blocks(program).free, 1.0), [x]) == tuple(expected)


@pytest.mark.parametrize("name", ["attention", "nested"])
@pytest.mark.parametrize("turned", [False, True])
@torch.no_grad()
def test_each_block_is_the_one_that_costs_least_for_its_price(name: str, turned: bool) -> None:
    program = residual_program(name)
    (x,) = program.example_inputs(8, seed=2)
    blocks = find_blocks(program).free
    prices = {block: 2.0**i for i, block in enumerate(reversed(blocks) if turned else blocks)}
    expected: list[str] = []
    left = list(blocks)
    while left:
        so_far = lost(program, tuple(expected), x)
        paid = {block: (lost(program, (*expected, block.name), x) - so_far) / prices[block] for block in left}
        cheapest = min(left, key=paid.__getitem__)
        left.remove(cheapest)
        expected.append(cheapest.name)
    assert block_order(program, prices, [x]) == tuple(expected)


@torch.no_grad()
def test_a_block_that_does_nothing_goes_first_and_one_that_does_much_last() -> None:
    program = residual_program("attention")
    with torch.no_grad():
        for name, factor in (("blocks.1.mlp.2", 1e-3), ("blocks.0.mlp.2", 30.0)):
            program.module.get_parameter(f"{name}.weight").mul_(factor)
            program.module.get_parameter(f"{name}.bias").mul_(factor)
    order = block_order(program, dict.fromkeys(find_blocks(program).free, 1.0), program.example_inputs(8))
    assert (order[0], order[-1]) == ("blocks.1.mlp", "blocks.0.mlp")


def test_a_dear_block_goes_before_a_cheap_one_that_matters_as_much() -> None:
    program = residual_program("attention")
    blocks = find_blocks(program).free
    for dear in blocks:
        prices = {block: 1e9 if block is dear else 1.0 for block in blocks}
        assert block_order(program, prices, program.example_inputs(4))[0] == dear.name


def test_without_data_random_inputs_are_taken_and_that_is_said() -> None:
    said: list[str] = []

    class Saying(Silent):
        def note(self, text: str) -> None:
            said.append(text)

    program = residual_program("attention")
    settings = PruneSettings(ratio=1.2, pattern="layer", method="magnitude")
    order = order_of(program, settings, None, Saying())
    assert order is not None and len(order) == 4 and "random inputs" in said[0]
    for other in ({"pattern": "channel"}, {"score": "l2"}):
        asked = PruneSettings(**{"ratio": 1.2, "pattern": "layer", "method": "magnitude", **other})
        assert order_of(program, asked, None, Saying()) is None


def test_outputs_count_alike_however_large_they_are() -> None:
    small, large, nothing = (torch.full((2, 3), n, dtype=torch.float64) for n in (1.0, 100.0, 0.0))
    assert _distance((small, large), (small / 2, large / 2)) == pytest.approx(0.25)
    assert _distance((small, large), (small, large * 2)) == pytest.approx(0.5)
    assert _distance((nothing, small), (nothing, small)) == _distance((), ()) == 0.0


class Counting(Silent):
    """What is told of the work."""

    def __init__(self) -> None:
        self.n_blocks, self.n_done, self.n_passes, self.said = 0, 0, 0.0, list[str]()

    def start(self, stage: str, total: int, unit: str) -> None:
        self.n_blocks = total

    def advance(self, n: int = 1, /, **values: float) -> None:
        self.n_done += n

    def finish(self, stage: str, **values: float) -> None:
        self.n_passes = values["passes"]

    def note(self, text: str) -> None:
        self.said.append(text)


@torch.no_grad()
def test_every_block_is_one_step_and_every_measurement_one_pass(monkeypatch: pytest.MonkeyPatch) -> None:
    program, told, measured = residual_program("attention"), Counting(), list[int]()
    prices = dict.fromkeys(find_blocks(program).free, 1.0)
    once = _Outputs.loss_without
    monkeypatch.setattr(_Outputs, "loss_without", lambda self, gone: (measured.append(len(gone)), once(self, gone))[1])
    order = block_order(program, prices, program.example_inputs(4), progress=told)
    assert (told.n_blocks, told.n_done, told.n_passes) == (len(order), len(prices), len(measured))
    assert measured[: len(prices)] == [1] * len(prices), "each once, before any goes"
    assert len(measured) < len(prices) ** 2, "what cannot be next is not measured again"


class Inputs:
    """Data that say what was asked of them."""

    def __init__(self, *batches: Batch) -> None:
        self.given, self.asked = batches, list[tuple[object, ...]]()

    def batches(self, split: str, n: int, *, seed: int, limit: int) -> Iterator[Batch]:
        self.asked.append((split, n, seed, limit))
        return iter(self.given)


def test_blocks_are_rated_on_training_data_where_there_are_some() -> None:
    program, told = residual_program("attention"), Counting()
    settings = PruneSettings(ratio=1.2, pattern="layer", method="magnitude", seed=5)
    inputs = tuple(100 * x for x in program.example_inputs(6, seed=9))
    prices = block_prices(program, settings)
    expected = block_order(program, prices, inputs)
    random = block_order(program, prices, program.example_inputs(64, seed=5))
    assert expected != random, "the data matter here"
    data: Any = Inputs(Batch(inputs, None))
    assert order_of(program, settings, data, told) == expected and told.said == []
    assert data.asked == [("train", 64, 5, 64)]
    nothing: Any = Inputs()
    assert order_of(program, settings, nothing, told) == random


def test_the_program_is_left_as_it_was() -> None:
    program = residual_program("attention")
    before = {name: tensor.clone() for name, tensor in program.module.tensors().items()}
    block_order(program, dict.fromkeys(find_blocks(program).free, 1.0), program.example_inputs(4))
    for (name, tensor), old in itertools.zip_longest(program.module.tensors().items(), before.values()):
        assert torch.equal(tensor, old), name
