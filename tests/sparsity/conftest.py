"""Bundled networks with their units, traced once."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache

import pytest

from compressor.axes import UnitMap, find_units
from compressor.models import ARCHITECTURES, build
from compressor.program import InputSpec, Program, capture


@lru_cache(maxsize=8)
def _bundled(name: str) -> tuple[Program, UnitMap]:
    program = capture(build(name, {}, seed=0).module, [InputSpec("x", (None, *ARCHITECTURES[name].input_shape))])
    return program, find_units(program)


@pytest.fixture
def bundled() -> Callable[[str], tuple[Program, UnitMap]]:
    """A bundled network and its units by name; tests must not change it."""
    return _bundled
