"""Numbers and names in tables."""

from __future__ import annotations

import pytest

from compressor.report.text import duration, few, metric, metrics, percent, plural, shape, shorten, shorten_all


def test_shorten_keeps_both_ends_and_the_width() -> None:
    name = "features.denseblock1.denselayer6.conv1"
    short = shorten(name, 21)
    assert (len(short), short[:8], short[-5:]) == (21, "features", "conv1")
    assert shorten("conv1", 5) == "conv1"


@pytest.mark.parametrize("width", [12, 26, 44])
def test_names_of_many_layers_stay_apart(width: int) -> None:
    kinds = ("attention.self.query", "attention.self.key", "attention.output.dense", "output.dense")
    names = [f"bert.encoder.layer.{i}.{kind}.weight" for i in range(12) for kind in kinds] + ["bert.pooler.dense"]
    short = shorten_all(names, width)
    assert len(set(short.values())) == len(names)
    assert len({shorten(name, 26) for name in names}) < len(names)  # twin: one by one they do not
    if width > 20:
        assert max(map(len, short.values())) <= width


@pytest.mark.parametrize("width", range(2, 12))
def test_shorten_never_exceeds_the_width(width: int) -> None:
    assert len(shorten("abcdefghijkl", width)) == width


def test_few_names_and_how_many_more() -> None:
    assert few(("a", "b"), 2) == "a, b" and few(("a", "b", "c"), 2) == "a, b and 1 more" and few(()) == ""


def test_shape_shows_the_batch_as_n() -> None:
    assert shape((None, 20, 24, 24)) == "N×20×24×24"
    assert shape(()) == "1"


@pytest.mark.parametrize(
    ("share", "text"),
    [(0.0, "0 %"), (1.0, "100 %"), (0.9231, "92.3 %"), (0.00001, "<0.1 %"), (0.99999, ">99.9 %"), (0.999, "99.9 %")],
)
def test_percent_of_nearly_all_is_not_all(share: float, text: str) -> None:
    assert percent(share) == text


@pytest.mark.parametrize(
    ("name", "value", "text"),
    [
        ("accuracy", 0.98765, "98.77 %"),
        ("accuracy", 1.0, "100.00 %"),
        ("loss", 0.0345678, "0.03457"),
        ("rounds", 1200.0, "1,200"),
        ("loss", float("nan"), "nan"),
        ("loss", float("inf"), "inf"),
    ],
)
def test_metric(name: str, value: float, text: str) -> None:
    assert metric(name, value) == text


def test_metrics_leave_the_number_of_samples_out() -> None:
    assert metrics({"loss": 0.25, "accuracy": 0.5, "n": 1000}) == "accuracy 50.00 %, loss 0.25"
    assert metrics(None) == ""


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.5, "0.50 s"), (12.34, "12.3 s"), (75.3, "1 min 15 s"), (3599.9, "1 h 0 min"), (7260, "2 h 1 min")],
)
def test_duration(seconds: float, text: str) -> None:
    assert duration(seconds) == text


def test_plural() -> None:
    assert (plural(1, "unit"), plural(1234, "unit")) == ("1 unit", "1,234 units")
