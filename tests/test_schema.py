"""Values of a file, read strictly."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from compressor.errors import DataError
from compressor.schema import check_plain, is_number, parse_json, read_as, read_json, read_table


@dataclass(frozen=True)
class Entry:
    name: str
    sizes: list[int]


def test_a_value_is_read_as_the_type_that_is_declared() -> None:
    assert read_as(Entry, {"name": "a", "sizes": [1], "newer": 3}, DataError, "entry") == Entry("a", [1])


@pytest.mark.parametrize("value", [{"name": 3, "sizes": []}, {"name": "a", "sizes": ["1"]}, {"name": "a"}, [], "a"])
def test_nothing_is_converted(value: Any) -> None:
    with pytest.raises(DataError, match="entry cannot be read"):
        read_as(Entry, value, DataError, "entry")


def test_what_has_no_end_and_what_is_not_plain_is_refused() -> None:
    endless: list[Any] = []
    endless.append(endless)
    for value, told in ((endless, "has no end"), ({1: 2}, "a key that is no text"), (2**63, "64 bits"), (b"", "bytes")):
        with pytest.raises(DataError, match=told):
            check_plain(value, DataError, "entry")


def test_a_file_that_is_no_json_is_named(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text("{")
    with pytest.raises(DataError, match=r"a\.json: is no JSON"):
        read_json(tmp_path / "a.json", DataError)
    with pytest.raises(DataError, match="cannot be read"):
        read_json(tmp_path / "b.json", DataError)


def test_numbers_that_can_be_calculated_with() -> None:
    assert [is_number(value) for value in (1, 1.5, True, "1", float("nan"), None)] == [True, True] + [False] * 4


def test_a_file_that_holds_no_table_or_is_too_large_for_one_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "a.json"
    file.write_text('{"a": [1]}')
    assert read_table(file, DataError) == {"a": [1]}
    monkeypatch.setattr("compressor.schema._MOST_BYTES", 9)
    with pytest.raises(DataError, match=r"a\.json: is larger than 9 bytes"):
        read_table(file, DataError)
    file.write_text("[1]")
    with pytest.raises(DataError, match=r"a\.json: cannot be read: holds a list, no table"):
        read_table(file, DataError)


@pytest.mark.parametrize("text", [b"{", "[" * 100_000, b"\xff", "1" * 5_000])
def test_a_text_that_is_no_json_names_where_it_stands(text: bytes | str) -> None:
    with pytest.raises(DataError, match=r"a member: is no JSON: "):
        parse_json(text, DataError, "a member")
