"""What every trainer's callback shares: when the Pruner is made, finished and saved."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from compressor.errors import ModelError, UsageError
from compressor.integrations.course import Course


def network() -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(0)
        return nn.Sequential(nn.Linear(6, 12), nn.ReLU(), nn.Linear(12, 3))


def step(model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
    optimizer.zero_grad()
    model(torch.ones(4, 6)).square().mean().backward()
    optimizer.step()


def test_a_share_of_the_steps_searches_and_then_masks_hold() -> None:
    model = network()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    course = Course("6", share=0.5, ratio="1.5x", round_to=1)
    with pytest.raises(UsageError, match="has not begun"):
        _ = course.pruner
    course.begin(model, optimizer, 10)
    finished = []
    for number in range(10):
        step(model, optimizer)
        if course.after_step() is not None:
            finished.append(number + 1)
    assert finished == [5]
    assert course.pruner.report().residual is None and course.end().masks


def test_a_saved_state_waits_for_the_training_to_begin() -> None:
    model = network()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    course = Course("6", ratio="1.5x", round_to=1)
    course.begin(model, optimizer, 10)
    for _ in range(3):
        step(model, optimizer)
    state = course.state_dict()
    again = Course("6", ratio="1.5x", round_to=1)
    again.load_state_dict(state)
    assert again.state_dict() == state
    again.begin(model, torch.optim.SGD(model.parameters(), lr=0.1), 10)
    assert again.pruner.n_done == 3
    again.begin(model, optimizer, 99)
    assert again.pruner.n_steps == 5, "a second begin does nothing"


def test_another_optimizer_is_taken_over_with_the_search() -> None:
    model = network()
    first, second = (torch.optim.SGD(model.parameters(), lr=0.1) for _ in range(2))
    course = Course("6", ratio="1.5x", round_to=1, method="admm")
    course.begin(model, first, 12)
    for _ in range(3):
        step(model, first)
    course.move(second)
    step(model, first)
    assert course.pruner.n_done == 3, "the old one moves nothing any more"
    step(model, second)
    assert course.pruner.n_done == 4 and course.pruner.report().residual is not None


def test_the_end_may_be_that_of_an_average() -> None:
    model, average = network(), network()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    course = Course("6", ratio="1.5x", round_to=1, method="magnitude")
    course.begin(model, optimizer, 4)
    for _ in range(4):
        step(model, optimizer)
        course.after_step()
    program = course.end(of=average)
    masks = course.pruner.masks
    own = dict(average.named_parameters())
    for name, parameter in program.parameters.items():
        torch.testing.assert_close(parameter, own[name])
        assert not parameter.detach()[~masks[name]].any() if name in masks else True
    program.check_masks()
    with pytest.raises(ModelError, match="has no such parameter"):
        course.end(of=nn.Linear(6, 3))


def test_what_cannot_be_is_refused() -> None:
    with pytest.raises(UsageError, match="share 0"):
        Course("6", share=0.0)
    with pytest.raises(UsageError, match="nobody says what goes into the model"):
        Course(ratio="2x").begin(network(), torch.optim.SGD(network().parameters(), lr=0.1), 10)
