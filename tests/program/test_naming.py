"""Names for new tensors: as wanted where that can be, and never one that a module could not have beside the others."""

from __future__ import annotations

import pytest
import torch
from torch import fx

from compressor.program import ProgramModule, free_name


@pytest.mark.parametrize(
    ("wanted", "taken", "got"),
    [
        ("a.bias", [], "a.bias"),
        ("a.bias", ["a.weight"], "a.bias"),
        ("a.bias", ["a.bias"], "a.bias_2"),
        ("a.bias", ["a.bias", "a.bias_2"], "a.bias_3"),
        ("token.constant", ["token"], "token_constant"),
        ("token.constant", ["token", "token_constant"], "token_constant_2"),
        ("a.b.constant", ["a.b"], "a.b_constant"),
        ("a.b.c.constant", ["a.b"], "a.b_c.constant"),
        ("head.constant", ["head.constant.weight"], "head.constant_2"),
        ("to.constant", [], "made_to.constant"),
        ("training", [], "made_training"),
        ("block.forward.bias", [], "block.made_forward.bias"),
    ],
)
def test_names(wanted: str, taken: list[str], got: str) -> None:
    assert free_name(wanted, taken) == got


@pytest.mark.parametrize("wanted", ["graph", "to.constant", "a.b", "a.b.c", "a", "x.code.bias", "a.b.c.d"])
def test_a_module_can_hold_what_it_is_called(wanted: str) -> None:
    tensors = {"a.b.c": torch.zeros(1), "b": torch.zeros(2)}
    name = free_name(wanted, tensors)
    tensors[name] = torch.ones(3)
    graph = fx.Graph()
    graph.output(tuple(graph.get_attr(known) for known in tensors))
    module = ProgramModule(tensors, graph)
    assert [len(tensor) for tensor in module()] == [1, 2, 3]
    assert set(module.tensors()) == set(tensors)
