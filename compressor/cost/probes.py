"""What each kind of operator likes, found on small chains at a dozen widths; it must never know a network.

A chain and not one operator: a runtime hands values on in a layout of its own, and what a width costs is in part what
it costs to leave and enter that layout.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

import torch
from torch import Tensor, fx, nn

from compressor.cost.latency import Stopwatch
from compressor.cost.preferences import KINDS, USUAL, Preference, Preferences, filled_works
from compressor.program import InputSpec, Program, ProgramModule

aten = torch.ops.aten

_SIZE, _TOKENS = 14, 196
_WIDE = 64
_MULTIPLES = (1, 2, 4, 8, 16)
_BLOCKS = (32, 16, 8, 4)
_FIRST = 4
_WIDTHS: tuple[int, ...] = (4, 8, 16, 32, 36, 40, 48, 56, 60, 62, 63, 64)
_SAME = 1.03
"""Times this close are the same: two runs differ by a per cent or two."""
_MOST_ODD, _MOST_FEW = 20.0, 1.5
"""What an operator that is a small part of its chain may be found to take: more is noise."""
_NEARLY = 0.75
"""The first step beyond a block costs most of what the whole next block costs."""


def find_preferences(stopwatch: Stopwatch | None) -> Preferences:
    """What the stopwatch's runtime likes, each kind's chains measured side by side; what is usual where there is none,
    or where it fails: widths that are a little less fast are no reason to stop."""
    if stopwatch is None:
        return USUAL
    try:
        return _measured(stopwatch)
    except Exception as error:  # a runtime's exceptions share no base class
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0][:160]
        return replace(USUAL, trouble=f"no width could be measured, so those that are usually fast are taken: {reason}")


def _measured(stopwatch: Stopwatch) -> Preferences:
    """Pointwise convolutions first: they stand around the others."""
    found: dict[str, Preference] = {}
    for kind in ("pointwise", *(kind for kind in KINDS if kind != "pointwise")):
        trials = [chain(kind, width) for width in _WIDTHS]
        seconds = dict(zip(_WIDTHS, stopwatch.seconds(trials), strict=True))
        found[kind] = _preference(kind, seconds, Preferences(found))
    return Preferences(found)


def _preference(kind: str, seconds: Mapping[int, float], around: Preferences) -> Preference:
    whole, base = seconds[_WIDE], _WIDE // 2
    multiple = next((m for m in _MULTIPLES if seconds[_WIDE - m] <= _SAME * whole), _MULTIPLES[-1])
    first = seconds[base + max(multiple, _FIRST)] - seconds[base]
    steps = (b for b in _BLOCKS if first > 0 and first >= _NEARLY * (seconds[base + b] - seconds[base]))
    block = max(next(steps, _FIRST), multiple)
    reading = _Reading(kind, seconds, Preferences({**around.of_kind, kind: Preference(block=block)}), block)
    odd = [reading.takes(_WIDE - m) for m in _MULTIPLES if m < multiple]
    half, quarter = reading.part(2), reading.part(4)
    return Preference(multiple, block, min(max(1.0, *odd), _MOST_ODD) if odd else 1.0, half, min(quarter, half))


@dataclass(frozen=True)
class _Reading:
    """What the operator in question takes of its chain's time: what is left when the others have had their shares, and
    when what every chain takes, however narrow, is taken off."""

    kind: str
    seconds: Mapping[int, float]
    around: Preferences
    block: int

    def takes(self, width: int) -> float:
        """How much longer than its filters and channels say, filled up to blocks."""
        program = chain(self.kind, width)
        works, place = filled_works(program, self.around), 2 if self.kind == "concat" else 1
        filled = Preference(block=self.block, half=1.0, quarter=1.0)
        own = replace(self.around, of_kind={**self.around.of_kind, self.kind: filled})
        whole = filled_works(program, own)[place]
        return (self._as_work(width) - sum(works) + works[place]) / whole

    def _as_work(self, width: int) -> float:
        """The chain's time, less what a chain without any width would take, in the work that takes that long."""
        wide, narrow = (sum(filled_works(chain(self.kind, n), self.around)) for n in (_WIDE, _WIDE // 2))
        each = (self.seconds[_WIDE] - self.seconds[_WIDE // 2]) / (wide - narrow)
        return (self.seconds[width] - self.seconds[_WIDE]) / each + wide

    def part(self, parts: int) -> float:
        """What reading a part of a block takes, in shares of a whole one; no less than there is to do."""
        width = self.block // parts
        if width not in self.seconds:
            return 1 / parts
        return min(max(self.takes(width) / self.takes(self.block), 1 / parts), _MOST_FEW)


class _Chain:
    """A graph in the making, from an input of 64 channels (or features) on."""

    def __init__(self, sizes: tuple[int, ...]) -> None:
        self._graph, self._sizes = fx.Graph(), sizes
        self._tensors: dict[str, Tensor] = {}
        self.start = self._graph.placeholder("x")

    def convolution(self, x: fx.Node, n_in: int, n_out: int, kernel: int = 1, groups: int = 1) -> fx.Node:
        weight = self._parameter(n_out, n_in // groups, kernel, kernel)
        padding = kernel // 2
        arguments = (x, weight, self._parameter(n_out), [1, 1], [padding, padding], [1, 1], groups)
        return self._relu(self._graph.call_function(aten.conv2d.default, arguments))

    def linear(self, x: fx.Node, n_in: int, n_out: int) -> fx.Node:
        arguments = (x, self._parameter(n_out, n_in), self._parameter(n_out))
        return self._relu(self._graph.call_function(aten.linear.default, arguments))

    def concat(self, x: fx.Node, y: fx.Node) -> fx.Node:
        return self._graph.call_function(aten.cat.default, ([x, y], 1))

    def done(self, last: fx.Node) -> Program:
        self._graph.output((last,))
        return Program(ProgramModule(self._tensors, self._graph), (InputSpec("x", (None, *self._sizes)),))

    def _relu(self, x: fx.Node) -> fx.Node:
        return self._graph.call_function(aten.relu.default, (x,))

    def _parameter(self, *sizes: int) -> fx.Node:
        name = f"chain.{len(self._tensors)}"
        self._tensors[name] = nn.Parameter(torch.full(sizes, 0.01), requires_grad=False)
        return self._graph.get_attr(name)


def chain(kind: str, width: int) -> Program:
    """A few operators around one of `kind` with that width, per group where it has groups."""
    return _CHAINS[kind](width)


def _kernel(kernel: int) -> Callable[[int], Program]:
    def build(width: int) -> Program:
        made = _Chain((_WIDE, _SIZE, _SIZE))
        thin = made.convolution(made.start, _WIDE, width)
        return made.done(made.convolution(thin, width, _WIDE, kernel))

    return build


def _depthwise(width: int) -> Program:
    made = _Chain((_WIDE, _SIZE, _SIZE))
    thin = made.convolution(made.start, _WIDE, width)
    moved = made.convolution(thin, width, width, 3, width)
    return made.done(made.convolution(moved, width, _WIDE))


def _grouped(width: int) -> Program:
    made = _Chain((_WIDE, _SIZE, _SIZE))
    thin = made.convolution(made.start, _WIDE, 2 * width)
    moved = made.convolution(thin, 2 * width, 2 * width, 3, 2)
    return made.done(made.convolution(moved, 2 * width, _WIDE))


def _concat(width: int) -> Program:
    """Two such widths side by side, so that their sum is no worse a width than they are."""
    made = _Chain((_WIDE, _SIZE, _SIZE))
    parts = (made.convolution(made.start, _WIDE, width), made.convolution(made.start, _WIDE, width))
    return made.done(made.convolution(made.concat(*parts), 2 * width, _WIDE))


def _product(width: int) -> Program:
    made = _Chain((_TOKENS, 4 * _WIDE))
    thin = made.linear(made.start, 4 * _WIDE, width)
    return made.done(made.linear(thin, width, 4 * _WIDE))


_CHAINS: dict[str, Callable[[int], Program]] = {
    "convolution": _kernel(3),
    "pointwise": _kernel(1),
    "depthwise": _depthwise,
    "grouped": _grouped,
    "concat": _concat,
    "product": _product,
}
