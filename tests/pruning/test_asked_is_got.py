"""Asked = got in MACs: what `prune` says a network will have is what `compact` leaves, and what torch counts there."""

from __future__ import annotations

import pytest
import torch.nn.functional as F
from torch import Tensor, nn

import compressor.sparsity.budget as budget_module
from benchmarks.macs import differences, torch_counts
from compressor.analysis import analyze
from compressor.asking import PruneSettings
from compressor.axes import find_units
from compressor.compaction import compact
from compressor.cost import Term, count_macs, mac_terms
from compressor.errors import RatioError
from compressor.program import InputSpec, Program, capture, find_layers
from compressor.pruning import prune
from compressor.sparsity import Budget
from tests.pruning.counted_networks import NETWORKS, program_of

NOT_BY_TORCH = {"mixed": ["aten.bilinear.default"]}
CASES = [
    *((name, "channel", ratio) for name in NETWORKS for ratio in (1.3, 2.2)),
    *((name, "filter", 1.7) for name in ("scaled weights", "standardised weights", "attention by einsum", "mixed")),
    *((name, "head", 1.4) for name in NETWORKS if name.startswith("attention")),
    *((name, pattern, 1.6) for name in ("standardised weights", "mixed") for pattern in ("shape", "filter+shape")),
]


@pytest.mark.parametrize(("name", "pattern", "ratio"), CASES)
def test_what_prune_says_is_what_compact_leaves_and_torch_counts(name: str, pattern: str, ratio: float) -> None:
    program = program_of(name)
    pruned, asked = prune(program, PruneSettings(ratio=ratio, of="macs", pattern=pattern, method="magnitude"))
    smaller, got = compact(pruned, lowering="columns")
    assert analyze(program).macs == asked.dense_macs == got.dense_macs == count_macs(program)
    assert asked.kept_macs == asked.compact_macs == got.compact_macs == count_macs(smaller) == analyze(smaller).macs
    assert asked.kept_params == asked.compact_params == got.compact_params == smaller.n_parameters
    assert asked.got == pytest.approx(got.dense_macs / got.compact_macs, rel=1e-12)
    assert ratio <= asked.got and (asked.got <= 1.02 * ratio or any("come no closer" in w for w in asked.warnings))
    apart = differences(smaller, smaller.sampled_batch)
    assert list(apart) == NOT_BY_TORCH.get(name, [])
    assert got.compact_macs == sum(torch_counts(smaller, 1).values()) + sum(ours for ours, _ in apart.values())


@pytest.mark.parametrize("name", ["scaled weights", "low-rank additions", "attention by einsum"])
def test_twin_a_budget_of_layers_with_own_weights_alone_is_noticed(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def of_layers(program: Program) -> tuple[Term, ...]:
        nodes = {layer.node for layer in find_layers(program)}
        return tuple(term for term in mac_terms(program) if term.owner in nodes)

    monkeypatch.setattr(budget_module, "mac_terms", of_layers)
    with pytest.raises((AssertionError, RatioError)):
        test_what_prune_says_is_what_compact_leaves_and_torch_counts(name, "channel", 1.3)


def test_a_layer_with_a_computed_weight_is_in_scope_and_in_the_table() -> None:
    program = program_of("scaled weights")
    of_second = 64 * 32 * 16 * 9
    assert Budget.of_macs(program, find_units(program), ["2.weight"]).dense == of_second
    assert {row.name: row.macs for row in analyze(program).layers}["2.weight"] == of_second
    pruned, report = prune(
        program, PruneSettings(ratio=2, of="macs", pattern="channel", method="magnitude", scope=("2.weight",))
    )
    kept = count_macs(compact(pruned)[0])
    assert report.got >= 2 and report.compact_macs == kept


def test_what_a_weight_is_computed_by_counts_once_for_the_layer_that_it_is_for() -> None:
    program = program_of("low-rank additions")
    rows = {row.name: row.macs for row in analyze(program).layers}
    assert rows["0.weight"] == 12 * 40 and rows["0.up"] == 12 * 40 * 2
    assert sum(rows.values()) == count_macs(program) == 12 * 40 * 3 + 40 * 30 * 3 + 30 * 5


def test_masked_weights_of_a_shared_layer_are_saved_by_every_reader() -> None:
    class Shared(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b, self.out = nn.Linear(6, 20), nn.Linear(20, 20), nn.Linear(20, 5)

        def forward(self, x: Tensor) -> Tensor:
            return self.out(F.relu(self.b(F.relu(self.b(F.relu(self.a(x)))))))

    program = capture(Shared(), [InputSpec("x", (None, 6))])
    pruned, report = prune(program, PruneSettings(ratio=2, of="macs", pattern="unstructured", method="magnitude"))
    cut = {name: int((~mask).sum()) for name, mask in pruned.masks.items()}
    assert report.dense_macs - report.kept_macs == cut["a.weight"] + 2 * cut["b.weight"] + cut["out.weight"]
    assert report.got == pytest.approx(report.dense_macs / report.kept_macs)
    assert (report.compact_macs, report.compact_params) == (report.dense_macs, report.dense_params)
