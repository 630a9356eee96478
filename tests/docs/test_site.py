"""Links of every page, without a browser and without mkdocs."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from docs.site import ROOT, anchors, broken, links, outside, rewritten, site_path

PAGES = sorted(
    path.relative_to(ROOT).as_posix()
    for folder in (ROOT, ROOT / "docs", ROOT / "benchmarks", ROOT / "sample_models", ROOT / "tests")
    for path in folder.glob("*.md")
)


@pytest.mark.parametrize("page", PAGES)
def test_every_link_leads_somewhere(page: str) -> None:
    assert broken(ROOT / page) == []


def test_twin_a_link_that_leads_nowhere_is_found(tmp_path: Path) -> None:
    (tmp_path / "there.md").write_text(
        "# A heading: with `code`, twice\n\n## Same\n\n## Same\n\n```\n# no heading\n```\n"
    )
    page = tmp_path / "page.md"
    page.write_text(
        "[a](there.md) [b](gone.md) [c](there.md#a-heading-with-code-twice) [d](there.md#none) [e](#here)\n"
        "`[f](code.md)` [g](https://x.org/gone) [h](there.md#same-1) [i](../outside.md)\n\n# Here\n\n"
        "```\n[j](gone.md)\n```\n"
    )
    (tmp_path.parent / "outside.md").write_text("")
    assert broken(page, tmp_path) == ["gone.md", "there.md#none", "../outside.md"]


def test_links_hold_on_the_site() -> None:
    assert rewritten("[a](../benchmarks/RESULTS.md#x) [b](data.md) [c](#y) [d](https://e.org)", "docs/m.md") == (
        "[a](benchmarks/RESULTS.md#x) [b](data.md) [c](#y) [d](https://e.org)"
    )
    assert rewritten("[a](docs/m.md) [b](CHANGELOG.md)", "README.md") == "[a](m.md) [b](CHANGELOG.md)"
    assert rewritten("[a](../README.md)", "docs/m.md") == "[a](index.md)"
    assert rewritten("[a](../docs/m.md) ![b](data/c.svg)", "benchmarks/RESULTS.md") == "[a](../m.md) ![b](data/c.svg)"


def test_every_file_that_the_site_leads_to_is_on_it() -> None:
    held = outside()
    site = {site_path(f"docs/{path.relative_to(ROOT / 'docs').as_posix()}") for path in (ROOT / "docs").rglob("*")}
    site |= {site_path(name) for name in held}
    pages = [*(f"docs/{path.name}" for path in (ROOT / "docs").glob("*.md")), *(n for n in held if n.endswith(".md"))]
    assert "benchmarks/RESULTS.md" in pages
    for page in pages:
        for link in links(rewritten((ROOT / page).read_text(encoding="utf-8"), page)):
            name = link.partition("#")[0]
            if name:
                target = os.path.normpath(Path(site_path(page)).parent / name)
                assert target in site or target.rstrip("/").endswith(("examples", "tasks")), (page, link)


def test_headings_are_spelled_as_github_does() -> None:
    assert anchors("# `--report out.html`: *Pictures*\n## No labels\n") == {"--report-outhtml-pictures", "no-labels"}
    text = (ROOT / "docs" / "patterns.md").read_text(encoding="utf-8")
    assert "## Widths that the runtime likes" in text and "widths-that-the-runtime-likes" in anchors(text)


def test_the_site_is_built_without_a_warning(tmp_path: Path) -> None:
    pytest.importorskip("mkdocs", reason="mkdocs-material is not installed")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(tmp_path / "site")]
    environment = {**os.environ, "NO_MKDOCS_2_WARNING": "1"}
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, env=environment, timeout=300)
    assert done.returncode == 0, done.stderr
    assert "Prune a trained network" in (tmp_path / "site" / "index.html").read_text(encoding="utf-8")
    assert (tmp_path / "site" / "benchmarks" / "RESULTS" / "index.html").is_file()
    assert (tmp_path / "site" / "sample_models" / "tasks" / "regression.py").is_file()
