"""The tables of analyze."""

from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import replace

from rich.console import Console, RenderableType

from compressor.analysis.findings import (
    Analysis,
    BlockRow,
    CoupledSlice,
    Explanation,
    LayerRow,
    PinRow,
    UnitGroup,
)
from compressor.report.analysis import BARS_WIDTH, analysis_table, explanation_table
from compressor.report.console import plain_text
from compressor.units import Macs, Params

Golden = Callable[[str, RenderableType], None]


def layer(name: str, params: int, macs: int, n: int, prunable: int, zeroed: int = 0) -> LayerRow:
    pinned = None if prunable == n else "feeds the output"
    return LayerRow(
        name,
        "conv2d",
        (n, 20, 5, 5),
        (None, n, 8, 8),
        Params(params),
        Macs(macs),
        zeroed,
        n,
        prunable,
        pinned,
    )


def analysis() -> Analysis:
    return Analysis(
        n_params=Params(431080),
        n_zeroed=398180,
        macs=Macs(2293000),
        n_activations=16090,
        n_units=570,
        prunable_params=Params(430570),
        layers=(
            layer("conv1", 520, 288000, 20, 20),
            layer("features.denseblock1.denselayer6.conv1", 25050, 1600000, 50, 50, 20000),
            layer("fc2", 5010, 5000, 10, 0),
        ),
        groups=(
            UnitGroup(20, 1276.0, ("conv1", "conv2")),
            UnitGroup(500, 812.5, tuple(f"layer{i}.conv" for i in range(30))),
        ),
        pins=(
            PinRow("fc2 (net.py:12 return self.fc2(x))", "the network's output", 10),
            PinRow("conv1 (net.py:8 x = self.conv1(x))", "the network's input", 1),
            PinRow("layer3.0.downsample.0 net.py:99", "the network's output", 7),
        ),
        blocks=(
            BlockRow("layer1.0", ("layer1.0.conv1", "layer1.0.bn1"), Params(4672), Macs(4718592)),
            BlockRow("layer2.0.bn2", (), Params(0), Macs(0), "its shortcut is no identity"),
        ),
        unknown_operators=("aten.fft_fft.default",),
        notes=("exported with the batch fixed at 1: its code fixes the batch size",),
        metrics={"accuracy": 0.9912, "loss": 0.0312, "n": 10000},
    )


def test_analysis(golden: Golden) -> None:
    golden("analysis", analysis_table(analysis(), "runs/lenet5.pt"))


def test_bars_stand_beside_the_numbers_and_take_no_more_than_they_say() -> None:
    held = io.StringIO()
    Console(file=held, width=BARS_WIDTH).print(analysis_table(analysis(), "m.pt", with_bars=True))
    text = held.getvalue()
    (row,) = [line for line in text.splitlines() if line.startswith("features")]
    assert row.count("████████") == 2, "the largest layer has the longest bars"
    assert max(len(line) for line in text.splitlines()) <= BARS_WIDTH
    assert "█" not in plain_text(analysis_table(analysis(), "m.pt")), "a pipe gets numbers"


def test_an_empty_network_has_a_table_too() -> None:
    empty = Analysis(Params(0), 0, Macs(0), 0, 0, Params(0), (), (), (), ())
    assert "0 parameters" in plain_text(analysis_table(empty, "m.pt"))


def test_long_secondary_tables_are_cut_and_verbose_shows_all() -> None:
    many = replace(analysis(), groups=tuple(UnitGroup(1, 1.0, (f"layer{i}",)) for i in range(40)))
    short = plain_text(analysis_table(many, "m.pt"))
    assert "… and 25 more groups; -v shows all" in short
    assert "layer39" not in short
    assert "layer39" in plain_text(analysis_table(many, "m.pt", every_row=True))


def test_explanation(golden: Golden) -> None:
    found = Explanation(
        layer="conv2",
        index=3,
        slices=(
            CoupledSlice("conv2.weight", 0, (3,)),
            CoupledSlice("conv2.bias", 0, (3,)),
            CoupledSlice("fc1.weight", 1, tuple(range(48, 64))),
            CoupledSlice("spread.weight", 1, tuple(range(0, 64, 2))),
        ),
        params=Params(8501),
        pinned=None,
        chain=(
            "aten.max_pool2d.default (net.py:10 x = pool(x))",
            "aten.view.default (net.py:11 x = x.flatten(1))",
        ),
    )
    golden("explanation", explanation_table(found))


def test_an_explanation_of_what_is_pinned_says_why() -> None:
    found = Explanation("fc2", 0, (), Params(0), "the network's output")
    assert plain_text(explanation_table(found)) == "filter 0 of fc2 is pinned: the network's output\n"


def test_a_pinned_filter_says_where() -> None:
    found = Explanation("fc2", 0, (), Params(0), "normalised", pinned_at="aten.layer_norm.default norm: net.py:3 x")
    assert plain_text(explanation_table(found)).splitlines()[1] == "at aten.layer_norm.default norm: net.py:3 x"


def test_a_long_chain_is_cut_and_verbose_shows_all() -> None:
    found = Explanation("c", 0, (), Params(1), None, tuple(f"aten.add.Tensor add_{i}" for i in range(20)))
    assert "… and 5 more operators; -v shows all" in plain_text(explanation_table(found))
    assert "add_19" in plain_text(explanation_table(found, every_row=True))
