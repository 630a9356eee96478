"""The parts that every page is made of, and the page; it must never hold what a command found."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import PurePath
from typing import TYPE_CHECKING, Any

from compressor.report.html.markup import Child, Markup, tag
from compressor.report.html.style import SCRIPT, STYLE, content_policy

if TYPE_CHECKING:
    from compressor.program import Record

_LONG = 11
"""A value with more characters than this is set smaller, so that it stays in its tile."""


_LONG_NAME = 30
"""A name with more characters than this may be broken."""
_TALL = 26
"""A table with more rows than this scrolls by itself, under its head."""


@dataclass(frozen=True)
class About:
    """Where a result comes from: command, what was asked, model, versions, and the history of the model.

    `models` are the names of several, `where` data and task as they were said, for a model that has no record.
    """

    command: str
    model: str
    options: Mapping[str, Any] = field(default_factory=dict)
    seed: int | None = None
    sha256: str | None = None
    output: str | None = None
    versions: Mapping[str, str] = field(default_factory=dict)
    record: Record | None = None
    models: tuple[str, ...] = ()
    where: Mapping[str, str] = field(default_factory=dict[str, str])

    @property
    def title(self) -> str:
        """What the page is about: the file that was written, else the model; without a file its architecture."""
        named = self.output if self.output not in (None, "-") else self.model
        if named in ("init", "-") and self.record is not None and self.record.arch is not None:
            return self.record.arch
        return PurePath(named or self.model).name


@dataclass(frozen=True)
class Tile:
    """One of the numbers that the page is about; `aside` says what it was or is compared with."""

    label: str
    value: str
    aside: str = ""


@dataclass(frozen=True)
class Column:
    """A column of a table: `kind` is text, number, bar or name (the row's head); `less` is left out on a phone."""

    title: str
    kind: str = "number"
    less: bool = False

    @property
    def classes(self) -> str | None:
        kinds = {"number": "n", "bar": "bar", "text": "text", "heat": "heat", "mono": "mono"}
        names = [kinds.get(self.kind, ""), "less" if self.less else ""]
        return " ".join(name for name in names if name) or None


def page(about: About, title: str, lead: str, tiles: Sequence[Tile], sections: Sequence[Child]) -> str:
    """The whole document, which needs nothing beside it."""
    head = tag(
        "head",
        tag("meta", charset="utf-8"),
        tag("meta", name="viewport", content="width=device-width, initial-scale=1"),
        tag("meta", http_equiv="Content-Security-Policy", content=content_policy()),
        tag("title", f"{title} · compress {about.command}"),
        tag("style", Markup(STYLE)),
    )
    top = tag(
        "header",
        tag(
            "div",
            tag("div", f"compress {about.command}", class_="kicker"),
            tag("h1", title),
            tag("p", lead, class_="lead"),
        ),
        tag("button", "Dark", id="theme", type="button", hidden=True, aria_label="Switch between light and dark"),
    )
    body = tag("body", top, tag("main", _tiles(tiles), *sections), _footer(about), tag("script", Markup(SCRIPT)))
    return f"<!doctype html>\n{tag('html', head, body, lang='en')}\n"


def _tiles(tiles: Sequence[Tile]) -> Markup | None:
    if not tiles:
        return None
    return tag("dl", [_tile(each) for each in tiles], class_="tiles")


def _tile(tile: Tile) -> Markup:
    size = "value long" if len(tile.value) > _LONG else "value"
    aside = tag("dd", tile.aside, class_="aside") if tile.aside else None
    return tag("div", tag("dt", tile.label), tag("dd", tile.value, class_=size), aside, class_="tile")


def section(title: str, lead: str, *parts: Child) -> Markup:
    """A heading, a sentence that says what is seen, and the parts."""
    return tag("section", tag("h2", title), tag("p", lead, class_="lead") if lead else None, *parts)


def charts(*figures: Markup | None) -> Markup | None:
    """Figures side by side where there is room."""
    shown = [each for each in figures if each is not None]
    style = "charts pairs" if len(shown) in (2, 4) else "charts"  # not two and a gap, not three and one
    return tag("div", shown, class_=style) if shown else None


def stack(*figures: Markup | None) -> Markup:
    """Flat figures below each other in the place of one."""
    return tag("div", [each for each in figures if each is not None], class_="stack")


def figure(title: str, unit: str, drawing: Markup, *, wide: bool = False) -> Markup:
    """A drawing under its title; `unit` says what its numbers are."""
    caption = tag("figcaption", title, tag("span", f"  {unit}") if unit else None)
    return tag("figure", caption, drawing, class_="wide" if wide else None)


def table(columns: Sequence[Column], rows: Sequence[Sequence[Child]], total: Sequence[Child] | None = None) -> Markup:
    """A table that scrolls by itself when it is wider than the page."""
    head = tag("tr", [tag("th", c.title, scope="col", class_=c.classes) for c in columns])
    foot = tag("tfoot", _row(columns, total)) if total is not None else None
    body = tag("tbody", [_row(columns, row) for row in rows])
    drawn = tag("table", tag("thead", head), body, foot)
    style = "scroll tall" if len(rows) > _TALL else "scroll"
    return tag("div", drawn, class_=style, tabindex="0", role="region", aria_label=columns[0].title or "values")


def _row(columns: Sequence[Column], cells: Sequence[Child]) -> Markup:
    return tag("tr", [_cell(column, cell) for column, cell in zip(columns, cells, strict=True)])


def _cell(column: Column, cell: Child) -> Markup:
    if column.kind != "name":
        return tag("td", cell, class_=column.classes)
    is_long = isinstance(cell, str) and len(cell) > _LONG_NAME
    return tag("th", tag("span", cell, class_="long") if is_long else cell, scope="row", class_=column.classes)


def folded(title: str, *parts: Child, opened: bool = False) -> Markup:
    """Parts behind a line that opens them."""
    return tag("details", tag("summary", title), *parts, open=opened)


def note(text: str) -> Markup:
    """A paragraph in small print."""
    return tag("p", text, class_="note")


def warnings(texts: Sequence[str]) -> Markup | None:
    """What makes the numbers below doubtful, in a box above them."""
    if not texts:
        return None
    return tag("div", [tag("p", f"Warning: {text}") for text in texts], class_="warnings", role="note")


def bars(parts: Sequence[tuple[float, str]], told: str) -> Markup:
    """A bar in a cell: shares of its width with a class each, the widest behind; `told` is what it says."""
    drawn = [
        tag("rect", x=0, y=1.5, width=max(share, 0.004) * 100, height=9, rx=0.6, class_=style)
        for share, style in parts
        if share > 0
    ]
    return tag("svg", tag("title", told), drawn, viewBox="0 0 100 12", preserveAspectRatio="none", role="img")


def _footer(about: About) -> Markup:
    told = [
        f"{about.model} -> {about.output}" if about.output is not None else about.model,
        f"SHA-256 of {PurePath(about.model).name}: {about.sha256}" if about.sha256 else "",
        f"seed {about.seed}" if about.seed is not None else "",
        " · ".join(f"{name} {version}" for name, version in about.versions.items()),
    ]
    return tag("footer", [tag("div", text) for text in told if text])
