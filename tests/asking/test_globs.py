"""Pairs of a glob and a number, read from text."""

from __future__ import annotations

import pytest

from compressor.asking.globs import glob_values, read_globs
from compressor.errors import UsageError


def test_a_pair_is_split_at_its_last_sign() -> None:
    assert glob_values(["conv1=1e-2", "a=b=3"], "--layer", "conv1=0.66") == (("conv1", 0.01), ("a=b", 3.0))
    assert read_globs("--quality", "0.8", alone="*")(["0.8"]) == (("*", 0.8),)


@pytest.mark.parametrize("text", ["conv1", "conv1=x", "=0.5", "0.5"])
def test_what_is_no_pair_is_refused_with_an_example(text: str) -> None:
    with pytest.raises(UsageError, match=f"--layer {text}: write it as conv1=0.66"):
        glob_values([text], "--layer", "conv1=0.66")
