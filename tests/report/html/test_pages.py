"""Every page is well-formed, needs nothing from outside, shows its numbers and runs nobody else's script."""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Callable
from dataclasses import replace
from html.parser import HTMLParser

import pytest

from compressor.report.html import About, analysis_page, bench_page, compact_page, prune_page, retrain_page
from compressor.report.html.markup import Markup, escape
from compressor.report.html.page import page
from compressor.report.html.style import SCRIPT
from compressor.timing import CutLatency
from compressor.timing.measured import BenchWarning, WarningKind
from tests.report.html import values

FASTER = CutLatency(
    1.83, 1.75, 1.9, "faster", 4.5e-3, 2.5e-3, macs_ratio=3.45, missing=("an inference this short is mostly starts",)
)
PAGES: dict[str, Callable[[], str]] = {
    "analyze": lambda: analysis_page(values.analysis(), values.about("analyze", output=None), values.scan()),
    "analyze, many layers": lambda: analysis_page(values.analysis(27), values.about("analyze"), values.scan(55)),
    "prune": lambda: prune_page(values.pruning(), values.about("prune"), values.costs()),
    "prune, deep": lambda: prune_page(
        values.residual_network()[0], values.about("prune"), values.residual_network()[1], FASTER
    ),
    "prune, dry": lambda: prune_page(
        values.pruning(),
        values.about("prune", output=None),
        values.costs(),
        FASTER,
        "admm",
        [
            {"text": "ratio>=13", "passed": True, "message": None},
            {"text": "size<=1KiB", "passed": False, "message": "no"},
        ],
    ),
    "retrain": lambda: retrain_page(values.retraining(), values.about("retrain")),
    "compact": lambda: compact_page(
        values.compaction(), values.about("compact"), values.costs(), values.costs()[:1], values.latencies(), 2, FASTER
    ),
    "compact, rescaled": lambda: compact_page(values.compaction(rescaled=True), values.about("compact")),
    "bench": lambda: bench_page(values.bench(), values.about("bench"), {"speedup>=1.5": True, "ratio>=20": False}),
    "bench, grid": lambda: bench_page(values.bench_grid(), values.about("bench"), {"speedup>=1.5": False}),
    "bench, profiles": lambda: bench_page(values.bench(n_profiles=3), values.about("bench")),
    "bench, one profile": lambda: bench_page(values.bench(n_profiles=1), values.about("bench")),
    "bench without accuracy": lambda: bench_page(values.bench(with_accuracy=False), About("bench", "a, b")),
}
NO_END = {"meta", "br", "wbr"}


class Checked(HTMLParser):
    """Elements in balance, and everything that stands in them."""

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.open: list[str] = []
        self.wrong: list[str] = []
        self.scripts: list[str] = []
        self.styles: list[str] = []
        self.texts: list[str] = []
        self.attributes: list[tuple[str, str, str]] = []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.attributes += [(tag, name, value or "") for name, value in attrs]
        if tag not in NO_END:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if not self.open or self.open.pop() != tag:
            self.wrong.append(tag)

    def handle_data(self, data: str) -> None:
        kinds = {"script": self.scripts, "style": self.styles}
        kinds.get(self.open[-1] if self.open else "", self.texts).append(data)


def faults(text: str) -> list[str]:
    """What a page must not have."""
    found = Checked(text)
    told = [f"</{tag}> without its start" for tag in found.wrong] + [f"<{tag}> never ends" for tag in found.open]
    told += ["a script of somebody else"] if found.scripts != [SCRIPT] else []
    told += [f"{tag} {name}" for tag, name, _ in found.attributes if name.startswith("on")]
    told += [f"{tag} {name}={value}" for tag, name, value in found.attributes if name in ("src", "href", "action")]
    styles = [*found.styles, *(value for _, name, value in found.attributes if name == "style")]
    told += ["a style that loads"] if re.search(r"@import|url\(", " ".join(styles)) else []
    told += [f"{name}={value}" for _, name, value in found.attributes if "nan" in value.split() or "inf" in value]
    return told


@pytest.mark.parametrize("name", PAGES)
def test_a_page_is_whole_and_by_itself(name: str) -> None:
    text = PAGES[name]()
    assert faults(text) == []
    assert text == PAGES[name](), "the same result gives the same bytes"
    assert not re.search(r"https?://", text)


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ("<script>alert(1)</script>", "a script of somebody else"),
        ('<img src="x.png">', "img src=x.png"),
        ("<div>", "</main> without its start"),
        ("</p>", "</p> without its start"),
        ('<a onclick="x">x</a>', "a onclick"),
        ("<style>@import 'x'</style>", "a style that loads"),
    ],
)
def test_a_fault_is_found(given: str, told: str) -> None:
    text = page(values.about("prune"), "t", "l", [], [Markup(given)])
    assert any(told in fault for fault in faults(text))
    assert faults(page(values.about("prune"), "t", "l", [], [given])) == [], "as text it does no harm"


