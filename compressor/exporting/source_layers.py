"""Operators as modules of `torch.nn`: with weights under their own names, or without any; it must never hold where
they stand in the network."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from torch import Tensor, nn
from torch.fx import Node

from compressor.exporting.source_text import Arg, Build, Slot
from compressor.program import families
from compressor.program.arguments import arguments

Bound = Mapping[str, Any]


@dataclass(frozen=True)
class LayerCall:
    """A call of the module at `path` with one value."""

    path: str
    build: Build
    value: Any


def scalar(value: Any, n: int) -> Any:
    """`[3, 3]` -> 3, `[3, 1]` -> (3, 1), `[2]` in two dimensions -> 2."""
    if not isinstance(value, list | tuple):
        return value
    return value[0] if len(value) and len(set(value)) == 1 else tuple(value)


def _option(name: str, value: Any, default: Any) -> Arg:
    return Arg(name, Slot(value, name, name), default)


def _conv(n: int, is_transposed: bool) -> Callable[[Bound, Tensor], Build | None]:
    def build(b: Bound, weight: Tensor) -> Build | None:
        groups = b["groups"]
        first, second = weight.shape[0], weight.shape[1] * groups
        inputs, filters = (first, second) if is_transposed else (second, first)
        args = [
            Arg(None, Slot(inputs, "width", "in")),
            Arg(None, Slot(filters, "width", "out")),
            Arg(None, Slot(scalar(list(weight.shape[2:]), n), "kernel_size", "kernel_size")),
            _option("stride", scalar(b["stride"], n), 1),
            _option("padding", scalar(b["padding"], n), 0),
        ]
        if is_transposed:
            args.append(_option("output_padding", scalar(b["output_padding"], n), 0))
        args += [
            _option("dilation", scalar(b["dilation"], n), 1),
            Arg("groups", Slot(groups, "width", "groups"), 1),
            _option("bias", b["bias"] is not None, True),
        ]
        return Build(f"nn.Conv{'Transpose' if is_transposed else ''}{n}d", tuple(args))

    return build


def _linear(b: Bound, weight: Tensor) -> Build | None:
    if weight.ndim != 2:
        return None
    return Build(
        "nn.Linear",
        (
            Arg(None, Slot(weight.shape[1], "width", "in")),
            Arg(None, Slot(weight.shape[0], "width", "out")),
            _option("bias", b["bias"] is not None, True),
        ),
    )


def _embedding(b: Bound, weight: Tensor) -> Build | None:
    if b["scale_grad_by_freq"] or b["sparse"]:
        return None
    padding = None if b["padding_idx"] < 0 else b["padding_idx"]
    return Build(
        "nn.Embedding",
        (
            Arg(None, Slot(weight.shape[0], "rows", "rows")),
            Arg(None, Slot(weight.shape[1], "width", "out")),
            _option("padding_idx", padding, None),
        ),
    )


def _batch_norm(n: int) -> Callable[[Bound, Tensor], Build | None]:
    def build(b: Bound, weight: Tensor) -> Build | None:
        if b["running_mean"] is None or b["running_var"] is None or b["bias"] is None:
            return None
        args = (
            Arg(None, Slot(weight.shape[0], "width", "width")),
            _option("eps", b["eps"], 1e-5),
            _option("momentum", b["momentum"], 0.1),
        )
        return Build(f"nn.BatchNorm{n}d", args)

    return build


def _group_norm(b: Bound, weight: Tensor) -> Build | None:
    if b["bias"] is None:
        return None
    args = (
        Arg(None, Slot(b["num_groups"], "width", "groups")),
        Arg(None, Slot(weight.shape[0], "width", "width")),
        _option("eps", b["eps"], 1e-5),
    )
    return Build("nn.GroupNorm", args)


def _layer_norm(b: Bound, weight: Tensor) -> Build | None:
    args = (
        Arg(None, Slot(scalar(b["normalized_shape"], 1), "width", "width")),
        _option("eps", b["eps"], 1e-5),
        _option("bias", b["bias"] is not None, True),
    )
    return Build("nn.LayerNorm", args) if len(b["normalized_shape"]) == 1 else None


def _rms_norm(b: Bound, weight: Tensor) -> Build | None:
    args = (Arg(None, Slot(scalar(b["normalized_shape"], 1), "width", "width")), _option("eps", b["eps"], None))
    return Build("nn.RMSNorm", args) if len(b["normalized_shape"]) == 1 else None


_PARTS = ("weight", "bias", "running_mean", "running_var")

_LAYERS: dict[families.Family, Callable[[Bound, Tensor], Build | None]] = {
    families.LINEAR: _linear,
    families.EMBEDDING: _embedding,
    families.GROUP_NORM: _group_norm,
    families.LAYER_NORM: _layer_norm,
    families.RMS_NORM: _rms_norm,
    **{family: _conv(n + 1, False) for n, family in enumerate(families.CONVOLUTIONS.families)},
    **{family: _conv(n + 1, True) for n, family in enumerate(families.TRANSPOSED_CONVOLUTIONS.families)},
}


def layer_call(node: Node, tensors: Mapping[str, Tensor], rank: int) -> LayerCall | None:
    """The node as a call of a module whose tensors have the names that `torch.nn` gives them, else None.

    `rank` is that of the value it reads: a batch norm has a class for each.
    """
    family = families.family_of(node.target)
    if family is families.BATCH_NORM:
        make = _batch_norm({2: 1, 3: 1, 4: 2, 5: 3}.get(rank, 1))
    elif family in _LAYERS:
        make = _LAYERS[family]
    else:
        return None
    value, bound = "indices" if family is families.EMBEDDING else "input", arguments(node)
    read = {name: str(v.target) for name, v in bound.items() if isinstance(v, Node) and v.op == "get_attr"}
    if value in read or "weight" not in read or any(isinstance(bound.get(p), Node) and p not in read for p in _PARTS):
        return None
    path, _, last = read["weight"].rpartition(".")
    if not path or last != "weight" or any(name != f"{path}.{part}" for part, name in read.items()):
        return None
    build = make(bound, tensors[read["weight"]])
    own = {name for name in tensors if name.startswith(f"{path}.")}
    counted = f"{path}.num_batches_tracked" if family is families.BATCH_NORM else ""
    fixed = {tensors[name].requires_grad for name in own if isinstance(tensors[name], nn.Parameter)}
    if build is None or own - {counted} != set(read.values()) or len(fixed) > 1:
        return None
    return LayerCall(path, replace(build, is_fixed=fixed == {False}), bound[value])


def _pool(name: str, **defaults: Any) -> Callable[[Bound], Build | None]:
    def build(b: Bound) -> Build | None:
        size = scalar(b["kernel_size"], 2)
        stride = scalar(b["stride"], 2) if len(b["stride"]) else size
        options = [_option(key, scalar(b[key], 2), default) for key, default in defaults.items()]
        return Build(
            name, (Arg(None, Slot(size, "kernel_size", "kernel_size")), _option("stride", stride, size), *options)
        )

    return build


_BARE: dict[str, Callable[[Bound], Build | None]] = {
    **{
        name: lambda b, made=made: Build(f"nn.{made}", ())
        for name, made in {
            "relu": "ReLU", "relu6": "ReLU6", "silu": "SiLU", "hardswish": "Hardswish", "sigmoid": "Sigmoid",
            "hardsigmoid": "Hardsigmoid", "tanh": "Tanh", "mish": "Mish",
        }.items()
    },
    "gelu": lambda b: Build("nn.GELU", (_option("approximate", b["approximate"], "none"),)),
    "leaky_relu": lambda b: Build("nn.LeakyReLU", (_option("negative_slope", b["negative_slope"], 0.01),)),
    "dropout": lambda b: Build("nn.Dropout", (_option("p", b["p"], 0.5),)),
    "max_pool2d": _pool("nn.MaxPool2d", padding=0, dilation=1, ceil_mode=False),
    "avg_pool2d": _pool(
        "nn.AvgPool2d", padding=0, ceil_mode=False, count_include_pad=True, divisor_override=None
    ),
    "adaptive_avg_pool2d": lambda b: Build(
        "nn.AdaptiveAvgPool2d", (Arg(None, Slot(scalar(b["output_size"], 2), "output_size", "output_size")),)
    ),
    "flatten": lambda b: Build(
        "nn.Flatten", (_option("start_dim", b["start_dim"], 1), _option("end_dim", b["end_dim"], -1))
    ),
}  # fmt: skip
"""Operators without weights that may stand in an `nn.Sequential`, by their names."""


def bare_module(node: Node) -> Build | None:
    """A module without weights that computes what the node does to its only value; None where there is none."""
    make = _BARE.get(families.operator_name(node.target))
    if make is None or len(node.all_input_nodes) != 1:
        return None
    return make(arguments(node))
