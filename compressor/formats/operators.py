"""Which operators a checkpoint's graph may call, and the text form of each.

It must never hold a way to reach anything but computing ATen overloads and the size arithmetic of `program`.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import lru_cache
from types import MappingProxyType
from typing import Any

import torch
from torch._ops import OpOverload

from compressor.errors import ModelError
from compressor.program.normalise import SIZE_ARITHMETIC

_ATEN = re.compile(r"aten\.([A-Za-z_]\w*)\.([A-Za-z_]\w*)", re.ASCII)


def _text(target: Any) -> str:
    module = "torch" if target.__name__.startswith("sym_") else "operator"
    return f"{module}.{target.__name__}"


PYTHON_TARGETS = MappingProxyType({_text(target): target for target in SIZE_ARITHMETIC})
"""Text -> function of everything outside ATen that a graph may call."""

_EFFECTS = frozenset(
    {
        "from_file", "set_", "set_data", "data", "resize_", "resize_as_", "resize_as_sparse_", "as_strided_",
        "sparse_resize_", "sparse_resize_and_clear_", "requires_grad_", "retain_grad", "rename_",
        "record_stream", "pin_memory", "is_pinned", "output_nr", "is_set_to",
    }
)  # fmt: skip
"""Public overloads that reach files or change what a tensor is, beyond what the rules below catch."""

_FAMILIES = re.compile(
    r"backward|sparse|_coo|_cs[rc]\b|_bs[rc]\b|_jvp|^(?:fbgemm|quantized?|dequantize|mkldnn|miopen|cudnn|nested)"
)
"""Kernels for torch's own use, packed formats and gradients. Some trust their caller: calling all with random
arguments that their schema allows found several that crash the process."""

_INTERNAL = frozenset(
    {
        "__and__", "__or__", "__xor__", "__lshift__", "__rshift__", "_adaptive_avg_pool2d",
        "_adaptive_avg_pool3d",
        "_log_softmax", "_native_batch_norm_legit_no_training", "_prelu_kernel", "_safe_softmax",
        "_shape_as_tensor", "_softmax", "_to_copy", "_unsafe_view", "_upsample_bicubic2d_aa",
        "_upsample_bilinear2d_aa", "_upsample_lanczos2d_aa", "_upsample_nearest_exact1d",
        "_upsample_nearest_exact2d", "_upsample_nearest_exact3d", "_weight_norm", "_weight_norm_interface",
    }
)  # fmt: skip
"""The underscored overloads that exported networks hold; the others are kernels that trust their caller."""

_FOREIGN_TYPES = ("Storage", "Stream", "torch.classes")


def target_text(target: Any) -> str:
    """`aten.conv2d.default`, `operator.getitem`, `torch.sym_max`.

    Raises:  ModelError if a checkpoint cannot hold a call of it.
    """
    if isinstance(target, OpOverload):
        reason = refusal(target)
        if reason is not None:
            raise ModelError(f"operator {target} cannot be kept in a checkpoint: it {reason}")
        return f"{target.namespace}.{target._schema.name.split('::')[-1]}.{target._overloadname}"
    if target in SIZE_ARITHMETIC:
        return _text(target)
    raise ModelError(f"operator {target} cannot be kept in a checkpoint: it is not an ATen operator")


def resolve_target(text: str) -> Callable[..., Any]:
    """The operator that the text names.

    Raises:  ModelError if there is no such operator here, or it does more than compute.
    """
    if text in PYTHON_TARGETS:
        return PYTHON_TARGETS[text]
    match = _ATEN.fullmatch(text)
    if match is None:
        raise ModelError(f"operator {text[:80]!r} is not an ATen operator; the file cannot be trusted")
    found = getattr(getattr(torch.ops.aten, match[1], None), match[2], None)
    if not isinstance(found, OpOverload) or found.namespace != "aten":
        raise ModelError(
            f"operator {text[:80]} is unknown to torch {torch.__version__}; "
            f"a checkpoint of a newer torch needs that version"
        )
    reason = refusal(found)
    if reason is not None:
        raise ModelError(f"operator {text[:80]} is refused: it {reason}; the file cannot be trusted")
    return found


@lru_cache(maxsize=4096)
def refusal(overload: OpOverload) -> str | None:
    """Why the overload may not stand in a checkpoint's graph, as the end of "it ..."; None if it may."""
    schema = overload._schema
    name = schema.name.split("::")[-1]
    if overload.namespace != "aten":
        return "is not an ATen operator"
    if not schema.returns:
        return "computes nothing (an operator without result only has side effects)"
    if name in _EFFECTS:
        return "reaches outside its tensors or changes their storage"
    if _FAMILIES.search(name) or (name.startswith("_") and name not in _INTERNAL):
        return "is an internal kernel of torch"
    if any(kind in str(a.type) for a in schema.arguments for kind in _FOREIGN_TYPES):
        return "takes a storage, a stream or a packed object"
    written = [a.name for a in schema.arguments if a.alias_info is not None and a.alias_info.is_write]
    if written and (written != [schema.arguments[0].name] or not name.endswith("_")):
        return "writes into its arguments"
    return None
