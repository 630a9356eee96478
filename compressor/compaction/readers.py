"""What stands against the removal of units, operator by operator; it must never decide what goes.

Units are coupled position by position everywhere but where positions are summed. There a position may go if what it
adds is 0 (it is 0 itself, or only zeros read it) or the same for every output position, so that a bias takes it over.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.fx import Node
from torch.fx.node import map_arg

from compressor.axes import Ids, Label, UnitMap, Value
from compressor.axes.table import RULES
from compressor.compaction.constants import Arguments, Constants, Walked, stretch
from compressor.compaction.transfer_contract import channel_dim, reads_of
from compressor.program import Program, TensorShape, arguments, families, layer_name, weight_of_choice
from compressor.program.family import OperatorTable

Flags: TypeAlias = NDArray[np.bool_]

ALWAYS = -1
"""The row of what is needed whatever goes; also the unit of what may not go."""

LIVE = "its value depends on the input"
BORDER = "it is constant, but {} pads it with zeros"
UNEVEN = "it is constant, but not the same at every position that {} reads"
NOT_ZERO = "{} would sum over fewer values, and this one is not 0"


@dataclass(frozen=True)
class Need:
    """Units that an operator cannot do without: `units[j]` stays as long as one `rows[i]` with `matrix[i, j]` does.

    `rows` are units too, or ALWAYS. `reason` says what kept the unit from being folded.
    """

    node: str
    reason: str
    rows: Ids
    units: Ids
    matrix: Flags


@dataclass(frozen=True)
class Filters:
    """The filters of one layer and which of them hold only zeros.

    Shapes:  row_units, zeroed (O,)
    """

    node: Node
    row_units: Ids
    zeroed: Flags


@dataclass(frozen=True)
class Reading:
    """One operator that sums over units: how each channel is read.

    `dim` is the channel dimension of the input; `is_single` says that there is one output position, so that every
    constant adds the same everywhere.

    Shapes:  channel_units (G * I,), row_units (G * O,), reads (G, O, I), None if the weight is no constant
    """

    node: Node
    arguments: Arguments
    source: Constants
    dim: int
    channel_units: Ids
    row_units: Ids
    reads: Tensor | None
    is_single: bool


class Survey:
    """Every need and every reading of one program."""

    def __init__(self, program: Program, units: UnitMap, constants: Mapping[str, Walked]) -> None:
        self._units, self._constants, self._shapes = units, constants, program.shapes
        self.needs: list[Need] = []
        self.readings: list[Reading] = []
        self.filters: list[Filters] = []
        self.places: dict[str, str] = {}
        for node in program.module.graph.nodes:
            if node.op == "call_function":
                self._visit(node)

    def _visit(self, node: Node) -> None:
        read = READS.get(node.target) or _read_of_unlisted(node.target)
        if read is _passes:
            return
        self.places[node.name] = place(node)
        walked: Any = self._constants
        bound: Arguments = map_arg(arguments(node), lambda n: walked[n.name])
        read(self, node, bound)

    def labels(self, node: Any) -> Value | None:
        value = self._units.walk.values.get(node.name) if isinstance(node, Node) else None
        return value if isinstance(value, Value) else None

    def _units_along(self, value: Value | None, dim: int, size: int) -> Ids:
        """The unit of each position along a dimension, ALWAYS where it may not go. Shapes: -> (size,)"""
        if value is not None:
            for label in value.along(dim):
                if len(label.dims) == 1:
                    return self._units.of_ids(label.ids)
        return np.full(size, ALWAYS, dtype=np.int64)

    def _filters(self, node: Node, a: Arguments) -> None:
        x: Constants = a["input"]
        dim, given = channel_dim(node, x), arguments(node)
        if node.target not in families.LINEAR and x.rank != a["weight"].rank:
            return self._needs_zeros(node, a)
        shape = self._shapes[node.name]
        assert isinstance(shape, TensorShape)
        rows = self._units_along(self.labels(node), dim, shape.sizes[dim])
        reads = reads_of(node, a)
        if reads is not None:
            self.filters.append(Filters(node, rows, ~reads.any(2).reshape(-1).numpy()))
        if node.target not in families.LINEAR and families.is_depthwise(node.target, a["weight"].sizes, a["groups"]):
            return None  # depthwise: every channel goes with its filter
        single = node.target in families.CONVOLUTIONS and all(size == 1 for size in shape.sizes[2:])
        channels = self._units_along(self.labels(given["input"]), dim, x.sizes[dim])
        return self._read(Reading(node, a, x, dim, channels, rows, reads, single))

    def _products(self, node: Node, a: Arguments) -> None:
        """A constant right factor is a linear layer; otherwise one factor must be 0 where a unit goes."""
        first, second = families.operands_of(node.target)
        x, y = a[first], a[second]
        left, right = arguments(node)[first], arguments(node)[second]
        contracted = self._units_along(self.labels(left), x.rank - 1, x.sizes[-1])
        if not (contracted >= 0).any():
            contracted = self._units_along(self.labels(right), max(y.rank - 2, 0), x.sizes[-1])
        if y.all_known and y.rank == 2:
            shape = self._shapes[node.name]
            assert isinstance(shape, TensorShape)
            rows = self._units_along(self.labels(node), len(shape.sizes) - 1, shape.sizes[-1])
            return self._read(Reading(node, a, x, x.rank - 1, contracted, rows, reads_of(node, a), False))
        silent = x.zero_everywhere(x.rank - 1) | y.zero_everywhere(max(y.rank - 2, 0))
        return self._always(node, NOT_ZERO, contracted[~silent.numpy()])

    def _read(self, reading: Reading) -> None:
        node, a, x, dim, reads = reading.node, reading.arguments, reading.source, reading.dim, reading.reads
        if not (reading.channel_units >= 0).any():
            return
        if reads is None:
            self._always(node, NOT_ZERO, reading.channel_units[~x.zero_everywhere(dim).numpy()])
            return
        self.readings.append(reading)
        known, uneven = x.everywhere(dim), x.differs_along(dim)
        self._need(reading, reads, ~known, LIVE)
        if not reading.is_single:
            self._need(reading, reads, known & uneven, UNEVEN)
            touching = _reads_padding(node, a, reads, x)
            if touching is not None:
                self._need(reading, touching, known & ~uneven & ~x.zero_everywhere(dim), BORDER)

    def _need(self, reading: Reading, reads: Tensor, hard: Tensor, reason: str) -> None:
        """Note which rows need which of the `hard` channels. Shapes: reads (G, O, I), hard (G * I,)"""
        chosen = hard.numpy() & (reading.channel_units >= 0)
        self._need_of(reading.node, reading.row_units, reading.channel_units, reads, chosen, reason)

    def _need_of(
        self, node: Node, row_units: Ids, channel_units: Ids, reads: Tensor, chosen: Flags, reason: str
    ) -> None:
        """Shapes: row_units (G * O,), channel_units, chosen (G * I,), reads (G, O, I)"""
        if not chosen.any():
            return
        units = np.unique(channel_units[chosen])
        rows = np.unique(row_units)
        matrix = np.zeros((len(rows), len(units)), dtype=bool)
        groups, n_rows, n_channels = reads.shape
        for group in range(groups):
            mine = slice(group * n_channels, (group + 1) * n_channels)
            columns = np.flatnonzero(chosen[mine])
            part = reads[group][:, torch.from_numpy(columns)].numpy()
            part = _any_of_equal(part, np.searchsorted(units, channel_units[mine][columns]), len(units))
            own = np.searchsorted(rows, row_units[group * n_rows : (group + 1) * n_rows])
            matrix |= _any_of_equal(part.T, own, len(rows)).T
        self.needs.append(Need(node.name, reason.format(place(node)), rows, units, matrix))

    def _always(self, node: Node, reason: str, units: Ids) -> None:
        units = np.unique(units[units >= 0])
        if units.size:
            matrix = np.ones((1, len(units)), dtype=bool)
            rows = np.full(1, ALWAYS, dtype=np.int64)
            self.needs.append(Need(node.name, reason.format(place(node)), rows, units, matrix))

    def _needs_zeros(self, node: Node, a: Arguments) -> None:
        """An operator of which nothing more is known: whatever goes must be 0 for it."""
        for source in node.all_input_nodes:
            constants = self._constants.get(source.name)
            if isinstance(constants, Constants):
                self._zeros(node, source, constants, None)

    def _zeros(self, node: Node, source: Node, constants: Constants, dims: Sequence[int] | None) -> None:
        """Units of the labels along `dims` (None: all) that are not known to be 0 are needed."""
        value = self.labels(source)
        for label in value.labels if value is not None else ():
            if dims is None or set(dims) & set(label.dims):
                units = self._units.of_ids(label.ids)
                self._always(node, NOT_ZERO, units[~_zero_at(label, constants)])

    def _attention(self, node: Node, a: Arguments) -> None:
        """q·k may lose a feature that is 0 in one of them, or the same in every key: softmax does not see it."""
        query, key = a["query"], a["key"]
        last = query.rank - 1
        even = key.everywhere(last) & _even_over_keys(key)
        silent = query.zero_everywhere(last) | even
        features = self._units_along(self.labels(arguments(node)["query"]), last, query.sizes[last])
        self._always(node, NOT_ZERO, features[~silent.numpy()])

    def _reduction(self, node: Node, a: Arguments) -> None:
        x: Constants = a["self"]
        self._zeros(node, arguments(node)["self"], x, x.normal_dims(a.get("dim")))

    def _choice(self, node: Node, a: Arguments) -> None:
        """Whoever may be chosen is needed: all but those whose logit is minus infinity by the network's weights."""
        given, x = arguments(node), a["self"]
        if weight_of_choice(given["self"]) is None:
            return
        dim = x.normal_dim(a["dim"])
        absent = self._constants[arguments(given["self"])["mask"].name]
        assert isinstance(absent, Constants)
        units = self._units_along(self.labels(given["self"]), dim, x.sizes[dim])
        self._always(node, LIVE, units[~absent.along([absent.rank - 1]).value.bool().numpy().reshape(-1)])

    def _layer_norm(self, node: Node, a: Arguments) -> None:
        x: Constants = a["input"]
        self._zeros(node, arguments(node)["input"], x, range(x.rank - len(a["normalized_shape"]), x.rank))

    def _group_norm(self, node: Node, a: Arguments) -> None:
        """A group that goes as a whole is missed by none; of one that loses a part, the part must be 0."""
        x: Constants = a["input"]
        per_group = self._units_along(self.labels(node), 1, x.sizes[1]).reshape(a["num_groups"], -1)
        if (per_group != per_group[:, :1]).any():
            self._zeros(node, arguments(node)["input"], x, [1])

    def _recurrent(self, node: Node, a: Arguments) -> None:
        """Each matrix reads what is below it through the rows of its gates; a state is read through the second one."""
        given = arguments(node)
        below: Node | None = given["data"] if "data" in given else given["input"]
        matrices = given.get("params") or [given["w_ih"], given["w_hh"]]
        for matrix in (matrix for matrix in matrices if matrix is not None):
            constants = self._constants[matrix.name]
            assert isinstance(constants, Constants)
            if constants.rank != 2:
                continue
            if not constants.all_known:
                return self._needs_zeros(node, a)
            columns = self._units_along(self.labels(matrix), 1, constants.sizes[1])
            rows = self._units_along(self.labels(matrix), 0, constants.sizes[0])
            silent = np.zeros(constants.sizes[1], dtype=bool)
            if below is not None:  # the first matrix alone reads a value of the graph, of which something may be known
                source = self._constants[below.name]
                assert isinstance(source, Constants)
                silent, below = source.zero_everywhere(source.rank - 1).numpy(), None
            reads = stretch(constants.value, constants.sizes, [0, 1]) != 0
            self._need_of(node, rows, columns, reads[None], ~silent & (columns >= 0), LIVE)


