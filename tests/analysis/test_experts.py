"""Routers as rows of `analyze`: what may go is what `--pattern expert` takes."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from compressor.analysis import analyze
from compressor.asking.prune import PruneSettings
from compressor.compaction import compact
from compressor.program import InputSpec, capture
from compressor.pruning import prune
from tests.axes import expert_networks as nets

SPEC = [InputSpec("x", (None, 4, 5))]


def test_a_row_says_how_many_may_go_and_what_goes_with_each() -> None:
    program = capture(nets.mixture(nets.softmax_first, nets.by_row), SPEC)
    (row,) = analyze(program).routers
    assert (row.name, row.n_experts, row.n_chosen, row.n_prunable) == ("router", nets.EXPERTS, nets.CHOSEN, 4)
    assert row.pinned is None and set(row.layers) == {"router", "up", "down", "shift"}
    small, _ = compact(prune(program, PruneSettings(ratio=1.05, pattern="expert", method="magnitude"))[0])
    assert program.n_parameters - small.n_parameters == row.params
    assert analyze(small).routers[0].n_experts == nets.EXPERTS - 1


def test_rows_of_layers_offer_no_experts_to_patterns_that_take_none() -> None:
    pruned, _ = prune(
        capture(nets.mixture(nets.softmax_first, nets.by_row), SPEC),
        PruneSettings(ratio=1.05, pattern="expert", method="magnitude"),
    )
    rows = {row.name: row for row in analyze(pruned).layers}
    assert rows["router"].n_prunable == 0 and rows["up"].n_prunable > 0


@pytest.mark.parametrize(
    ("route", "mix", "zero", "reason"),
    [
        (nets.softmax_first, nets.by_number, False, "their numbers are read by mul"),
        (nets.softmax_first, nets.by_row, True, "row 2 of the router is 0 already"),
    ],
)
def test_a_router_whose_experts_stay_says_why(route: Any, mix: Any, zero: bool, reason: str) -> None:
    network = nets.mixture(route, mix)
    if zero:
        with torch.no_grad():
            network.router.weight[2] = 0.0
    (row,) = analyze(capture(network, SPEC)).routers
    assert row.n_prunable == 0 and row.pinned is not None and reason in row.pinned


def test_a_network_without_a_router_has_no_row() -> None:
    assert analyze(capture(torch.nn.Linear(4, 2), [InputSpec("x", (None, 4))])).routers == ()
