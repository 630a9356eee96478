"""What an ONNX file says about its own making, as text properties; it must never hold tensors or look at any
data.

Keys begin with `compress.`; values are plain text or JSON.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import asdict, replace
from typing import Any

import onnx_ir as ir

from compressor.cost import count_macs
from compressor.data.source import DataSource
from compressor.errors import UsageError
from compressor.exporting.convert import input_dtype
from compressor.program import InputSpec, Program, all_lengths
from compressor.units import format_count, format_dtype, format_ratio

PREFIX = "compress."


def stamp(model: ir.Model, program: Program, data: DataSource | None, extra: Mapping[str, str]) -> None:
    """Writes producer, graph documentation and properties into the model.

    Raises:  UsageError if a key in `extra` begins with `compress.`.
    """
    refuse_reserved(extra)
    model.producer_name = "compress"
    model.producer_version = tool_version()
    model.graph.name = program.record.arch or "main"
    model.graph.doc_string = _doc(program)
    if program.record.interface is not None:
        model.metadata_props.update(program.record.interface.metadata)
    model.metadata_props.update(properties(program, data))
    model.metadata_props.update(extra)


def refuse_reserved(extra: Mapping[str, str]) -> None:
    """Raises:  UsageError if a key in `extra` begins with `compress.`."""
    reserved = sorted(key for key in extra if key.startswith(PREFIX))
    if reserved:
        raise UsageError(f"metadata key {reserved[0]}: keys that begin with {PREFIX} are written by the tool itself")


def properties(program: Program, data: DataSource | None) -> dict[str, str]:
    """History, counts and input normalisation by key; what is not known is left out."""
    record = program.record
    n_kept = program.n_parameters - program.n_zeroed
    known: dict[str, Any] = {
        "version": tool_version(),
        "steps": [asdict(step) for step in record.steps],
        "params": program.n_parameters,
        "kept_params": n_kept,
        "macs": count_macs(_with_inputs_that_fit(program)),
        "dense_params": record.dense_params,
        "dense_macs": record.dense_macs,
        "lengths": all_lengths(program.inputs) or None,
        "arch": record.arch,
        "arch_args": record.arch_args or None,
        "until": list(record.until) or None,
        "notes": list(record.notes) or None,
        "normalisation": _normalisation(data),
        "preprocessing": getattr(data, "preprocessing", None) or record.preprocessing or None,
    }
    return {
        PREFIX + key: value if isinstance(value, str) else _json(value)
        for key, value in known.items()
        if value is not None
    }


def _with_inputs_that_fit(program: Program) -> Program:
    """The program with floating inputs of the type that its weights have now: they may have been cast since."""
    dtype = input_dtype(program)
    if dtype is None or all(spec.torch_dtype == dtype for spec in program.inputs if _is_floating(spec)):
        return program
    name = format_dtype(dtype)
    return program.replace(inputs=tuple(replace(s, dtype=name) if _is_floating(s) else s for s in program.inputs))


def _is_floating(spec: InputSpec) -> bool:
    return spec.torch_dtype.is_floating_point


def tool_version() -> str:
    """Version of this tool."""
    from compressor import __version__

    return __version__


def _doc(program: Program) -> str:
    name = program.record.arch or "network"
    count = f"{format_count(program.n_parameters)} parameters"
    dense = program.record.dense_params
    if dense and dense != program.n_parameters:
        count += f" of {format_count(dense)} ({format_ratio(dense / max(program.n_parameters, 1))} smaller)"
    if program.n_zeroed:
        count += f", {format_count(program.n_zeroed)} of them zero"
    return f"{name}: {count}"


def _normalisation(data: DataSource | None) -> dict[str, list[float]] | None:
    """Mean and standard deviation per channel of inputs in [0, 1], where the data source has one."""
    found = getattr(data, "normalisation", None)
    return None if found is None else {"mean": list(found.mean), "std": list(found.std)}


def _json(value: Any) -> str:
    return json.dumps(_finite(value), allow_nan=False, default=str)


def _finite(value: Any) -> Any:
    """The value with NaN and infinities as null: JSON has no word for them."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {str(key): _finite(part) for key, part in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(part) for part in value]
    return value
