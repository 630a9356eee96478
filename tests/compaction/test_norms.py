"""Group norms that lost whole groups, from pruning over the compact network to ONNX and back."""

from __future__ import annotations

import functools
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from compressor.asking import PruneSettings
from compressor.axes import find_units
from compressor.compaction import compact, norms
from compressor.errors import VerificationError
from compressor.exporting import export_onnx
from compressor.formats import load
from compressor.program import InputSpec, Program, arguments, capture, families, set_argument
from compressor.pruning import prune
from tests.axes.attention_networks import difference, randomise
from tests.axes.group_networks import NETWORKS, chain, conv

CUT = PruneSettings(ratio=1.5, of="macs", method="magnitude", round_to=1)
ALL_PINNED = {"no scale, then a sum", "grouped"}


def captured(name: str) -> Program:
    make, inputs = NETWORKS[name]
    return capture(randomise(make()), inputs)


@functools.cache
def pruned(name: str) -> Program:
    return prune(captured(name), CUT)[0]


def n_groups(program: Program) -> int:
    nodes = (node for node in program.module.graph.nodes if node.target in families.GROUP_NORM)
    return sum(arguments(node)["num_groups"] for node in nodes)


@pytest.mark.parametrize("name", NETWORKS)
def test_asked_is_got_and_compact_is_masked(name: str, tmp_path: Path) -> None:
    """`export_onnx` compares with onnxruntime and raises when they differ."""
    masked = pruned(name)
    small, report = compact(masked, lowering="dense")
    assert report.agreement is not None and report.agreement.float64_relative < 1e-12
    assert report.dense_macs / report.compact_macs >= 1.5 and n_groups(small) < n_groups(masked)
    export_onnx(small, tmp_path / "small.onnx")
    again = load(tmp_path / "small.onnx")
    double = [program.replace(module=program.module.clone(torch.float64)) for program in (small, again)]
    assert difference(*double) < 1e-5


print(sorted(NETWORKS))
