"""A selection in front of one reader: the network computes what it did, and the reader's inputs become units."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from compressor.axes import find_units
from compressor.compaction import slice_program, verify
from compressor.errors import UsageError
from compressor.formats import load, save
from compressor.program import InputSpec, Program, capture, insert_gather
from compressor.sparsity import apply_masks, kept_units


class Residual(nn.Module):
    """A stream that three layers read."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 1)
        self.a, self.b = nn.Conv2d(8, 8, 3, padding=1), nn.Conv2d(8, 8, 3, padding=1)
        self.head = nn.Linear(8 * 16, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x).relu()
        x = (x + self.a(x)).relu()
        x = (x + self.b(x)).relu()
        return self.head(x.flatten(1))


@pytest.fixture
def residual() -> Program:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return capture(Residual(), [InputSpec("x", (None, 3, 4, 4))])


def outputs(program: Program) -> Tensor:
    with torch.no_grad():
        return program.module(*program.example_inputs(2))


@pytest.mark.parametrize("layer", ["stem", "a", "b", "head"])
def test_the_network_computes_what_it_did(residual: Program, layer: str) -> None:
    gathered = insert_gather(residual, layer)
    assert torch.equal(outputs(gathered), outputs(residual))
    assert gathered.n_parameters == residual.n_parameters
    assert f"{layer}.selected" in gathered.module.tensors() and f"{layer}.selected" not in residual.module.tensors()


def test_the_readers_channels_are_units_of_their_own_and_the_stream_is_pinned(residual: Program) -> None:
    units = find_units(insert_gather(residual, "b"))
    assert [sorted(units.slices[u]) for u in units.groups[0]] == [[("b.selected", 0), ("b.weight", 1)]] * 8
    assert "chosen by another tensor" in units.pin_at["stem.weight", 0].reason


def test_channels_that_one_reader_ignores_are_removed_from_it_alone(residual: Program) -> None:
    gathered = insert_gather(residual, "b")
    mask = torch.ones(8, 8, 3, 3, dtype=torch.bool)
    mask[:, [1, 4, 5]] = False
    masked = gathered.replace(masks={"b.weight": mask})
    apply_masks(masked.module, masked.masks)
    units = find_units(masked)
    small = slice_program(masked, units, kept_units(units, masked.masks, masked.parameters))
    assert small.parameters["b.weight"].shape == (8, 5, 3, 3) and small.parameters["stem.weight"].shape[0] == 8
    assert small.module.tensors()["b.selected"].tolist() == [0, 2, 3, 6, 7]
    assert verify(masked, small).float64_relative < 1e-12


def test_a_first_layer_loses_unused_pixels() -> None:
    net = nn.Sequential(nn.Flatten(), nn.Linear(16, 5), nn.ReLU(), nn.Linear(5, 2))
    with torch.no_grad():
        net[1].weight[:, [0, 3, 15]] = 0
    program = insert_gather(capture(net, [InputSpec("x", (None, 1, 4, 4))]), "1")
    mask = program.parameters["1.weight"] != 0
    masked = program.replace(masks={"1.weight": mask})
    units = find_units(masked)
    small = slice_program(masked, units, kept_units(units, masked.masks, masked.parameters))
    assert small.parameters["1.weight"].shape == (5, 13)
    assert torch.allclose(outputs(small), outputs(masked), atol=1e-6)


def test_a_second_selection_changes_nothing(residual: Program) -> None:
    once = insert_gather(residual, "a")
    assert insert_gather(once, "a") is once


def test_a_layer_that_is_used_twice_selects_the_same_both_times() -> None:
    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(6, 6)

        def forward(self, x: Tensor) -> Tensor:
            return self.layer(self.layer(x).relu())

    program = capture(Twice(), [InputSpec("x", (None, 6))])
    gathered = insert_gather(program, "layer")
    selects = [n for n in gathered.module.graph.nodes if n.target is torch.ops.aten.index_select.default]
    assert len(selects) == 2 and selects[0].args[2] is selects[1].args[2]
    assert torch.equal(outputs(gathered), outputs(program))


def test_a_checkpoint_keeps_the_selection(residual: Program, tmp_path: Path) -> None:
    gathered = insert_gather(residual, "b")
    save(gathered, tmp_path / "gathered.pt")
    assert torch.equal(outputs(load(tmp_path / "gathered.pt")), outputs(gathered))


def test_an_unknown_layer_is_named_with_those_there_are(residual: Program) -> None:
    with pytest.raises(UsageError, match="nothing: no convolution or linear layer has that name; there are stem, a, b"):
        insert_gather(residual, "nothing")
