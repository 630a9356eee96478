"""What importers know of the attributes of every operator; a node with another one is refused by name.

It must never hold what an attribute means. A newer opset gives an operator a new attribute under its old name:
importing it as before would compute something else, without a word.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from onnx import defs, helper

from compressor.errors import ModelError

_POOL = "auto_pad ceil_mode dilations kernel_shape pads strides"
_CONV = "auto_pad dilations group kernel_shape pads strides"
_RECURRENT = "activations clip direction hidden_size layout"
_REDUCTION = "axes keepdims noop_with_empty_axes"

READ: Mapping[str, frozenset[str]] = {
    kind: frozenset(names.split())
    for kinds, names in {
        "ArgMax ArgMin": "axis keepdims select_last_index",
        "AveragePool": f"{_POOL} count_include_pad",
        "BatchNormalization": "epsilon momentum training_mode",
        "Cast": "to",
        "Celu Elu LeakyRelu Swish ThresholdedRelu": "alpha",
        "Clip": "max min",
        "Concat Flatten Gather GatherElements LogSoftmax Softmax": "axis",
        "Constant": "value value_float value_floats value_int value_ints",
        "ConstantOfShape": "value",
        "Conv": _CONV,
        "ConvTranspose": f"{_CONV} output_padding output_shape",
        "CumSum": "exclusive reverse",
        "DepthToSpace SpaceToDepth": "blocksize mode",
        "Dropout": "ratio",
        "Einsum": "equation",
        "EyeLike": "dtype k",
        "GRU": f"{_RECURRENT} linear_before_reset",
        "GatherND": "batch_dims",
        "Gelu": "approximate",
        "Gemm": "alpha beta transA transB",
        "GlobalLpPool": "p",
        "GroupNormalization": "epsilon num_groups",
        "HardSigmoid": "alpha beta",
        "InstanceNormalization": "epsilon",
        "IsInf": "detect_negative detect_positive",
        "LRN": "alpha beta bias size",
        "LSTM": f"{_RECURRENT} input_forget",
        "LayerNormalization RMSNormalization": "axis epsilon",
        "LpNormalization": "axis p",
        "LpPool": f"{_POOL} p",
        "MaxPool": _POOL,
        "Mod": "fmod",
        "Pad": "mode pads value",
        "ReduceL1 ReduceL2 ReduceLogSum ReduceLogSumExp ReduceMax ReduceMean ReduceMin ReduceProd ReduceSum "
        "ReduceSumSquare": _REDUCTION,
        "RNN": _RECURRENT,
        "Reshape": "allowzero",
        "Resize": "antialias axes coordinate_transformation_mode cubic_coeff_a exclude_outside "
        "keep_aspect_ratio_policy mode nearest_mode",
        "ScatterElements": "axis reduction",
        "ScatterND": "reduction",
        "Selu": "alpha gamma",
        "Shape": "end start",
        "Shrink": "bias lambd",
        "Slice": "axes ends starts",
        "Split": "axis num_outputs split",
        "Squeeze Unsqueeze": "axes",
        "TopK": "axis k largest sorted",
        "Transpose": "perm",
        "Trilu": "upper",
        "Upsample": "mode",
    }.items()
    for kind in kinds.split()
}
"""Attributes that an importer reads, or refuses itself, by operator; operators without any are left out."""

_OTHERS = "activations that torch's layers do not have"

WITHOUT_EFFECT: Mapping[str, Mapping[str, str]] = {
    "Cast": {"saturate": "8-bit floats", "round_mode": "8-bit floats"},
    "CastLike": {"saturate": "8-bit floats", "round_mode": "8-bit floats"},
    "Dropout": {"seed": "drawing, which does not happen in evaluation"},
    "GroupNormalization": {"stash_type": "16-bit floats, which are widened"},
    "LayerNormalization": {"stash_type": "16-bit floats, which are widened"},
    **dict.fromkeys(("GRU", "LSTM", "RNN"), dict.fromkeys(("activation_alpha", "activation_beta"), _OTHERS)),
    "MaxPool": {"storage_order": "positions, which are not supported"},
    "RMSNormalization": {"stash_type": "16-bit floats, which are widened"},
    "Range": {"stash_type": "16-bit floats, which are widened"},
    "Resize": {"extrapolation_value": "a crop, which is not supported"},
}
"""Attributes that change nothing that is imported: what they are about."""


def check_attributes(kind: str, attributes: Mapping[str, Any], opset: int) -> None:
    """Nothing, when every attribute is known, has no effect or is what the operator takes without it.

    Raises:  ModelError naming the first that is not.
    """
    for name in attributes.keys() - READ.get(kind, frozenset()) - WITHOUT_EFFECT.get(kind, {}).keys():
        if not _is_default(kind, name, attributes[name], opset):
            raise ModelError(f"its attribute {name} is not known to this importer, so what it computes is not either")


def _is_default(kind: str, name: str, value: Any, opset: int) -> bool:
    schema = defs.get_schema(kind, opset) if defs.has(kind, opset) else None
    found = None if schema is None else schema.attributes.get(name)
    if found is None or not found.default_value.name:
        return False
    default = helper.get_attribute_value(found.default_value)
    return value == (default.decode() if isinstance(default, bytes) else default)
