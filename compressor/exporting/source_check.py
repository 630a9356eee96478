"""Whether generated source computes what the program computes, found by running it; it must never let it import more
than torch."""

from __future__ import annotations

import builtins
import copy
import importlib
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from compressor.data.source import DataSource
from compressor.errors import ModelError, VerificationError, innermost_line
from compressor.exporting.convert import input_dtype
from compressor.exporting.host import host_module
from compressor.exporting.verify import FileComparison, Verification
from compressor.program import Program
from compressor.program.agreement import leaves
from compressor.program.runs import Other, seeded

ALLOWED = frozenset({"math", "collections", "pathlib", "torch", "torchvision", "safetensors"})
"""What the source itself may import, and all that whoever uses it needs."""

TIGHT = {torch.float64: 1e-12, torch.float32: 1e-6}
"""The source calls the same kernels in the same order, so nothing but an expression put differently is rounded anew."""


LOOSE = 1e-2
"""The same for half precision."""


def load_source(path: Path) -> nn.Module:
    """The network that the source at `path` builds, with its weights.

    Raises:  VerificationError if it does not run with nothing but torch.
    """
    text = path.read_text(encoding="utf-8")
    names: dict[str, Any] = {"__name__": "generated", "__file__": str(path), "__builtins__": _builtins()}
    try:
        exec(compile(text, path.name, "exec"), names)
        return names["load"]()
    except Exception as error:
        raise VerificationError(f"the generated source does not run: {innermost_line(error)}") from error


def _builtins() -> dict[str, Any]:
    def guarded(name: str, globals: Any = None, locals: Any = None, fromlist: Any = (), level: int = 0) -> Any:
        if name.split(".")[0] not in ALLOWED or level:
            raise ImportError(f"the source imports {name}")
        return importlib.__import__(name, globals, locals, fromlist, level)

    return {**vars(builtins), "__import__": guarded}


def check_source(program: Program, path: Path, batch_sizes: Sequence[int], data: DataSource | None) -> Verification:
    """How far the source is from the program, in its own precision on random inputs and on data.

    Raises:  VerificationError if it is too far, there or in float64 or in training mode.
    """
    made = load_source(path)
    _check_names(program, made)
    _check_trained(program, made)
    module = host_module(program)
    comparison = FileComparison(
        program.replace(module=module), lambda inputs: Other(inputs, _made_outputs(made, tuple(inputs)))
    )
    found = comparison.verification(batch_sizes, data)
    dtype = input_dtype(program) or torch.float32
    _refuse(found.worst.max_rel, dtype, "in evaluation mode")
    size = batch_sizes[-1] if program.has_dynamic_batch else 1
    if _may_widen(program):
        _check_doubled(program, module, made, size)
    _check_training(program, module, made, max(size, 2) if program.has_dynamic_batch else 1)
    limit = TIGHT.get(dtype, LOOSE)
    return replace(found, checks=tuple(replace(check, limit=limit) for check in found.checks))


def _check_names(program: Program, made: nn.Module) -> None:
    wanted, got = set(program.module.state_dict()), set(made.state_dict())
    counted = {name for name in got - wanted if name.endswith(".num_batches_tracked")}
    if got - counted != wanted:
        name = sorted((got - counted) ^ wanted)[0]
        raise VerificationError(f"the generated source and the model do not both have the tensor {name[:80]!r}")


def _check_trained(program: Program, made: nn.Module) -> None:
    """Raises:  VerificationError if what is trained of the one is not what is trained of the other."""
    there = dict(made.named_parameters(remove_duplicate=False))
    for name, parameter in program.parameters.items():
        if name in there and there[name].requires_grad is not parameter.requires_grad:
            raise VerificationError(f"the generated source and the model do not both train {name[:80]!r}")


def _may_widen(program: Program) -> bool:
    """Whether the graph names no floating type of its own, which would not follow the weights' type."""
    parts: list[Any] = []
    for node in program.module.graph.nodes:
        parts += pytree.tree_leaves((node.args, node.kwargs))
    return not any(isinstance(part, torch.dtype) and part.is_floating_point for part in parts)


def _check_doubled(program: Program, module: nn.Module, made: nn.Module, size: int) -> None:
    inputs = program.example_inputs(size, seed=1, dtype=torch.float64)
    expected = _outputs(copy.deepcopy(module).double(), inputs)
    _compare(expected, _made_outputs(copy.deepcopy(made).double(), inputs), torch.float64, "in float64")


def _check_training(program: Program, module: nn.Module, made: nn.Module, size: int) -> None:
    """One forward in training mode from the same random state: outputs and running statistics."""
    dtype = input_dtype(program) or torch.float32
    inputs = program.example_inputs(size, seed=2, dtype=dtype)
    ours, theirs = copy.deepcopy(module).train(), copy.deepcopy(made).train()
    try:
        expected = _outputs(ours, inputs)
    except ModelError:  # it cannot train on random inputs of this batch (a norm over one value): nothing to compare
        return
    _compare(expected, _made_outputs(theirs, inputs), dtype, "in training mode")
    state: Mapping[str, Tensor] = theirs.state_dict()
    for name, tensor in ours.state_dict().items():
        if not name.endswith("num_batches_tracked") and tensor.is_floating_point():
            _compare([tensor], [state[name]], dtype, "in what training mode does to the statistics")


def _outputs(module: nn.Module, inputs: tuple[Tensor, ...]) -> list[Tensor]:
    """Raises:  ModelError if torch cannot run it."""
    try:
        with seeded(), torch.no_grad():
            return leaves(module(*inputs))
    except Exception as error:  # torch raises anything from IndexError to its own C++ errors here
        raise ModelError(f"torch cannot run the model at batch {len(inputs[0])}: {innermost_line(error)}") from error


def _made_outputs(made: nn.Module, inputs: tuple[Tensor, ...]) -> list[Tensor]:
    """Raises:  VerificationError if the generated network does not run."""
    try:
        return _outputs(made, inputs)
    except ModelError as error:
        raise VerificationError(f"the generated source does not run: {error}") from error


def _compare(expected: list[Tensor], got: list[Tensor], dtype: torch.dtype, when: str) -> None:
    if len(expected) != len(got):
        raise VerificationError(f"the generated source gives {len(got)} outputs, the model {len(expected)}")
    for ours, theirs in zip(expected, got, strict=True):
        _refuse(_difference(ours.detach(), theirs.detach()), dtype, when)


def _difference(ours: Tensor, theirs: Tensor) -> float:
    """Relative to the largest finite value; infinite where shapes differ, or what is not finite does."""
    if ours.shape != theirs.shape or ours.dtype != theirs.dtype:
        return float("inf")
    wanted, got = ours.double(), theirs.double()
    finite = wanted.isfinite()
    if not torch.equal(wanted[~finite].nan_to_num(), got[~finite].nan_to_num()) or not got[finite].isfinite().all():
        return float("inf")
    absolute = float((wanted[finite] - got[finite]).abs().max()) if bool(finite.any()) else 0.0
    return absolute / max(float(wanted[finite].abs().max()), 1e-300) if absolute else 0.0


def _refuse(relative: float, dtype: torch.dtype, when: str) -> None:
    limit = TIGHT.get(dtype, LOOSE)
    if relative > limit:
        raise VerificationError(
            f"the generated source and the model differ by {relative:.2g} of the largest output {when}, "
            f"{limit:g} is allowed"
        )
