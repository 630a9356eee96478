"""Lowering of a whole program: who is found, who is refused and why, what is chosen, and that all still works."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import prod
from pathlib import Path
from typing import Literal

import pytest
import torch
from torch import Tensor, nn

from compressor.asking import PruneSettings
from compressor.compaction import compact, lower, verify
from compressor.compaction.lowering_plan import find_candidates
from compressor.compaction.lowering_trial import trial_program
from compressor.errors import CompressError
from compressor.exporting import export_onnx
from compressor.formats import load, save
from compressor.program import InputSpec, Program, capture
from compressor.pruning import prune

_GROUPS = {"pair": 2}


class Net(nn.Module):
    """A small network in which every kind of column is zero."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, padding=1)
        self.pair = nn.Conv2d(8, 8, 3, padding=1, groups=2)
        self.wide = nn.Conv2d(8, 12, 3, padding=1, stride=2)
        self.fc = nn.Linear(12 * 9, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x).relu()
        x = (x + self.pair(x)).relu()
        return self.fc(self.wide(x).relu().flatten(1))


def sparse_net() -> Program:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        net = Net()
        with torch.no_grad():
            net.pair.weight[:, 1:3] = 0
            net.wide.weight[:, torch.rand(8, 3, 3) < 0.8] = 0
            net.fc.weight[:, 40:] = 0
    return capture(net, [InputSpec("x", (None, 3, 6, 6))])


@pytest.fixture(scope="module")
def sparse() -> Program:
    return sparse_net()


class Scripted:
    """A stopwatch that finds forms as fast as told: by the number of weights, or all alike."""

    def __init__(self, per_weight: float) -> None:
        self.per_weight, self.seen = per_weight, 0

    def seconds(self, programs: Sequence[Program], batch: int = 1) -> tuple[float, ...]:
        self.seen += len(programs)
        return tuple(1e-3 + self.per_weight * p.n_parameters for p in programs)


def outputs(program: Program) -> Tensor:
    with torch.no_grad():
        return program.module(*program.example_inputs(3))


def test_layers_with_columns_of_zeros_are_found_in_order(sparse: Program) -> None:
    found = find_candidates(sparse)
    assert [c.layer.name for c in found] == ["pair", "wide", "fc"]
    assert (found[0].n_used, found[0].n_columns) == (36, 72)
    assert [form.name for form in found[2].forms] == ["dense", "gather"]


def test_auto_takes_what_the_stopwatch_finds_fastest(sparse: Program) -> None:
    small, layers = lower(sparse, "auto", Scripted(1e-5))
    assert [layer.form for layer in layers] == ["gather", "columns", "gather"]
    assert all(min(layer.seconds, key=layer.seconds.__getitem__) == layer.form for layer in layers)
    assert small.parameters["pair.weight"].shape == (8, 2, 3, 3)
    assert small.parameters["wide.weight"].shape == (12, layers[1].n_used, 1, 1)
    assert small.parameters["fc.weight"].shape == (5, 40)
    assert torch.allclose(outputs(small), outputs(sparse), atol=1e-5)
    assert verify(sparse, small).float64_relative < 1e-12


def test_auto_keeps_dense_what_is_faster_dense(sparse: Program) -> None:
    small, layers = lower(sparse, "auto", Scripted(-1e-6))
    assert [layer.form for layer in layers] == ["dense"] * 3 and small is sparse


def test_of_equally_fast_forms_the_smallest_is_taken(sparse: Program) -> None:
    _, layers = lower(sparse, "auto", Scripted(1e-12))
    assert "dense" not in [layer.form for layer in layers]


def test_without_a_stopwatch_nothing_is_guessed(sparse: Program) -> None:
    small, layers = lower(sparse)
    assert small is sparse
    assert {layer.reason for layer in layers} == {"no stopwatch to choose with"}


