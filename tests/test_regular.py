"""Paths that must be ordinary files."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from compressor.errors import DataError
from compressor.regular import open_regular, read_regular


def test_a_file_is_read_up_to_its_limit(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_bytes(b"12345")
    assert read_regular(file, 5, DataError) == b"12345"
    with pytest.raises(DataError, match="larger than 4 bytes"):
        read_regular(file, 4, DataError)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no named pipes")
def test_a_pipe_is_refused_at_once(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(DataError, match="is a directory, a pipe or a device"):
        open_regular(tmp_path / "pipe", DataError)


@pytest.mark.parametrize("name", ["missing", "nul\0l"])
def test_what_is_not_there_cannot_be_read(tmp_path: Path, name: str) -> None:
    with pytest.raises(DataError, match="cannot be read"):
        open_regular(str(tmp_path / name), DataError)
