"""Layers that a pattern does not fit: named, or refused where they were asked for."""

from __future__ import annotations

import pytest

from compressor.errors import PatternError
from compressor.sparsity.misfits import refuse_or_note
from tests.choices import choice_of

FOUND = [(f"conv{i}", "its width is odd") for i in range(9)]


def test_they_are_told_where_nobody_named_them() -> None:
    assert refuse_or_note([], choice_of("2:4")) == ()
    (note,) = refuse_or_note(FOUND, choice_of("2:4"))
    assert note.startswith("left dense: conv0 (its width is odd); ") and "more" in note


def test_they_are_refused_where_the_scope_names_them() -> None:
    with pytest.raises(PatternError, match="conv0: its width is odd; skip it with --keep conv0"):
        refuse_or_note(FOUND, choice_of("2:4", scope=("conv*",)))
