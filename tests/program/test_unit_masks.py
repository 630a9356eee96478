"""Masks of whole units held as positions: the same masks, in a thousandth of the memory, through a file too."""

from __future__ import annotations

from collections.abc import Mapping
from io import BytesIO
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import compressor.program.masks as masks_module
from compressor.axes import find_units
from compressor.errors import ModelError
from compressor.formats import from_bytes, load, to_bytes
from compressor.program import InputSpec, Program, capture
from compressor.program.masks import Positions, UnitMasks, held, merge_masks, only
from compressor.sparsity import kept_units, mask_units

KEPT = torch.arange(6) % 3 > 0
SHAPES: dict[str, tuple[tuple[int, ...], dict[int, Tensor]]] = {
    "rows": ((6, 5), {0: KEPT}),
    "columns": ((5, 6), {1: KEPT}),
    "both": ((6, 6), {0: KEPT, 1: ~KEPT}),
    "filters": ((6, 3, 2, 2), {0: KEPT}),
    "vector": ((6,), {0: KEPT}),
}


@pytest.fixture
def all_large(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(masks_module, "LEAST_ELEMENTS", 1)


def dense(shape: tuple[int, ...], kept: Mapping[int, Tensor]) -> Tensor:
    mask = torch.ones(shape, dtype=torch.bool)
    for dim, along in kept.items():
        mask &= along.reshape([-1 if d == dim else 1 for d in range(len(shape))])
    return mask


@pytest.mark.parametrize("name", SHAPES)
def test_positions_are_the_mask(name: str) -> None:
    shape, kept = SHAPES[name]
    assert torch.equal(Positions(shape, kept).mask(), dense(shape, kept))


@pytest.mark.usefixtures("all_large")
@pytest.mark.parametrize("one", SHAPES)
def test_merged_is_what_both_keep(one: str) -> None:
    shape, kept = SHAPES[one]
    other = {dim: torch.arange(size) != 1 for dim, size in enumerate(shape)}
    first, second = held({"w": Positions(shape, kept)}), held({"w": Positions(shape, other)})
    merged = merge_masks(first, second)
    assert isinstance(merged, UnitMasks) and merged.positions
    assert torch.equal(merged["w"], first["w"] & second["w"])
    single = torch.rand(shape) > 0.5
    mixed = merge_masks(first, {"w": single, "v": single})
    assert torch.equal(mixed["w"], first["w"] & single) and torch.equal(mixed["v"], single)


@pytest.mark.usefixtures("all_large")
def test_one_axis_takes_no_memory() -> None:
    mask = held({"w": Positions((4096, 4096), {1: torch.arange(4096) > 9})})["w"]
    assert mask.untyped_storage().nbytes() == 4096 and mask.shape == (4096, 4096)


@pytest.mark.usefixtures("all_large")
def test_they_read_like_any_masks() -> None:
    masks = held({"a": Positions(*SHAPES["rows"]), "b": Positions(*SHAPES["both"])}, {"c": torch.zeros(2).bool()})
    assert list(masks) == ["a", "b", "c"] and len(masks) == 3 and "b" in masks and "d" not in masks
    assert list(only(masks, {"b", "c"})) == ["b", "c"]
    with pytest.raises(KeyError):
        masks["d"]


def test_small_masks_can_be_changed_in_place() -> None:
    masks = held({"w": Positions(*SHAPES["rows"])})
    assert isinstance(masks, dict)
    masks["w"][0, 0] = True
    assert int(masks["w"][0].sum()) == 1


def net() -> Program:
    torch.manual_seed(0)
    return capture(nn.Sequential(nn.Linear(8, 12), nn.ReLU(), nn.Linear(12, 4)), [InputSpec("x", (None, 8))])


def cut_net() -> Program:
    program = net()
    units = find_units(program)
    keep = torch.ones(units.n_units, dtype=torch.bool).numpy()
    keep[units.axes["0.weight", 0][[2, 5]]] = False
    masks = mask_units(program.module, units, keep)
    assert (kept_units(units, masks, program.parameters) == keep).all()
    return program.cut(masks)


@pytest.mark.usefixtures("all_large")
def test_a_file_keeps_positions_and_is_read_as_the_same_masks() -> None:
    program = cut_net()
    assert isinstance(program.masks, UnitMasks)
    content = to_bytes(program)
    back = from_bytes(content)
    assert isinstance(back.masks, UnitMasks) and set(back.masks) == set(program.masks)
    for name in program.masks:
        assert torch.equal(back.masks[name], program.masks[name])
    assert to_bytes(back) == content
    stored = torch.load(BytesIO(content), weights_only=True)
    assert stored["masks"] == {} and stored["compressor"]["schema"] == 2


def test_a_file_of_small_masks_is_read_by_earlier_versions() -> None:
    stored = torch.load(BytesIO(to_bytes(cut_net())), weights_only=True)
    assert "kept_positions" not in stored and stored["compressor"]["schema"] == 1
    assert stored["masks"]["0.weight"].shape == (12, 8)


def test_cutting_leaves_the_program_as_it_is_and_shares_what_loses_nothing() -> None:
    program = net()
    cut = program.cut({"0.weight": torch.zeros(12, 8, dtype=torch.bool)})
    assert not cut.parameters["0.weight"].any() and program.parameters["0.weight"].all()
    assert cut.parameters["2.weight"].data_ptr() == program.parameters["2.weight"].data_ptr()
    cut.check_masks()


@pytest.mark.usefixtures("all_large")
@pytest.mark.parametrize(
    "damage",
    [
        {"0.weight": {"0": torch.ones(11, dtype=torch.bool)}},
        {"0.weight": {"0": torch.ones(12)}},
        {"0.weight": {"2": torch.ones(12, dtype=torch.bool)}},
        {"0.weight": {"x": torch.ones(12, dtype=torch.bool)}},
        {"0.weight": {"0": "text"}},
        {"0.weight": {}},
        {"nowhere": {"0": torch.ones(12, dtype=torch.bool)}},
        {"0.weight": torch.ones(12, dtype=torch.bool)},
        ["0.weight"],
        {"0.weight": {"0": torch.ones(12, dtype=torch.bool)}},  # well formed, and not what the digest was made of
    ],
)
def test_damaged_positions_are_refused(damage: Any) -> None:
    content = torch.load(BytesIO(to_bytes(cut_net())), weights_only=True)
    stored = BytesIO()
    torch.save({**content, "kept_positions": damage}, stored)
    stored.seek(0)
    with pytest.raises(ModelError, match=r"damaged|where a tensor should be"):
        load(stored)
