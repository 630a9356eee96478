"""Names of patterns: what is read, and what is refused with which words."""

from __future__ import annotations

import subprocess
import sys

import pytest

from compressor.asking.pattern import PATTERN_FORMS, Pattern, parse_pattern
from compressor.errors import UsageError


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("channel", Pattern("channel", units="channel")),
        ("head", Pattern("head", units="head")),
        ("layer", Pattern("layer", blocks=True)),
        ("Channel+layer", Pattern("layer+channel", units="channel", blocks=True)),
        ("unstructured", Pattern("unstructured", weights="unstructured")),
        ("shape", Pattern("shape", weights="shape")),
        ("shape:position", Pattern("shape:position", weights="shape", grain="position")),
        ("filter+shape", Pattern("filter+shape", "filter", "shape")),
        ("shape:channel+channel", Pattern("channel+shape:channel", "channel", "shape", "channel")),
        (" Filter + Shape ", Pattern("filter+shape", "filter", "shape")),
        ("2:4", Pattern("2:4", weights="n:m", window=(2, 4))),
        ("1:16", Pattern("1:16", weights="n:m", window=(1, 16))),
        ("block:1x4", Pattern("block:1x4", weights="block", block=(1, 4))),
    ],
)
def test_a_name_is_read(text: str, expected: Pattern) -> None:
    assert parse_pattern(text) == expected
    assert parse_pattern(expected.text) == expected, "the usual spelling names the same"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("rows", "--pattern rows: no such pattern; choose one of filter, channel, head, layer, "),
        ("", "no such pattern"),
        ("filter+", "no such pattern"),
        ("shape:row", "no such pattern"),
        ("filter+channel", "these do not combine; filter, channel or head goes with shape"),
        ("filter+filter", "these do not combine"),
        ("filter+2:4", "these do not combine"),
        ("shape+unstructured", "these do not combine"),
        ("filter+channel+shape", "these do not combine"),
        ("layer+layer", "these do not combine; filter, channel or head goes with shape, layer or expert"),
        ("layer+shape", "these do not combine"),
        ("layer+channel+shape", "these do not combine"),
        ("layer+2:4", "these do not combine"),
        ("4:4", "of M weights N stay, 1 <= N < M <= 64"),
        ("0:4", "of M weights N stay"),
        ("1:65", "of M weights N stay"),
        ("block:1x1", "more than one weight; single weights are unstructured"),
        ("block:0x4", "1 to 256 rows and columns"),
        ("block:4", "no such pattern"),
    ],
)
def test_what_is_no_pattern_is_refused(text: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        parse_pattern(text)


def test_every_form_in_the_help_is_a_pattern() -> None:
    assert [parse_pattern(form).text for form in PATTERN_FORMS] == list(PATTERN_FORMS)


def test_what_follows_from_a_pattern() -> None:
    physical = {form for form in PATTERN_FORMS if parse_pattern(form).is_physical}
    assert set(PATTERN_FORMS) - physical == {"unstructured", "2:4", "block:4x4"}
    assert parse_pattern("1:4").implied_ratio == 4.0 and parse_pattern("shape").implied_ratio is None


def test_reading_a_pattern_does_not_import_torch() -> None:
    code = (
        "import sys; from compressor.asking import parse_pattern; parse_pattern('2:4'); print('torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
