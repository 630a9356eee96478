"""`prune` from end to end on tiny data: every method and pattern, what it leaves untouched, what it refuses."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from compressor import capture
from compressor.asking import Admm, PruneSettings, Recipe
from compressor.axes import find_units
from compressor.compaction import compact
from compressor.data.arrays import ArraySource
from compressor.errors import RatioError, UsageError
from compressor.program import InputSpec, Program
from compressor.progress import Silent
from compressor.pruning import StageRow, prune
from compressor.pruning.admm import AdmmHook
from compressor.pruning.reporting import _unsettled
from compressor.pruning.run import evaluated_at_once
from compressor.sparsity import kept_units
from compressor.units import Params

SHORT = Recipe(epochs=2, batch_size=32, lr=5e-3)
METHODS = ("magnitude", "admm", "random")
PATTERNS = ("filter", "channel", "unstructured", "shape", "filter+shape", "channel+shape", "2:4", "block:1x4")
PHYSICAL = ("filter", "channel")


def state_of(program: Program) -> dict[str, Tensor]:
    return {name: tensor.detach().clone() for name, tensor in program.module.tensors().items()}


def same(a: dict[str, Tensor], b: dict[str, Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("pattern", PATTERNS)
def test_every_method_with_every_pattern(tiny: Program, data: ArraySource, method: str, pattern: str) -> None:
    before = state_of(tiny)
    settings = PruneSettings(
        ratio=2.0, method=method, pattern=pattern, prune_recipe=SHORT, retrain_recipe=SHORT  # type: ignore[arg-type]
    )  # fmt: skip
    pruned, report = prune(tiny, settings, data=data)
    assert report.got * (1 + 1e-9) >= 2.0 and report.got <= 2.0 * (1.02 if not report.warnings else 1.2)
    for name, mask in pruned.masks.items():
        assert not pruned.parameters[name].detach()[~mask].any(), name
    assert pruned.n_zeroed > 0 and not pruned.module.training
    assert same(before, state_of(tiny)) and not tiny.masks, "the input program is left untouched"
    assert report.stages[0].name == "dense" and all(row.metrics for row in report.stages)
    if pattern not in PHYSICAL:
        assert report.kept_params == pruned.n_parameters - pruned.n_zeroed
    else:
        smaller, _ = compact(pruned)
        assert report.kept_params == smaller.n_parameters and report.zeroed == 0
        assert smaller.record.dense_params == report.dense_params == tiny.n_parameters


def test_training_heals(tiny: Program, data: ArraySource) -> None:
    recipe = Recipe(epochs=10, batch_size=32, lr=1e-2)
    settings = PruneSettings(ratio=3.0, method="magnitude", retrain_recipe=recipe)
    _, report = prune(tiny, settings, data=data)
    cut, healed = report.stages[0].metrics, report.stages[-1].metrics
    assert cut is not None and healed is not None and healed["accuracy"] > 0.9 > cut["accuracy"]


def test_steps_end_at_the_asked_ratio(tiny: Program, data: ArraySource) -> None:
    settings = PruneSettings(ratio=3.0, method="magnitude", steps=3, prune_recipe=SHORT, retrain_recipe=SHORT)
    pruned, report = prune(tiny, settings, data=data)
    assert [row.name for row in report.stages] == ["dense", "step 1/3", "step 2/3", "step 3/3"]
    sizes = [row.params for row in report.stages]
    assert sizes == sorted(sizes, reverse=True) and sizes[-1] == pruned.n_parameters - pruned.n_zeroed
    assert report.stages[-1].ratio == report.got >= 3.0


class Listener(Silent):
    """What was told, by name."""

    def __init__(self) -> None:
        self.finished: dict[str, list[str]] = {}
        self.seen: set[tuple[str, ...]] = set()

    def advance(self, n: int = 1, /, **values: float) -> None:
        self.seen.add(tuple(values))

    def finish(self, stage: str, **values: float) -> None:
        self.finished[stage] = list(values)


def test_staged_admm_holds_what_earlier_stages_cut(tiny: Program, data: ArraySource) -> None:
    settings = PruneSettings(ratio=4.0, admm=Admm(stages=2), prune_recipe=SHORT, retrain_recipe=SHORT)
    _, report = prune(tiny, settings, data=data)
    names = [row.name for row in report.stages]
    assert names == ["dense", "admm 1/2", "hard prune 1/2", "admm 2/2", "hard prune 2/2", "retrain"]
    first = next(row for row in report.stages if row.name == "hard prune 1/2")
    assert report.stages[-1].params < first.params and report.got >= 4.0
    assert all("residual" in row.extra for row in report.stages if row.name.startswith("admm"))
    assert not any("sparsity" in row.extra for row in report.stages), "a stage's parameters say what is cut"
    reached = [row.history[-1]["sparsity"] for row in report.stages if row.history]
    left = 1 - report.stages[-1].params / tiny.n_parameters
    assert reached[0] < reached[1] == pytest.approx(left, abs=0.02) and reached[2] == pytest.approx(left)


def test_progress_tells_metric_sparsity_and_residual(tiny: Program, data: ArraySource) -> None:
    listener = Listener()
    prune(
        tiny,
        PruneSettings(ratio=4.0, method="admm", prune_recipe=SHORT, retrain_recipe=SHORT),
        data=data,
        progress=listener,
    )
    assert listener.finished["admm"] == ["accuracy", "penalty", "sparsity", "residual"]
    assert listener.finished["retrain"] == ["accuracy", "sparsity"]
    assert listener.seen >= {("loss",), ("loss", "accuracy", "penalty", "sparsity", "residual")}


def test_without_recipes_it_only_cuts(tiny: Program) -> None:
    pruned, report = prune(tiny, PruneSettings(ratio=2.0))
    for name, parameter in pruned.parameters.items():
        dense = tiny.parameters[name]
        assert torch.equal(parameter, dense * pruned.masks[name] if name in pruned.masks else dense)
    assert [row.name for row in report.stages] == ["dense", "hard prune"]
    assert report.stages[-1].metrics is None


def test_training_without_data_is_a_usage_error(tiny: Program) -> None:
    for changes in ({"prune_recipe": SHORT}, {"retrain_recipe": SHORT}):
        with pytest.raises(UsageError, match="no data: pruning retrains the network; give --data, or --no-retrain"):
            prune(tiny, PruneSettings(ratio=2.0, **changes))  # type: ignore[arg-type]


def test_an_infeasible_ratio_is_found_before_training(tiny: Program, data: ArraySource) -> None:
    class Untouched:
        ref = "untouched"

    with pytest.raises(RatioError, match="largest feasible"):
        prune(tiny, PruneSettings(ratio=1e6, prune_recipe=SHORT, retrain_recipe=SHORT), data=Untouched())  # type: ignore[arg-type]


def test_a_program_pruned_twice_stays_cut_where_it_was(tiny: Program, data: ArraySource) -> None:
    first, _ = prune(
        tiny, PruneSettings(ratio=1.5, method="magnitude", scope=("one", "two"), retrain_recipe=SHORT), data=data
    )
    again = PruneSettings(ratio=1.5, method="magnitude", scope=("hidden",), retrain_recipe=SHORT)
    for settings in (again, replace(again, method="admm", prune_recipe=SHORT), replace(again, pattern="unstructured")):
        second, _ = prune(first, settings, data=data)
        for name, mask in first.masks.items():
            assert not (second.masks[name] & ~mask).any(), f"{settings.pattern}: {name} was given back"
            assert not second.parameters[name].detach()[~mask].any()
        assert second.n_zeroed > first.n_zeroed
    units = find_units(tiny)
    assert not kept_units(units, first.masks, first.parameters).all()


def test_the_record_remembers_the_dense_size_through_two_prunings(tiny: Program) -> None:
    once, _ = prune(tiny, PruneSettings(ratio=2.0))
    small, _ = compact(once)
    twice, _ = prune(small, PruneSettings(ratio=1.5))
    assert twice.record.dense_params == tiny.n_parameters > small.n_parameters


def test_a_budget_in_macs(tiny: Program) -> None:
    pruned, report = prune(tiny, PruneSettings(ratio=2.0, of="macs"))
    assert report.got >= 2.0 and report.dense_macs / report.kept_macs == pytest.approx(report.got)
    _, after = compact(pruned)
    assert after.compact_macs == report.kept_macs


def test_distillation_learns_from_the_dense_network(tiny: Program, data: ArraySource) -> None:
    taught = replace(SHORT, distill=1.0)
    alone, _ = prune(tiny, PruneSettings(ratio=2.0, method="magnitude", retrain_recipe=SHORT), data=data)
    after, _ = prune(tiny, PruneSettings(ratio=2.0, method="magnitude", retrain_recipe=taught), data=data)
    assert not same(state_of(alone), state_of(after))
    assert {p.device.type for p in after.module.parameters()} == {"cpu"}


def test_coarse_units_are_said(tiny: Program) -> None:
    _, report = prune(tiny, PruneSettings(ratio=1.3, round_to=8))
    assert report.got > 1.3 * 1.02
    assert report.warnings and "in multiples of 8 come no closer" in report.warnings[0]


def test_the_seed_decides(tiny: Program, data: ArraySource) -> None:
    settings = PruneSettings(ratio=2.0, method="magnitude", retrain_recipe=SHORT, seed=5)
    first, again = (prune(tiny, settings, data=data)[0] for _ in range(2))
    other, _ = prune(tiny, replace(settings, seed=6), data=data)
    assert same(state_of(first), state_of(again)) and not same(state_of(first), state_of(other))


@pytest.mark.parametrize("first", ["channel", "shape", "unstructured"])
@pytest.mark.parametrize("second", ["channel", "channel+shape", "unstructured", "block:1x4"])
@pytest.mark.parametrize("method", ["magnitude", "random"])
def test_a_second_run_reaches_its_ratio_and_no_more(tiny: Program, first: str, second: str, method: str) -> None:
    before, _ = prune(tiny, PruneSettings(ratio=1.5, method="random", pattern=first))
    pruned, report = prune(before, PruneSettings(ratio=3.0, method=method, pattern=second, seed=7))  # type: ignore[arg-type]
    assert 3.0 * (1 - 1e-9) <= report.got <= 3.0 * (1.02 if not report.warnings else 1.1)
    for name, mask in before.masks.items():
        assert not (pruned.masks[name] & ~mask).any()


def test_a_second_run_below_what_was_cut_says_so(tiny: Program) -> None:
    before, first = prune(tiny, PruneSettings(ratio=4.0))
    for asked in (2.0, 3.0):
        pruned, report = prune(before, PruneSettings(ratio=asked))
        assert pruned.n_zeroed == before.n_zeroed
        told = rf"asked {asked:.2f}x, but 4\.\d+x was cut before: nothing to cut"
        assert any(re.match(told, w) for w in report.warnings)
    for cut in first.layers:
        assert cut.kept <= cut.dense == len(tiny.parameters[f"{cut.name}.weight"]), cut.name


def test_columns_are_in_the_report(tiny: Program) -> None:
    pruned, report = prune(tiny, PruneSettings(ratio=3.0, pattern="filter+shape"))
    rows = {cut.name: cut for cut in report.layers}
    for name, cut in rows.items():
        mask = pruned.masks.get(f"{name}.weight")
        assert cut.columns is not None and cut.columns[1] == pruned.parameters[f"{name}.weight"][0].numel()
        if mask is not None:
            assert cut.columns[0] == int(mask.any(0).sum()) and cut.kept == int(mask.flatten(1).any(1).sum())
    assert any(cut.columns[0] < cut.columns[1] for cut in rows.values() if cut.columns)
    assert report.zeroed == 0, "all of it can be removed"
    _, plain = prune(tiny, PruneSettings(ratio=3.0))
    assert all(cut.columns is None for cut in plain.layers)


class Recurrent(nn.Module):
    """A recurrent layer and a bilinear one, which have no single dimension of channels."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.lstm, self.pair = nn.Linear(6, 16), nn.LSTM(16, 12, batch_first=True), nn.Bilinear(12, 12, 3)

    def forward(self, x: Tensor) -> Tensor:
        h = self.lstm(self.first(x).relu())[0][:, -1]
        return self.pair(h, h)


