"""One table: how each operator is written by somebody who writes PyTorch; it must never hold where values come from.

What is not in it is written as `torch.ops.aten...`, which computes the same. Every file is run beside the program
before it gets its name, so a wrong line here is found out.
"""

from __future__ import annotations

import inspect
import operator
from collections.abc import Callable, Collection, Mapping
from typing import Any, Protocol

import torch
import torch.nn.functional as F
from torch.fx import Node

from compressor.exporting.source_layers import scalar
from compressor.exporting.source_text import literal
from compressor.program.arguments import arguments
from compressor.typed_torch import is_overload, schema_of

aten = torch.ops.aten
Bound = Mapping[str, Any]


class Writer(Protocol):
    """Values as text, in one `forward`."""

    def value(self, value: Any) -> str:
        """A node, a constant or a list of them."""
        ...

    def operand(self, value: Any) -> str:
        """The same, fit to stand beside an operator or before a dot."""
        ...

    def size(self, value: Any) -> str:
        """The same, a number being one that may differ between instances of a class."""
        ...

    def sizes(self, of: Any, sizes: list[Any]) -> str:
        """Sizes that the value `of` is brought to."""
        ...

    def is_flattening(self, of: Any, sizes: list[Any]) -> bool:
        """Whether a reshape of the value to the sizes is `flatten(1)`."""
        ...


Idiom = Callable[[Bound, Writer], str]

OPERATORS = {
    "add.Tensor": "+", "add.Scalar": "+", "sub.Tensor": "-", "sub.Scalar": "-", "mul.Tensor": "*", "mul.Scalar": "*",
    "div.Tensor": "/", "div.Scalar": "/", "matmul.default": "@", "pow.Tensor_Scalar": "**", "pow.Tensor_Tensor": "**",
    "eq.Tensor": "==", "eq.Scalar": "==", "ne.Tensor": "!=", "ne.Scalar": "!=", "lt.Tensor": "<", "lt.Scalar": "<",
    "le.Tensor": "<=", "le.Scalar": "<=", "gt.Tensor": ">", "gt.Scalar": ">", "ge.Tensor": ">=", "ge.Scalar": ">=",
    "bitwise_and.Tensor": "&", "bitwise_or.Tensor": "|", "remainder.Scalar": "%", "remainder.Tensor": "%",
    "__and__.Tensor": "&", "__or__.Tensor": "|",
}  # fmt: skip

PYTHON: Mapping[Any, str] = {
    operator.add: "+", operator.sub: "-", operator.mul: "*", operator.floordiv: "//", operator.truediv: "/",
    operator.mod: "%", operator.pow: "**", operator.eq: "==", operator.ne: "!=", operator.lt: "<", operator.le: "<=",
    operator.gt: ">", operator.ge: ">=", operator.and_: "&", operator.or_: "|",
}  # fmt: skip

_FUNCTIONAL = frozenset(
    {
        "relu", "relu6", "silu", "hardswish", "hardsigmoid", "mish", "selu", "softplus", "logsigmoid", "gelu",
        "elu", "leaky_relu", "hardtanh", "linear", "pixel_shuffle", "normalize", "pixel_unshuffle", "grid_sample",
        "celu", "prelu",
    }
)  # fmt: skip
"""Functions of `torch.nn.functional` that take what the operator takes."""

_METHODS = frozenset(
    {
        "sigmoid", "tanh", "exp", "log", "sqrt", "rsqrt", "abs", "neg", "sin", "cos", "floor", "ceil", "round", "erf",
        "square", "reciprocal", "log1p", "expm1", "sign", "softmax", "log_softmax", "transpose", "permute", "unsqueeze",
        "squeeze", "flatten", "unflatten", "chunk", "unbind", "repeat", "contiguous", "clone", "cumsum", "argmax",
        "argmin", "amax", "amin", "select", "narrow", "detach", "masked_fill", "logical_not", "logical_and",
        "logical_or", "bitwise_not", "expand_as", "view_as", "reshape_as", "type_as", "roll", "flip", "tile", "movedim",
        "swapaxes", "triu", "tril", "gather", "index_select", "bmm", "clamp", "clamp_min", "clamp_max", "sum", "mean",
        "prod", "any", "all", "topk", "sort", "max", "min", "var", "std", "isnan", "norm", "rot90", "t",
    }
)  # fmt: skip
"""Methods of a tensor that take what the operator takes behind its first argument, by position."""


