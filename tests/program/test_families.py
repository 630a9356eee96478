"""Operator families: every overload in one of them, and no table beside them."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import pytest
import torch

from compressor.analysis import latencies
from compressor.axes import heads
from compressor.axes.table import RULES
from compressor.compaction import branches, folding, lowering_trial, norms, slicing, transfer_contract
from compressor.compaction.constants import TRANSFERS
from compressor.cost import terms
from compressor.exporting import fold_norms
from compressor.program import families as f
from compressor.pruning import dropout, reconstruct
from compressor.sparsity import readers
from compressor.timing import operator_onnx

aten = torch.ops.aten


def of(table: dict[Any, Any], name: str) -> set[Any]:
    """Overloads that a table maps to a function of that name."""
    return {overload for overload, function in table.items() if function.__name__ == name}


def by_tag(overloads: Iterable[Any]) -> set[Any]:
    return {overload for overload in overloads if f.is_pointwise(overload)}


SAME: dict[str, tuple[Iterable[Any], Iterable[Any]]] = {
    "axis rule of convolutions": (of(RULES, "convolution"), f.CONVOLUTIONS),
    "axis rule of transposed ones": (of(RULES, "transposed_convolution"), f.TRANSPOSED_CONVOLUTIONS),
    "axis rule of linear": (of(RULES, "linear"), f.LINEAR),
    "axis rule of matmul": (of(RULES, "matmul"), f.PRODUCTS),
    "axis rule of addmm": (of(RULES, "addmm"), f.ADDED_PRODUCTS),
    "axis rule of einsum": (of(RULES, "einsum"), f.EINSUM),
    "axis rule of attention": (of(RULES, "attention"), f.ATTENTION),
    "axis rule of embedding": (of(RULES, "embedding"), f.EMBEDDING),
    "axis rule of views": (of(RULES, "view"), f.VIEWS),
    "axis rule of rearranging": (of(RULES, "rearrange"), f.TRANSPOSE | f.FLIP),
    "axis rule of expand": (of(RULES, "expand"), f.EXPAND | f.EXPAND_AS),
    "axis rule of repeat": (of(RULES, "repeat"), f.REPEAT),
    "axis rule of parts": (of(RULES, "along_one"), f.PARTS | f.REPEAT_INTERLEAVE),
    "axis rule of index_select": (of(RULES, "select_positions"), f.INDEX_SELECT),
    "axis rule of cat": (of(RULES, "concatenate"), f.CAT | f.STACK),
    "axis rule of pad": (of(RULES, "pad"), f.PAD),
    "axis rule of pixel shuffles": (of(RULES, "shuffle"), f.PIXEL_SHUFFLE),
    "axis rule of channel shuffle": (of(RULES, "channel_shuffle"), f.CHANNEL_SHUFFLE),
    "axis rule of displacement": (of(RULES, "displace"), f.DISPLACE),
    "axis rule of indexing": (of(RULES, "index"), f.INDEX | f.GATHER),
    "axis rule of layer norms": (of(RULES, "layer_norm"), f.FEATURE_NORMS),
    "axis rule of group norm": (of(RULES, "group_norm"), f.GROUP_NORM),
    "axis rule of channel norms": (of(RULES, "channel_norm"), f.CHANNEL_NORMS),
    "axis rule of weight norm": (of(RULES, "weight_norm"), f.WEIGHT_NORM),
    "axis rule of gates": (of(RULES, "gated"), f.GLU),
    "axis rule of reductions": (of(RULES, "reduction"), f.REDUCTIONS),
    "axis rule of windows": (of(RULES, "window"), f.WINDOWS),
    "axis rule of softmax": (of(RULES, "softmax"), f.SCANS | f.SORT),
    "axis rule of filled values": (of(RULES, "filled"), f.FILLED | f.UNFILLED),
    "axis rule of constants": (of(RULES, "constant"), f.NUMBERS | f.TRIANGLE),
    "transfer of filters": (of(TRANSFERS, "filters"), f.WITH_FILTERS),
    "transfer of products": (of(TRANSFERS, "products"), f.PRODUCTS | f.ADDED_PRODUCTS),
    "transfer of attention": (of(TRANSFERS, "attention"), f.ATTENTION),
    "transfer of embedding": (of(TRANSFERS, "embedding"), f.EMBEDDING),
    "transfer of views": (of(TRANSFERS, "view"), f.VIEWS),
    "transfer of rearranging": (of(TRANSFERS, "rearrange"), f.TRANSPOSE | f.FLIP),
    "transfer of expand": (of(TRANSFERS, "expand"), f.EXPAND | f.EXPAND_AS),
    "transfer of repeat": (of(TRANSFERS, "repeat"), f.REPEAT),
    "transfer of parts": (
        of(TRANSFERS, "along_some"),
        f.PARTS | f.REPEAT_INTERLEAVE | f.CHANNEL_SHUFFLE | f.PIXEL_SHUFFLE | f.INDEX_SELECT,
    ),
    "transfer of displacement": (of(TRANSFERS, "displace"), f.DISPLACE),
    "transfer of cat": (of(TRANSFERS, "concatenate"), f.CAT | f.STACK),
    "transfer of pad": (of(TRANSFERS, "pad"), f.PAD),
    "transfer of indexing": (of(TRANSFERS, "index"), f.INDEX),
    "transfer of mul": (of(TRANSFERS, "product"), f.MUL),
    "transfer of prelu": (of(TRANSFERS, "prelu"), f.PRELU),
    "transfer of reductions": (of(TRANSFERS, "reduction"), f.REDUCTIONS),
    "transfer of softmax": (of(TRANSFERS, "over_one"), f.SCANS),
    "transfer of batch norm": (of(TRANSFERS, "batch_norm"), f.BATCH_NORM),
    "transfer of layer norms": (of(TRANSFERS, "layer_norm"), f.FEATURE_NORMS),
    "transfer of group norm": (of(TRANSFERS, "group_norm"), f.GROUP_NORM | f.INSTANCE_NORM),
    "transfer of values made": (of(TRANSFERS, "made"), f.FILLED | f.NUMBERS),
    "rewrite of sizes": (
        of(slicing.REWRITES, "_sizes_argument"), f.VIEW | f.RESHAPE | f.EXPAND | f.FILLED | f.UNFILLED,
    ),
    "rewrite of unflatten": (of(slicing.REWRITES, "_unflatten"), f.UNFLATTEN),
    "rewrite of splits": (of(slicing.REWRITES, "_split"), f.SPLIT),
    "rewrite of slices": (of(slicing.REWRITES, "_slice"), f.SLICE),
    "rewrite of narrow": (of(slicing.REWRITES, "_narrow"), f.NARROW),
    "rewrite of groups": (of(slicing.REWRITES, "_groups"), f.CONVOLUTIONS),
    "rewrite of pad": (of(slicing.REWRITES, "_pad"), f.PAD),
    "rewrite of squeeze": (of(slicing.REWRITES, "_squeeze"), f.SQUEEZE),
    "rewrite of layer norms": (of(slicing.REWRITES, "_layer_norm"), f.FEATURE_NORMS),
    "rewrite of group norm": (of(slicing.REWRITES, "_group_norm"), f.GROUP_NORM),
    "rewrite of means": (of(slicing.REWRITES, "_mean"), f.MEAN),
    "layer norms": (norms._LAYER_NORMS, f.FEATURE_NORMS),
    "means": (norms._MEANS, f.MEAN),
    "convolutions of transfers": (transfer_contract.CONVOLUTIONS, f.CONVOLUTIONS),
    "transposed convolutions of transfers": (transfer_contract.TRANSPOSED, f.TRANSPOSED_CONVOLUTIONS),
    "what has a bias": (folding._BIASED, f.WITH_FILTERS),
    "what takes additions": (branches._TAKES_ADDITIONS, f.CONVOLUTIONS | f.LINEAR),
    "what combines": (branches._COMBINES, f.ADD | f.SUB | f.MUL),
    "what a norm folds into": (fold_norms._FILTER_DIM, f.WITH_FILTERS),
    "views of heads": (heads._RESHAPES, f.VIEWS),
    "products with a cost": (terms._MATMULS, f.MATRIX_PRODUCTS),
    "products that read units": (readers._FIRST_OPERAND, f.MATRIX_PRODUCTS | f.ATTENTION),
    "dropouts whose rate follows": (dropout._DROPOUTS, f.DROPOUT),
    "fitted layers": (reconstruct._FITTED, f.CONV1D | f.CONV2D | f.LINEAR),
}  # fmt: skip


@pytest.mark.parametrize("what", SAME)
def test_a_family_is_the_list_that_stood_there(what: str) -> None:
    before, family = SAME[what]
    assert set(before) == set(family)


WIDER: dict[str, tuple[Iterable[Any], f.Family | f.Group, set[Any]]] = {
    "transfer of windows": (of(TRANSFERS, "window"), f.WINDOWS, {aten.max_pool2d_with_indices.default}),
    "weights that add up to 1 pass": (
        transfer_contract._PASSES_WEIGHTS, f.DROPOUT | f.COPY, {aten.detach.default, aten.feature_dropout.default},
    ),
    "the runtime's layout passes": (
        lowering_trial._PASSES_LAYOUT, f.ACTIVATIONS | f.DROPOUT | f.BATCH_NORM | f.POOLS | f.ADD,
        {
            aten.hardsigmoid.default, aten.feature_dropout.default, aten.max_pool1d.default, aten.max_pool3d.default,
            aten.avg_pool1d.default, aten.avg_pool3d.default, aten.max_pool2d_with_indices.default,
        },
    ),
    "moves before a layer": (
        latencies._MOVES, f.INDEX_SELECT | f.PAD | f.SLICE | f.CAT,
        {aten.constant_pad_nd.default, aten.concat.default},
    ),
    "products of heads": (
        heads._PRODUCTS, f.MATRIX_PRODUCTS | f.ATTENTION, {aten.mm.default, aten.addmm.default},
    ),
    "moves of heads": (
        heads._MOVES, f.TRANSPOSE | f.SELECT | f.UNBIND, {aten.numpy_T.default, aten.adjoint.default},
    ),
    "heads pass": (
        heads._SAME_DIMS,
        f.SLICE | f.NARROW | f.SPLIT | f.REPEAT_INTERLEAVE | f.FLIP | f.SOFTMAX | f.FEATURE_NORMS | f.EXPAND | f.REPEAT
        | f.COPY | f.DROPOUT | f.CAST | f.CAT,
        {
            aten.tensor_split.indices, aten._softmax.default, aten.broadcast_to.default, aten.tile.default,
            aten.detach.default, aten.feature_dropout.default, aten.to.dtype_layout, aten.to.device,
            aten._to_copy.default, aten.concat.default,
        },
    ),
    "heads in the batch": (
        heads._KEEP_BATCH, f.CONVOLUTIONS | f.POOLS,
        {
            aten.conv1d.padding, aten.conv2d.padding, aten.conv3d.padding, aten.max_pool1d.default,
            aten.avg_pool1d.default, aten.max_pool2d_with_indices.default,
        },
    ),
}  # fmt: skip


@pytest.mark.parametrize("what", WIDER)
def test_what_a_family_adds_to_the_list_that_stood_there(what: str) -> None:
    before, family, added = WIDER[what]
    assert set(family) - set(before) == added
    assert set(before) <= set(family)


def test_the_rule_of_what_works_by_element() -> None:
    """Its list held operators that torch tags, too: a tag needs no entry."""
    listed = of(RULES, "pointwise")
    untagged = set(f.BY_ELEMENT) - by_tag(f.BY_ELEMENT)
    assert untagged - listed == {aten.feature_alpha_dropout.default}
    assert by_tag(listed) == listed - untagged


def test_operands_are_those_of_the_tables() -> None:
    for overload, names in terms._MATMULS.items():
        assert f.family_of(overload).operands == names
    for overload, names in heads._PRODUCTS.items():
        assert f.family_of(overload).operands == names
    for overload, name in readers._FIRST_OPERAND.items():
        assert f.family_of(overload).operands[0] == name


def test_a_trial_can_be_written_for_its_families() -> None:
    known = f.WITH_FILTERS | f.INDEX_SELECT | f.PAD | f.SLICE | f.RESHAPE | f.CAT | f.RELU
    assert set(known) - set(operator_onnx._WRITERS) == {aten.constant_pad_nd.default, aten.concat.default}
    assert set(operator_onnx._WRITERS) <= set(known)


def test_the_arguments_that_a_family_names_are_in_every_schema_of_it() -> None:
    for family in f.FAMILIES:
        named = {*family.operands, *((family.mode,) if family.mode else ())}
        named |= {"weight"} if family.filter_dim is not None else set()
        for overload in family:
            assert named <= {argument.name for argument in overload._schema.arguments}, overload


def test_what_has_a_training_mode_names_it() -> None:
    """A `train` that no family names would stay as the capture left it."""
    assert {family.name for family in f.FAMILIES if family.mode} == {"batch_norm", "rrelu", "dropout", "alpha_dropout"}
    unnamed = {
        family.name
        for family in f.FAMILIES
        for overload in family
        if not family.mode and {"train", "training"} & {argument.name for argument in overload._schema.arguments}
    }
    assert unnamed == {"recurrent"}


def test_every_overload_is_real_and_in_one_family() -> None:
    listed = [overload for family in f.FAMILIES for overload in family]
    assert all(isinstance(overload, torch._ops.OpOverload) for overload in listed)
    assert len(set(listed)) == len(listed)
    assert len({family.name for family in f.FAMILIES}) == len(f.FAMILIES)
    assert all(f.family_of(overload) in f.FAMILIES for overload in listed)
