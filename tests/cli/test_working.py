"""The sign of life of commands without steps: there on a terminal, absent in a log and with -q."""

from __future__ import annotations

import io
import sys
from dataclasses import dataclass

import pytest

from compressor.cli.options import RunOptions
from compressor.cli.session import Session


@dataclass
class Terminal:
    text: io.StringIO

    def isatty(self) -> bool:
        return True

    def write(self, piece: str) -> int:
        return self.text.write(piece)

    def flush(self) -> None:
        return None


@pytest.mark.parametrize(("quiet", "shown"), [(False, True), (True, False)])
def test_on_a_terminal(quiet: bool, shown: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    stream = io.StringIO()
    monkeypatch.setattr(sys, "stderr", Terminal(stream))
    monkeypatch.setenv("TERM", "xterm")
    with Session("export", RunOptions(quiet=quiet)).working("exporting"):
        pass
    assert ("exporting" in stream.getvalue()) is shown


def test_in_a_log(monkeypatch: pytest.MonkeyPatch) -> None:
    stream = io.StringIO()
    monkeypatch.setattr(sys, "stderr", stream)
    with Session("export", RunOptions()).working("exporting"):
        pass
    assert stream.getvalue() == ""