def _binary(sign: str) -> Idiom:
    def write(b: Bound, w: Writer) -> str:
        first, second = list(b.values())[:2]
        alpha = b.get("alpha", 1)
        right = w.operand(second) if alpha == 1 else f"{w.value(alpha)} * {w.operand(second)}"
        return f"{w.operand(first)} {sign} {right}"

    return write


def positional(
    b: Bound, defaults: Mapping[str, Any], names: list[str], w: Writer, named: Collection[str] = ()
) -> str:  # fmt: skip
    """Arguments without those that are as usual; after one that is left out, and those of `named`, by name."""
    parts: list[str] = []
    skipped = False
    for name in names:
        if name in defaults and _equal(b[name], defaults[name]):
            skipped = True
            continue
        text = w.value(b[name])
        parts.append(f"{name}={text}" if skipped or name in named else text)
    return ", ".join(parts)


def _equal(a: Any, b: Any) -> bool:
    return not isinstance(a, Node) and type(a) is type(b) and a == b


def defaults_of(target: Any) -> dict[str, Any]:
    """Defaults of an operator's arguments, by name."""
    return {a.name: a.default_value for a in schema_of(target).arguments if a.has_default_value()}


def _method(node: Node, name: str, w: Writer) -> str:
    b = arguments(node)
    first, *rest = list(b)
    return f"{w.operand(b[first])}.{name}({positional(b, defaults_of(node.target), rest, w)})"


def _functional(node: Node, name: str, w: Writer) -> str:
    b = arguments(node)
    named = [a.name for a in schema_of(node.target).arguments if a.kwarg_only]
    return f"F.{name}({positional(b, defaults_of(node.target), list(b), w, named)})"


def _is_function(node: Node, name: str) -> bool:
    """Whether the function takes all that the call says: torch's `elu` has scales that `F.elu` has not."""
    b, defaults = arguments(node), defaults_of(node.target)
    told = [key for key in list(b)[1:] if key not in defaults or not _equal(b[key], defaults[key])]
    try:
        return set(told) <= inspect.signature(getattr(F, name)).parameters.keys()
    except ValueError:  # built in, and the operator itself
        return True


def _conv(name: str) -> Idiom:
    def write(b: Bound, w: Writer) -> str:
        parts = [w.value(b["input"]), w.value(b["weight"])]
        parts += [w.value(b["bias"])] if b["bias"] is not None else []
        plain = {"stride": 1, "padding": 0, "output_padding": 0, "dilation": 1}
        options = {key: scalar(b[key], 2) for key in plain if key in b}
        parts += [f"{key}={literal(value)}" for key, value in options.items() if value != plain[key]]
        parts += [f"groups={w.size(b['groups'])}"] if b["groups"] != 1 else []
        return f"F.{name}({', '.join(parts)})"

    return write


def _pool(name: str, **plain: Any) -> Idiom:
    def write(b: Bound, w: Writer) -> str:
        size = scalar(b["kernel_size"], 2)
        parts = [w.value(b["self"]), literal(size)]
        stride = scalar(b["stride"], 2) if len(b["stride"]) else size
        parts += [f"stride={literal(stride)}"] if stride != size else []
        options = {key: scalar(b[key], 2) for key in plain}
        parts += [f"{key}={literal(value)}" for key, value in options.items() if value != plain[key]]
        return f"F.{name}({', '.join(parts)})"

    return write


def _adaptive(name: str) -> Idiom:
    return lambda b, w: f"F.{name}({w.value(b['self'])}, {literal(scalar(b['output_size'], 2))})"


