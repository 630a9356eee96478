"""Attention heads as units: found by what is done with them, cut whole, exact."""

from __future__ import annotations

import operator
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, fx, nn

from compressor.asking import PruneSettings, WalkOptions
from compressor.axes import UnitMap, find_units, heads
from compressor.axes.heads import find_head_splits
from compressor.compaction import compact
from compressor.errors import PatternError
from compressor.exporting import export_onnx
from compressor.formats import load, save
from compressor.program import InputSpec, Program, ProgramModule, TensorShape, arguments, families
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

aten = torch.ops.aten
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


class DisentangledAttention(nn.Module):
    """DeBERTa's: heads folded into the batch, scores of relative positions picked by an index stretched to it."""

    def __init__(self) -> None:
        super().__init__()
        self.q, self.k, self.v = nn.Linear(7, WIDTH), nn.Linear(7, WIDTH), nn.Linear(7, WIDTH)
        self.positions, self.pos, self.o = nn.Parameter(torch.rand(17, 7)), nn.Linear(7, WIDTH), nn.Linear(WIDTH, 3)
        self.register_buffer("distance", torch.arange(9)[:, None] - torch.arange(9) + 8)

    def forward(self, x: Tensor) -> Tensor:
        n, t, _ = x.shape
        query, key, value = (self._folded(layer(x)) for layer in (self.q, self.k, self.v))
        pos = self._folded(self.pos(self.positions)[None]).repeat(n, 1, 1)
        places = self.distance[None].expand(HEADS * n, t, t)
        scores = query @ key.transpose(1, 2) + (query @ pos.transpose(1, 2)).gather(-1, places)
        out = (scores.view(n, HEADS, t, t).softmax(-1).view(-1, t, t) @ value).view(n, HEADS, t, -1)
        return self.o(out.transpose(1, 2).reshape(n, t, WIDTH))

    def _folded(self, x: Tensor) -> Tensor:
        n, t, _ = x.shape
        return x.view(n, t, HEADS, -1).transpose(1, 2).reshape(-1, t, WIDTH // HEADS)


NETWORKS = {
    "vit": (Vit, IMAGE, 2 * HEADS),
    "swin": (Swin, IMAGE, HEADS),
    "bert": (Bert, (InputSpec("ids", (None, 8), "int64", 13), InputSpec("mask", (None, 8))), HEADS),
    "grouped queries, repeated": (Llama, (IDS,), 2),
    "grouped queries, in the kernel": (lambda: Llama(repeat=False), (IDS,), 2),
    "one key for all queries": (lambda: Llama(kv_heads=1), (IDS,), HEADS),
    "one key, in the kernel": (lambda: Llama(kv_heads=1, repeat=False), (IDS,), HEADS),
    "queries inside of groups": (lambda: Llama(heads=8), (IDS,), 4),
    "queries inside of groups, in the kernel": (lambda: Llama(heads=8, repeat=False), (IDS,), 4),
    "more keys than queries of each": (lambda: Llama(heads=8, kv_heads=4), (IDS,), 4),
    "nn.MultiheadAttention": (TorchAttention, TOKENS, 2 * HEADS),
    "einsum": (EinsumAttention, TOKENS, HEADS),
    "disentangled attention": (DisentangledAttention, TOKENS, HEADS),
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


@pytest.mark.parametrize("repeat", [True, False])
@pytest.mark.parametrize("kv_heads", [1, 2])
def test_queries_go_evenly_from_all_groups_and_keys_stay(kv_heads: int, repeat: bool) -> None:
    """One query of every group: of 8 queries on 2 keys, number g of the first group with number g of the second."""
    program = program_of(Llama(heads=8, kv_heads=kv_heads, repeat=repeat), (IDS,))
    units = find_units(program, HEAD)
    per_group = 8 // kv_heads
    of_query = units.axes["q.weight", 0].reshape(kv_heads, per_group, 6)
    assert (of_query >= 0).all() and (of_query == of_query[:1, :, :1]).all()
    assert len(np.unique(of_query)) == per_group
    assert (units.axes["k.weight", 0] < 0).all() and (units.axes["v.weight", 0] < 0).all()
    pruned, _ = prune(program, PruneSettings(ratio=1.02, pattern="head", method="magnitude"))
    small, _ = compact(pruned)
    assert small.parameters["q.weight"].shape[0] % (6 * kv_heads) == 0
    assert small.parameters["q.weight"].shape[0] < 48 == program.parameters["q.weight"].shape[0]


@pytest.mark.parametrize(
    "name", ["vit", "swin", "grouped queries, repeated", "nn.MultiheadAttention", "queries inside of groups"]
)
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


def _calls(call: Callable[..., Any], x: Any, weight: Any) -> dict[Any, Callable[[], Any]]:
    """How each operator that heads are followed through is called on (B, H, T, D), heads along the second dimension."""
    first = operator.getitem
    return {
        aten.slice.Tensor: lambda: call(aten.slice.Tensor, x, 3, 0, 4),
        aten.narrow.default: lambda: call(aten.narrow.default, x, 3, 0, 4),
        aten.split.Tensor: lambda: call(first, call(aten.split.Tensor, x, 3, 2), 0),
        aten.split.sizes: lambda: call(first, call(aten.split.sizes, x, [4, 2], 2), 0),
        aten.split_with_sizes.default: lambda: call(first, call(aten.split_with_sizes.default, x, [4, 2], 2), 0),
        aten.chunk.default: lambda: call(first, call(aten.chunk.default, x, 2, 2), 0),
        aten.tensor_split.sections: lambda: call(first, call(aten.tensor_split.sections, x, 2, 2), 0),
        aten.tensor_split.indices: lambda: call(first, call(aten.tensor_split.indices, x, [2], 2), 0),
        aten.repeat_interleave.self_int: lambda: call(aten.repeat_interleave.self_int, x, 2, 2),
        aten.flip.default: lambda: call(aten.flip.default, x, [3]),
        aten.softmax.int: lambda: call(aten.softmax.int, x, -1),
        aten._softmax.default: lambda: call(aten._softmax.default, x, -1, False),
        aten.layer_norm.default: lambda: call(aten.layer_norm.default, x, [5]),
        aten.rms_norm.default: lambda: call(aten.rms_norm.default, x, [5]),
        aten.expand.default: lambda: call(aten.expand.default, x, [2, 4, 6, 5]),
        aten.broadcast_to.default: lambda: call(aten.broadcast_to.default, x, [2, 4, 6, 5]),
        aten.repeat.default: lambda: call(aten.repeat.default, x, [1, 1, 2, 1]),
        aten.tile.default: lambda: call(aten.tile.default, x, [1, 1, 2, 1]),
        aten.dropout.default: lambda: call(aten.dropout.default, x, 0.5, False),
        aten.feature_dropout.default: lambda: call(aten.feature_dropout.default, x, 0.5, False),
        aten.to.dtype: lambda: call(aten.to.dtype, x, torch.float32),
        aten.to.dtype_layout: lambda: call(aten.to.dtype_layout, x, dtype=torch.float32),
        aten.to.device: lambda: call(aten.to.device, x, torch.device("cpu"), torch.float32),
        aten.cat.default: lambda: call(aten.cat.default, [x, x], 2),
        aten.concat.default: lambda: call(aten.concat.default, [x, x], 2),
        aten.permute.default: lambda: call(aten.permute.default, x, [0, 1, 3, 2]),
        aten.transpose.int: lambda: call(aten.transpose.int, x, 0, 1),
        aten.movedim.int: lambda: call(aten.movedim.int, x, 1, 0),
        aten.movedim.intlist: lambda: call(aten.movedim.intlist, x, [1], [0]),
        aten.swapaxes.default: lambda: call(aten.swapaxes.default, x, 0, 1),
        aten.swapdims.default: lambda: call(aten.swapdims.default, x, 0, 1),
        aten.numpy_T.default: lambda: call(aten.permute.default, call(aten.numpy_T.default, x), [3, 2, 0, 1]),
        aten.select.int: lambda: call(aten.select.int, x, 0, 1),
        aten.unbind.int: lambda: call(first, call(aten.unbind.int, x, 0), 1),
        aten.conv1d.padding: lambda: call(aten.conv1d.padding, x, weight, None, [1], "same"),
        aten.conv2d.padding: lambda: call(aten.conv2d.padding, x, weight, None, [1, 1], "same"),
        aten.conv3d.padding: lambda: call(aten.conv3d.padding, x, weight, None, [1, 1, 1], "same"),
        aten.conv1d.default: lambda: call(aten.conv1d.default, x, weight),
        aten.conv2d.default: lambda: call(aten.conv2d.default, x, weight),
        aten.conv3d.default: lambda: call(aten.conv3d.default, x, weight),
        aten.max_pool2d_with_indices.default: lambda: call(
            first, call(aten.max_pool2d_with_indices.default, x, [2, 2]), 0
        ),
        **{
            pool: lambda pool=pool: call(pool, x, [2] * families.spatial_rank(pool))
            for pool in families.POOLS
            if pool not in (aten.max_pool2d_with_indices.default,)
        },
    }


def product_behind(overload: Any) -> Program:
    """A view that splits heads off, one operator, and a product of activations over what comes out of it."""
    graph, tensors = fx.Graph(), {}
    in_batch = overload in heads._KEEP_BATCH
    n = families.spatial_rank(overload)
    shape = [4, 3, *[6] * n] if in_batch else [2, 4, 6, 5]
    x = graph.placeholder("x")
    split = graph.call_function(aten.reshape.default, (x, shape))
    weight = None
    if overload in families.CONVOLUTIONS:
        tensors["weight"] = nn.Parameter(torch.randn(3, 3, *[3] * n))
        weight = graph.get_attr("weight")

    def call(target: Any, *args: Any, **kwargs: Any) -> Any:
        return graph.call_function(target, args, kwargs)

    passed = _calls(call, split, weight).get(overload, lambda: call(overload, split))()
    graph.output(call(aten.matmul.default, passed, call(aten.transpose.int, passed, -2, -1)))
    sizes = (12, *shape[2:]) if in_batch else (2, 24, 5)
    return Program(ProgramModule(tensors, graph), (InputSpec("x", sizes),))


FOLLOWED = [*heads._SAME_DIMS, *heads._MOVES, *heads._KEEP_BATCH]


@pytest.mark.parametrize("overload", [o for o in FOLLOWED if o not in (aten.t.default,)], ids=str)
def test_heads_are_followed_through_every_operator_of_a_family(overload: Any) -> None:
    """`t` has no more than two dimensions, and `max_pool2d_with_indices` is not followed: it has two results."""
    found = find_head_splits(product_behind(overload))
    expected = (
        {} if overload is aten.max_pool2d_with_indices.default else {"reshape_default": frozenset({_place(overload)})}
    )
    assert found == expected


def _place(overload: Any) -> int:
    """Where the heads lie behind the reshape."""
    return 0 if overload in heads._KEEP_BATCH else 1


def test_dimensions_that_meet_a_smaller_operand_are_found_from_the_right_and_stretched_ones_are_not() -> None:
    graph, sizes = fx.Graph(), {"large": (3, 2, 5, 4), "small": (2, 1, 4), "add_tensor": (3, 2, 5, 4)}
    node = graph.call_function(torch.ops.aten.add.Tensor, (graph.placeholder("large"), graph.placeholder("small")))
    found = heads._before(node, frozenset(range(4)), {k: TensorShape(s, torch.float32) for k, s in sizes.items()})
    assert {source.name: dims for source, dims in found} == {"large": {0, 1, 2, 3}, "small": {0, 2}}
