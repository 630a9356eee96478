"""Links of pages: what they lead to, and how they read on the site, where files beside docs/ are pages or files too.

mkdocs calls `on_files` and `on_page_markdown` (hooks in mkdocs.yml); tests ask `broken` without it. It must never hold
what a page says.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mkdocs.config.defaults import MkDocsConfig
    from mkdocs.structure.files import Files

ROOT = Path(__file__).parents[1]
_HOME = "README.md"
_LINK = re.compile(r"(!?\[[^\]]*\]\()([^()\s]+)(\))")
_FENCE = re.compile(r"^[ >]*(```|~~~).*?^[ >]*\1", re.MULTILINE | re.DOTALL)


def links(text: str) -> Iterator[str]:
    """Targets inside of this tree, as they are written; code is no text."""
    prose = re.sub(r"`[^`\n]*`", "", _FENCE.sub("", text))
    for found in _LINK.finditer(prose):
        if "://" not in found[2] and not found[2].startswith("mailto:"):
            yield found[2]


def anchors(text: str) -> set[str]:
    """What a link may name behind `#`: the headings as GitHub and mkdocs spell them."""
    found: set[str] = set()
    for heading in re.findall(r"^#+ +(.+?) *$", _FENCE.sub("", text), re.MULTILINE):
        plain = re.sub(r"[^\w\- ]", "", re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading)).strip().lower()
        slug = plain.replace(" ", "-")
        n = sum(1 for other in found if other == slug or re.fullmatch(rf"{re.escape(slug)}-\d+", other))
        found.add(f"{slug}-{n}" if n else slug)
    return found


def broken(page: Path, root: Path = ROOT) -> list[str]:
    """Links of a page that lead nowhere: no such file below `root`, or no such heading in it."""
    text = page.read_text(encoding="utf-8")
    wrong: list[str] = []
    for link in links(text):
        name, _, anchor = link.partition("#")
        target = (page.parent / name).resolve() if name else page.resolve()
        is_there = target.exists() and target.is_relative_to(root.resolve())
        headings = anchors(target.read_text(encoding="utf-8")) if is_there and target.suffix == ".md" else set[str]()
        wrong += [link] if not is_there or (anchor and anchor not in headings) else []
    return wrong


def site_path(path: str) -> str:
    """Where a file of this tree is on the site: the README is its first page, pages of docs/ stand at its top, all else
    below its own folder."""
    return "index.md" if path == _HOME else path.removeprefix("docs/")


def outside(start: Path = ROOT) -> dict[str, Path]:
    """The README, files beside docs/ that pages lead to, and those that these lead to, by their path from the root."""
    found: dict[str, Path] = {_HOME: start / _HOME}
    todo = [start / _HOME, *sorted((start / "docs").glob("*.md"))]
    while todo:
        page = todo.pop()
        for link in links(page.read_text(encoding="utf-8")):
            target = (page.parent / link.partition("#")[0]).resolve()
            name = target.relative_to(start.resolve()).as_posix()
            if target.is_file() and not name.startswith("docs/") and name not in found:
                found[name] = target
                todo += [target] if target.suffix == ".md" else []
    return found


def rewritten(text: str, page: str) -> str:
    """The text of a page, named from the root, with links that hold on the site."""
    folder = Path(page).parent

    def led(found: re.Match[str]) -> str:
        name, mark, anchor = found[2].partition("#")
        if not name or "://" in name or name.startswith("mailto:"):
            return found[0]
        target = os.path.normpath(folder / name)
        path = os.path.relpath(site_path(target), Path(site_path(page)).parent)
        return f"{found[1]}{path}{mark}{anchor}{found[3]}"

    return _LINK.sub(led, text)


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Adds what pages lead to."""
    from mkdocs.structure.files import File

    for name, path in outside().items():
        files.append(File.generated(config, site_path(name), abs_src_path=str(path)))
    return files


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """Rewrites the links of a page."""
    here = {site_path(name): name for name in outside()}
    return rewritten(markdown, here.get(page.file.src_uri, f"docs/{page.file.src_uri}"))
