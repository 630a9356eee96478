"""Trials of forms: the layer with its own input, behind a convolution where it has one, and the same for every form."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from compressor.compaction.lowering_plan import Candidate, find_candidates
from compressor.compaction.lowering_trial import trial_program
from compressor.program import InputSpec, Program, capture
from tests.compaction.test_lowering import sparse_net


def named(program: Program, name: str) -> Candidate:
    return next(found for found in find_candidates(program) if found.layer.name == name)


def trials(program: Program, name: str) -> list[Program]:
    candidate = named(program, name)
    return [trial_program(program, candidate, form) for form in candidate.forms]


def calls(program: Program) -> list[str]:
    return [str(node.target) for node in program.module.graph.nodes if node.op == "call_function"]


@pytest.mark.parametrize(
    ("name", "sizes", "out"), [("pair", (16, 6, 6), (8, 6, 6)), ("wide", (16, 6, 6), (12, 3, 3)), ("fc", (108,), (5,))]
)
@torch.no_grad()
def test_every_form_of_a_layer_answers_the_same_in_its_trial(
    name: str, sizes: tuple[int, ...], out: tuple[int, ...]
) -> None:
    made = trials(sparse_net(), name)
    assert len(made) > 1 and {trial.inputs[0].shape for trial in made} == {(None, *sizes)}
    (x,) = made[0].example_inputs(3)
    answers = [trial.module(x)[0] for trial in made]
    assert answers[0].shape == (3, *out) and answers[0].std() > 0
    for answer in answers[1:]:
        torch.testing.assert_close(answer, answers[0], atol=1e-5, rtol=1e-5)


def test_a_frame_is_a_thin_convolution_and_a_relu_and_a_linear_layer_has_none() -> None:
    dense = trials(sparse_net(), "pair")[0]
    assert calls(dense) == ["aten.conv2d.default", "aten.relu.default", "aten.conv2d.default"]
    assert dense.parameters["frame.weight"].shape == (8, 16, 1, 1)
    (linear, *_) = trials(sparse_net(), "fc")
    assert calls(linear) == ["aten.linear.default"]


class Behind(nn.Module):
    """A convolution with columns of zeros, behind a layer and what `between` makes of its output."""

    def __init__(self, first: nn.Module, between: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.first, self.norm, self.between = first, nn.BatchNorm2d(8), between
        self.last = nn.Conv2d(8, 4, 3, padding=1)
        with torch.no_grad():
            self.last.weight[:, 1:5] = 0

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.between(self.norm(self.first(x))))


@pytest.mark.parametrize(
    ("first", "between", "framed"),
    [
        (nn.Conv2d(3, 8, 1), lambda y: y, True),
        (nn.Conv2d(3, 8, 1), lambda y: nn.functional.dropout(nn.functional.gelu(y), 0.1, False) + 1, True),
        (nn.Conv2d(3, 8, 1), lambda y: nn.functional.max_pool2d(y.relu(), 3, 1, 1), True),
        (nn.Conv2d(3, 8, 1), lambda y: y.transpose(2, 3), False),
        (nn.ConvTranspose2d(3, 8, 1), lambda y: y.relu(), False),
    ],
)
def test_a_frame_stands_where_the_runtimes_own_layout_would_arrive(
    first: nn.Module, between: Callable[[Tensor], Tensor], framed: bool
) -> None:
    program = capture(Behind(first, between), [InputSpec("x", (None, 3, 6, 6))])
    (trial, *_) = trials(program, "last")
    assert trial.inputs[0].shape == (None, 16 if framed else 8, 6, 6)
    assert ("frame.weight" in trial.parameters) == framed
