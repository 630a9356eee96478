"""How operators are written: short where defaults are meant, in full where they are not, and always what they do."""

from __future__ import annotations

import operator
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, fx
from torch.fx import Node

from compressor.exporting.source_idioms import expression
from compressor.exporting.source_text import literal

aten: Any = torch.ops.aten


class Plain:
    """Values by the names of their nodes, everything else as it is."""

    def value(self, value: Any) -> str:
        if isinstance(value, Node):
            return value.name
        if isinstance(value, list | tuple) and any(isinstance(part, Node) for part in value):
            return f"[{', '.join(self.value(part) for part in value)}]"
        return literal(value)

    def operand(self, value: Any) -> str:
        return self.value(value)

    def size(self, value: Any) -> str:
        return self.value(value)

    def sizes(self, of: Any, sizes: list[Any]) -> str:
        return ", ".join(map(self.value, sizes))

    def is_flattening(self, of: Any, sizes: list[Any]) -> bool:
        return sizes == [2, 64]


def number(*sizes: int) -> Tensor:
    return torch.arange(float(torch.Size(sizes).numel())).reshape(sizes).sin()


VALUES: dict[str, Any] = {
    "x": number(2, 4, 4, 4), "k": number(6, 4, 3, 3), "d": number(4, 1, 3, 3), "b": number(6), "t": number(4, 6, 2, 2),
    "m": number(2, 3, 4), "r": number(2, 4), "i": torch.tensor([1, 0]), "w": number(5, 3), "mask": number(3, 3) > 0,
    "s": number(4), "v": number(1, 2, 3, 3, 3), "q": number(3, 2, 2, 2, 2), "h": number(5, 3, 2), "n": 3,
    "g": number(2, 4, 3, 4),
}  # fmt: skip
"""An image, kernels, tokens, a matrix, positions, a table and so on, by the names that they have in the lines."""

