"""Experts of a mixture as units: masked is compact in every form of routing, and what has to stay says why."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from compressor.asking.prune import PruneSettings
from compressor.axes import find_units
from compressor.compaction import compact
from compressor.errors import PatternError
from compressor.program import InputSpec, Program, capture, close_choices, find_routers, leaves_out, open_choices
from compressor.pruning import prune
from compressor.sparsity import apply_masks, mask_units
from tests.axes import expert_networks as nets


def captured(route: Any, mix: Any, **how: Any) -> Program:
    return capture(nets.mixture(route, mix, **how), [InputSpec("x", (None, 4, 5))])


FORMS = [(route, mix, (i + j) % 2 > 0) for i, route in enumerate(nets.ROUTES) for j, mix in enumerate(nets.MIXES)]


@pytest.mark.parametrize(("route", "mix", "bias"), FORMS)
def test_a_network_without_some_experts_computes_what_their_masks_left(route: str, mix: str, bias: bool) -> None:
    dense = captured(nets.ROUTES[route], nets.MIXES[mix], bias=bias)
    (router,) = find_routers(dense)
    assert (router.n_experts, router.n_chosen) == (nets.EXPERTS, nets.CHOSEN)
    opened = open_choices(dense)
    inputs = dense.example_inputs(3)
    assert torch.equal(opened.module(*inputs), dense.module(*inputs)) and leaves_out(opened)
    units = find_units(opened)
    assert units.experts.sum() == nets.EXPERTS
    masked = opened.clone()
    keep = np.ones(units.n_units, dtype=bool)
    gone = units.axes[router.weight, 0][[1, 4, 5]]
    keep[gone] = False
    masked = masked.replace(masks=mask_units(masked.module, units, keep))
    apply_masks(masked.module, masked.masks)
    small, proof = compact(masked)
    assert small.parameters[router.weight].shape[0] == nets.EXPERTS - 3
    assert proof.agreement is not None and not leaves_out(small)
    assert not torch.allclose(small.module(*inputs), dense.module(*inputs), atol=1e-3)


def test_twin_without_minus_infinity_a_cut_expert_is_chosen() -> None:
    """What the rewriting is for: rows of 0 alone leave an expert a logit of 0, which beats those below it."""
    dense = captured(nets.softmax_first, nets.by_row)
    rows = find_units(open_choices(dense)).axes["router.weight", 0]
    with torch.no_grad():
        for network in (dense, opened := open_choices(dense.clone())):
            network.parameters["router.weight"][rows == rows[0]] = 0.0
    inputs = dense.example_inputs(20)
    assert not torch.allclose(dense.module(*inputs), opened.module(*inputs), atol=1e-3)


STAY = [
    ("its number is computed with", nets.softmax_first, nets.by_number, "their numbers are read by"),
    ("a mean over all", nets.topk_first, nets.by_shares, "a mean"),
    ("groups of experts", nets.in_groups, nets.by_embedding, "topk over this dimension"),
]


@pytest.mark.parametrize(("route", "mix", "reason"), [case[1:] for case in STAY], ids=[case[0] for case in STAY])
def test_experts_that_something_else_sees_stay_and_say_why(route: Any, mix: Any, reason: str) -> None:
    dense = captured(route, mix)
    units = find_units(open_choices(dense))
    assert not units.experts.any()
    assert reason in units.pin_at["router.weight", 0].reason
    with pytest.raises(PatternError, match="no router chooses among experts that may go"):
        prune(dense, PruneSettings(ratio=1.1, pattern="expert", method="magnitude"))


def test_a_router_with_a_row_of_zeros_is_left_as_it_is() -> None:
    network = nets.mixture(nets.softmax_first, nets.by_row)
    with torch.no_grad():
        network.router.weight[2] = 0.0
    program = capture(network, [InputSpec("x", (None, 4, 5))])
    assert open_choices(program) is program


def test_opening_twice_is_opening_once_and_closing_gives_the_network_back() -> None:
    dense = captured(nets.softmax_first, nets.by_row)
    opened = open_choices(dense)
    assert open_choices(opened) is opened and close_choices(dense) is dense
    closed = close_choices(opened)
    assert [node.name for node in closed.module.graph.nodes] == [node.name for node in dense.module.graph.nodes]


def test_without_the_rewriting_experts_are_pinned_by_what_runs_over_them() -> None:
    dense = captured(nets.softmax_first, nets.by_row)
    assert "softmax over this dimension" in find_units(dense).pin_at["router.weight", 0].reason