Read: TypeAlias = Callable[[Survey, Node, Arguments], None]


def _passes(survey: Survey, node: Node, a: Arguments) -> None:
    """Nothing: a labelled position is made of the same position only, or is pinned."""


READS: OperatorTable[Read] = OperatorTable("a reading")
"""What an operator needs of the units that it reads."""

READS.register(families.WITH_FILTERS)(Survey._filters)
READS.register(families.PRODUCTS, families.ADDED_PRODUCTS)(Survey._products)
READS.register(families.ATTENTION)(Survey._attention)
READS.register(families.REDUCTIONS)(Survey._reduction)
READS.register(families.FEATURE_NORMS)(Survey._layer_norm)
READS.register(families.GROUP_NORM)(Survey._group_norm)
READS.register(families.RECURRENT, families.RECURRENT_CELL)(Survey._recurrent)
READS.register(families.TOPK)(Survey._choice)
READS.register(
    families.EINSUM, families.WEIGHT_NORM, families.OTHER_MATMUL, families.ADDMV, families.ADDBMM, families.TENSORDOT,
    families.BILINEAR, families.DISTANCE, families.SIMILARITY,
)(Survey._needs_zeros)  # fmt: skip
READS.register(
    families.EMBEDDING, families.VIEWS, families.TRANSPOSE, families.FLIP, families.EXPAND, families.EXPAND_AS,
    families.REPEAT, families.PARTS, families.REPEAT_INTERLEAVE, families.INDEX_SELECT, families.CAT, families.STACK,
    families.PAD, families.PIXEL_SHUFFLE, families.CHANNEL_SHUFFLE, families.DISPLACE, families.INDEX, families.GATHER,
    families.SCATTER, families.UNPOOL, families.SAMPLE, families.TO_COLUMNS, families.FROM_COLUMNS, families.ROTATE,
    families.DIFFERENCE, families.OUTER, families.ONE_HOT,
    families.CHANNEL_NORMS, families.GLU, families.WINDOWS, families.SCANS, families.SORT, families.FILLED,
    families.UNFILLED, families.NUMBERS, families.TRIANGLE, *families.UNTAGGED,
)(_passes)  # fmt: skip