LINES: list[tuple[Any, tuple[Any, ...], dict[str, Any], str]] = [
    (aten.conv2d.default, ("x", "k"), {}, "F.conv2d(x, k)"),
    (aten.conv2d.default, ("x", "k", "b"), {}, "F.conv2d(x, k, b)"),
    (aten.conv2d.default, ("x", "k", "b", [2, 2], [1, 1]), {}, "F.conv2d(x, k, b, stride=2, padding=1)"),
    (aten.conv2d.default, ("x", "k", None, [1, 2], [1, 1], [2, 2]), {},
     "F.conv2d(x, k, stride=(1, 2), padding=1, dilation=2)"),
    (aten.conv2d.default, ("x", "d", None, [1, 1], [0, 0], [1, 1], 4), {}, "F.conv2d(x, d, groups=4)"),
    (aten.conv3d.default, ("v", "q", None, [1, 1, 1], [1, 1, 1]), {}, "F.conv3d(v, q, padding=1)"),
    (aten.conv1d.default, ("m", "h", None, [2], [0]), {}, "F.conv1d(m, h, stride=2)"),
    (aten.conv_transpose2d.input, ("x", "t", None, [2, 2], [0, 0], [1, 1]), {},
     "F.conv_transpose2d(x, t, stride=2, output_padding=1)"),
    (aten.max_pool2d.default, ("x", [2, 2]), {}, "F.max_pool2d(x, 2)"),
    (aten.max_pool2d.default, ("x", [2, 2], [2, 2]), {}, "F.max_pool2d(x, 2)"),
    (aten.max_pool2d.default, ("x", [3, 3], [1, 1], [1, 1]), {}, "F.max_pool2d(x, 3, stride=1, padding=1)"),
    (aten.avg_pool2d.default, ("x", [3, 2], [2, 2], [1, 1], True, False), {},
     "F.avg_pool2d(x, (3, 2), stride=2, padding=1, ceil_mode=True, count_include_pad=False)"),
    (aten.adaptive_avg_pool2d.default, ("x", [1, 1]), {}, "F.adaptive_avg_pool2d(x, 1)"),
    (aten.layer_norm.default, ("m", [4]), {}, "F.layer_norm(m, [4], eps=1e-05)"),
    (aten.layer_norm.default, ("m", [4], "s", "s", 0.1), {}, "F.layer_norm(m, [4], weight=s, bias=s, eps=0.1)"),
    (aten.group_norm.default, ("x", 2, "s"), {}, "F.group_norm(x, 2, weight=s, eps=1e-05)"),
    (aten.scaled_dot_product_attention.default, ("m", "m", "m"), {}, "F.scaled_dot_product_attention(m, m, m)"),
    (aten.scaled_dot_product_attention.default, ("m", "m", "m", "mask"), {"scale": 0.5},
     "F.scaled_dot_product_attention(m, m, m, attn_mask=mask, scale=0.5)"),
    (aten.scaled_dot_product_attention.default, ("m", "m", "m", None, 0.0, True), {},
     "F.scaled_dot_product_attention(m, m, m, is_causal=True)"),
    (aten.scaled_dot_product_attention.default, ("g", "x", "x"), {}, "F.scaled_dot_product_attention(g, x, x)"),
    (aten.slice.Tensor, ("x", 0, 1), {}, "x[1:]"),
    (aten.slice.Tensor, ("x", 1, 0, 2), {}, "x[:, :2]"),
    (aten.slice.Tensor, ("x", 2, None, 2**63 - 1, 2), {}, "x[:, :, ::2]"),
    (aten.slice.Tensor, ("x", -1, 1, 3), {}, "torch.ops.aten.slice(x, -1, 1, 3, 1)"),
    (aten.select.int, ("x", 0, 1), {}, "x[1]"),
    (aten.select.int, ("x", 2, -1), {}, "x[:, :, -1]"),
    (aten.select.int, ("x", -1, 1), {}, "x.select(-1, 1)"),
    (aten.pad.default, ("x", [1, 1, 0, 2]), {}, "F.pad(x, [1, 1, 0, 2])"),
    (aten.pad.default, ("x", [1, 1], "constant", 2.0), {}, "F.pad(x, [1, 1], value=2.0)"),
    (aten.pad.default, ("x", [1, 1, 1, 1], "reflect"), {}, "F.pad(x, [1, 1, 1, 1], mode=\"reflect\")"),
    (aten.upsample_nearest2d.vec, ("x", None, [2.0, 2.0]), {}, "F.interpolate(x, scale_factor=2.0, mode=\"nearest\")"),
    (aten.upsample_nearest2d.vec, ("x", [6, 5], None), {}, "F.interpolate(x, size=[6, 5], mode=\"nearest\")"),
    (aten.upsample_bilinear2d.vec, ("x", [6, 5], True, None), {},
     "F.interpolate(x, size=[6, 5], mode=\"bilinear\", align_corners=True)"),
    (aten.flatten.using_ints, ("x", 1), {}, "x.flatten(1)"),
    (aten.flatten.using_ints, ("x", 1, 2), {}, "x.flatten(1, 2)"),
    (aten.reshape.default, ("x", [2, 64]), {}, "x.flatten(1)"),
    (aten.reshape.default, ("x", [4, 32]), {}, "x.reshape(4, 32)"),
    (aten.permute.default, ("x", [0, 2, 3, 1]), {}, "x.permute(0, 2, 3, 1)"),
    (aten.split.Tensor, ("x", 3, 1), {}, "x.split(3, 1)"),
    (aten.split_with_sizes.default, ("x", [2, 2], 1), {}, "x.chunk(2, 1)"),
    (aten.split_with_sizes.default, ("x", [1, 3], 1), {}, "x.split([1, 3], 1)"),
    (aten.split_with_sizes.default, ("x", [1, 1]), {}, "x.chunk(2)"),
    (aten.mean.dim, ("x", [2, 3]), {}, "x.mean((2, 3))"),
    (aten.mean.dim, ("x", [1], True), {}, "x.mean(1, keepdim=True)"),
    (aten.sum.dim_IntList, ("x", [1]), {"dtype": torch.float64}, "x.sum(1, dtype=torch.float64)"),
    (aten.mean.dim, ("x", []), {}, "x.mean([])"),
    (aten.sum.default, ("x",), {}, "x.sum()"),
    (aten.softmax.int, ("x", 1), {}, "x.softmax(1)"),
    (aten.softmax.int, ("x", 1, torch.float64), {}, "x.softmax(1, dtype=torch.float64)"),
    (aten.to.dtype, ("x", torch.float64), {}, "x.to(torch.float64)"),
    (aten.to.dtype, ("x", torch.float64, True), {}, "x.to(torch.float64)"),
    (aten.to.dtype, ("x", torch.float64, False, True), {},
     "torch.ops.aten.to.dtype(x, torch.float64, False, True)"),
    (aten._to_copy.default, ("x",), {"dtype": torch.float64}, "x.to(torch.float64)"),
    (aten.embedding.default, ("w", "i"), {}, "F.embedding(i, w)"),
    (aten.embedding.default, ("w", "i", -1, False, True), {},
     "torch.ops.aten.embedding.default(w, i, -1, False, True)"),
    (aten.index.Tensor, ("x", ["i"]), {}, "x[i]"),
    (aten.index.Tensor, ("x", [None, "i"]), {}, "x[:, i]"),
    (aten.index.Tensor, ("x", ["i", None, "i"]), {}, "torch.ops.aten.index.Tensor(x, [i, None, i])"),
    (aten.add.Tensor, ("x", "x"), {}, "x + x"),
    (aten.add.Tensor, ("x", "x"), {"alpha": 2}, "x + 2 * x"),
    (aten.sub.Tensor, ("x", 1.5), {}, "x - 1.5"),
    (aten.rsub.Scalar, ("x", 1), {}, "1 - x"),
    (aten.relu.default, ("x",), {}, "F.relu(x)"),
    (aten.leaky_relu.default, ("x", 0.2), {}, "F.leaky_relu(x, 0.2)"),
    (aten.elu.default, ("x", 1), {}, "F.elu(x)"),
    (aten.elu.default, ("x", 1, 1, 2), {}, "torch.ops.aten.elu.default(x, 1, 1, 2)"),
    (aten.hardtanh.default, ("x", -1, 0.5), {}, "F.hardtanh(x, max_val=0.5)"),
    (aten.softplus.default, ("x", 2.0), {}, "F.softplus(x, 2.0)"),
    (aten.gelu.default, ("x",), {"approximate": "tanh"}, 'F.gelu(x, approximate="tanh")'),
    (aten.linear.default, ("m", "r"), {}, "F.linear(m, r)"),
    (aten.transpose.int, ("x", 1, 2), {}, "x.transpose(1, 2)"),
    (aten.clone.default, ("x",), {"memory_format": torch.contiguous_format},
     "torch.ops.aten.clone.default(x, memory_format=torch.contiguous_format)"),
    (aten.special_i0.default, ("x",), {}, "torch.ops.aten.special_i0.default(x)"),
    (aten.sym_size.int, ("x", 2), {}, "x.shape[2]"),
    (operator.floordiv, ("n", 2), {}, "n // 2"),
    (operator.getitem, ("r", 1), {}, "r[1]"),
    (operator.neg, ("n",), {}, "-n"),
]  # fmt: skip


