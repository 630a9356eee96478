"""The pages in a real browser: no error, light and dark, nothing wider than a phone. Skipped where there is none."""

from __future__ import annotations

import html
import json
import os
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.report.html.test_pages import PAGES

BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome", "chrome"))), None)
PHONE_PX, DESK_PX = 375, 1280

pytestmark = pytest.mark.skipif(BROWSER is None, reason="no Chromium or Chrome on PATH")

LOOK = """
const frame = document.querySelector("iframe");
frame.addEventListener("load", () => {
  const inner = frame.contentDocument, root = inner.documentElement;
  const look = () => frame.contentWindow.getComputedStyle(inner.body).backgroundColor;
  const button = inner.getElementById("theme"), first = look(), label = button.textContent;
  const visible = [...inner.querySelectorAll("svg")].filter(each => each.getClientRects().length);
  const drawn = visible.length > 0 && visible.every(each => each.getBoundingClientRect().height > 5);
  const overlap = [...inner.querySelectorAll("h1, h2, .tile, figure")].some(
    each => each.getBoundingClientRect().right > frame.clientWidth + 1);
  const wide = root.scrollWidth;
  const tables = [...inner.querySelectorAll(".scroll")].filter(each => each.getClientRects().length);
  const within = (each, box) => {
    const at = each.getBoundingClientRect(), around = box.getBoundingClientRect();
    return at.right <= around.right + 1 && at.bottom <= around.bottom + 1 && at.width > 0;
  };
  const scrolled = tables.filter(each => each.scrollWidth > each.clientWidth).map(each => each.ariaLabel);
  const cut = title => tables.some(box => [...box.querySelectorAll("thead th")].some(
    each => each.textContent === title && !within(each, box)));
  const totals = [...inner.querySelectorAll("tfoot tr")].filter(each => each.getClientRects().length);
  const hidden = totals.some(each => !within(each.firstChild, each.closest(".scroll")));
  button.click();
  const out = document.createElement("output");
  out.textContent = JSON.stringify({wide, first, second: look(), label, now: button.textContent, drawn, overlap,
    scrolled, speedup: !cut("Speed-up"), totals: totals.length && !hidden});
  document.body.append(out);
});
"""


def framed(page: str, width_px: int) -> str:
    """A document that shows `page` at a width and writes what it sees."""
    inside = html.escape(page, quote=True)
    frame = f'<iframe style="border:0;width:{width_px}px;height:900px" srcdoc="{inside}"></iframe>'
    return f"<!doctype html><body>{frame}<script>{LOOK}</script></body>"


def browse(folder: Path, text: str, *more: str) -> tuple[str, str]:
    """(document after its scripts, what the console said)."""
    assert BROWSER is not None
    file = folder / "shown.html"
    file.write_text(text, encoding="utf-8")
    flags = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--hide-scrollbars"]
    flags += ["--virtual-time-budget=3000", "--enable-logging=stderr", f"--user-data-dir={folder / 'profile'}", *more]
    done = subprocess.run(
        [BROWSER, *flags, file.as_uri()],
        capture_output=True, text=True, timeout=120, check=False, env={**os.environ, "HOME": str(folder)},
    )  # fmt: skip
    console = [line for line in done.stderr.splitlines() if "CONSOLE" in line]
    return done.stdout, "\n".join(console)


def seen(folder: Path, page: str, width_px: int = PHONE_PX) -> tuple[dict[str, Any], str]:
    document, console = browse(folder, framed(page, width_px), "--dump-dom")
    told = re.search(r"<output>(.*?)</output>", document)
    assert told is not None, document[-500:]
    return json.loads(html.unescape(told.group(1))), console


@pytest.mark.parametrize("name", ["analyze, many layers", "prune, deep", "compact", "bench, grid"])
def test_a_phone_shows_the_whole_page_without_errors(tmp_path: Path, name: str) -> None:
    found, console = seen(tmp_path, PAGES[name]())
    assert console == ""
    assert found["wide"] <= PHONE_PX, "the page itself must not scroll sideways"
    assert found["drawn"] and not found["overlap"]
    assert found["first"] != found["second"], "the switch changes the page"
    assert {found["label"], found["now"]} == {"Dark", "Light"}


@pytest.mark.parametrize("width_px", [PHONE_PX, DESK_PX])
@pytest.mark.parametrize("name", ["bench, grid", "bench, profiles", "compact"])
def test_the_speed_up_is_seen_without_scrolling(tmp_path: Path, name: str, width_px: int) -> None:
    found, _ = seen(tmp_path, PAGES[name](), width_px)
    assert found["speedup"], "its column is cut off"


def test_the_total_of_a_deep_network_is_seen_without_scrolling(tmp_path: Path) -> None:
    page = PAGES["prune, deep"]()
    assert all(seen(tmp_path, page, width_px)[0]["totals"] for width_px in (PHONE_PX, DESK_PX))
    loose = page.replace(".tall tfoot td, .tall tfoot th { position: sticky;", ".tall tfoot td { position: static;")
    assert loose != page and not seen(tmp_path, loose, DESK_PX)[0]["totals"], "the twin: at the end of a long table"


@pytest.mark.parametrize("name", ["analyze, many layers", "prune, deep", "compact", "bench, grid", "bench, profiles"])
def test_no_table_is_wider_than_a_desk(tmp_path: Path, name: str) -> None:
    found, _ = seen(tmp_path, PAGES[name](), DESK_PX)
    assert found["scrolled"] == []
    if name == "bench, grid":
        wide = PAGES[name]().replace('<th scope="row">small.onnx', '<th scope="row">' + "wide" * 150)
        assert seen(tmp_path, wide, DESK_PX)[0]["scrolled"], "the twin"


def test_what_is_too_wide_or_wrong_is_noticed(tmp_path: Path) -> None:
    """The twin: a wide page, a script that the policy forbids."""
    page = PAGES["prune"]()
    wide = page.replace("<main>", '<main><div style="width:900px">x</div>')
    found, console = seen(tmp_path, wide)
    assert (found["wide"] > PHONE_PX, console) == (True, "")
    _, console = seen(tmp_path, page.replace("<main>", "<main><script>alert(1)</script>"))
    assert "Content Security Policy" in console


def test_a_screenshot_can_be_taken_in_both_lights(tmp_path: Path) -> None:
    sizes: list[int] = []
    for theme in ("light", "dark"):
        page = PAGES["analyze"]().replace('<html lang="en">', f'<html lang="en" data-theme="{theme}">')
        picture = tmp_path / f"{theme}.png"
        browse(tmp_path, page, f"--screenshot={picture}", "--window-size=1200,900")
        assert picture.read_bytes().startswith(b"\x89PNG")
        sizes.append(picture.stat().st_size)
    assert min(sizes) > 20_000, "something is drawn"
