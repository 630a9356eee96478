"""Golden files; it must never hold what a report should look like."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest
from rich.console import RenderableType

from compressor.report.console import WIDTH, plain_text

FOLDER = Path(__file__).parent / "golden"


@pytest.fixture
def golden() -> Callable[[str, RenderableType], None]:
    """Compares a report with a file; GOLDEN=write makes the file anew, to be read before it is kept."""

    def check(name: str, body: RenderableType) -> None:
        text = plain_text(body)
        path = FOLDER / f"{name}.txt"
        if os.environ.get("GOLDEN") == "write":
            path.write_text(text, encoding="utf-8")
        assert text == path.read_text(encoding="utf-8")
        wide = [line for line in text.splitlines() if "  " in line and len(line) > WIDTH]
        assert not wide, f"table rows wider than {WIDTH}: {wide}"

    return check
