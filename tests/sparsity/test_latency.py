"""Measured time as a budget, from a stopwatch that is scripted: which widths are asked for, and what a choice costs."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
import torch
from torch import nn

from compressor.asking import PruneSettings
from compressor.axes import find_units
from compressor.compaction import compact
from compressor.cost import Preference, Preferences, count_macs, macs_of_layers
from compressor.cost.preferences import KINDS
from compressor.errors import UsageError
from compressor.program import InputSpec, Program, arguments, capture, find_layers
from compressor.progress import Silent
from compressor.pruning import prune
from compressor.sparsity import LatencyBudget
from compressor.sparsity.latency import layer_trial
from tests.kernels import Broken, Kernels
from tests.pruning.counted_networks import program_of


class ByWork:
    """A stopwatch by which a program takes as long as it has multiply-adds."""

    def __init__(self) -> None:
        self.asked = 0

    def seconds(self, programs: Sequence[Program], batch: int = 1) -> tuple[float, ...]:
        self.asked += len(programs)
        return tuple(1e-9 * count_macs(program) for program in programs)


def net() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(3, 64, 3, padding=1), nn.ReLU(), nn.Conv2d(64, 96, 3, padding=1), nn.ReLU(), nn.Flatten(),
        nn.Linear(96 * 36, 10),
    )  # fmt: skip


@pytest.fixture(scope="module")
def program() -> Program:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return capture(net(), [InputSpec("x", (None, 3, 6, 6))])


def test_a_choice_costs_the_sum_of_its_layers(program: Program) -> None:
    """The stopwatch is linear in each width, so that interpolation makes no error and MACs say what is right."""
    units = find_units(program)
    budget = LatencyBudget.measured(program, units, ByWork())
    assert budget.dense == pytest.approx(1e-9 * count_macs(program), rel=1e-6)
    keep = np.arange(units.n_units) % 2 == 0
    first, second, last = macs_of_layers(program).values()
    assert budget.cost(keep) == pytest.approx(1e-9 * (first / 2 + second / 4 + last / 2), rel=0.02)


def test_only_the_named_layers_count(program: Program) -> None:
    units = find_units(program)
    budget = LatencyBudget.measured(program, units, ByWork(), ["2"])
    assert budget.dense == pytest.approx(1e-9 * list(macs_of_layers(program).values())[1], rel=1e-6)


@pytest.mark.parametrize(
    ("layer", "shape", "widths", "weight", "channels", "groups"),
    [
        (nn.Conv2d(32, 64, 3, groups=2), (32, 8, 8), (16, 8), (16, 8, 3, 3), 16, 2),
        (nn.Conv2d(32, 64, 3, groups=32), (32, 8, 8), (16, 1), (16, 1, 3, 3), 8, 8),
        (nn.Conv1d(32, 64, 3), (32, 9), (16, 8), (16, 8, 3), 8, 1),
        (nn.ConvTranspose2d(32, 64, 3, groups=2), (32, 8, 8), (16, 8), (8, 16, 3, 3), 8, 2),
        (nn.Linear(32, 64), (5, 32), (16, 8), (16, 8), 32, None),
    ],
)
def test_a_trial_has_the_widths_of_the_weights_axes(
    layer: nn.Module, shape: tuple[int, ...], widths: tuple[int, int], weight: tuple[int, ...], channels: int,
    groups: int | None,
) -> None:  # fmt: skip
    program = capture(layer, [InputSpec("x", (None, *shape))])
    (found,) = [x for x in find_layers(program) if x.in_dim is not None]
    node = next(n for n in program.module.graph.nodes if n.name == found.node)
    trial = layer_trial(program, found, node, *widths)
    assert tuple(trial.parameters["layer.weight"].shape) == weight
    wanted = 8 if isinstance(layer, nn.Linear) else channels
    assert trial.inputs[0].shape[-1 if isinstance(layer, nn.Linear) else 1] == wanted
    made = next(n for n in trial.module.graph.nodes if n.op == "call_function")
    assert arguments(made).get("groups") == groups
    with torch.no_grad():
        trial.module(*trial.example_inputs(2))  # it runs


def test_prune_reaches_a_ratio_of_time(program: Program) -> None:
    clock = ByWork()
    pruned, report = prune(program, PruneSettings(ratio=4.0, method="magnitude", of="latency"), stopwatch=clock)
    assert clock.asked > 0 and report.of == "latency"
    assert 4.0 <= report.got < 4.2
    small, _ = compact(pruned)
    assert report.got == pytest.approx(count_macs(program) / count_macs(small), rel=0.01), "time is work by this clock"
    assert report.kept_macs == count_macs(small)


def test_what_no_table_holds_is_said(program: Program) -> None:
    settings = PruneSettings(ratio=1.5, of="latency", method="magnitude", round_to=1)
    assert prune(program, settings, stopwatch=ByWork())[1].warnings == ()
    scaled = program_of("scaled weights")
    share = 100 * 64 * (16 * 27 + 32 * 144) / count_macs(scaled)
    _, report = prune(scaled, settings, stopwatch=ByWork())
    told = "conv2d, which are not timed alone, are in no table of widths"
    assert f"latency leaves out {share:.1f} % of the MACs: {told}" in report.warnings


def test_prune_leaves_widths_that_were_measured_to_be_fast(program: Program) -> None:
    clock = Kernels(Preferences(dict.fromkeys(KINDS, Preference(8, 8, odd=1.5))))
    pruned, report = prune(program, PruneSettings(ratio=2.5, method="magnitude"), stopwatch=clock)
    kept = [int(pruned.masks[name].any(dim=(1, 2, 3)).sum()) for name in ("0.weight", "2.weight")]
    assert clock.asked > 0 and report.got >= 2.5
    assert [n % 8 for n in kept] == [0, 0] and kept[0] < 64 and kept[1] < 96


def test_prune_says_so_where_nothing_can_be_measured(program: Program) -> None:
    told = Told()
    broken, _ = prune(program, PruneSettings(ratio=2.5, method="magnitude"), stopwatch=Broken(), progress=told)
    usual, _ = prune(program, PruneSettings(ratio=2.5, method="magnitude"))
    assert len(told.notes) == 1 and told.notes[0].startswith("no width could be measured")
    assert all(torch.equal(mask, usual.masks[name]) for name, mask in broken.masks.items())


def test_nothing_is_measured_that_nobody_needs(program: Program) -> None:
    for settings in (
        PruneSettings(ratio=2.5, method="magnitude", round_to=1),
        PruneSettings(ratio=2.5, method="magnitude", pattern="unstructured"),
    ):
        clock = Kernels(Preferences())
        prune(program, settings, stopwatch=clock)
        assert clock.asked == 0


class Told(Silent):
    """A progress that keeps its notes."""

    def __init__(self) -> None:
        self.notes: list[str] = []

    def note(self, text: str) -> None:
        self.notes.append(text)


@pytest.mark.parametrize("asked", [{"of": "latency"}, {"allocation": "latency"}])
def test_without_a_stopwatch_nothing_is_guessed(program: Program, asked: dict) -> None:
    with pytest.raises(UsageError, match=r"no stopwatch: latency is measured; give prune a compressor.OperatorClock"):
        prune(program, PruneSettings(ratio=2.0, method="magnitude", **asked))


@pytest.mark.parametrize("pattern", ["filter+shape", "shape", "unstructured"])
def test_time_is_known_of_widths_only(pattern: str) -> None:
    with pytest.raises(UsageError, match=r"--of latency: measures widths; --pattern .* changes none"):
        PruneSettings(ratio=2.0, pattern=pattern, of="latency")


def test_time_cannot_be_counted_and_decide_between_equals() -> None:
    with pytest.raises(UsageError, match="--of latency: already counts time"):
        PruneSettings(ratio=2.0, of="latency", allocation="latency")
