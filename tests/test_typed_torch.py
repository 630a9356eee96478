from __future__ import annotations

import operator

import numpy as np
import pytest
import torch
from torch import nn

from compressor import typed_torch

aten = torch.ops.aten


def test_an_operator_is_told_from_a_function() -> None:
    assert typed_torch.is_overload(aten.relu.default)
    assert not any(map(typed_torch.is_overload, (operator.add, aten.relu, "relu", None)))


def test_a_schema_names_arguments_and_returns() -> None:
    schema = typed_torch.schema_of(aten.topk.default)
    assert [argument.name for argument in schema.arguments] == ["self", "k", "dim", "largest", "sorted"]
    assert len(schema.returns) == 2 and not schema.is_mutable


def test_a_tensor_shares_the_memory_of_its_array() -> None:
    array = np.arange(6.0).reshape(2, 3)
    tensor = typed_torch.from_numpy(array)
    array[1, 2] = 7
    assert typed_torch.to_list(tensor) == [[0, 1, 2], [3, 4, 7]]
    assert typed_torch.to_integers(torch.arange(3)) == [0, 1, 2]


def test_random_numbers_go_on_as_if_nothing_had_been_drawn() -> None:
    before = torch.get_rng_state()
    with typed_torch.forked_cpu_rng():
        torch.rand(3)
        assert not torch.equal(before, torch.get_rng_state())
    assert torch.equal(before, torch.get_rng_state())


def test_a_size_that_is_left_open_has_a_symbol() -> None:
    exported = torch.export.export(nn.ReLU(), (torch.ones(2, 3),), dynamic_shapes=({0: torch.export.Dim("batch")},))
    (placeholder,) = (node for node in exported.graph.nodes if node.op == "placeholder")
    batch, features = placeholder.meta["val"].shape
    assert typed_torch.symbol_of(batch).hint == 2 and typed_torch.symbol_of(batch).maybe_as_int() is None
    assert typed_torch.symbol_of(features) is None


@pytest.mark.parametrize("module", [nn.Sequential(nn.Linear(1, 1), nn.Sequential(nn.ReLU()))])
def test_modules_are_named_from_the_outermost_on(module: nn.Module) -> None:
    assert [name for name, _ in typed_torch.named_modules(module)] == ["", "0", "1", "1.0"]
