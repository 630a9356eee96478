"""Operator families: which ATen overloads are one operator to everything else; the only place that lists overloads.

It must never hold what is done with a family. Axis rules, constants, rewrites, readers and costs read the families from
here, so that an overload that is added to one has all of them at once. An overload is in one family; a group is several
families under one name, a kind a set of overloads that cuts across them. What torch itself tags as pointwise needs no
entry.
"""

from __future__ import annotations

from types import MappingProxyType
from typing import Any

import torch
from torch._ops import OpOverload

from compressor.program.family import Family, Group, Known
from compressor.typed_torch import schema_of

aten = torch.ops.aten

_known = Known()
_family = _known.add

# Sums over channels, weighted by filters.
CONV1D = _family("conv1d", aten.conv1d.default, aten.conv1d.padding, filter_dim=0, channel_dim=1)
CONV2D = _family("conv2d", aten.conv2d.default, aten.conv2d.padding, filter_dim=0, channel_dim=1)
CONV3D = _family("conv3d", aten.conv3d.default, aten.conv3d.padding, filter_dim=0, channel_dim=1)
CONV_TRANSPOSE1D = _family("conv_transpose1d", aten.conv_transpose1d.default, filter_dim=1, channel_dim=0)
CONV_TRANSPOSE2D = _family("conv_transpose2d", aten.conv_transpose2d.input, filter_dim=1, channel_dim=0)
CONV_TRANSPOSE3D = _family("conv_transpose3d", aten.conv_transpose3d.input, filter_dim=1, channel_dim=0)
LINEAR = _family("linear", aten.linear.default, filter_dim=0, channel_dim=1)
CONVOLUTIONS = CONV1D | CONV2D | CONV3D
TRANSPOSED_CONVOLUTIONS = CONV_TRANSPOSE1D | CONV_TRANSPOSE2D | CONV_TRANSPOSE3D
WITH_FILTERS = CONVOLUTIONS | TRANSPOSED_CONVOLUTIONS | LINEAR

# Products of two values of the graph.
MATMUL = _family("matmul", aten.matmul.default, operands=("self", "other"))
MM = _family("mm", aten.bmm.default, aten.mm.default, operands=("self", "mat2"))
MV = _family("mv", aten.mv.default, operands=("self", "vec"))
DOT = _family("dot", aten.dot.default, operands=("self", "tensor"))
ADDMM = _family("addmm", aten.addmm.default, operands=("mat1", "mat2"))
BADDBMM = _family("baddbmm", aten.baddbmm.default, operands=("batch1", "batch2"))
OTHER_MATMUL = _family("other_matmul", aten.linalg_matmul.default, aten.vdot.default, aten.inner.default)
ADDMV = _family("addmv", aten.addmv.default, operands=("mat", "vec"))
ADDBMM = _family("addbmm", aten.addbmm.default, operands=("batch1", "batch2"))
ANY_CONVOLUTION = _family("any_convolution", aten.convolution.default, aten._convolution.default)
CONV_TBC = _family("conv_tbc", aten.conv_tbc.default)
AFFINE_GRID = _family("affine_grid", aten.affine_grid_generator.default)
TENSORDOT = _family("tensordot", aten.tensordot.default)
BILINEAR = _family("bilinear", aten.bilinear.default, filter_dim=0)
DISTANCE = _family("distance", aten.cdist.default, aten._cdist_forward.default)
OUTER = _family("outer", aten.outer.default)
SIMILARITY = _family("similarity", aten.cosine_similarity.default)
RECURRENT_CELL = _family(
    "recurrent_cell", aten.lstm_cell.default, aten.gru_cell.default, aten.rnn_tanh_cell.default,
    aten.rnn_relu_cell.default,
)  # fmt: skip
EINSUM = _family("einsum", aten.einsum.default)
ATTENTION = _family("attention", aten.scaled_dot_product_attention.default, operands=("query", "key", "value"))
PRODUCTS = MATMUL | MM | MV | DOT
ADDED_PRODUCTS = ADDMM | BADDBMM

EMBEDDING = _family("embedding", aten.embedding.default, filter_dim=1, channel_dim=0)
RECURRENT = _family(
    "recurrent", aten.lstm.input, aten.lstm.data, aten.gru.input, aten.gru.data, aten.rnn_tanh.input,
    aten.rnn_tanh.data, aten.rnn_relu.input, aten.rnn_relu.data, mode="train",
)  # fmt: skip