def test_only_the_pages_own_script_may_run() -> None:
    policy = re.search(r'http-equiv="Content-Security-Policy" content="([^"]*)"', PAGES["prune"]())
    assert policy is not None
    digest = base64.b64encode(hashlib.sha256(SCRIPT.encode()).digest()).decode()
    assert f"script-src &#x27;sha256-{digest}&#x27;" in policy.group(1)
    assert policy.group(1).startswith("default-src &#x27;none&#x27;")


def shown(name: str) -> str:
    return " ".join(Checked(PAGES[name]()).texts)


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("analyze", ("64,512", "16.5 M", "93.86 %", "layer0.conv1", "1.3 % of them zero",
                     "Not reached in time: late.conv",
                     "aten.matrix_exp", "dropped: auxiliary head", "16/16", values.HOSTILE[:8])),
        ("prune", ("13.0x", "33,111", "431,080", "650 k", "97.31 %", "hard prune", "Residual", "15 of 20", "13.02x",
                   "0.00907", "Training loss", "1 min 42 s", "Sparsity", "92.31 %")),
        ("retrain", ("397,969", "97.31 %", "no better accuracy for 3 epochs", "compress retrain")),
        ("compact", ("445 units", "4.9e-16", "2.6e-07", "500×800", "Still zero", "2 more", "ab" * 32,
                     "Latency by layer", "2 threads, batch 1, before and after", "10.0x", "0.80x", "60 µs")),
        ("compact, rescaled", ("Not equal to the masked model by intention: 1 norm",)),
        ("bench", ("1.97x", "2.91x to 3.12x", "40 µs", "95.10 %", "not met", "MAD 6 %", "fix the clock",
                   "area: file size", "compress bench --profile")),
        ("bench, profiles", ("Where the time goes: cpu, 1 thread, batch 1", "(Relu)", "7.00x", "72.7 %", "small.onnx")),
        ("bench, one profile", ("Where the time goes", "(Relu)", "55 µs", "72.7 %")),
    ],
)  # fmt: skip
def test_a_page_shows_its_numbers(name: str, words: tuple[str, ...]) -> None:
    text = shown(name)
    assert [word for word in words if word not in text] == []


def test_a_dry_run_its_gates_and_the_speed_up_are_told() -> None:
    text = shown("prune, dry")
    for word in (
        "Dry run, nothing written",
        "Speed-up",
        "1.83x",
        "for 3.45x fewer MACs",
        "ratio>=13",
        "met",
        "size<=1KiB",
    ):
        assert word in text, word
    assert "Dry run" not in shown("prune") and "Requirements" not in shown("prune")


def test_every_requirement_has_its_models_and_values() -> None:
    text = shown("bench")
    assert re.search(r"ratio>=20 not met \d+\.\d+x", text)
    assert text.index("Warning:") < text.index("Requirements")
    asked = bench_page(values.bench(), values.about("bench"), {"accuracy>=95%": True})
    assert "accuracy>=95% met 97.31 %" in " ".join(Checked(asked).texts), "in the unit that it was asked in"
    grid = shown("bench, grid")
    assert re.search(r"speedup>=1.5 not met 0.70x small.onnx, 8 threads, batch 16", grid)


def test_the_tiles_of_bench_name_model_threads_and_batch() -> None:
    tiles = re.search(r'<dl class="tiles">(.*?)</dl>', PAGES["bench"](), re.DOTALL)
    assert tiles is not None
    found = re.findall(r"<dt>(.*?)</dt>.*?class=\"aside\">(.*?)</dd>", tiles[1], re.DOTALL)
    assert [name for name, _ in found] == ["Speed-up", "Latency", "Size", "Accuracy"]
    assert all("small.onnx" in aside for _, aside in found), found
    assert all("1 thread, batch 1" in aside for name, aside in found if name in ("Speed-up", "Latency"))


def test_the_speed_up_stands_against_macs_with_the_reason_for_the_rest() -> None:
    text = shown("bench")
    assert "small.onnx: 3.00x the speed of dense.onnx" in text and "for 5.73x fewer MACs; the rest: " in text
    for name in ("prune, deep", "compact"):
        told = shown(name)
        assert "Speed-up 1.83x for 3.45x fewer MACs" in told
        assert "the rest: an inference this short is mostly starts" in told


def test_threads_and_batches_are_a_grid() -> None:
    page = PAGES["bench, grid"]()
    grid = page[page.index("Speed-up over threads and batches") : page.index("cpu, 1 thread, batch 1</h2>")]
    assert re.findall(r'<th scope="col"[^>]*>(.*?)</th>', grid) == ["Model", "Threads", "batch 1", "batch 16"]
    assert grid.count("<tr>") == 1 + 2 * 2 and grid.count('class="bad">0.70x') == 4
    assert "Speed-up over" not in shown("bench")