def _batch_norm(b: Bound, w: Writer) -> str:
    parts = [w.value(b["input"]), w.value(b["running_mean"]), w.value(b["running_var"])]
    parts += [f"{key}={w.value(b[key])}" for key in ("weight", "bias") if b[key] is not None]
    training = "True" if b["running_mean"] is None else "self.training"
    options = f"training={training}, momentum={w.value(b['momentum'])}, eps={w.value(b['eps'])}"
    return f"F.batch_norm({', '.join(parts)}, {options})"


def _norm(name: str, *middle: str) -> Idiom:
    def write(b: Bound, w: Writer) -> str:
        parts = [w.value(b["input"]), *(w.size(b[key]) for key in middle)]
        parts += [f"{key}={w.value(b[key])}" for key in ("weight", "bias") if b.get(key) is not None]
        return f"F.{name}({', '.join(parts)}, eps={w.value(b['eps'])})"

    return write


def _dropout(name: str) -> Idiom:
    return lambda b, w: f"F.{name}({w.value(b['input'])}, {w.value(b['p'])}, training=self.training)"


def _attention(b: Bound, w: Writer) -> str:
    parts = [w.value(b[key]) for key in ("query", "key", "value")]
    parts += [f"attn_mask={w.value(b['attn_mask'])}"] if b["attn_mask"] is not None else []
    parts += [f"dropout_p={w.value(b['dropout_p'])}"] if b["dropout_p"] else []
    parts += ["is_causal=True"] if b["is_causal"] else []
    parts += [f"scale={w.size(b['scale'])}"] if b["scale"] is not None else []
    parts += ["enable_gqa=True"] if b.get("enable_gqa") else []
    return f"F.scaled_dot_product_attention({', '.join(parts)})"


_END = 2**63 - 1


def _slice(b: Bound, w: Writer) -> str:
    if b["dim"] < 0:
        return f"torch.ops.aten.slice({', '.join(w.value(value) for value in b.values())})"
    start = "" if b["start"] in (None, 0) else w.size(b["start"])
    end = "" if b["end"] is None or b["end"] == _END else w.size(b["end"])
    step = "" if b["step"] == 1 else f":{w.value(b['step'])}"
    return f"{w.operand(b['self'])}[{':, ' * b['dim']}{start}:{end}{step}]"


def _pad(b: Bound, w: Writer) -> str:
    extra = f", mode={literal(b['mode'])}" if b["mode"] != "constant" else ""
    extra += f", value={w.value(b['value'])}" if b["value"] else ""
    return f"F.pad({w.value(b['self'])}, {w.size(b['pad'])}{extra})"


def _interpolate(mode: str, has_corners: bool) -> Idiom:
    def write(b: Bound, w: Writer) -> str:
        sizes = f"size={w.size(b['output_size'])}" if b["output_size"] is not None else ""
        factors = b.get("scale_factors")
        scales = f"scale_factor={literal(scalar(list(factors), 2))}" if factors and not sizes else ""
        corners = ", align_corners=True" if has_corners and b["align_corners"] else ""
        return f"F.interpolate({w.value(b[next(iter(b))])}, {sizes or scales}, mode={literal(mode)}{corners})"

    return write


def _cast(b: Bound, w: Writer) -> str:
    return f"{w.operand(b['self'])}.to({w.value(b['dtype'])})"


def _index(b: Bound, w: Writer) -> str:
    parts = [":" if part is None else w.value(part) for part in b["indices"]]
    return f"{w.operand(b['self'])}[{', '.join(parts)}]"


def _split(b: Bound, w: Writer) -> str:
    sizes = b.get("split_sizes", b.get("split_size"))
    dim = f", {w.value(b['dim'])}" if b["dim"] else ""
    if isinstance(sizes, list) and len(sizes) > 1 and all(size == sizes[0] for size in sizes):
        return f"{w.operand(b['self'])}.chunk({len(sizes)}{dim})"
    return f"{w.operand(b['self'])}.split({w.size(sizes)}{dim})"