# Normalisations.
BATCH_NORM = _family("batch_norm", aten.batch_norm.default, filter_dim=0, mode="training")
INSTANCE_NORM = _family("instance_norm", aten.instance_norm.default, filter_dim=0)
LAYER_NORM = _family("layer_norm", aten.layer_norm.default, filter_dim=0)
RMS_NORM = _family("rms_norm", aten.rms_norm.default, filter_dim=0)
GROUP_NORM = _family("group_norm", aten.group_norm.default, filter_dim=0)
WEIGHT_NORM = _family("weight_norm", aten._weight_norm.default)
CHANNEL_NORMS = BATCH_NORM | INSTANCE_NORM
FEATURE_NORMS = LAYER_NORM | RMS_NORM

# The same data in other dimensions.
VIEW = _family("view", aten.view.default, aten._unsafe_view.default)
RESHAPE = _family("reshape", aten.reshape.default)
FLATTEN = _family("flatten", aten.flatten.using_ints, aten.ravel.default)
UNFLATTEN = _family("unflatten", aten.unflatten.int)
SQUEEZE = _family("squeeze", aten.squeeze.default)
SQUEEZE_DIMS = _family("squeeze_dims", aten.squeeze.dim, aten.squeeze.dims)
UNSQUEEZE = _family("unsqueeze", aten.unsqueeze.default)
VIEW_AS = _family("view_as", aten.view_as.default, aten.reshape_as.default)
VIEWS = VIEW | RESHAPE | FLATTEN | UNFLATTEN | SQUEEZE | SQUEEZE_DIMS | UNSQUEEZE | VIEW_AS

# The same data at other places.
TRANSPOSE = _family(
    "transpose", aten.permute.default, aten.transpose.int, aten.t.default, aten.movedim.int, aten.movedim.intlist,
    aten.swapaxes.default, aten.swapdims.default, aten.numpy_T.default, aten.mT.default, aten.adjoint.default,
)  # fmt: skip
FLIP = _family("flip", aten.flip.default)
ROTATE = _family("rotate", aten.rot90.default)
EXPAND = _family("expand", aten.expand.default, aten.broadcast_to.default)
EXPAND_AS = _family("expand_as", aten.expand_as.default)
REPEAT = _family("repeat", aten.repeat.default, aten.tile.default)
REPEAT_INTERLEAVE = _family("repeat_interleave", aten.repeat_interleave.self_int)
CAT = _family("cat", aten.cat.default, aten.concat.default)
STACK = _family("stack", aten.stack.default)
PAD = _family("pad", aten.pad.default, aten.constant_pad_nd.default)
PIXEL_SHUFFLE = _family("pixel_shuffle", aten.pixel_shuffle.default, aten.pixel_unshuffle.default)
CHANNEL_SHUFFLE = _family("channel_shuffle", aten.channel_shuffle.default)
DISPLACE = _family("displace", aten.roll.default, aten.unfold.default, aten.diagonal.default)
TO_COLUMNS = _family("to_columns", aten.im2col.default)
FROM_COLUMNS = _family("from_columns", aten.col2im.default)

# Parts of the data.
SLICE = _family("slice", aten.slice.Tensor)
NARROW = _family("narrow", aten.narrow.default)
SELECT = _family("select", aten.select.int)
SPLIT = _family(
    "split", aten.split.Tensor, aten.split_with_sizes.default, aten.split.sizes, aten.chunk.default,
    aten.tensor_split.sections, aten.tensor_split.indices,
)  # fmt: skip
UNBIND = _family("unbind", aten.unbind.int)
INDEX_SELECT = _family("index_select", aten.index_select.default)
INDEX = _family("index", aten.index.Tensor)
GATHER = _family("gather", aten.gather.default, aten.take_along_dim.default)
SCATTER = _family(
    "scatter", aten.scatter_add.default, aten.scatter.src, aten.scatter.value, aten.scatter_reduce.two,
    aten.index_add.default, aten.index_copy.default,
)  # fmt: skip
ONE_HOT = _family("one_hot", aten.one_hot.default)
PARTS = SLICE | NARROW | SELECT | SPLIT | UNBIND

LOOKS_UP = INDEX | INDEX_SELECT | GATHER | SCATTER | EMBEDDING | ONE_HOT
"""What finds places by whole numbers that another tensor holds."""

