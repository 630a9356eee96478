"""The widths of a network as one picture."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest

from compressor.asking import parse_pattern
from compressor.report.html import About, prune_page
from compressor.report.html.width_bars import Width, widths_figure
from tests.report.html import values
from tests.report.html.test_pages import PAGES, shown


def test_the_widths_of_the_whole_network_are_drawn_without_norms() -> None:
    page = PAGES["prune, deep"]()
    drawing = page[page.index("<title>Widths of the whole network</title>") :]
    drawing = drawing[: drawing.index("</svg>")]
    assert drawing.count('class="dense"') == drawing.count('class="kept"') == 54
    assert "<title>layer1.0.conv1: 16 -&gt; 16 filters</title>" in drawing
    report = values.residual_network()[0]
    kept, dense = (sum(getattr(cut, name) for cut in report.layers) for name in ("kept", "dense"))
    assert f"{kept:,} of {dense:,} filters stay" in page
    assert "bn1" not in shown("prune, deep"), "in the table they are in their layers too"
    costs = values.residual_network()[1]
    assert f"{sum(c.params for c in costs):,}" in shown("prune, deep"), "and the total has them"


@pytest.mark.parametrize(
    ("pattern", "told"), [("unstructured", "weights stay"), ("2:4", "weights stay"), ("shape", "columns stay")]
)
def test_widths_are_of_what_the_pattern_cuts(pattern: str, told: str) -> None:
    report = values.pruning()
    layers = tuple(replace(cut, columns=(5, 9)) for cut in report.layers)
    text = prune_page(replace(report, pattern=parse_pattern(pattern), layers=layers), About("prune", "m.pt"))
    assert told in text and "NaN" not in text


def test_heights_are_as_widths() -> None:
    drawn = widths_figure([Width("a", 100, 50), Width("b", 20, 0)])
    assert drawn is not None and "50 of 120 filters stay" in drawn
    heights = [float(h) for h in re.findall(r'height="([\d.]+)" class="(?:dense|kept)"', drawn)]
    assert heights[0] == pytest.approx(2 * heights[1], rel=0.01) == pytest.approx(5 * heights[2], rel=0.01)
    assert heights[3] == 0
    weights = widths_figure([Width("a", 1_000_000, 500_000), Width("b", 10, 5)], "weights")
    shares = [float(h) for h in re.findall(r'height="([\d.]+)" class="kept"', str(weights))]
    assert shares[0] == pytest.approx(shares[1]), "weights of layers differ too much for one scale"
    assert widths_figure([]) is None
