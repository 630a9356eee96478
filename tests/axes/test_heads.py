"""Attention heads as units: found by what is done with them, cut whole, exact."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from compressor.asking import PruneSettings, WalkOptions
from compressor.axes import UnitMap, find_units
from compressor.axes.heads import find_head_splits
from compressor.compaction import compact
from compressor.errors import PatternError
from compressor.exporting import export_onnx
from compressor.formats import load, save
from compressor.program import InputSpec, Program, arguments
from compressor.pruning import prune
from tests.axes.attention_networks import (
    HEADS,
    IDS,
    IMAGE,
    WIDTH,
    Bert,
    ChannelShuffle,
    Llama,
    Swin,
    TorchAttention,
    Vit,
    difference,
    leaves,
    masked_and_compact,
    names_of,
    network,
    program_of,
)

HEAD = WalkOptions(keep_heads=True)
LIMIT = 1e-12
TOKENS = (InputSpec("x", (None, 9, 7)),)


class EinsumAttention(nn.Module):
    """Heads as a letter."""

    def __init__(self) -> None:
        super().__init__()
        self.q, self.k, self.v = nn.Linear(7, WIDTH), nn.Linear(7, WIDTH), nn.Linear(7, WIDTH)
        self.o = nn.Linear(WIDTH, 3)

    def forward(self, x: Tensor) -> Tensor:
        n, t, _ = x.shape
        query, key, value = (layer(x).view(n, t, HEADS, -1) for layer in (self.q, self.k, self.v))
        weights = torch.einsum("bihd,bjhd->bhij", query * 6**-0.5, key).softmax(-1)
        return self.o(torch.einsum("bhij,bjhd->bihd", weights, value).reshape(n, t, WIDTH))


class LinearAttention(nn.Module):
    """Without softmax, heads in front: (batch, heads, width, tokens), normalised per head."""

    def __init__(self) -> None:
        super().__init__()
        self.qkv, self.o = nn.Conv1d(7, 3 * WIDTH, 1), nn.Conv1d(WIDTH, 3, 1)
        self.temperature = nn.Parameter(torch.ones(HEADS, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        n, t, _ = x.shape
        query, key, value = self.qkv(x.transpose(1, 2)).view(n, 3 * HEADS, WIDTH // HEADS, t).chunk(3, 1)
        query, key = torch.relu(query), nn.functional.normalize(key, dim=-1)
        return self.o((value @ key.transpose(-1, -2) * self.temperature @ query).reshape(n, WIDTH, t))


class PooledAttention(nn.Module):
    """Heads folded into the batch of a convolution that all share (MViT), a bias indexed behind the heads (LeViT)."""

    def __init__(self) -> None:
        super().__init__()
        self.q, self.k, self.v = nn.Linear(7, WIDTH), nn.Linear(7, WIDTH), nn.Linear(7, WIDTH)
        self.pool, self.o = nn.Conv1d(6, 6, 3, padding=1, groups=6), nn.Linear(WIDTH, 3)
        self.biases = nn.Parameter(torch.zeros(HEADS, 9))
        self.register_buffer("index", (torch.arange(9)[:, None] - torch.arange(9)[None]).abs())

    def forward(self, x: Tensor) -> Tensor:
        n, t, _ = x.shape
        query, key, value = (layer(x).reshape(n, t, HEADS, 6).permute(0, 2, 3, 1) for layer in (self.q, self.k, self.v))
        key = self.pool(key.reshape(n * HEADS, 6, t)).reshape(n, HEADS, 6, t)
        weights = (query.transpose(-2, -1) @ key + self.biases[:, self.index]).softmax(-1)
        return self.o((weights @ value.transpose(-2, -1)).transpose(1, 2).reshape(n, t, WIDTH))


NETWORKS = {
    "vit": (Vit, IMAGE, 2 * HEADS),
    "swin": (Swin, IMAGE, HEADS),
    "bert": (Bert, (InputSpec("ids", (None, 8), "int64", 13), InputSpec("mask", (None, 8))), HEADS),
    "grouped queries, repeated": (Llama, (IDS,), 2),
    "grouped queries, in the kernel": (lambda: Llama(repeat=False), (IDS,), 2),
    "nn.MultiheadAttention": (TorchAttention, TOKENS, 2 * HEADS),
    "einsum": (EinsumAttention, TOKENS, HEADS),
    "linear attention": (LinearAttention, TOKENS, HEADS),
    "pooled, with indexed biases": (PooledAttention, TOKENS, HEADS),
}


def units_and_program(name: str) -> tuple[UnitMap, Program]:
    make, inputs, _ = NETWORKS[name]
    program = program_of(make(), inputs)
    return find_units(program, HEAD), program


@pytest.mark.parametrize("name", NETWORKS)
def test_every_head_is_one_unit(name: str) -> None:
    units, program = units_and_program(name)
    assert int(units.heads.sum()) == NETWORKS[name][2]
    assert not find_units(program).heads.any()


@pytest.mark.parametrize("name", NETWORKS)
def test_heads_go_exactly(name: str, tmp_path: Path) -> None:
    _, program = units_and_program(name)
    n_cut = 0
    for seed in range(3):
        masked, small, units, keep = masked_and_compact(program, HEAD, seed)
        n_cut += int((~keep[units.heads]).sum())
        assert difference(masked, small) <= LIMIT
    assert n_cut > 0
    save(small, tmp_path / "small.pt")
    assert difference(masked, load(tmp_path / "small.pt")) <= LIMIT
    inputs = tuple(x.double() if x.is_floating_point() else x for x in small.example_inputs(3))
    sum(out.square().mean() for out in leaves(small.module.train()(*inputs))).backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in small.module.parameters())


@pytest.mark.parametrize("name", ["vit", "swin", "grouped queries, repeated", "nn.MultiheadAttention"])
def test_heads_and_residual_stream_together(name: str) -> None:
    _, program = units_and_program(name)
    masked, small, units, _ = masked_and_compact(program, WalkOptions(keep_heads=True, through_norm="exact"))
    assert units.heads.any()
    assert difference(masked, small) <= LIMIT


def test_a_packed_projection_loses_the_same_head_of_all_three() -> None:
    units, _ = units_and_program("vit")
    of_index = units.axes["blocks.0.attn.qkv.weight", 0].reshape(3, HEADS, WIDTH // HEADS)
    assert (of_index == of_index[:1, :, :1]).all()
    assert len(np.unique(of_index)) == HEADS
    assert (units.axes["blocks.0.attn.proj.weight", 1].reshape(HEADS, -1) == of_index[0, :, :1]).all()


def test_by_default_a_position_goes_from_every_head() -> None:
    program = program_of(Vit(), IMAGE)
    of_index = find_units(program).axes["blocks.0.attn.qkv.weight", 0].reshape(3, HEADS, WIDTH // HEADS)
    assert (of_index == of_index[:1, :1]).all()
    assert len(np.unique(of_index)) == WIDTH // HEADS


def test_a_key_goes_with_all_queries_that_share_it() -> None:
    for name in ("grouped queries, repeated", "grouped queries, in the kernel"):
        units, _ = units_and_program(name)
        shared = units.axes["k.weight", 0].reshape(2, 6)[:, 0]
        assert units.axes["q.weight", 0].reshape(HEADS, 6)[:, 0].tolist() == np.repeat(shared, 2).tolist()
        assert units.axes["v.weight", 0].reshape(2, 6)[:, 0].tolist() == shared.tolist()


def test_the_bias_table_of_a_window_loses_the_columns_of_its_heads() -> None:
    units, program = units_and_program("swin")
    assert units.heads[units.axes["attn.table", 1]].all()
    assert find_units(program).axes["attn.table", 1].tolist() == [-1] * HEADS


def test_other_splits_of_channels_stay_as_they_are() -> None:
    program = program_of(ChannelShuffle(), IMAGE)
    splits = find_head_splits(program)
    nodes = {node.name: node for node in program.module.graph.nodes}
    assert [arguments(nodes[name])["shape"][2:] for name in splits] == [[3, HEADS, WIDTH // HEADS]]
    masked, small, units, _ = masked_and_compact(program, HEAD)
    assert int(units.heads.sum()) == HEADS
    assert len(np.unique(units.axes["conv.weight", 0])) == WIDTH // 3
    assert difference(masked, small) <= LIMIT


def test_a_network_without_attention_has_no_heads() -> None:
    program = network("convnext")
    assert find_head_splits(program) == {}
    with pytest.raises(PatternError, match="--pattern head: nothing in scope can be pruned"):
        prune(program, PruneSettings(ratio=1.2, method="magnitude", pattern="head"))


def test_taking_the_wrong_dimension_for_heads_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    """The twin: with the width of a head taken for the heads, no head is one unit any more."""
    right = find_head_splits
    monkeypatch.setattr(
        sys.modules["compressor.axes.walk"],
        "find_head_splits",
        lambda program: {name: frozenset(dim + 1 for dim in dims) for name, dims in right(program).items()},
    )
    units = find_units(program_of(Vit(), IMAGE), HEAD)
    of_index = units.axes["blocks.0.attn.qkv.weight", 0].reshape(3, HEADS, WIDTH // HEADS)
    assert not (of_index == of_index[:1, :, :1]).all()


def test_pattern_head_cuts_heads_and_nothing_else(tmp_path: Path) -> None:
    dense = program_of(Vit(), IMAGE)
    pruned, report = prune(dense, PruneSettings(ratio=1.25, method="magnitude", pattern="head"))
    assert report.got >= 1.25
    assert pruned.record.walk == {"keep_heads": True}
    assert {name.rsplit(".", 2)[-2] for name in pruned.masks} == {"qkv", "proj"}
    save(pruned, tmp_path / "pruned.pt")
    small, compacted = compact(load(tmp_path / "pruned.pt"))
    assert compacted.compact_params == report.kept_params
    assert compacted.still_zeroed == 0
    assert small.parameters["blocks.0.mlp.0.weight"].shape == (2 * WIDTH, WIDTH)
    rows = small.parameters["blocks.0.attn.qkv.weight"].shape[0]
    assert rows % (3 * WIDTH // HEADS) == 0


def test_the_least_important_head_goes_first() -> None:
    """Scored over queries, keys, values and the columns that read them."""
    dense = program_of(Vit(), IMAGE)
    with torch.no_grad():
        dense.parameters["blocks.1.attn.qkv.weight"].view(3, HEADS, -1, WIDTH)[:, 2] *= 1e-3
        dense.parameters["blocks.1.attn.qkv.bias"].view(3, HEADS, -1)[:, 2] *= 1e-3
        dense.parameters["blocks.1.attn.proj.weight"].view(WIDTH, HEADS, -1)[:, 2] *= 1e-3
    pruned, _ = prune(dense, PruneSettings(ratio=1.01, method="magnitude", pattern="head"))
    assert list(pruned.masks) == [f"blocks.1.attn.{name}" for name in ("qkv.weight", "qkv.bias", "proj.weight")]
    units = find_units(dense, HEAD)
    cut = ~pruned.masks["blocks.1.attn.qkv.bias"].view(3, HEADS, -1)
    assert cut[:, 2].all()
    assert int(cut.sum()) == 3 * WIDTH // HEADS
    assert units.n_units > 0


def test_a_network_without_some_heads_has_an_onnx_form(tmp_path: Path) -> None:
    _, small, _, _ = masked_and_compact(program_of(Swin(), IMAGE), HEAD)
    export_onnx(small.replace(module=small.module.clone(torch.float32)), tmp_path / "small.onnx")
    assert (tmp_path / "small.onnx").stat().st_size > 0


def test_names_of_a_head() -> None:
    units, _ = units_and_program("bert")
    head = int(np.flatnonzero(units.heads)[0])
    assert names_of(units, head) == {
        "query.weight", "query.bias", "key.weight", "key.bias", "value.weight", "value.bias", "dense.weight",
    }  # fmt: skip