# A window that slides along space.
MAX_POOL = _family(
    "max_pool", aten.max_pool1d.default, aten.max_pool2d.default, aten.max_pool3d.default,
    aten.max_pool2d_with_indices.default,
)  # fmt: skip
AVG_POOL = _family("avg_pool", aten.avg_pool1d.default, aten.avg_pool2d.default, aten.avg_pool3d.default)
ADAPTIVE_POOL = _family(
    "adaptive_pool", aten.adaptive_avg_pool1d.default, aten.adaptive_avg_pool2d.default,
    aten.adaptive_avg_pool3d.default, aten.adaptive_max_pool1d.default, aten.adaptive_max_pool2d.default,
)  # fmt: skip
RESIZE = _family(
    "resize", aten.upsample_nearest1d.vec, aten.upsample_nearest2d.vec, aten.upsample_nearest3d.vec,
    aten.upsample_linear1d.vec, aten.upsample_bilinear2d.vec, aten.upsample_trilinear3d.vec,
    aten.upsample_bicubic2d.vec, aten.upsample_nearest2d.default, aten.upsample_bilinear2d.default,
    aten._upsample_nearest_exact1d.vec, aten._upsample_nearest_exact2d.vec, aten._upsample_nearest_exact3d.vec,
    aten._upsample_bilinear2d_aa.vec, aten._upsample_bicubic2d_aa.vec,
)  # fmt: skip
BORDER = _family("border", aten.reflection_pad2d.default, aten.replication_pad2d.default)
UNPOOL = _family("unpool", aten.max_unpool2d.default, aten.max_unpool3d.default)
SAMPLE = _family("sample", aten.grid_sampler.default, aten.grid_sampler_2d.default, aten.grid_sampler_3d.default)
POOLS = MAX_POOL | AVG_POOL
WINDOWS = MAX_POOL | AVG_POOL | ADAPTIVE_POOL | RESIZE | BORDER

# Many values along a dimension become one, or stay as many.
MEAN = _family("mean", aten.mean.dim, aten.mean.default)
REDUCE = _family(
    "reduce", aten.sum.dim_IntList, aten.sum.default, aten.amax.default, aten.amin.default, aten.max.dim, aten.min.dim,
    aten.max.default, aten.min.default, aten.var.correction, aten.var.dim, aten.std.correction, aten.std.dim,
    aten.var_mean.correction, aten.linalg_vector_norm.default, aten.norm.ScalarOpt_dim, aten.prod.dim_int,
    aten.logsumexp.default, aten.argmax.default, aten.argmin.default, aten.any.dim, aten.all.dim, aten.median.dim,
)  # fmt: skip
SOFTMAX = _family("softmax", aten.softmax.int, aten._softmax.default)
LOG_SOFTMAX = _family("log_softmax", aten.log_softmax.int)
CUMSUM = _family("cumsum", aten.cumsum.default, aten.cumprod.default, aten.logcumsumexp.default)
DIFFERENCE = _family("difference", aten.diff.default)
SORT = _family("sort", aten.sort.default, aten.sort.stable)
TOPK = _family("topk", aten.topk.default)
REDUCTIONS = MEAN | REDUCE
SCANS = SOFTMAX | LOG_SOFTMAX | CUMSUM

SIZE = _family("size", aten.sym_size.int)

# Values that a graph makes from numbers.
FILLED = _family(
    "filled", aten.full.default, aten.zeros.default, aten.ones.default, aten.new_full.default, aten.new_zeros.default,
    aten.new_ones.default,
)  # fmt: skip
UNFILLED = _family("unfilled", aten.empty.memory_format, aten.new_empty.default)
NUMBERS = _family(
    "numbers", aten.scalar_tensor.default, aten.arange.default, aten.arange.start, aten.arange.start_step,
    aten.linspace.default, aten.eye.default, aten.eye.m,
)  # fmt: skip
TRIANGLE = _family("triangle", aten.tril.default, aten.triu.default)

