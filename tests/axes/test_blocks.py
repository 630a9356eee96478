"""Residual blocks: which there are, why others are none, and that without them the network computes what zeros made."""

from __future__ import annotations

import itertools
from collections.abc import Collection

import pytest
import torch

from compressor.axes import Block, find_blocks, needed_without, without_blocks
from compressor.program import Program
from tests.axes.residual_networks import NETWORKS, residual_program


def zeroed(program: Program, blocks: Collection[Block]) -> Program:
    """The program with the weights that make these blocks 0 at 0."""
    copy = program.clone()
    with torch.no_grad():
        for name in frozenset[str]().union(*(block.zeroed for block in blocks)):
            copy.module.get_parameter(name).zero_()
    return copy


@pytest.mark.parametrize("name", NETWORKS)
def test_the_blocks_of_a_network_and_the_reasons_of_others(name: str) -> None:
    found = find_blocks(residual_program(name))
    assert sorted(block.name for block in found.free) == sorted(NETWORKS[name].free)
    reasons = {block.reason for block in found.pinned}
    assert len(reasons) == len(NETWORKS[name].pinned)
    for words in NETWORKS[name].pinned:
        assert any(words in reason for reason in reasons), reasons


@pytest.mark.parametrize("name", [name for name, network in NETWORKS.items() if network.free])
def test_without_any_of_its_blocks_a_network_computes_what_their_zeros_made_of_it(name: str) -> None:
    program = residual_program(name)
    blocks = find_blocks(program).free
    x = program.example_inputs(3, seed=1)
    whole = program.module(*x)
    for n in range(1, len(blocks) + 1):
        for chosen in itertools.combinations(blocks, n):
            left = without_blocks(program, chosen)
            expected = zeroed(program, chosen).module(*x)
            assert torch.allclose(left.module(*x), expected, rtol=1e-12, atol=1e-12), [b.name for b in chosen]
            assert not torch.allclose(whole, expected, rtol=1e-6), "a block that does nothing shows nothing"
            needed = needed_without(program, chosen)
            counters = {name for name in left.module.tensors() if name.endswith("num_batches_tracked")}
            assert set(left.module.tensors()) - counters == needed & set(program.module.tensors())
            assert all(not block.zeroed & set(left.module.tensors()) for block in chosen)
            assert len(left.module.graph.nodes) < len(program.module.graph.nodes)


def test_a_block_names_all_layers_that_go_with_it() -> None:
    blocks = {block.name: block for block in find_blocks(residual_program("post-activation")).free}
    assert blocks["blocks.0"].layers == tuple(f"blocks.0.{name}" for name in ("conv1", "bn1", "conv2", "bn2"))
    assert blocks["blocks.0"].zeroed == {f"blocks.0.{name}" for name in ("conv2.weight", "bn2.weight", "bn2.bias")}


def test_a_shared_block_is_one_with_all_its_places() -> None:
    blocks = {block.name: block for block in find_blocks(residual_program("tied")).free}
    assert len(blocks["blocks.0.block"].branches) == len(blocks["blocks.0"].branches) == 2


def test_leaving_blocks_out_changes_nothing_in_the_program_itself() -> None:
    program = residual_program("nested")
    before = str(program.module.graph)
    without_blocks(program, find_blocks(program).free)
    assert str(program.module.graph) == before
