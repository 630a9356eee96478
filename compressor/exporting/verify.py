"""Whether an ONNX file computes what the program computes, found by running both; it must never change
either."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from compressor.data.source import DataSource
from compressor.errors import DataError, ModelError, VerificationError
from compressor.exporting.convert import innermost_line, input_dtype, to_numpy
from compressor.program import Program

LIMITS = {torch.float64: 1e-9, torch.float32: 1e-4, torch.float16: 2e-2}
"""Largest difference allowed, relative to the largest |output|, by element type.

The two runtimes add the same products in another order, and a batch normalisation is rounded once more when
it is folded. With float32's 6e-8 per operation that left 3e-7 to 7e-7 on everything that was measured
(LeNets, VGG-16, ResNet-20 to ResNet-110 trained and with random statistics, a six-layer transformer; opset
20). 1e-4 leaves room for other kernels and networks with cancellation, while a wrong stride, a lost bias or a
swapped axis shows at 1e-2 and above. The other types get the same number of roundings of their own.
"""

N_DATA_SAMPLES = 1000
_DATA_BATCH = 100
_NOTHING_WRITTEN = "nothing was written; try another --opset"


@dataclass(frozen=True)
class Agreement:
    """Largest differences over all inputs that were tried, and what was allowed."""

    max_abs: float
    max_rel: float
    limit: float
    batch_sizes: tuple[int, ...]
    top1_agreement: float | None


def check_file(path: Path) -> None:
    """Has onnx check the file, types and shapes included.

    Raises:  VerificationError if onnx refuses it.
    """
    try:
        onnx.checker.check_model(str(path), full_check=True)
    except Exception as error:  # ValidationError, InferenceError, protobuf's own
        raise VerificationError(f"the ONNX file is not valid: {innermost_line(error)}\n{_NOTHING_WRITTEN}") from error


def check_data(program: Program, data: DataSource) -> None:
    """Raises:  DataError if the samples have another shape than the inputs."""
    wanted = tuple(tuple(spec.shape[1:]) for spec in program.inputs)
    if tuple(tuple(shape) for shape in data.input_shapes) != wanted:
        raise DataError(f"{data.ref}: its samples are {data.input_shapes}, the model reads {wanted}")


def compare_with_torch(
    program: Program, module: nn.Module, path: Path, batch_sizes: Sequence[int], data: DataSource | None
) -> Agreement:
    """How far onnxruntime, reading `path`, is from torch, running `module`.

    Raises:  VerificationError if they differ by more than the limit or onnxruntime cannot run the file;
             ModelError if torch cannot run the program.
    """
    session = _open(path)
    limit = LIMITS.get(input_dtype(program) or torch.float32, LIMITS[torch.float32])
    sizes = tuple(batch_sizes) if program.has_dynamic_batch else (1,)
    worst_abs = worst_rel = 0.0
    for size in sizes:
        inputs = program.example_inputs(size, seed=size, dtype=input_dtype(program))
        pairs = _run_both(session, module, inputs)
        worst_abs, worst_rel = _worse((worst_abs, worst_rel), pairs, limit, f"a random batch of {size}")
    n_same = n_compared = 0
    for inputs in _data_inputs(program, data) if data is not None else ():
        pairs = _run_both(session, module, inputs)
        worst_abs, worst_rel = _worse((worst_abs, worst_rel), pairs, limit, "validation data")
        same, compared = _same_top1(*pairs[0])
        n_same, n_compared = n_same + same, n_compared + compared
    agreement = n_same / n_compared if n_compared else None
    return Agreement(worst_abs, worst_rel, limit, sizes, agreement)


def difference(reference: np.ndarray, other: np.ndarray) -> tuple[float, float]:
    """Largest absolute difference, and that relative to the largest finite |reference|.

    Infinite when the shapes differ or when something that is not finite stands at another place or is another
    thing.
    """
    if reference.shape != other.shape:
        return float("inf"), float("inf")
    wanted, got = reference.astype(np.float64), other.astype(np.float64)
    finite = np.isfinite(wanted)
    if not np.array_equal(wanted[~finite], got[~finite], equal_nan=True) or not np.isfinite(got[finite]).all():
        return float("inf"), float("inf")
    if not finite.any():
        return 0.0, 0.0
    absolute = float(np.abs(wanted[finite] - got[finite]).max())
    largest = float(np.abs(wanted[finite]).max())
    return absolute, absolute / largest if largest else (0.0 if absolute == 0 else float("inf"))


def _open(path: Path) -> ort.InferenceSession:
    options = ort.SessionOptions()
    options.log_severity_level = 4
    options.intra_op_num_threads = torch.get_num_threads()
    try:
        return ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime's exceptions share no base class of their own
        raise VerificationError(
            f"onnxruntime cannot open the ONNX form: {innermost_line(error)}\n{_NOTHING_WRITTEN}"
        ) from error


def _run_both(
    session: ort.InferenceSession, module: nn.Module, inputs: tuple[Tensor, ...]
) -> list[tuple[np.ndarray, np.ndarray]]:
    """Each output of torch beside that of onnxruntime."""
    try:
        with torch.inference_mode():
            leaves = pytree.tree_leaves(module(*inputs))
    except Exception as error:  # torch raises anything from IndexError to its own C++ errors here
        raise ModelError(f"torch cannot run the model at batch {len(inputs[0])}: {innermost_line(error)}") from error
    expected = [to_numpy(leaf) for leaf in leaves if isinstance(leaf, Tensor)]
    feeds = {given.name: to_numpy(x) for given, x in zip(session.get_inputs(), inputs, strict=True)}
    try:
        got = session.run(None, feeds)
    except Exception as error:
        raise VerificationError(
            f"onnxruntime cannot run the ONNX form at batch {len(inputs[0])}: {innermost_line(error)}\n"
            f"{_NOTHING_WRITTEN}"
        ) from error
    if not all(np.isfinite(x).any() for x in expected if x.size and x.dtype.kind == "f"):
        raise VerificationError("the model's own output has no finite number in it, so there is nothing to compare")
    return [(wanted, np.asarray(output)) for wanted, output in zip(expected, got, strict=True)]


def _worse(
    so_far: tuple[float, float], pairs: list[tuple[np.ndarray, np.ndarray]], limit: float, on: str
) -> tuple[float, float]:
    """The larger of the differences so far and those of one run.

    Raises:  VerificationError above the limit.
    """
    differences = [difference(expected, got) for expected, got in pairs]
    worst_abs = max([so_far[0], *(absolute for absolute, _ in differences)])
    worst_rel = max([so_far[1], *(relative for _, relative in differences)])
    if worst_rel > limit:
        raise VerificationError(
            f"onnxruntime and torch differ by {worst_rel:.2g} of the largest output on {on}, "
            f"{limit:g} is allowed\n{_NOTHING_WRITTEN}"
        )
    return worst_abs, worst_rel


def _data_inputs(program: Program, data: DataSource) -> Iterator[tuple[Tensor, ...]]:
    """Validation inputs in the program's element types, up to 1,000 samples."""
    floating = input_dtype(program)
    size = _DATA_BATCH if program.has_dynamic_batch else 1
    for batch in data.batches("val", size, limit=N_DATA_SAMPLES):
        yield tuple(
            x.to(floating if floating is not None and spec.torch_dtype.is_floating_point else spec.torch_dtype)
            for x, spec in zip(batch.inputs, program.inputs, strict=True)
        )


def _same_top1(expected: np.ndarray, got: np.ndarray) -> tuple[int, int]:
    """Positions whose largest entry along dimension 1 is the same, and all; (0, 0) where there are no
    classes."""
    if expected.ndim < 2 or expected.shape[1] < 2 or expected.dtype.kind != "f":
        return 0, 0
    same = expected.argmax(1) == got.argmax(1)
    return int(same.sum()), int(same.size)