def test_every_layer_that_multiplies_is_in_the_report() -> None:
    torch.manual_seed(0)
    program = capture(Recurrent().eval(), InputSpec("x", (None, 5, 6)))
    pruned, report = prune(program, PruneSettings(ratio=2.0, pattern="channel", method="magnitude", round_to=1))
    rows = {cut.name: cut for cut in report.layers}
    assert list(rows) == ["first", "lstm", "pair"] and rows["lstm"].dense == 4 * 12 > rows["lstm"].kept
    assert sum(cut.dense_params for cut in report.layers) == program.n_parameters
    assert sum(cut.kept_params for cut in report.layers) == compact(pruned)[0].n_parameters


def test_layers_that_a_pattern_does_not_fit_are_said(tiny: Program) -> None:
    _, report = prune(tiny, PruneSettings(ratio=2.0, pattern="2:4"))
    assert report.got == 2.0 and report.dense_params / report.kept_params < 2
    assert report.warnings == ("left dense: one (2:4 needs input channels divisible by 4, got 1)",)


@pytest.mark.parametrize("pattern", ["channel+shape", "2:4"])
def test_admm_draws_the_weights_into_the_pattern(tiny: Program, data: ArraySource, pattern: str) -> None:
    recipe = Recipe(epochs=20, batch_size=16, lr=1e-2)
    _, report = prune(tiny, PruneSettings(ratio=2.0, pattern=pattern, prune_recipe=recipe), data=data)
    drawn, cut = report.stages[1], report.stages[2]
    constant = PruneSettings(ratio=2.0, pattern=pattern, prune_recipe=recipe, admm=Admm(rho_growth=1.0))
    _, free = prune(tiny, constant, data=data)
    assert drawn.name == "admm" and drawn.extra["residual"] < 0.5 * free.stages[1].extra["residual"]
    assert cut.metrics is not None and drawn.metrics is not None
    assert abs(cut.metrics["accuracy"] - drawn.metrics["accuracy"]) < 0.1, "the hard prune costs next to nothing"


