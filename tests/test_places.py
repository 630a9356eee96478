"""Folders of the user's own."""

from __future__ import annotations

from pathlib import Path

import pytest

from compressor.places import cache_folder, state_folder


def test_they_lie_where_the_environment_says(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    assert cache_folder() == tmp_path / "cache" / "compress" and state_folder() == tmp_path / "state" / "compress"


def test_a_relative_name_is_none(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The working directory may be a stranger's."""
    monkeypatch.setenv("XDG_CACHE_HOME", "cache")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert cache_folder() == tmp_path / ".cache" / "compress"
    monkeypatch.setenv("HOME", "home")
    assert cache_folder() is None
