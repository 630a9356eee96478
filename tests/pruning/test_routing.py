"""What is measured of experts: held against the same sums written out by hand."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from compressor.asking import PruneSettings
from compressor.program import InputSpec, Program, capture, open_choices
from compressor.progress import Silent
from compressor.pruning import prune
from compressor.pruning.routing import measure_routing, routed_of
from tests.axes import expert_networks as nets


def opened(route: Any, mix: Any) -> tuple[nets.Mixture, Program]:
    network = nets.mixture(route, mix)
    return network, open_choices(capture(network, [InputSpec("x", (None, 4, 5))]))


@torch.no_grad()
def by_hand(network: nets.Mixture, x: torch.Tensor, *, answers: bool) -> list[float]:
    tokens = torch.tanh(network.embed(x)).reshape(-1, nets.WIDTH)
    places, weights, _ = network._route(network, network.router(tokens))
    totals = [0.0] * nets.EXPERTS
    for token, chosen, weighs in zip(tokens, places.tolist(), weights, strict=True):
        for expert, weight in zip(chosen, weighs, strict=True):
            inner = torch.nn.functional.silu(network.up[expert] @ token)
            answer = network.down[expert] @ inner + network.shift[expert]
            totals[expert] += float(weight * (answer.norm() if answers else 1))
    return [total / sum(totals) for total in totals]


@pytest.mark.parametrize("route", [nets.softmax_first, nets.topk_first])
def test_what_an_expert_answers_times_its_weight_is_summed_over_its_tokens(route: Any) -> None:
    network, program = opened(route, nets.by_row)
    (x,) = program.example_inputs(9, seed=3)
    (found,) = measure_routing(program, [x]).values()
    assert found == pytest.approx(by_hand(network, x, answers=True), rel=1e-5)


@pytest.mark.parametrize("route", [nets.topk_first, nets.sigmoids])
@pytest.mark.parametrize("mix", [nets.by_scatter, nets.by_one_hot])
def test_where_no_answer_is_seen_alone_the_weights_are_summed(route: Any, mix: Any) -> None:
    network, program = opened(route, mix)
    (x,) = program.example_inputs(9, seed=3)
    (found,) = measure_routing(program, [x]).values()
    assert found == pytest.approx(by_hand(network, x, answers=False), rel=1e-5)


def test_the_expert_that_nothing_is_sent_to_goes_first() -> None:
    network = nets.mixture(nets.softmax_first, nets.by_row, bias=True)
    with torch.no_grad():
        network.router.bias[3] = -50.0
        network.down[3] *= 100  # by its weights it would be the last to go
    program = capture(network, [InputSpec("x", (None, 4, 5))])
    pruned, _ = prune(program, PruneSettings(ratio=1.1, pattern="expert", method="magnitude"))
    assert (~pruned.masks["router.weight"].any(1)).nonzero().flatten().tolist() == [3]
    by_weight, _ = prune(program, PruneSettings(ratio=1.1, pattern="expert", method="magnitude", score="l2"))
    assert by_weight.masks["router.weight"][3].all()


def test_without_data_random_inputs_are_taken_and_that_is_said() -> None:
    _, program = opened(nets.softmax_first, nets.by_row)
    said: list[str] = []

    class Listening(Silent):
        def note(self, text: str) -> None:
            said.append(text)

    asked = PruneSettings(ratio=1.1, pattern="expert", method="magnitude")
    assert routed_of(program, asked, None, Listening()) is not None
    assert said == ["no data: what is sent to each expert is measured on random inputs"]
    by_weight = PruneSettings(ratio=1.1, pattern="expert", method="magnitude", score="l2")
    assert routed_of(program, by_weight, None, Listening()) is None and len(said) == 1