def test_the_penalty_spans_its_range_over_the_epochs(tiny: Program, data: ArraySource) -> None:
    recipe = Recipe(epochs=5, batch_size=80)
    _, report = prune(
        tiny, PruneSettings(ratio=2.0, prune_recipe=recipe, admm=Admm(residual=0.0, rho_max=1.0)), data=data
    )
    assert report.stages[1].extra["rho"] == pytest.approx(1.0)
    slow = Admm(residual=0.0, rho=0.01, rho_growth=2.0, updates=5)
    _, report = prune(tiny, PruneSettings(ratio=2.0, prune_recipe=recipe, admm=slow), data=data)
    assert report.stages[1].extra["rho"] == pytest.approx(0.16)


def test_a_layer_with_a_penalty_of_its_own(tiny: Program, data: ArraySource) -> None:
    recipe = Recipe(epochs=2, batch_size=80)
    common = PruneSettings(ratio=2.0, pattern="unstructured", prune_recipe=recipe)
    own = replace(common, admm=Admm(layer_rho=(("hid*", 10.0),)))
    a, b = (prune(tiny, settings, data=data)[0] for settings in (common, own))
    assert not torch.equal(a.parameters["hidden.weight"], b.parameters["hidden.weight"])
    with pytest.raises(UsageError, match="--layer-rho fc9: matches no layer; layers are bn1"):
        prune(tiny, replace(common, admm=Admm(layer_rho=(("fc9", 1.0),))), data=data)


