"""The window of a convolution or a pooling: kernel, strides, dilations and what its padding comes to.

It must never hold an importer.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from compressor.errors import ModelError
from compressor.formats.onnx_import.emitter import Emitter
from compressor.formats.onnx_import.table import Op
from compressor.formats.onnx_import.values import Traced

aten = torch.ops.aten


@dataclass(frozen=True)
class Window:
    """One entry per spatial dimension; `begin` and `end` are the padding at both ends."""

    kernel: list[int]
    strides: list[int]
    dilations: list[int]
    begin: list[int]
    end: list[int]

    @property
    def is_even(self) -> bool:
        return self.begin == self.end

    @property
    def amounts(self) -> list[int]:
        """The padding as `pad` wants it: the last dimension first."""
        pairs = zip(reversed(self.begin), reversed(self.end), strict=True)
        return [n for pair in pairs for n in pair]


def window_of(op: Op, x: Traced, kernel: Sequence[int]) -> Window:
    """The window that a node's attributes describe.

    Raises:  ModelError if they do not fit the input, or `auto_pad` needs sizes that are not known.
    """
    rank = x.rank - 2
    strides = list(op.get("strides", [1] * rank))
    dilations = list(op.get("dilations", [1] * rank))
    pads = list(op.get("pads", [0] * 2 * rank))
    if not len(kernel) == len(strides) == len(dilations) == rank or len(pads) != 2 * rank:
        raise ModelError(f"its window has {len(kernel)} dimensions, its input {rank}")
    if any(n < 1 for n in (*kernel, *strides, *dilations)):
        raise ModelError("its window has a size, stride or dilation below 1")
    mode = op.get("auto_pad", "NOTSET")
    begin, end = pads[:rank], pads[rank:]
    if mode == "VALID":
        begin, end = [0] * rank, [0] * rank
    elif mode in ("SAME_UPPER", "SAME_LOWER"):
        begin, end = _same(x.spatial(), kernel, strides, dilations, upper=mode == "SAME_UPPER")
    elif mode != "NOTSET":
        raise ModelError(f"auto_pad {mode} is unknown")
    return Window(list(kernel), strides, dilations, begin, end)


def _same(
    sizes: Sequence[int], kernel: Sequence[int], strides: Sequence[int], dilations: Sequence[int], *, upper: bool
) -> tuple[list[int], list[int]]:
    """Padding for an output of ceil(size / stride); an odd one goes to the end (upper) or the beginning."""
    begin: list[int] = []
    end: list[int] = []
    for size, k, stride, dilation in zip(sizes, kernel, strides, dilations, strict=True):
        total = max((-(-size // stride) - 1) * stride + (k - 1) * dilation + 1 - size, 0)
        small, large = total // 2, total - total // 2
        begin.append(small if upper else large)
        end.append(large if upper else small)
    return begin, end


def pad_input(ctx: Emitter, x: Traced, window: Window, value: float = 0.0) -> tuple[Traced, list[int]]:
    """The input, and the padding that is left for the operator itself: all of it when it is even."""
    if window.is_even and all(n >= 0 for n in window.begin):
        return x, window.begin
    return ctx.call(aten.pad.default, x, window.amounts, "constant", value), [0] * len(window.begin)


@dataclass(frozen=True)
class Frame:
    """What a transposed convolution gives before it is cropped or filled; one entry per spatial dimension.

    `padding` takes away from both ends, `extra` adds to the last one; `begin` and `end` are cropped then, and `beyond`
    is filled: an output that the file wants larger than the sums reach.
    """

    strides: list[int]
    dilations: list[int]
    padding: list[int]
    extra: list[int]
    begin: list[int]
    end: list[int]
    beyond: list[int]

    @property
    def amounts(self) -> list[int]:
        """What is cropped (below 0) or filled, as `pad` wants it: the last dimension first."""
        ends = [more - less for less, more in zip(self.end, self.beyond, strict=True)]
        return [n for first, last in reversed(list(zip(self.begin, ends, strict=True))) for n in (-first, last)]


def frame_of(op: Op, x: Traced, kernel: Sequence[int]) -> Frame:
    """The frame that the attributes of a transposed convolution describe.

    A size that is asked for is reached by padding, the odd one at the beginning, or at the end with SAME_UPPER; padding
    is never negative: a larger output is filled at its end, as onnxruntime does.

    Raises:  ModelError if they do not fit the input.
    """
    rank, mode = x.rank - 2, op.get("auto_pad", "NOTSET")
    strides, dilations = list(op.get("strides", [1] * rank)), list(op.get("dilations", [1] * rank))
    extra, wanted = list(op.get("output_padding", [0] * rank)), list(op.get("output_shape", ()))[-rank:]
    if not len(kernel) == len(strides) == len(dilations) == len(extra) == rank:
        raise ModelError(f"its window has {len(kernel)} dimensions, its input {rank}")
    reach = [(k - 1) * dilation + 1 + more for k, dilation, more in zip(kernel, dilations, extra, strict=True)]
    beyond = [0] * rank
    if wanted:
        natural = [stride * (n - 1) + more for n, stride, more in zip(x.spatial(), strides, reach, strict=True)]
        beyond = [max(size - n, 0) for n, size in zip(natural, wanted, strict=True)]
        totals = [max(n - size, 0) for n, size in zip(natural, wanted, strict=True)]
    else:  # as many times larger as the stride, whatever the size
        totals = [max(more - stride, 0) for more, stride in zip(reach, strides, strict=True)]
    if wanted or mode in ("SAME_UPPER", "SAME_LOWER"):
        small, large = [n // 2 for n in totals], [n - n // 2 for n in totals]
        begin, end = (small, large) if mode == "SAME_UPPER" else (large, small)
    else:
        pads = list(op.get("pads", [0] * 2 * rank)) if mode == "NOTSET" else [0] * 2 * rank
        begin, end = pads[:rank], pads[rank:]
    if any(n < 0 for n in (*begin, *end)):
        raise ModelError("adds to its output on both sides (a negative padding)")
    # what is cropped at the end of one side can swallow an output padding that torch would refuse as too large
    even = [min(pair) for pair in zip(begin, end, strict=True)]
    begin, end = ([n - p for n, p in zip(side, even, strict=True)] for side in (begin, end))
    return Frame(strides, dilations, even, extra, begin, end, beyond)