def _read_of_unlisted(target: Any) -> Read:
    """An operator that torch tags as pointwise passes, unless a user's own rule says what it does instead."""
    return _passes if target not in RULES and families.is_pointwise(target) else Survey._needs_zeros


def place(node: Node) -> str:
    """The layer's name, or the node's for an operator without weights."""
    weight = next((n for name, n in arguments(node).items() if name in ("weight", "mat2", "other")), None)
    is_weight = isinstance(weight, Node) and weight.op == "get_attr"
    return layer_name(str(weight.target)) if is_weight else node.name  # type: ignore[union-attr]


def _any_of_equal(flags: Flags, column: Ids, n: int) -> Flags:
    """Columns joined by `or` where `column` is equal. Shapes: flags (R, C), column (C,) -> (R, n)"""
    joined = np.zeros((flags.shape[0], n), dtype=bool)
    if not column.size:
        return joined
    order = np.argsort(column, kind="stable")
    targets, starts = np.unique(column[order], return_index=True)
    joined[:, targets] = np.logical_or.reduceat(flags[:, order], starts, axis=1)
    return joined


def _reads_padding(node: Node, a: Arguments, reads: Tensor, x: Constants) -> Tensor | None:
    """Which channels each filter reads with taps that meet the padding somewhere; None where there is none.

    Shapes:  -> (groups, filters per group, channels per group)
    """
    if node.target in families.TRANSPOSED_CONVOLUTIONS:
        return reads  # a tap is used at some output positions only
    if node.target not in families.CONVOLUTIONS or a["padding"] == "valid":
        return None
    weight: Constants = a["weight"]
    kernel = weight.sizes[2:]
    touches = torch.zeros(kernel, dtype=torch.bool)
    for d, size in enumerate(kernel):
        before, after = _padding(a, d, size)
        offsets = torch.arange(size) * _at(a["dilation"], d)
        outside = (offsets < before) | (offsets[-1] - offsets < after)
        touches |= outside.reshape([-1 if other == d else 1 for other in range(len(kernel))])
    if not touches.any():
        return None
    nonzero = stretch(weight.value, weight.sizes, range(weight.rank)) != 0
    return (nonzero & touches).flatten(2).any(2).reshape(reads.shape)


def _padding(a: Arguments, d: int, size: int) -> tuple[int, int]:
    if a["padding"] == "same":
        total = _at(a["dilation"], d) * (size - 1)
        return total // 2, total - total // 2
    amount = _at(a["padding"], d)
    return amount, amount


def _at(amounts: Sequence[int] | int, d: int) -> int:
    return amounts if isinstance(amounts, int) else amounts[d] if len(amounts) > 1 else amounts[0]


def _even_over_keys(key: Constants) -> Tensor:
    """Features whose value is the same for every key of a head. Shapes: -> (E,)"""
    value = stretch(key.value, key.sizes, [key.rank - 1])
    same = (value == value.narrow(key.rank - 2, 0, 1)).reshape(-1, value.shape[-1])
    return same.all(0)


def _zero_at(label: Label, constants: Constants) -> Flags:
    """Where a label's positions are known to be 0 whatever the other dimensions say, in the shape of its ids."""
    zero = constants.is_zero
    others = [dim for dim in range(zero.dim()) if dim not in label.dims]
    for dim in others:
        zero = zero.all(dim, keepdim=True)
    at = zero.expand([constants.sizes[dim] if dim in label.dims else 1 for dim in range(zero.dim())])
    return at.reshape(label.ids.shape).numpy()
