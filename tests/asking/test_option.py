"""A request says what its options are, reads them from text, and checks them wherever they come from."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import pytest

from compressor.asking import Admm, PruneSettings, Recipe, Recovery, ScanSettings, build, check, declared, group, option
from compressor.asking.option import above, at_least, from_below, setting
from compressor.errors import UsageError

REQUESTS = (Admm, PruneSettings, Recipe, Recovery, ScanSettings)


@dataclass(frozen=True)
class Inner:
    depth: int = option(2, "How deep.", range=at_least(1))

    def __post_init__(self) -> None:
        check(self)


@dataclass(frozen=True)
class Asked:
    share: float = option(0.5, "A share.", range=from_below(0, 1))
    kind: Literal["a", "b"] = option("a", "Which.", name="which")
    names: tuple[str, ...] = option((), "Names.", repeat=True)
    width: int = option(1, "A width.", read=lambda text: 0 if text == "auto" else int(text), shown="1")
    last: Literal["yes", "no"] = option("no", "Whether.", name="at_last", switch="yes")
    inner: Inner = group(Inner)
    secret: float = setting(1.0, above(0))
    plain: Any = None

    def __post_init__(self) -> None:
        check(self)


def test_options_are_listed_with_those_of_groups_in_their_place() -> None:
    assert [one.name for one in declared(Asked)] == ["share", "which", "names", "width", "at_last", "depth"]


def test_a_request_is_read_from_texts_and_plain_values() -> None:
    got = build(Asked, {"share": 0.25, "which": "b", "names": ["x", "y"], "width": "auto", "at_last": True, "depth": 3})
    assert got == Asked(share=0.25, kind="b", names=("x", "y"), width=0, last="yes", inner=Inner(3))


def test_silence_keeps_every_default() -> None:
    assert build(Asked, {}) == build(Asked, {one.name: None for one in declared(Asked)}) == Asked()
    assert build(Asked, {"names": ()}) == Asked()


def test_fields_that_are_no_options_are_taken_as_they_are() -> None:
    assert build(Asked, {"plain": [1], "inner": Inner(9), "secret": 2}) == Asked(plain=[1], inner=Inner(9), secret=2.0)


@pytest.mark.parametrize(
    ("values", "told"),
    [
        ({"share": 1.0}, "--share 1: must be from 0 to below 1"),
        ({"share": "half"}, "--share half: must be a number"),
        ({"share": float("nan")}, "--share nan: must be a number"),
        ({"kind": "c"}, "--which c: choose one of a, b"),
        ({"width": 1.5}, "--width 1.5: must be a whole number"),
        ({"secret": 0.0}, "secret 0: must be above 0"),
    ],
)
def test_what_is_out_of_range_is_named(values: dict[str, Any], told: str) -> None:
    with pytest.raises(UsageError, match=told):
        Asked(**values)


def test_groups_check_themselves() -> None:
    with pytest.raises(UsageError, match="--depth 0: must be at least 1"):
        build(Asked, {"depth": 0})


def test_a_whole_number_becomes_a_float_where_one_is_meant() -> None:
    assert type(Asked(secret=3).secret) is float


@pytest.mark.parametrize("request_", REQUESTS, ids=lambda kind: kind.__name__)
def test_every_declared_default_passes_its_own_check(request_: type[Any]) -> None:
    for one in declared(request_):
        if one.option.range is not None and one.default is not None:
            assert one.option.range.holds(one.default), one.name
        if one.choices and one.default is not None:
            assert one.default in one.choices, one.name
        assert one.option.help.endswith("."), one.name


@pytest.mark.parametrize("request_", REQUESTS, ids=lambda kind: kind.__name__)
def test_every_range_has_a_value_outside(request_: type[Any]) -> None:
    """A range that nothing violates checks nothing."""
    for one in declared(request_):
        if one.option.range is not None:
            assert not all(one.option.range.holds(value) for value in (-1e9, 0.0, 1e9)), one.name