def windowed_net() -> Program:
    """One layer whose columns lie in a part of the window, one where whole channels are missing too."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        net = Net()
        with torch.no_grad():
            net.pair.weight[:, :, 0] = 0
            net.wide.weight[:, :, :, 2] = 0
            net.wide.weight[:, 3:5] = 0
    return capture(net, [InputSpec("x", (None, 3, 6, 6))])


@pytest.mark.parametrize(
    ("made", "choice", "takes"),
    [
        (sparse_net, "gather", {"pair", "wide", "fc"}),
        (windowed_net, "gather", {"wide"}),
        (windowed_net, "box", {"pair", "wide"}),
        (windowed_net, "gather+box", {"wide"}),
    ],
)
def test_a_form_is_taken_where_a_layer_has_it(made: Callable[[], Program], choice: str, takes: set[str]) -> None:
    program = made()
    small, layers = lower(program, choice)  # type: ignore[arg-type]
    assert {layer.name for layer in layers if layer.form == choice} == takes
    for layer in layers:
        assert layer.form == choice or (layer.form == "dense" and f"it has no form {choice}" in str(layer.reason))
    assert torch.allclose(outputs(small), outputs(program), atol=1e-5)


def test_columns_leaves_no_unused_column_whatever_the_form(sparse: Program) -> None:
    small, layers = lower(sparse, "columns")
    assert {layer.name: layer.form for layer in layers} == {"pair": "gather", "wide": "columns", "fc": "gather"}
    assert all(prod(layer.after[1:]) * _GROUPS.get(layer.name, 1) == layer.n_used for layer in layers)
    assert torch.allclose(outputs(small), outputs(sparse), atol=1e-5)


class Mixed(nn.Module):
    """Layers that can be lowered between some that cannot, and a depthwise one."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(1, 8, 5, padding=2)
        self.deep = nn.Conv2d(8, 8, 3, padding=1, groups=8)
        self.up = nn.ConvTranspose2d(8, 6, 2, 2)
        self.down = nn.Conv2d(6, 8, 3, stride=2)
        self.line = nn.Conv1d(8, 8, 3, padding=1)
        self.again = nn.Linear(16, 16)
        self.fc = nn.Linear(128, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.up(self.deep(self.stem(x).relu()).relu()).relu()
        x = self.line(self.down(x).relu().flatten(2)).relu()
        return self.fc(self.again(self.again(x).relu()).flatten(1))


@pytest.mark.parametrize("pattern", ["shape", "shape:channel", "shape:position", "filter+shape", "channel+shape"])
@pytest.mark.parametrize("of", ["params", "macs"])
def test_what_a_pattern_counts_is_what_lowering_saves(pattern: str, of: Literal["params", "macs"]) -> None:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        dense = capture(Mixed(), [InputSpec("x", (None, 1, 5, 5))])
    pruned, told = prune(dense, PruneSettings(ratio=1.2, method="magnitude", pattern=pattern, of=of, floor=0.0))
    _, report = compact(pruned, lowering="columns")
    saved = {"params": report.dense_params / report.compact_params, "macs": report.dense_macs / report.compact_macs}
    assert told.got == pytest.approx(saved[of], rel=1e-9) and told.got >= 1.2
    assert report.still_zeroed == 0


def test_dense_asks_nothing(sparse: Program) -> None:
    clock = Scripted(1.0)
    small, layers = lower(sparse, "dense", clock)
    assert small is sparse and clock.seen == 0 and {layer.reason for layer in layers} == {"asked for"}


def test_the_input_is_left_untouched() -> None:
    program = sparse_net()
    before = outputs(program)
    lower(program, "columns")
    assert torch.equal(outputs(program), before) and program.parameters["wide.weight"].shape == (12, 8, 3, 3)


def test_masks_of_what_is_left_stay(sparse: Program) -> None:
    mask = sparse.parameters["wide.weight"] != 0
    mask[0] = False
    masked = sparse.replace(masks={"wide.weight": mask})
    small, _ = lower(masked, "columns")
    kept = small.masks["wide.weight"]
    assert kept.shape == small.parameters["wide.weight"].shape and not kept[0].any() and kept[1:].all()


def test_zeros_without_a_mask_are_weights_where_masks_alone_count(sparse: Program) -> None:
    assert lower(sparse, "gather", masks_only=True) == (sparse, ())
    mask = torch.ones(5, 108, dtype=torch.bool)
    mask[:, 40:] = False
    _, layers = lower(sparse.replace(masks={"fc.weight": mask}), "gather", masks_only=True)
    assert [(layer.name, layer.form) for layer in layers] == [("fc", "gather")]


def test_a_lowered_program_is_stored_exported_and_trained(sparse: Program, tmp_path: Path) -> None:
    small, _ = lower(sparse, "columns")
    save(small, tmp_path / "small.pt")
    again = load(tmp_path / "small.pt")
    assert torch.equal(outputs(again), outputs(small))
    assert export_onnx(again, tmp_path / "small.onnx").max_rel < 1e-4
    again.module(*again.example_inputs(2)).sum().backward()
    gradient = again.parameters["wide.weight"].grad
    assert gradient is not None and bool((gradient != 0).any())


def test_a_second_lowering_finds_only_what_is_new(sparse: Program) -> None:
    small, _ = lower(sparse, "gather")
    with torch.no_grad():
        small.parameters["wide.weight"][:, :2] = 0
    twice, layers = lower(small, "gather")
    assert [layer.name for layer in layers if layer.form == "gather"] == ["wide"]
    assert torch.allclose(outputs(twice), outputs(small), atol=1e-6)


def test_the_record_knows_which_channels_a_gather_kept(sparse: Program) -> None:
    small, _ = lower(sparse, "gather")
    assert small.record.kept["fc.weight"]["1"] == list(range(40))
    assert small.record.dense_shapes["fc.weight"] == [5, 108]
    columns, _ = lower(sparse, "columns")
    assert "wide.weight" not in columns.record.kept
    assert columns.record.dense_shapes["wide.weight"] == [12, 8, 3, 3]


class Shared(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(6, 6)

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(self.layer(x).relu())


@pytest.mark.parametrize(
    ("net", "shape", "reason"),
    [
        (nn.Conv1d(4, 3, 3), (4, 9), "only two-dimensional convolutions and linear layers are lowered"),
        (nn.ConvTranspose2d(4, 3, 3), (4, 5, 5), "only two-dimensional convolutions and linear layers are lowered"),
        (Shared(), (6,), "its weight is shared between several operators"),
    ],
)
def test_a_refusal_has_its_reason(net: nn.Module, shape: tuple[int, ...], reason: str) -> None:
    with torch.no_grad():
        weight = next(net.parameters())
        if isinstance(net, nn.ConvTranspose2d):
            weight[1] = 0
        else:
            weight[:, 1] = 0
    program = capture(net, [InputSpec("x", (None, *shape))])
    small, layers = lower(program, "auto", Scripted(1.0))
    assert small is program
    assert {layer.form for layer in layers} == {"dense"} and reason in str(layers[0].reason)


def test_all_zeros_and_nothing_but_padding_are_refused() -> None:
    for zero, reason in ((slice(None), "all of its weights are zero"), (slice(1, 2), "all that it uses is padding")):
        net = nn.Conv2d(3, 4, (3, 1), padding=(1, 0))
        with torch.no_grad():
            net.weight[:, :, zero] = 0
        _, layers = lower(capture(net, [InputSpec("x", (None, 3, 1, 4))]), "auto", Scripted(1.0))
        assert layers[0].reason == reason


def test_no_columns_of_zeros_no_account() -> None:
    program = capture(nn.Sequential(nn.Conv2d(3, 4, 3)), [InputSpec("x", (None, 3, 5, 5))])
    assert lower(program, "auto", Scripted(1.0)) == (program, ())


def test_same_padding_puts_the_odd_one_behind() -> None:
    net = nn.Conv2d(3, 4, (2, 4), padding="same", dilation=(1, 3))
    with torch.no_grad():
        net.weight[:, 1], net.weight[:, :, :, 0] = 0, 0
    program = capture(net, [InputSpec("x", (None, 3, 7, 8))])
    for choice in ("gather", "gather+box", "columns"):
        small, _ = lower(program, choice)
        assert torch.allclose(outputs(small), outputs(program), atol=1e-6), choice


def test_a_trial_stands_behind_a_convolution_where_the_layer_does(sparse: Program) -> None:
    pair, wide, fc = find_candidates(sparse)
    for candidate, channels in ((pair, 16), (wide, 16), (fc, 108)):
        trial = trial_program(sparse, candidate, candidate.forms[-1])
        assert trial.inputs[0].shape[1] == channels
        assert trial.shapes[trial.module.graph.output_node().args[0][0].name] is not None


def test_compact_lowers_after_removal_and_counts_what_is_gone(sparse: Program) -> None:
    small, report = compact(sparse, stopwatch=Scripted(1e-5))
    assert [layer.form for layer in report.lowered] == ["gather", "columns", "gather"]
    assert report.compact_params == small.n_parameters < sparse.n_parameters
    assert report.agreement is not None and report.agreement.float64_relative < 1e-12
    assert report.compact_macs < report.dense_macs


def test_compact_says_so_when_there_is_nothing_to_do() -> None:
    program = capture(nn.Sequential(nn.Conv2d(3, 4, 3), nn.Conv2d(4, 2, 3)), [InputSpec("x", (None, 3, 7, 7))])
    with pytest.raises(CompressError, match="nothing to remove"):
        compact(program, stopwatch=Scripted(1.0))
