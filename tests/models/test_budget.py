"""How much a network may hold, counted while it is built."""

from __future__ import annotations

import threading

import pytest
import torch
from torch import nn

from compressor.errors import ModelError
from compressor.models.budget import Budget, counted, memory_bytes, tried


def test_elements_are_counted_and_nothing_is_counted_afterwards() -> None:
    with counted("net", Budget()) as elements:
        nn.Linear(3, 2)
    nn.Linear(100, 100)
    assert elements() == 3 * 2 + 2


@pytest.mark.parametrize(
    ("budget", "told"), [(Budget(tensors=3), "more than 3 tensors"), (Budget(elements=10), "more than 10 elements")]
)
def test_a_network_beyond_its_budget_is_refused_while_it_is_built(budget: Budget, told: str) -> None:
    with pytest.raises(ModelError, match=f"net: describes a network of {told}"), counted("net", budget):
        nn.Sequential(*(nn.Linear(2, 2) for _ in range(1000)))


def test_modules_of_another_thread_are_not_counted() -> None:
    with counted("net", Budget(tensors=1)) as elements:
        other = threading.Thread(target=lambda: nn.Linear(3, 3))
        other.start()
        other.join()
    assert elements() == 0


def test_a_network_larger_than_the_memory_is_refused_without_taking_any() -> None:
    too_wide = memory_bytes() // 4 + 1
    with pytest.raises(ModelError, match="more than this machine's memory holds"):
        tried("net", Budget(elements=1 << 60), lambda: nn.Linear(1, too_wide, bias=False))
    tried("net", Budget(), lambda: nn.Linear(3, 2))


def test_weights_that_are_there_say_how_large_a_network_may_be() -> None:
    budget = Budget.of_weights({"a": torch.zeros(3), "b": torch.zeros(4)})
    assert budget.tensors > 4 and budget.elements > 14