def test_a_long_tail_does_not_press_the_medians_together() -> None:
    page = PAGES["bench, grid"]()
    start = page.index("<title>Latency</title>")
    chart = page[start : page.index("</svg>", start)]
    places = [float(x) for x in re.findall(r'<circle cx="([\d.]+)" cy="[\d.]+" r="4.5"', chart)]
    assert max(places) > 200, "the slowest median stands in the right half although its p90 is ten times as long"
    assert chart.count("beyond") == 1 and "p90 1.2 ms" in chart
    assert [word in chart for word in ("median", "± MAD", "to p90")] == [True] * 3, "the legend"


def test_models_that_are_not_one_anothers_stages_are_not_joined() -> None:
    assert 'class="way"' not in PAGES["bench"]() and 'class="way"' in PAGES["prune"]()


def test_the_residual_has_the_line_that_it_is_steered_along() -> None:
    page = PAGES["prune"]()
    start = page.index("<title>Residual</title>")
    chart = page[start : page.index("</svg>", start)]
    assert 'class="line aim"' in chart and "steered along a plan from 0.9 to 0" in chart
    assert "Planned residual</figcaption>" not in page and "<title>Planned residual</title>" not in page
    bare = replace(values.pruning(), stages=tuple(
        replace(row, history=tuple({k: v for k, v in e.items() if k != "planned residual"} for e in row.history))
        for row in values.stages()
    ))  # fmt: skip
    assert 'class="line aim"' not in prune_page(bare, values.about("prune")), "a fixed penalty aims at nothing"


def test_sparsity_is_drawn_only_where_it_varies() -> None:
    assert "<title>Sparsity</title>" not in PAGES["prune"]()
    growing = tuple(
        replace(row, history=tuple({**e, "sparsity": 0.1 * i} for i, e in enumerate(row.history)))
        for row in values.stages()
    )
    assert "<title>Sparsity</title>" in prune_page(replace(values.pruning(), stages=growing), values.about("prune"))


def test_layers_with_one_curve_are_one_row() -> None:
    page = PAGES["analyze, many layers"]()
    assert "layer0.conv +1" in page and ">layer0.conv, downsample<" in page
    assert "stand in one row" in page and "stand in one row" not in analysis_page(
        values.analysis(), values.about("analyze"), replace(values.scan(), curves={"one": ((0.5, 0.9),)})
    )


def test_parts_without_numbers_are_left_out() -> None:
    bare = replace(values.pruning(None), stages=values.stages()[:1], layers=(), warnings=())
    text = prune_page(bare, About("prune", "m.pt"))
    assert faults(text) == []
    assert "Training" not in text and "The way to the result" not in text and "Layer by layer" not in text
    assert "Sensitivity" not in analysis_page(values.analysis(), About("analyze", "m.pt"))
    assert "Latency by layer" not in shown("compact, rescaled")
    assert "--profile" not in shown("bench, profiles")


def test_a_profile_that_cannot_be_is_no_hint() -> None:
    refused = BenchWarning(WarningKind.PROFILE_UNKNOWN, "model.pt runs in torch")
    assert "compress bench --profile" not in bench_page(
        replace(values.bench(), warnings=(refused,)), values.about("bench")
    )


def test_areas_are_as_sizes() -> None:
    found = [float(r) for r in re.findall(r'<circle[^>]* r="([\d.]+)"[^>]*><title>[^<]*iB</title>', PAGES["bench"]())]
    found = found[:3]  # behind them those of the drawing that has sizes along its axis
    sizes = [timing.subject.size_bytes for timing in values.bench().timings]
    assert [(r / found[0]) ** 2 for r in found] == pytest.approx([size / sizes[0] for size in sizes], rel=0.02)


def test_a_layer_that_became_slower_has_its_bar_behind() -> None:
    page = PAGES["compact"]()
    slower, faster = (
        re.search(rf"<title>{re.escape(escape(n))}: [^<]*µs[^<]*</title>(.*?)</svg>", page)
        for n in ("conv1", values.HOSTILE)
    )
    assert slower is not None and faster is not None
    assert slower.group(1).index("kept") < slower.group(1).index("dense")
    assert faster.group(1).index("dense") < faster.group(1).index("kept")


@pytest.mark.parametrize(
    ("model", "output", "title"),
    [
        ("zoo/net.pt", None, "net.pt"),
        ("zoo/net.pt", "out/net.pruned.pt", "net.pruned.pt"),
        ("init", None, "lenet5"),
        ("-", "-", "lenet5"),
    ],
)
def test_a_page_is_called_after_what_it_is_about(model: str, output: str | None, title: str) -> None:
    assert About("prune", model, output=output, record=values.record()).title == title
    assert About("prune", "init").title == "init"
