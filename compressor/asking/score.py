"""What can be rated by, and what each needs to be known; it must never rate anything."""

from __future__ import annotations

from typing import Literal, get_args

Score = Literal["l2", "l1", "taylor", "fisher", "bn", "fpgm", "activation", "output", "routing"]

OUTPUT: Score = "output"
"""What the output loses without a residual block."""
ROUTING: Score = "routing"
"""What a router sends to an expert, times what it weighs and what the expert answers."""
MEASURED_SCORES = (OUTPUT, ROUTING)
"""What is measured of the network, once, and no criterion of weights."""
CRITERIA: tuple[Score, ...] = tuple(score for score in get_args(Score) if score not in MEASURED_SCORES)
"""Names of the criteria of weights; `l2` is plain magnitude, and the one that ADMM's projection uses."""
NEEDS_GRADIENTS = frozenset({"taylor", "fisher"})
NEEDS_INPUTS = frozenset({"activation"})
"""Criteria that are told what reaches each weight: training data, and no labels."""
NEEDS_DATA = NEEDS_GRADIENTS | NEEDS_INPUTS
NEEDS_UNITS = frozenset({"bn", "fpgm"})
"""Criteria that rate whole filters and say nothing about single weights."""
