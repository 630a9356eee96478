"""Whole residual blocks as the thing to choose: the ratio, the order, the scope, widths behind them, cutting twice."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import pytest
import torch
from torch import Tensor

from compressor.asking import PruneSettings
from compressor.axes import Block, find_blocks, find_units
from compressor.compaction import compact
from compressor.cost import count_macs
from compressor.errors import PatternError, RatioError
from compressor.program import Program
from compressor.pruning.reporting import reached
from compressor.sparsity import Choice, Selector, apply_masks, block_prices, cut_blocks, make_selector
from compressor.sparsity.select_blocks import magnitudes
from tests.axes.residual_networks import NETWORKS, residual_program

FREE = [name for name, network in NETWORKS.items() if network.free]
COUNTS: dict[str, Callable[[Program], int]] = {"params": lambda p: p.n_parameters, "macs": count_macs}


def settings_of(**asked: Any) -> PruneSettings:
    return PruneSettings(
        **{"ratio": 1.2, "method": "magnitude", "pattern": "layer", "score": "l2", "round_to": 1, **asked}
    )


def selector_of(program: Program, order: tuple[str, ...] | None = None, **asked: Any) -> Selector:
    settings = settings_of(**asked)
    return make_selector(program, find_units(program, settings.walk), Choice(settings, order=order))


def masked(program: Program, masks: Mapping[str, Tensor]) -> Program:
    copy = program.clone()
    apply_masks(copy.module, masks)
    return copy.replace(masks=dict(masks))


def cutting(program: Program, blocks: Sequence[Block]) -> dict[str, Tensor]:
    return {name: torch.zeros_like(program.parameters[name], dtype=torch.bool) for b in blocks for name in b.zeroed}


@pytest.mark.parametrize("of", COUNTS)
@pytest.mark.parametrize("name", FREE)
def test_what_is_counted_is_what_compact_leaves(name: str, of: str) -> None:
    """At every ratio that blocks in their order come to; compact proves that it computes what the masks left."""
    program = residual_program(name)
    blocks = find_blocks(program).free
    for n in range(1, len(blocks)):
        selector = selector_of(program, tuple(block.name for block in blocks), of=of)
        wished = masked(program, cutting(program, blocks[:n]))
        ratio = reached(wished, find_units(program), selector)
        chosen = selector.select(program.parameters, ratio * (1 - 1e-9))
        small, report = compact(masked(program, chosen.masks))
        assert COUNTS[of](small) == pytest.approx(chosen.kept, abs=0.5) and COUNTS[of](program) == chosen.dense
        assert chosen.ratio >= ratio * (1 - 1e-8)
        assert {branch.layer for branch in report.branches} <= {block.name for block in blocks}
        assert report.agreement is not None and len(small.module.graph.nodes) < len(program.module.graph.nodes)


@pytest.mark.parametrize("pattern", ["layer+channel", "layer+filter"])
@pytest.mark.parametrize("of", COUNTS)
def test_widths_carry_what_blocks_leave_of_the_ratio(pattern: str, of: str) -> None:
    program = residual_program("post-activation")
    chosen = selector_of(program, of=of, pattern=pattern, ratio=2.5).select(program.parameters, 2.5)
    cut = masked(program, chosen.masks)
    small, _ = compact(cut)
    assert len(cut_blocks(cut)) == 1, "one of two blocks is more than a root of the ratio, two are too much"
    assert COUNTS[of](small) == pytest.approx(chosen.kept, abs=0.5)
    assert chosen.ratio >= 2.5


def test_without_a_share_for_blocks_widths_carry_all_they_can() -> None:
    program = residual_program("pre-activation")
    chosen = selector_of(program, pattern="layer+channel", unit_share=0.0).select(program.parameters, 1.3)
    assert cut_blocks(masked(program, chosen.masks)) == ()


def test_blocks_go_in_the_order_that_was_measured() -> None:
    program = residual_program("attention")
    names = [block.name for block in find_blocks(program).free]
    for first in names:
        order = (first, *(name for name in names if name != first))
        chosen = selector_of(program, order).select(program.parameters, 1.01)
        assert [block.name for block in cut_blocks(masked(program, chosen.masks))] == [first]


def test_magnitude_rates_what_makes_a_block_zero_against_that_of_other_blocks() -> None:
    program = residual_program("attention")
    blocks = find_blocks(program).free
    with torch.no_grad():
        for name in blocks[2].zeroed:
            program.module.get_parameter(name).mul_(0.1)
    scores = magnitudes(blocks, program.parameters)
    assert scores.argmin() == 2 and scores.mean() == pytest.approx(1.0)


def test_the_scope_and_what_is_kept_bound_the_choice() -> None:
    program = residual_program("attention")
    chosen = selector_of(program, scope=("blocks.1.mlp.*",), ratio=1.01).select(program.parameters, 1.01)
    assert [block.name for block in cut_blocks(masked(program, chosen.masks))] == ["blocks.1.mlp"]
    prices = block_prices(program, settings_of(keep=("blocks.0.*", "blocks.1.norm1")))
    assert [block.name for block in prices] == ["blocks.1.mlp"]


def test_a_ratio_beyond_all_blocks_names_what_they_reach_and_the_way_on() -> None:
    program = residual_program("attention")
    selector = selector_of(program, ratio=50.0)
    with pytest.raises(RatioError, match=r"by whole blocks is .*x; 4 of 4 residual blocks may go, but not all") as e:
        selector.select(program.parameters, 50.0)
    assert "--pattern layer+channel" in str(e.value)


@pytest.mark.parametrize(
    ("name", "said"),
    [("none", "the network has no residual block"), ("pinned", "no residual block in scope may go")],
)
def test_a_network_without_blocks_is_refused_with_other_patterns(name: str, said: str) -> None:
    program = residual_program(name)
    keep = ("blocks.1.*",) if name == "pinned" else ()
    with pytest.raises(PatternError, match=f"{said}[^\n]*\ncut widths instead: --pattern channel, filter or shape"):
        selector_of(program, keep=keep)


@pytest.mark.parametrize("pattern", ["layer", "channel", "shape", "unstructured", "layer+channel"])
def test_what_was_cut_before_counts_whatever_comes_on_top(pattern: str) -> None:
    """Blocks, and then any pattern: counted from the dense network, exact where it is removed."""
    program = residual_program("attention")
    first = masked(program, selector_of(program).select(program.parameters, 1.2).masks)
    before = {block.name for block in cut_blocks(first)}
    selector = selector_of(first, pattern=pattern, ratio=2.0)
    assert selector.dense == program.n_parameters
    chosen = selector.select(first.parameters, 2.0, first.masks)
    second = masked(program, chosen.masks)
    assert before <= {block.name for block in cut_blocks(second)} and chosen.ratio >= 2.0
    if pattern not in ("shape", "unstructured"):
        assert compact(second)[0].n_parameters == pytest.approx(chosen.kept)
    again = selector.select(second.parameters, 1.5, second.masks)
    assert all(torch.equal(again.masks[name], mask) for name, mask in second.masks.items())