def test_weights_that_have_not_settled_are_said(tiny: Program, data: ArraySource) -> None:
    short = PruneSettings(ratio=2.0, prune_recipe=SHORT, admm=Admm(rho_max=1e-3))
    _, report = prune(tiny, short, data=data)
    assert any(
        re.match(r"residual [\d.]+ before the hard prune: the weights had not settled", w) for w in report.warnings
    )
    rows = (StageRow("admm", 1.0, Params(1), 1, 0.0, None, {"residual": residual}) for residual in (0.5, 0.01))
    assert len(_unsettled(tuple(rows))) == 0, "the last stage counts"


def test_the_hard_prune_cuts_what_was_drawn_to_nothing(
    tiny: Program, data: ArraySource, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where a ranking of the weights as they are would cut others, because they had not settled."""
    seen: list[AdmmHook] = []
    renew = AdmmHook.renew
    monkeypatch.setattr(AdmmHook, "renew", lambda self: (seen.append(self), renew(self))[1])
    weak = Admm(rho=1e-6, rho_max=1e-6, hold=0.0)
    settings = PruneSettings(ratio=2.0, pattern="unstructured", prune_recipe=SHORT, admm=weak)
    pruned, report = prune(tiny, settings, data=data)
    drawn = seen[-1].masks
    assert all(torch.equal(pruned.masks[name], mask) for name, mask in drawn.items())
    assert report.got >= 2.0
    monkeypatch.setattr(AdmmHook, "masks", property(lambda self: {}))
    ranked, _ = prune(tiny, settings, data=data)
    assert any(not torch.equal(ranked.masks[name], mask) for name, mask in drawn.items()), "the twin"


@pytest.mark.parametrize("method", ["admm", "group-lasso"])
def test_a_search_tells_its_penalty_and_the_residual_of_every_tensor(
    tiny: Program, data: ArraySource, method: str
) -> None:
    settings = PruneSettings(ratio=2.0, method=method, prune_recipe=SHORT)  # type: ignore[arg-type]
    _, report = prune(tiny, settings, data=data)
    search = report.stages[1]
    assert all(row["penalty"] >= 0 and row["residual"] > 0 for row in search.history)
    assert search.history[0]["penalty"] > 0 and {"one.weight", "bn1.weight", "hidden.weight"} <= set(search.residuals)
    assert 0 < max(search.residuals.values()) <= 1 and not report.stages[2].residuals
    planned = [row["planned residual"] for row in search.history]
    assert planned == sorted(planned, reverse=True) and planned[-1] == 0.0, "a straight line, gone when it should be"
    fixed = replace(settings, admm=Admm(rho_growth=2.0))
    assert not any("planned residual" in row for row in prune(tiny, fixed, data=data)[1].stages[1].history), "no aim"
    assert "planned residual" not in search.extra


def test_fewer_samples_are_evaluated_at_once_where_each_is_answered_with_much(tiny: Program) -> None:
    class Words(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.table, self.out = torch.nn.Embedding(9, 4), torch.nn.Linear(4, 5000)

        def forward(self, ids: torch.Tensor) -> torch.Tensor:
            out: torch.Tensor = self.out(self.table(ids))
            return out

    words = capture(Words(), [InputSpec("ids", (None, 32), dtype="int64", high=9)])
    assert evaluated_at_once(tiny) == 1000 and evaluated_at_once(words) == (1 << 24) // (32 * 5000)
