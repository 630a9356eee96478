"""Dropout rates against Han's formula."""

from __future__ import annotations

import pytest
import torch

from compressor.program import Program, arguments
from compressor.pruning.dropout import rescale_dropout


def rate(program: Program) -> float:
    return next(float(arguments(n)["p"]) for n in program.module.graph.nodes if "dropout" in n.name)


def masked(program: Program, n_kept: int) -> Program:
    mask = torch.zeros(16 * 128, dtype=torch.bool)
    mask[:n_kept] = True
    return program.replace(masks={"hidden.weight": mask.reshape(16, 128)})


def reader(n_kept: int) -> dict[str, torch.Tensor]:
    """The network's dropout is in front of `out`: 3 x 16 connections."""
    mask = torch.zeros(48, dtype=torch.bool)
    mask[:n_kept] = True
    return {"out.weight": mask.reshape(3, 16)}


def test_the_rate_follows_the_root_of_the_connections_that_the_reader_keeps(tiny: Program) -> None:
    tuned, rates = rescale_dropout(tiny.replace(masks=reader(12)), tiny)
    assert rate(tuned) == pytest.approx(0.2 * (12 / 48) ** 0.5) == next(iter(rates.values()))
    assert rate(tiny) == 0.2, "the given program is left untouched"
    assert "0.1" in tuned.module.code


def test_repeated_cuts_come_to_the_same_rate(tiny: Program) -> None:
    once, _ = rescale_dropout(tiny.replace(masks=reader(12)), tiny)
    halfway, _ = rescale_dropout(tiny.replace(masks=reader(30)), tiny)
    twice, _ = rescale_dropout(halfway.replace(masks=reader(12)), tiny)
    assert rate(twice) == rate(once) < rate(halfway) < 0.2


def test_other_layers_and_whole_ones_change_nothing(tiny: Program) -> None:
    for program in (tiny, masked(tiny, 100)):
        tuned, rates = rescale_dropout(program, tiny)
        assert rates == {} and rate(tuned) == 0.2
