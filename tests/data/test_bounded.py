"""How much may come out of a compressed file."""

from __future__ import annotations

import gzip
from pathlib import Path

import pytest

from compressor.data import bounded
from compressor.errors import DataError


def test_honest_content_comes_out_whole(tmp_path: Path) -> None:
    packed = gzip.compress(b"digits" * 100)
    (tmp_path / "a.gz").write_bytes(packed)
    assert bounded.gunzip(packed, tmp_path / "a.gz") == b"digits" * 100


def test_a_file_that_grows_beyond_measure_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bounded, "_ALWAYS_BYTES", 1000)
    packed = gzip.compress(bytes(10**6))
    (tmp_path / "a.gz").write_bytes(packed)
    with pytest.raises(DataError, match="bytes that unpack to"):
        bounded.gunzip(packed, tmp_path / "a.gz")
    monkeypatch.setattr(bounded, "_MOST_GROWTH", 10**6)
    assert len(bounded.gunzip(packed, tmp_path / "a.gz")) == 10**6, "twin: the growth is what was refused"


@pytest.mark.parametrize(
    ("size", "told"),
    [((0, 5), "0 by 5 pixels"), ((100_000, 100_000), "unpack to"), ((30_000_000, 1), "too long and thin")],
)
def test_images_that_cannot_be_meant_are_refused(size: tuple[int, int], told: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=told):
        bounded.refuse_large_image(tmp_path / "a.png", 1000, size, 224)
