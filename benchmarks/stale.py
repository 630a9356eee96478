"""Which results are older than the code they depend on.

    python -m benchmarks.stale          # every section of RESULTS.md, and what changed under it since

A section of RESULTS.md begins with *Measured at `commit`: `path`, `path`.* A table whose
code has changed is not wrong, but nobody has shown that it still holds.
"""

from __future__ import annotations

import re
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "benchmarks" / "RESULTS.md"
_LINE = re.compile(r"^\*Measured at `(?P<commits>[0-9a-f]{7,40}(?:`, `[0-9a-f]{7,40})*)`: (?P<paths>`.+`)\.\*$")


@dataclass(frozen=True)
class Section:
    """A title, the commits that its numbers come from (the oldest first), and the code that they depend on."""

    title: str
    commits: tuple[str, ...]
    paths: tuple[str, ...]


def sections(text: str) -> list[Section]:
    """Every `## ` section of the results.

    Raises:  ValueError naming a section that does not say what it was measured at.
    """
    found: list[Section] = []
    lines = text.split("\n")
    for number, line in enumerate(lines):
        if not line.startswith("## "):
            continue
        said = next((later for later in lines[number + 1 :] if later), "")
        match = _LINE.match(said)
        if match is None:
            raise ValueError(f"{line}: its first line must be *Measured at `commit`: `path`, `path`.*")
        paths = tuple(re.findall(r"`([^`]+)`", match["paths"]))
        found.append(Section(line.removeprefix("## "), tuple(match["commits"].split("`, `")), paths))
    return found


def changes(section: Section) -> list[str]:
    """Subjects of the commits since the oldest one, newest first, that touched its code."""
    command = ["git", "log", "--no-merges", "--format=%h %s", f"{section.commits[0]}..HEAD", "--", *section.paths]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    return [line for line in done.stdout.split("\n") if line]


def table(found: Sequence[tuple[Section, list[str]]]) -> str:
    """Markdown, the stalest first."""
    rows = [f"| {section.title} | {section.commits[0]} | {len(since)} |" for section, since in found]
    return "\n".join(["| section | measured at | commits to its code since |", "|---|---|--:|", *rows])


def main() -> None:
    found = [(section, changes(section)) for section in sections(RESULTS.read_text(encoding="utf-8"))]
    print(table(sorted(found, key=lambda pair: -len(pair[1]))))


if __name__ == "__main__":
    main()
