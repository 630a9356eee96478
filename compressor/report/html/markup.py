"""Elements of HTML and SVG as text that is escaped once, here; it must never hold what an element is for."""

from __future__ import annotations

import html
import re
import unicodedata
from collections.abc import Iterable
from typing import TypeAlias

_VOID = frozenset({"meta", "br", "hr", "input", "link", "img"})
"""Elements of HTML that have no end tag."""


class Markup(str):
    """Text that is markup already and is not escaped again."""

    __slots__ = ()


Child: TypeAlias = "str | Markup | int | Iterable[Child] | None"
Value: TypeAlias = "str | float | bool | None"


def escape(text: str) -> Markup:
    """The text as content or attribute value, whatever it holds; characters no document may hold become `\ufffd`.

    Layer names and paths come from files of strangers. Controls go, and so do the marks that turn the direction of
    writing around: they make a name read as another one.
    """
    return Markup(html.escape("".join(char if _is_shown(char) else "\ufffd" for char in text), quote=True))


def _is_shown(char: str) -> bool:
    return char.isprintable() or char in "\n\t" or unicodedata.category(char) == "Zs"  # spaces of all widths


def tag(name: str, /, *children: Child, **attributes: Value) -> Markup:
    """One element. An attribute `class_` is `class`, `data_x` is `data-x`; None and False leave it out.

    Lengths in a drawing are rounded to 2 digits: a hundredth of a pixel.
    """
    given = "".join(_attribute(key, value) for key, value in attributes.items())
    if name in _VOID:
        return Markup(f"<{name}{given}>")
    return Markup(f"<{name}{given}>{join(children)}</{name}>")


def join(children: Iterable[Child]) -> Markup:
    """The children one after another; text is escaped, None left out."""
    return Markup("".join(_child(child) for child in children))


def breakable(name: str) -> Markup:
    """A name that may be broken behind its dots, dashes and other signs, as the head of a narrow column."""
    return Markup("<wbr>".join(escape(part) for part in re.findall(r"[^\W_]+[\W_]*|[\W_]+", name)))


def _child(child: Child) -> str:
    if child is None:
        return ""
    if isinstance(child, Markup):
        return child
    if isinstance(child, str):
        return escape(child)
    if isinstance(child, int):
        return str(child)
    return join(child)


def _attribute(key: str, value: Value) -> str:
    if value is None or value is False:
        return ""
    name = key.rstrip("_").replace("_", "-")
    if value is True:
        return f" {name}"
    text = f"{value:.2f}".rstrip("0").rstrip(".") if isinstance(value, float) else escape(str(value))
    return f' {name}="{text}"'
