"""The rules of the other files here can fail: each twin breaks one and sees it told."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest

from compressor.errors import ModelError
from tests.bad.forging import check_message


def _raise(error: BaseException) -> None:
    raise error


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (ModelError("a\nb\nc\nd"), "4 lines"),
        (ModelError('Traceback (most recent call last): File "x"'), "a trace"),
    ],
)
def test_a_message_that_breaks_the_rules_is_found(refused: Any, error: ModelError, told: str) -> None:
    with pytest.raises(AssertionError, match=told):
        refused(_raise, error)


@pytest.mark.parametrize("text", ["x" * 1000, "file: \x00\x1b[31m"])
def test_text_that_no_terminal_should_get_is_found_and_no_error_of_ours_holds_it(refused: Any, text: str) -> None:
    with pytest.raises(AssertionError, match="not for a terminal"):
        check_message(text)
    refused(_raise, ModelError(text))


def test_what_is_accepted_or_crashes_is_found(refused: Any) -> None:
    with pytest.raises(pytest.fail.Exception, match="DID NOT RAISE"):
        refused(len, "good")
    with pytest.raises(KeyError, match="x"):
        refused(_raise, KeyError("x"))


def test_a_hang_is_found(refused: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("signal.alarm", lambda seconds: __import__("signal").setitimer(0, 0.05 if seconds else 0))
    with pytest.raises(AssertionError, match="still busy"):
        refused(time.sleep, 5)


def test_a_canary_would_be_seen(folder: Path) -> None:
    (folder / "canary").touch()
    assert list(folder.rglob("canary*")) == [folder / "canary"]
    (folder / "canary").unlink()