def _reduce(name: str) -> Idiom:
    def write(b: Bound, w: Writer) -> str:
        dim = b["dim"]
        if isinstance(dim, list):
            dim = scalar(dim, 1) if len(dim) == 1 else tuple(dim)
        parts = [w.value(dim)]
        parts += ["keepdim=True"] if b["keepdim"] else []
        parts += [f"dtype={w.value(b['dtype'])}"] if b.get("dtype") is not None else []
        return f"{w.operand(b['self'])}.{name}({', '.join(parts)})"

    return write


def _softmax(name: str) -> Idiom:
    def write(b: Bound, w: Writer) -> str:
        dtype = f", dtype={w.value(b['dtype'])}" if b["dtype"] is not None else ""
        return f"{w.operand(b['self'])}.{name}({w.value(b['dim'])}{dtype})"

    return write


def _new(name: str, *given: str) -> Idiom:
    """A tensor made of nothing, where the inputs are."""

    def write(b: Bound, w: Writer) -> str:
        parts = [w.value(b[key]) for key in given]
        parts += [f"dtype={w.value(b['dtype'])}"] if b["dtype"] is not None else []
        return f"torch.{name}({', '.join(parts)}, device={w.value(torch.device('cpu'))})"

    return write


def _reshape(b: Bound, w: Writer) -> str:
    if w.is_flattening(b["self"], b["shape"]):
        return f"{w.operand(b['self'])}.flatten(1)"
    return f"{w.operand(b['self'])}.reshape({w.sizes(b['self'], b['shape'])})"


IDIOMS: dict[str, Idiom] = {
    **{name: _binary(sign) for name, sign in OPERATORS.items()},
    **{f"conv{n}d.{kind}": _conv(f"conv{n}d") for n in (1, 2, 3) for kind in ("default", "padding")},
    "conv_transpose1d.default": _conv("conv_transpose1d"),
    "conv_transpose2d.input": _conv("conv_transpose2d"),
    "conv_transpose3d.input": _conv("conv_transpose3d"),
    "max_pool2d.default": _pool("max_pool2d", padding=0, dilation=1, ceil_mode=False),
    "avg_pool2d.default": _pool(
        "avg_pool2d", padding=0, ceil_mode=False, count_include_pad=True, divisor_override=None
    ),
    "adaptive_avg_pool1d.default": _adaptive("adaptive_avg_pool1d"),
    "adaptive_avg_pool2d.default": _adaptive("adaptive_avg_pool2d"),
    "batch_norm.default": _batch_norm,
    "layer_norm.default": _norm("layer_norm", "normalized_shape"),
    "rms_norm.default": _norm("rms_norm", "normalized_shape"),
    "group_norm.default": _norm("group_norm", "num_groups"),
    "embedding.default": lambda b, w: f"F.embedding({w.value(b['indices'])}, {w.value(b['weight'])})",
    "dropout.default": _dropout("dropout"),
    "feature_dropout.default": _dropout("feature_dropout"),
    "alpha_dropout.default": _dropout("alpha_dropout"),
    "scaled_dot_product_attention.default": _attention,
    "cat.default": lambda b, w: f"torch.cat({w.value(b['tensors'])}, {w.value(b['dim'])})",
    "stack.default": lambda b, w: f"torch.stack({w.value(b['tensors'])}, {w.value(b['dim'])})",
    "meshgrid.indexing": lambda b, w: f"torch.meshgrid({w.value(b['tensors'])}, indexing={literal(b['indexing'])})",
    "where.self": lambda b, w: f"torch.where({', '.join(w.value(value) for value in b.values())})",
    "reshape.default": _reshape,
    "view.default": lambda b, w: f"{w.operand(b['self'])}.view({w.sizes(b['self'], b['size'])})",
    "expand.default": lambda b, w: f"{w.operand(b['self'])}.expand({w.sizes(b['self'], b['size'])})",
    "flatten.using_ints": lambda b, w: (
        f"{w.operand(b['self'])}.flatten({w.value(b['start_dim'])}"
        + (f", {w.value(b['end_dim'])})" if b["end_dim"] != -1 else ")")
    ),
    "permute.default": lambda b, w: f"{w.operand(b['self'])}.permute({', '.join(map(str, b['dims']))})",
    "slice.Tensor": _slice,
    "pad.default": _pad,
    "index.Tensor": _index,
    "split.Tensor": _split,
    "split_with_sizes.default": _split,
    "split.sizes": _split,
    "mean.dim": _reduce("mean"),
    "sum.dim_IntList": _reduce("sum"),
    "softmax.int": _softmax("softmax"),
    "log_softmax.int": _softmax("log_softmax"),
    "to.dtype": _cast,
    "_to_copy.default": _cast,
    "upsample_nearest2d.vec": _interpolate("nearest", False),
    "upsample_bilinear2d.vec": _interpolate("bilinear", True),
    "select.int": lambda b, w: (
        f"{w.operand(b['self'])}[{':, ' * b['dim']}{w.value(b['index'])}]"
        if b["dim"] >= 0
        else f"{w.operand(b['self'])}.select({w.value(b['dim'])}, {w.value(b['index'])})"
    ),
    "sym_size.int": lambda b, w: f"{w.operand(b['self'])}.shape[{w.value(b['dim'])}]",
    "arange.default": _new("arange", "end"),
    "arange.start": _new("arange", "start", "end"),
    "arange.start_step": _new("arange", "start", "end", "step"),
    "zeros.default": _new("zeros", "size"),
    "ones.default": _new("ones", "size"),
    "full.default": _new("full", "size", "fill_value"),
    "rsub.Scalar": lambda b, w: f"{w.value(b['other'])} - {w.operand(b['self'])}",
}


