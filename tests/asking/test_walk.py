"""How units are found, as a checkpoint remembers it."""

from __future__ import annotations

import pytest

from compressor.asking.walk import THROUGH_NORM, WalkOptions
from compressor.errors import ModelError


@pytest.mark.parametrize("through_norm", THROUGH_NORM)
@pytest.mark.parametrize("keep_heads", [False, True])
def test_what_is_remembered_is_what_was_said(keep_heads: bool, through_norm: str) -> None:
    options = WalkOptions(keep_heads, through_norm)  # type: ignore[arg-type]
    assert WalkOptions.from_mapping(options.to_mapping()) == options


def test_defaults_are_not_written() -> None:
    assert WalkOptions().to_mapping() == {}


@pytest.mark.parametrize("entry", [{"keep_heads": "yes"}, {"through_norm": "keep"}, {"newer": True}])
def test_an_option_that_is_not_known_is_refused(entry: dict[str, object]) -> None:
    with pytest.raises(ModelError, match="is unknown; update compress"):
        WalkOptions.from_mapping(entry)
