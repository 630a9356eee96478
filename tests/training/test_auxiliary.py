"""Outputs that a network has in training only: which of them are measured, and what the others add to the loss."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor, nn

from compressor.asking.recipe import Recipe
from compressor.data import Batch, Classification, DataSource
from compressor.training.auxiliary import TrainedAs, TrainingOutputs, find_outputs, is_alike, names_of
from compressor.training.loop import fit

A, B, WIDE = torch.zeros(2, 3), torch.ones(2, 3), torch.zeros(2, 5)


class Three(NamedTuple):
    logits: Tensor
    aux2: Tensor
    features: Tensor


@pytest.mark.parametrize(
    ("training", "evaluation", "main", "auxiliary"),
    [
        (A, B, None, ()),
        ({"out": A, "aux": B}, {"out": A, "aux": B}, None, ()),
        ((A, B), B, 0, (1,)),
        (Three(A, B, WIDE), B, 0, (1,)),
        ([WIDE, A], B, 1, ()),
        ({"out": A, "aux": B, "hidden": WIDE}, B, "out", ("aux",)),
        (((A, WIDE), B), (B, WIDE), 0, ()),
    ],
)
def test_what_is_measured_is_found_by_its_form(
    training: Any, evaluation: Any, main: int | str | None, auxiliary: tuple[int | str, ...]
) -> None:
    found = find_outputs(training, evaluation)
    assert found == TrainingOutputs(main, auxiliary)
    assert is_alike(found.measured(training), evaluation)


@pytest.mark.parametrize(
    ("training", "evaluation"), [([WIDE, WIDE], A), (WIDE, A), (A.double(), A), ((A,), (A, A)), (A, A[0])]
)
def test_what_is_not_there_is_not_found(training: Any, evaluation: Any) -> None:
    assert find_outputs(training, evaluation) is None


def test_places_have_the_names_of_their_fields() -> None:
    assert names_of(Three(A, B, WIDE), (1, 2)) == ["aux2", "features"]
    assert names_of((A, B), (0, 1)) == ["output 0", "output 1"]
    assert names_of({"aux": A}, ("aux",)) == ["aux"]


def test_auxiliary_heads_have_their_share() -> None:
    generator = torch.Generator().manual_seed(0)
    one, two = torch.randn(2, 3, generator=generator), torch.randn(2, 3, generator=generator)
    batch, task = Batch((A,), torch.tensor([0, 2])), Classification()
    loss, measured = TrainingOutputs(0, (1,)).loss(task, (one, two), batch)
    assert measured is one
    torch.testing.assert_close(loss, task.loss(one, batch) + 0.3 * task.loss(two, batch))


class Helped(nn.Module):
    """A network and a head of its own; both are returned."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net, self.head = net, nn.Linear(12, 4)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return self.net(x), self.head(x.flatten(1))


def helped(make_net: Callable[..., nn.Module]) -> Helped:
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(1)
        return Helped(make_net(0))


def test_one_module_trains_and_the_other_is_measured(make_net: Callable[..., nn.Module], data: DataSource) -> None:
    model, states = helped(make_net), list[dict[str, Any]]()
    head = model.head.weight.detach().clone()
    recipe = Recipe(epochs=2, batch_size=16, optimizer="sgd", lr=0.05)
    outputs = TrainingOutputs(0, (1,))
    trained_as = TrainedAs(model, outputs)
    result = fit(model.net, data, Classification(), recipe, trained_as=trained_as, on_state=states.append)
    assert not torch.equal(head, model.head.weight) and result.history[-1].metrics
    assert not model.training and not model.net.training
    assert {"head.weight", "head.bias"} <= states[0]["module"].keys()

    again = helped(make_net)
    fit(again.net, data, Classification(), recipe, trained_as=TrainedAs(again, outputs), start=states[0])
    assert all(torch.equal(value, again.state_dict()[name]) for name, value in model.state_dict().items())
