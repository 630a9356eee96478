"""Late losses are all counted, the first that is no number ends it, and a gate keeps the weights until then."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import nn

from compressor.errors import TrainingError
from compressor.training.losses import Gate, Losses


class Late:
    """A loss that arrives when it is told to."""

    def __init__(self, value: float) -> None:
        self.here, self.asked, self._value = False, 0, value

    def arrived(self) -> bool:
        return self.here

    def value(self) -> float:
        self.asked += 1
        return self._value


def test_what_has_arrived_is_read_in_order_and_nothing_is_waited_for() -> None:
    losses, readings = Losses(), [Late(4.0), Late(2.0), Late(1.0)]
    assert math.isnan(losses.latest)
    for step, reading in enumerate(readings):
        losses.add(reading, 10, f"step {step}", 0.1)
    readings[1].here = True
    losses.read(wait=False)
    assert math.isnan(losses.latest) and readings[1].asked == 0, "the first one is still to come"
    readings[0].here = True
    losses.read(wait=False)
    assert losses.latest == 2.0 and readings[2].asked == 0
    assert losses.total() == (70.0, 30) and losses.latest == 1.0
    assert losses.total() == (0.0, 0), "the next epoch begins anew"


def test_the_first_that_is_no_number_is_named_however_late() -> None:
    losses = Losses()
    for step, value in enumerate((1.0, math.inf, math.nan)):
        losses.add(Late(value), 10, f"epoch 1, step {step + 1}", 0.25)
    losses.read(wait=False)
    with pytest.raises(TrainingError, match=r"epoch 1, step 2: the loss is inf at learning rate 0\.25\ntry a lower lr"):
        losses.total()


OPTIMIZERS = {
    "sgd": lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9, weight_decay=0.1, fused=True),
    "adam": lambda p: torch.optim.Adam(p, lr=0.1, fused=True),
    "adamw": lambda p: torch.optim.AdamW(p, lr=0.1, fused=True),
}


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize("gated", [True, False])
def test_a_gate_keeps_the_weights_from_a_bad_loss_on(optimizer: str, gated: bool) -> None:
    torch.manual_seed(0)
    net = nn.Linear(3, 1)
    takes = OPTIMIZERS[optimizer](net.parameters())
    gate = Gate.before(takes)
    seen: list[Any] = []
    for factor in (1.0, 1.0, math.nan, 1.0):
        takes.zero_grad()
        loss = factor * net(torch.ones(2, 3)).square().sum()
        if gated:
            assert gate is not None
            gate.take(loss)
        loss.backward()
        takes.step()
        seen.append(net.weight.detach().clone())
    assert not torch.equal(seen[0], seen[1]), "good steps go through"
    assert torch.equal(seen[3], seen[1]) == gated and bool(seen[3].isnan().all()) != gated


def test_an_optimizer_that_would_not_heed_it_has_no_gate() -> None:
    assert Gate.before(torch.optim.SGD(nn.Linear(3, 1).parameters(), lr=0.1, fused=False)) is None