def expression(node: Node, w: Writer) -> tuple[str, bool]:
    """The operator's line, and whether it has to stand between brackets beside another operator."""
    if node.target in PYTHON:
        return f"{w.operand(node.args[0])} {PYTHON[node.target]} {w.operand(node.args[1])}", True
    if node.target is operator.getitem:
        return f"{w.operand(node.args[0])}[{w.value(node.args[1])}]", False
    if node.target is operator.neg:
        return f"-{w.operand(node.args[0])}", True
    if not is_overload(node.target):
        return f"torch.{getattr(node.target, '__name__', '')}({', '.join(w.value(part) for part in node.args)})", False
    schema = schema_of(node.target)
    packet, overload = schema.name.split("::")[-1], schema.overload_name or "default"
    name = f"{packet}.{overload}"
    if node.target.namespace == "aten":
        if name in IDIOMS and _is_usual(node, packet):
            return IDIOMS[name](arguments(node), w), name in OPERATORS or name == "rsub.Scalar"
        if packet in _FUNCTIONAL and overload == "default" and _is_function(node, packet):
            return _functional(node, packet, w), False
        if packet in _METHODS and _is_method(node):
            return _method(node, packet, w), False
    args = [w.value(part) for part in node.args] + [f"{key}={w.value(v)}" for key, v in node.kwargs.items()]
    return f"torch.ops.{node.target.namespace}.{packet}.{overload}({', '.join(args)})", False


def _is_method(node: Node) -> bool:
    """Whether a call of the method says all: one with a memory format, which has a keyword only, does not."""
    b = arguments(node)
    defaults = defaults_of(node.target)
    named = [a.name for a in schema_of(node.target).arguments if a.kwarg_only]
    plain = all(b[name] == defaults.get(name) for name in named)
    return plain and isinstance(b[next(iter(b))], Node)


def _is_usual(node: Node, packet: str) -> bool:
    """Whether the idiom says all that the call does: a cast with a memory format, say, has more to say."""
    b = arguments(node)
    if packet == "_to_copy" or packet == "to":
        rest = {key: value for key, value in b.items() if key not in ("self", "dtype", "non_blocking")}
        return b["dtype"] is not None and not any(value not in (None, False) for value in rest.values())
    if packet == "embedding":
        return not b["scale_grad_by_freq"] and not b["sparse"]
    if packet.startswith("upsample"):
        return (b.get("output_size") is None) != (not b.get("scale_factors"))
    if packet == "index":
        return None not in b["indices"] or all(i is None for i in b["indices"][: b["indices"].count(None)])
    return not (packet in ("sum", "mean") and not b["dim"])