# Element by element: what torch does not tag so, and what some module names.
RELU = _family("relu", aten.relu.default)
ACTIVATION = _family(
    "activation", aten.relu6.default, aten.hardtanh.default, aten.hardswish.default, aten.hardsigmoid.default,
    aten.silu.default, aten.leaky_relu.default, aten.gelu.default, aten.sigmoid.default, aten.tanh.default,
)  # fmt: skip
CURVE = _family(
    "curve", aten.selu.default, aten.celu.default, aten.elu.default, aten.softplus.default, aten.log_sigmoid.default,
    aten.hardshrink.default, aten.softshrink.default,
)  # fmt: skip
PRELU = _family("prelu", aten.prelu.default)
RRELU = _family("rrelu", aten.rrelu.default, mode="training")
DROPOUT = _family("dropout", aten.dropout.default, aten.feature_dropout.default, mode="train")
ALPHA_DROPOUT = _family("alpha_dropout", aten.alpha_dropout.default, aten.feature_alpha_dropout.default, mode="train")
COPY = _family("copy", aten.contiguous.default, aten.clone.default, aten.detach.default)
CAST = _family("cast", aten.to.dtype, aten.to.dtype_layout, aten.to.device, aten._to_copy.default)
CAST_LIKE = _family("cast_like", aten.to.other, aten.type_as.default)
FILLED_LIKE = _family("filled_like", aten.zeros_like.default, aten.ones_like.default, aten.full_like.default)
RANDOM_LIKE = _family("random_like", aten.rand_like.default, aten.randn_like.default)
CHOICE = _family(
    "choice", aten.masked_fill.Scalar, aten.masked_fill.Tensor, aten.where.self, aten.where.ScalarOther,
    aten.where.ScalarSelf,
)  # fmt: skip
FILL = _family("fill", aten.fill.Scalar, aten.fill.Tensor)
ADD = _family("add", aten.add.Tensor)
SUB = _family("sub", aten.sub.Tensor)
MUL = _family("mul", aten.mul.Tensor)
GLU = _family("glu", aten.glu.default)
ACTIVATIONS = RELU | ACTIVATION
SAME_NUMBERS = VIEWS | TRANSPOSE | EXPAND | REPEAT | REPEAT_INTERLEAVE | PARTS | COPY | CAST | FLIP
"""What gives the whole numbers that it reads, at other places at most."""
BY_ELEMENT = Group(
    (
        RELU, ACTIVATION, CURVE, PRELU, RRELU, DROPOUT, ALPHA_DROPOUT, COPY, CAST, CAST_LIKE, FILLED_LIKE, RANDOM_LIKE,
        CHOICE, FILL, ADD, SUB, MUL,
    )
)  # fmt: skip

# Only in a graph that is not normalised yet.
NO_OP = _family(
    "no_op", aten.alias.default, aten.lift_fresh_copy.default, aten.lift_fresh.default, aten.detach_.default
)  # fmt: skip
COPY_INTO = _family("copy_into", aten.copy_.default)
ZERO_INTO = _family("zero_into", aten.zero_.default)
FILL_INTO = _family("fill_into", aten.fill_.Scalar)

# What cuts across families: overloads that one question is about, whatever else they do.
Kind = frozenset[OpOverload]

