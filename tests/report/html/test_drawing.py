"""Markup, scales, names beside points: the parts that every page is drawn from."""

from __future__ import annotations

import math

import pytest

from compressor.report.html.charts import Axis, Interval, Line, Point, interval_chart, line_chart, point_chart
from compressor.report.html.labels import place_names
from compressor.report.html.markup import Markup, breakable, escape, join, tag
from compressor.report.html.parts import primary
from compressor.report.html.scale import Scale, around, rounded, share, short, spread


def test_text_is_escaped_once_and_markup_is_not() -> None:
    assert tag("b", "<i>", Markup("<i>"), 3, None, ["a", Markup("&amp;")]) == "<b>&lt;i&gt;<i>3a&amp;</b>"
    assert tag("a", title="\"x\" & 'y'") == '<a title="&quot;x&quot; &amp; &#x27;y&#x27;"></a>'
    assert join(["<", tag("br")]) == "&lt;<br>"


def test_a_name_breaks_behind_its_signs_and_stays_text() -> None:
    assert breakable("small_v2.int8.onnx") == "small_<wbr>v2.<wbr>int8.<wbr>onnx"
    assert breakable("<b>x") == "&lt;<wbr>b&gt;<wbr>x" and breakable("") == ""


def test_attributes_follow_html() -> None:
    found = tag("input", name="n", class_="c", data_x=1, hidden=True, open=False, id=None, width=1 / 3)
    assert found == '<input name="n" class="c" data-x="1" hidden width="0.33">'


@pytest.mark.parametrize("char", ["\x00", "\x1b", "\x7f", "\x9b", "\ud800", "\ufffe", "\u202e", "\u2066", "\u200f"])
def test_characters_that_mislead_are_replaced(char: str) -> None:
    assert escape(f"a{char}b") == "a\ufffdb"
    assert escape("ä\n\tπ") == "ä\n\tπ"


@pytest.mark.parametrize(
    ("low", "high", "ticks"),
    [(0.0, 1.0, (0.0, 0.25, 0.5, 0.75, 1.0)), (0.93, 0.98, (0.94, 0.96, 0.98)), (-3.0, 5.0, (-2.0, 0.0, 2.0, 4.0))],
)
def test_ticks_are_round(low: float, high: float, ticks: tuple[float, ...]) -> None:
    assert Scale(low, high, 0, 1).ticks() == pytest.approx(ticks)


def test_logarithmic_ticks_and_places() -> None:
    scale = Scale(1e3, 1e6, 0.0, 300.0, log=True)
    assert scale.ticks() == pytest.approx((1e3, 1e4, 1e5, 1e6))
    assert scale(1e4) == pytest.approx(100.0)
    assert len(Scale(30e3, 450e3, 0, 1, log=True).ticks()) >= 3
    assert Scale(60e3, 2e6, 0, 1, log=True, binary=True).ticks() == (65536.0, 131072.0, 262144.0, 524288.0, 1048576.0)
    assert Scale(0.5, 3.5, 0, 1, whole=True).ticks() == (1.0, 2.0, 3.0)
    assert Scale(0.5, 10.5, 0, 1, whole=True).ticks() == (1.0, 4.0, 7.0, 10.0)


def test_an_axis_spans_what_it_must_and_no_more() -> None:
    assert rounded(0.93, 0.98) == pytest.approx((0.92, 0.98))
    assert around([math.nan, 2.0, 4.0]) == (2.0, 4.0)
    assert around([], zero=True) == (0.0, 1.0)
    low, high = around([0.973, 0.975], least=0.02)
    assert high - low == pytest.approx(0.02), "two thousandths must not look like a cliff"
    scale = Axis("a", share, room=0.1, most=1.0).scale([0.0, 0.99], 0, 1)
    assert (scale.low, scale.high) == (0.0, 1.0)
    assert Axis("a").scale([-1.0, 1.0], 0, 1).low <= -1.0


def test_numbers_beside_axes_are_short() -> None:
    assert [short(v) for v in (0, 12_500, 3_000_000, 2e9, 0.00125)] == ["0", "12.5k", "3M", "2G", "0.00125"]
    assert [share(v) for v in (1.0, 0.975)] == ["100 %", "97.5 %"]


def test_names_at_line_ends_are_spread() -> None:
    places = spread([10.0, 11.0, 100.0, 99.0], 13.0, 0.0, 105.0)
    assert sorted(places) == pytest.approx([10.0, 23.0, 92.0, 105.0])
    assert places[0] < places[1] and places[3] < places[2]


def test_names_do_not_cover_points_or_each_other() -> None:
    points = [(50.0, 50.0), (52.0, 51.0), (60.0, 50.0), (200.0, 10.0)]
    placed = place_names(points, ["a", "b", "second", "far to the right"], (0.0, 0.0, 210.0, 100.0))
    assert [label.text for label in placed] == ["a, b", "second", "far to the right"]
    assert len({(label.x, label.y) for label in placed}) == 3
    assert placed[2].x + len(placed[2].text) * 3 < 215


def test_a_line_is_broken_where_there_is_no_number() -> None:
    points = [(0.0, 1.0), (1.0, 2.0), (2.0, math.nan), (3.0, 1.0), (4.0, 2.0)]
    drawn = line_chart("t", "d", [Line("l", points)], Axis("x"), Axis("y"))
    assert drawn.count("<polyline") == 2
    assert "nan" not in drawn
    whole = line_chart("t", "d", [Line("l", [p for p in points if p[1] == p[1]])], Axis("x"), Axis("y"))
    assert whole.count("<polyline") == 1


def test_every_drawing_says_what_it_shows() -> None:
    drawings = [
        line_chart("the title", "what is seen", [], Axis("x"), Axis("y")),
        point_chart("the title", "what is seen", [Point("p", 1.0, 2.0)], Axis("x", log=True), Axis("y")),
        interval_chart("the title", "what is seen", [Interval("i", 2.0, 1.0, 3.0, "2")], Axis("x"), 1.0),
    ]
    for drawn in drawings:
        assert drawn.startswith('<svg viewBox="0 0 360 ')
        assert "<title>the title</title><desc>what is seen</desc>" in drawn
        assert 'role="img"' in drawn


def test_the_metric_that_counts() -> None:
    assert primary({"got": 13.0, "loss": 0.1, "n": 10, "bleu": 0.3, "before": {}}) == "bleu"
    assert primary({"bleu": 0.3, "accuracy": 0.9}) == "accuracy"
    assert primary({"loss": 0.1, "of": "params"}) is None
