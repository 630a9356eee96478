"""Digests of values and of files."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch

from compressor.data import digests


def test_the_same_values_have_the_same_digest_and_others_have_another() -> None:
    one = torch.arange(6.0)
    assert digests.digest_of("a", one) == digests.digest_of("a", one.clone())
    others = [("b", one), ("a", one.reshape(2, 3)), ("a", one.double()), ("a", one + 1), (one, "a")]
    assert len({digests.digest_of(*parts) for parts in [("a", one), *others]}) == 6


@pytest.mark.parametrize("most", [1 << 30, 0])
def test_names_and_contents_count_and_the_place_does_not(
    most: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(digests, "_READ_WHOLE_BYTES", most)
    for folder in ("one", "two"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "a").write_bytes(b"12")
    found = [digests.files_digest([tmp_path / name / "a"], tmp_path / name) for name in ("one", "two")]
    assert (found[0] == found[1]) == (most > 0), "of large files the time counts"
    (tmp_path / "two" / "a").write_bytes(b"123")
    assert digests.files_digest([tmp_path / "two" / "a"], tmp_path / "two") != found[1]


def test_of_more_than_a_gibibyte_only_sizes_and_times_are_read(tmp_path: Path) -> None:
    path = tmp_path / "large"
    with path.open("wb") as file:
        file.truncate((1 << 30) + 1)

    def digest(first: bytes, time_s: int) -> str:
        with path.open("r+b") as file:
            file.write(first)
        os.utime(path, (time_s, time_s))
        return digests.files_digest([path], tmp_path)

    assert digest(b"a", 1) == digest(b"b", 1) != digest(b"b", 2)


def test_what_is_as_much_as_is_read_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(digests, "_READ_WHOLE_BYTES", 2)
    path = tmp_path / "a"
    path.write_bytes(b"12")
    first = digests.files_digest([path], tmp_path)
    os.utime(path, (1, 1))
    assert digests.files_digest([path], tmp_path) == first


def test_files_elsewhere_count_by_their_whole_name(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    for name in ("a", "b"):
        (tmp_path / name).write_bytes(b"12")
    assert len({digests.files_digest([tmp_path / name], tmp_path / "in") for name in ("a", "b")}) == 2


def test_the_source_of_a_class_is_its_file() -> None:
    assert digests.source_digest(Path) != "" and digests.source_digest(3) == ""