ORDERING: Kind = frozenset(
    {aten.topk.default, aten.sort.default, aten.sort.stable, aten.argsort.default, aten.argsort.stable}
)
MASKED_FILL: Kind = frozenset({aten.masked_fill.Scalar})
EQUALS: Kind = frozenset({aten.eq.Scalar})
MAGNITUDE: Kind = frozenset({aten.abs.default})
SUM_ALONG: Kind = frozenset({aten.sum.dim_IntList})
STABLE_SORT: Kind = frozenset({aten.sort.stable})
EXTREMES: Kind = frozenset({aten.argmax.default, aten.argmin.default, aten.max.dim, aten.min.dim})
COMPARISONS: Kind = frozenset(
    getattr(getattr(aten, name), overload)
    for name in ("gt", "ge", "lt", "le", "eq", "ne")
    for overload in ("Tensor", "Scalar")
)
WHOLE_DIVISIONS: Kind = frozenset({aten.floor_divide.default, aten.div.Tensor_mode, aten.div.Scalar_mode})
CASTS: Kind = frozenset({aten.to.dtype, aten._to_copy.default})
ROUNDINGS: Kind = (
    WHOLE_DIVISIONS
    | CASTS
    | frozenset({aten.floor.default, aten.ceil.default, aten.round.default, aten.trunc.default, aten.sign.default})
)
COIN_FLIPS: Kind = frozenset({aten.bernoulli.default})
DRAWS: Kind = COIN_FLIPS | frozenset(
    {
        aten.rand.default, aten.randn.default, aten.rand_like.default, aten.randn_like.default, aten.randint.default,
        aten.randint.low, aten.randint_like.default, aten.randint_like.low_dtype, aten.randperm.default,
        aten.normal_functional.default, aten.uniform.default, aten.bernoulli.p,
    }
)  # fmt: skip
"""Operators that draw numbers of which nothing but the distribution is given; dropout is off in evaluation."""
SATURATING: Kind = frozenset({aten.sigmoid.default, aten.hardsigmoid.default, aten.softmax.int})
AROUND_ONE: Kind = frozenset(
    {
        aten.sigmoid.default, aten.hardsigmoid.default, aten.softplus.default, aten.log_sigmoid.default,
        aten.elu.default, aten.celu.default, aten.selu.default,
    }
)  # fmt: skip
"""Functions that runtimes compute around 1/2 or 1: a result next to 0 holds the rounding of that, not of itself."""
GATED: Kind = frozenset({aten.silu.default, aten.gelu.default, aten.mish.default, aten.hardswish.default})
"""Functions that multiply their operand by one of those: a result next to 0 holds the rounding of the operand."""
SUMS = Group(
    (
        *WITH_FILTERS.families, *(PRODUCTS | ADDED_PRODUCTS).families, ADDMV, ADDBMM, OTHER_MATMUL, ANY_CONVOLUTION,
        CONV_TBC, TENSORDOT, BILINEAR, DISTANCE, SIMILARITY, RECURRENT_CELL, RECURRENT, EINSUM, ATTENTION, BATCH_NORM,
        INSTANCE_NORM,
        LAYER_NORM, RMS_NORM, GROUP_NORM, MEAN, REDUCE, CUMSUM, AVG_POOL, ADAPTIVE_POOL, RESIZE, SAMPLE,
    )
)  # fmt: skip
"""Operators that add many values up: a result next to 0 holds the rounding of its terms, not of itself."""
COPIES: Kind = frozenset(
    {
        aten.clone.default,
        aten.cat.default,
        aten.stack.default,
        aten.repeat.default,
        aten.flip.default,
        aten.rot90.default,
    }
)
"""Operators that only move or copy numbers and whose schema does not show it, as it does for views."""
LOOK_UPS: Kind = frozenset({aten.index_select.default, aten.gather.default})

FAMILIES = tuple(_known.families)
_FAMILY_OF = MappingProxyType(_known.of)
TAGGED = Family("tagged")
"""What torch says works element by element and no family lists."""


def family_of(target: Any) -> Family | None:
    """The family of an operator; None if none lists it and torch does not tag it as pointwise."""
    found = _FAMILY_OF.get(target)
    return TAGGED if found is None and is_pointwise(target) else found


def operands_of(target: Any) -> tuple[str, ...]:
    """Names of the arguments that an operator multiplies, in order; () for one of no such family."""
    family = _FAMILY_OF.get(target)
    return () if family is None else family.operands


def is_depthwise(target: Any, weight: tuple[int, ...], groups: int) -> bool:
    """Whether a grouped convolution with a weight of these sizes has a group for every channel."""
    if target in TRANSPOSED_CONVOLUTIONS:
        return 1 < groups == weight[0]
    return groups > 1 and weight[1] == 1


def is_pointwise(target: Any) -> bool:
    """Whether torch itself says that the operator works element by element, and makes its result anew.

    One that writes into its operand changes what other names of that memory read, which no rule can see.
    """
    return torch.Tag.pointwise in getattr(target, "tags", ()) and not schema_of(target).is_mutable


UNTAGGED = tuple(overload for overload in BY_ELEMENT if not is_pointwise(overload))
"""What works element by element although torch does not say so."""


def works_by_element(target: Any) -> bool:
    """Whether an operator works element by element, by torch's tag or by a family here."""
    return target in BY_ELEMENT or is_pointwise(target)


def operator_name(target: Any) -> str:
    """`max_pool2d` for any overload of it; with the name space outside of ATen; "" for what has no schema."""
    return getattr(getattr(target, "_schema", None), "name", "").removeprefix("aten::")


def spatial_rank(target: Any) -> int:
    """How many dimensions a window slides along, as the operator's name says; 2 where it does not."""
    name = operator_name(target)
    return next((n for n in (1, 2, 3) if f"{n}d" in name), 2)
