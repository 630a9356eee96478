"""The table of compact."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from rich.console import RenderableType

from compressor.compaction.removed import Branch, CompactReport, Folded, Kept, LayerChange, Proof
from compressor.report.compaction import compact_table
from compressor.report.console import plain_text
from compressor.units import Macs, Params

Golden = Callable[[str, RenderableType], None]


def report() -> CompactReport:
    return CompactReport(
        dense_params=Params(431080),
        masked_params=Params(431080),
        compact_params=Params(33058),
        dense_macs=Macs(2293000),
        compact_macs=Macs(310000),
        n_units_removed=523,
        still_zeroed=120,
        layers=(
            LayerChange("conv1.weight", (20, 1, 5, 5), (7, 1, 5, 5)),
            LayerChange("fc1.weight", (500, 800), (40, 208)),
            LayerChange("fc2.bias", (10,), (10,)),
        ),
        skipped=("conv2: 3 channels feed a padding that is not zero",),
        agreement=Proof(3.1e-16, 2.4e-07, 1e-10, 1e-5, 6, True),
        metrics={"accuracy": 0.9926, "loss": 0.03, "n": 10000},
        seconds=1.25,
        zeroed=398142,
        folded=(Folded("conv2", 12, "conv2.bias"), Folded("fc1", 3, "fc1.bias")),
        branches=(Branch("block.conv2", "nothing: it was 0"),),
        kept=(Kept("conv2", 3, "it is constant, but conv3 pads it with zeros", "conv3"),),
    )


def test_compact(golden: Golden) -> None:
    golden("compact", compact_table(report(), "model.compact.pt", 140288))


def test_removed_and_zeroed_are_told_apart() -> None:
    text = plain_text(compact_table(report(), "m.pt", None))
    assert "removed 523 units, 398,022 parameters; still zeroed 120 (0.4 % of what is left)" in text


def test_what_did_not_change_is_not_listed() -> None:
    assert "fc2.bias" not in plain_text(compact_table(report(), "m.pt", None, every_row=True))


def test_a_model_with_rescaled_norms_is_said_not_to_be_equal() -> None:
    rescaled = replace(report(), agreement=None, rescaled=tuple(f"blocks.{i}.norm1" for i in range(12)))
    text = " ".join(plain_text(compact_table(rescaled, "m.pt", None)).split())
    assert "NOT equal to the masked model, and not verified: 12 norms" in text
    assert "blocks.2.norm1 and 9 more; retrain it" in text
    assert "agrees with" not in text


def test_many_reasons_are_cut_and_verbose_shows_all() -> None:
    many = replace(report(), skipped=tuple(f"layer{i}: why" for i in range(20)))
    assert "… and 12 more reasons; -v shows all" in plain_text(compact_table(many, "m.pt", None))
    assert "kept: layer19: why" in plain_text(compact_table(many, "m.pt", None, every_row=True))


def test_a_layer_that_is_gone_is_said_to_be() -> None:
    gone = replace(report(), layers=(LayerChange("block.conv2", (8, 8, 3, 3), ()),))
    assert "gone   0 %" in plain_text(compact_table(gone, "m.pt", None))


def test_without_zeros_nothing_is_said_of_them() -> None:
    clean = plain_text(compact_table(replace(report(), zeroed=0, folded=(), branches=(), kept=()), "m.pt", None))
    assert "zeroed before" not in clean and "Constants" not in clean and "Zeroed, but kept" not in clean
    text = plain_text(compact_table(report(), "m.pt", None))
    assert "zeroed before 398,142; 15 constant channels folded into 2 tensors; 1 constant operand gone" in text
    only = plain_text(compact_table(replace(report(), zeroed=0, folded=()), "m.pt", None))
    assert "\n1 constant operand gone\n" in only


def test_many_kept_filters_are_cut_and_verbose_shows_all() -> None:
    many = replace(report(), kept=tuple(Kept(f"layer{i}", i, "why", "reader") for i in range(20)))
    assert "… and 12 more rows; -v shows all" in plain_text(compact_table(many, "m.pt", None))
    assert "layer19" in plain_text(compact_table(many, "m.pt", None, every_row=True))