def called(target: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Node:
    """The call in a graph, names being nodes."""
    graph = fx.Graph()
    nodes = {name: graph.placeholder(name) for name in VALUES}
    given = fx.node.map_aggregate(args, lambda part: nodes.get(part, part) if isinstance(part, str) else part)
    return graph.call_function(target, given, kwargs)  # type: ignore[arg-type]


@pytest.mark.parametrize(("target", "args", "kwargs", "line"), LINES, ids=[line for *_, line in LINES])
def test_a_line_is_what_one_would_write_and_computes_what_the_operator_does(
    target: Any, args: tuple[Any, ...], kwargs: dict[str, Any], line: str
) -> None:
    written, _ = expression(called(target, args, kwargs), Plain())
    assert written == line
    given = fx.node.map_aggregate(args, lambda part: VALUES.get(part, part) if isinstance(part, str) else part)
    wanted = target(*given, **kwargs)  # type: ignore[misc]
    found = eval(line, {"torch": torch, "F": F, **VALUES})
    torch.testing.assert_close(list(found) if isinstance(found, tuple) else found, wanted)


@pytest.mark.parametrize(
    ("target", "args", "is_sum"),
    [
        (aten.add.Tensor, ("x", "x"), True),
        (aten.rsub.Scalar, ("x", 1), True),
        (operator.add, ("n", 1), True),
        (operator.neg, ("n",), True),
        (aten.relu.default, ("x",), False),
        (aten.slice.Tensor, ("x", 0, 1), False),
        (operator.getitem, ("r", 1), False),
    ],
)
def test_what_has_a_sign_needs_brackets_beside_another(target: Any, args: tuple[Any, ...], is_sum: bool) -> None:
    assert expression(called(target, args, {}), Plain())[1] == is_sum
