"""Whole groups of group norms as units: which channels are one, what pins them, and that they may go exactly."""

from __future__ import annotations

import functools

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from compressor.asking import WalkOptions
from compressor.axes import find_units, rules_norm
from compressor.compaction import slice_program
from compressor.errors import ModelError
from compressor.program import Program, ProgramModule, arguments, families, set_argument
from tests.axes.attention_networks import difference, masked_and_compact, program_of
from tests.axes.group_networks import NETWORKS, PINNED
from tests.axes.tracing import trace

LIMIT = 1e-12


@functools.cache
def network(name: str) -> Program:
    make, inputs = NETWORKS[name]
    return program_of(make(), inputs)


def n_groups(program: Program) -> list[int]:
    nodes = (node for node in program.module.graph.nodes if node.target in families.GROUP_NORM)
    return [arguments(node)["num_groups"] for node in nodes]


@pytest.mark.parametrize("name", NETWORKS)
def test_whole_groups_go_exactly(name: str) -> None:
    program, fewer = network(name), False
    for seed in range(3):
        masked, small, units, _ = masked_and_compact(program, WalkOptions(), seed)
        assert units.n_units > 1
        assert difference(masked, small) <= LIMIT
        fewer |= sum(n_groups(small)) < sum(n_groups(program))
    assert fewer


@pytest.mark.parametrize("name", NETWORKS)
def test_another_number_of_groups_is_seen(name: str) -> None:
    """The twin: the comparison tells a wrong number of groups."""
    masked, small, _, _ = masked_and_compact(network(name), WalkOptions(), 1)
    for node in small.module.graph.nodes:
        if node.target in families.GROUP_NORM:
            set_argument(node, "num_groups", 1)
    small = small.replace(module=ProgramModule(small.module.tensors(), small.module.graph))
    assert difference(masked, small) > 1e-4


def test_which_channels_are_one_unit() -> None:
    units = find_units(network("concatenation"))
    a, b = units.axes["a.weight", 0], units.axes["b.weight", 0]
    assert [list(np.unique(a[i:j])) for i, j in ((0, 10), (10, 20), (20, 24))] == [[0], [1], [2]]
    assert b.tolist() == [2] + [3] * 5 + [4] * 5 + [5] * 5
    assert len(units.groups) == 3, "what lies over the border is a width of its own"
    stream = find_units(network("two group counts on one stream")).axes["a.weight", 0]
    assert stream.tolist() == [i // 6 for i in range(24)], "groups of 2 and of 3"
    grouped = find_units(network("grouped")).axes["layer2.weight", 0]
    assert (grouped - grouped[0]).tolist() == [0, 0, 0, 1, 1, 1] * 2, "a convolution loses the same of each group"


@pytest.mark.parametrize("name", NETWORKS)
def test_with_an_option_parts_of_groups_go_as_before(name: str) -> None:
    """Equal offsets of all groups, where a removed position is 0; they and whole groups would be one unit together."""
    program, exact = network(name), WalkOptions(through_norm="exact")
    masked, small, _, _ = masked_and_compact(program, exact)
    assert difference(masked, small) <= LIMIT


def test_offsets_of_all_groups_are_units_with_an_option() -> None:
    units = find_units(network("plain"), WalkOptions(through_norm="rescale"))
    assert units.axes["layer0.weight", 0].tolist() == [0, 1, 2] * 4


def test_groups_of_unequal_width_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """What no axis rule may lead to: channels that go one by one."""
    monkeypatch.setattr(rules_norm, "_tie_channels", lambda *given, **more: None)
    program = network("plain")
    units = find_units(program)
    keep = np.ones(units.n_units, dtype=bool)
    keep[units.axes["layer0.weight", 0][:2]] = False
    with pytest.raises(ModelError, match=r"layer1: its groups would be 1, 3 channels wide after removal") as caught:
        slice_program(program, units, keep)
    assert len(str(caught.value).splitlines()) <= 3


@pytest.mark.parametrize("name", PINNED)
def test_pinned_with_its_reason(name: str) -> None:
    (make, inputs), weight, reason = PINNED[name]
    units = find_units(program_of(make(), inputs))
    assert units.axes[weight, 0][0] == -1
    assert units.pin_at[weight, 0].reason == reason
    is_told = "--through-norm exact" in units.way_out
    assert is_told == reason.endswith("(--through-norm)")


@pytest.mark.parametrize("added", ["nothing", "a map of places", "the input"])
def test_a_group_without_scale_is_0_where_it_was_cut_only_if_what_it_normalises_is(added: str) -> None:
    """A sum over channels may lose one that is 0; one that holds something else is not, nor is its normalised form."""

    def forward(net: nn.Module, x: Tensor) -> Tensor:
        more = {"nothing": 0.0, "a map of places": net.places, "the input": x[:, :1]}[added]
        return net.end(F.group_norm(net.first(x) + more, 2).sum(1, keepdim=True))

    traced = trace(
        forward, (3, 6, 6),
        first=nn.Conv2d(3, 8, 1), places=nn.Parameter(torch.randn(1, 6, 6)), end=nn.Conv2d(1, 2, 1),
    )  # fmt: skip
    assert traced.along("first.weight", 0) == ([0] * 4 + [1] * 4 if added == "nothing" else [-1] * 8)


@pytest.mark.parametrize("training", [False, True])
def test_a_batch_norm_keeps_the_places_that_its_own_statistics_are_taken_over(training: bool) -> None:
    traced = trace(
        lambda net, x: net.end(net.norm((net.scale * net.places)[None])) + x.sum(),
        (3,), scale=nn.Parameter(torch.randn(4, 1, 1)), places=nn.Parameter(torch.randn(1, 6, 6)),
        norm=nn.BatchNorm2d(4), end=nn.Conv2d(4, 2, 1),
    )  # fmt: skip
    traced.program.module.train(training)
    reason = find_units(traced.program).pin_at["places", 1].reason
    told = (
        "standardised over 6 positions of this dimension" if training else "a convolution slides along this dimension"
    )
    assert reason == told
