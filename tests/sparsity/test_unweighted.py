"""Units that something without weights reads: found, and left alone by `shape`, on networks that hide their readers."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from compressor.axes import find_units
from compressor.program import Program, capture, find_layers
from compressor.sparsity import apply_masks, make_selector
from compressor.sparsity.select_shape import ShapeSelector
from compressor.sparsity.select_units import free_units
from compressor.sparsity.unweighted import read_without_weights
from tests.axes.attention_networks import NETWORKS, difference, network, randomise
from tests.axes.test_hard_cases import CASES
from tests.axes.tracing import trace
from tests.choices import choice_of

HIDDEN = ("divided by a norm", "vit")
"""Networks in which a unit loses its last column and is still read."""


def program_of(name: str) -> Program:
    if name in NETWORKS:
        return network(name)
    case = CASES[name]
    return capture(randomise(case.model()).double(), case.inputs)


def unread_difference(program: Program, selector: ShapeSelector) -> float:
    """What it changes when units go that have lost their columns, beside cutting the columns themselves."""
    selection = selector.select(program.parameters, 1.6)
    everything = np.ones(selector.columns.units.n_units, dtype=bool)
    columns = selector.columns.of_masks(selection.masks)
    bare, whole = program.clone(), program.clone()
    apply_masks(bare.module, selector.columns.masks(everything, columns, program.parameters))
    apply_masks(whole.module, selection.masks)
    return difference(bare, whole)


def shape_selector(program: Program) -> ShapeSelector:
    selector = make_selector(program, find_units(program), choice_of("shape", floor=0.0))
    assert isinstance(selector, ShapeSelector)
    return selector


@pytest.mark.parametrize(
    "name",
    [
        *HIDDEN, "num_heads in a reshape", "fused attention", "CBAM", "channel shuffle", "padded shortcut",
        "transposed convolution", "SwiGLU", "pixel shuffle", "tied embedding", "shared layer", "llama", "convnext",
    ],
)  # fmt: skip
def test_units_without_columns_go_only_when_nothing_changes(name: str) -> None:
    program = program_of(name)
    assert unread_difference(program, shape_selector(program)) < 1e-9


@pytest.mark.parametrize("name", HIDDEN)
def test_twin_readers_without_weights_matter(name: str) -> None:
    program = program_of(name)
    selector = shape_selector(program)
    units, layers = selector.columns.units, find_layers(program)
    scoped = {layer.name for layer in layers}
    unaware = replace(selector.columns, removable=free_units(units, layers, scoped, set()))
    assert unread_difference(program, replace(selector, columns=unaware)) > 1e-3


def test_sums_and_products_read_and_what_passes_on_does_not() -> None:
    def forward(net: Any, x: torch.Tensor) -> torch.Tensor:
        first, second = net.d(x).chunk(2, -1)  # units that are not the same, each half read by another layer
        passed = torch.cat((second.relu(), first), -1)
        apart = net.of_part(passed[..., :3]) + net.of_rest(passed[..., 3:]) + net.of_all(passed)
        a, b, c = net.a(x).relu(), net.b(x), net.c(x).tanh()
        scores = torch.matmul(a, net.k(x).transpose(1, 2)).softmax(-1)
        first, second = b.chunk(2, -1)
        read = torch.matmul(scores, torch.cat((first * second, first), -1)) * c.pow(2).sum(-1, keepdim=True)
        return net.out(read) + apart

    traced = trace(
        forward, (5, 4), a=nn.Linear(4, 6), k=nn.Linear(4, 6), b=nn.Linear(4, 8), c=nn.Linear(4, 3),
        out=nn.Linear(8, 2), d=nn.Linear(4, 8), of_all=nn.Linear(8, 2), of_part=nn.Linear(3, 2),
        of_rest=nn.Linear(5, 2),
    )  # fmt: skip
    found = read_without_weights(traced.program, traced.units)
    for name, read in {"a": True, "k": True, "c": True, "b": False, "d": False}.items():
        units = [unit for unit in traced.along(f"{name}.weight", 0) if unit >= 0]
        assert units and (found[units] == read).all(), name
