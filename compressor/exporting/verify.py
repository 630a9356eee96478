"""Whether a written file computes what the program computes, found by running both; it must never change
either."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import onnx
import onnxruntime as ort
import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from compressor.asking.export import Precision
from compressor.data.source import DataSource
from compressor.errors import DataError, ModelError, VerificationError
from compressor.exporting.convert import innermost_line, input_dtype, to_numpy
from compressor.exporting.result import Check
from compressor.program import Program

LIMITS = {torch.float64: 1e-9, torch.float32: 1e-4, torch.float16: 2e-2}
"""Largest difference allowed, relative to the largest |output|, by element type.

The two runtimes add the same products in another order, and a batch normalisation is rounded once more when
it is folded. With float32's 6e-8 per operation that left 3e-7 to 7e-7 on everything that was measured
(LeNets, VGG-16, ResNet-20 to ResNet-110 trained and with random statistics, a six-layer transformer; opset
20). 1e-4 leaves room for other kernels and networks with cancellation, while a wrong stride, a lost bias or a
swapped axis shows at 1e-2 and above. The other types get the same number of roundings of their own.
"""

CONVERTED_LIMITS: dict[Precision, float] = {"fp16": 2e-2, "int8 dynamic": 0.25, "int8 static": 0.25}
"""The same for files of less precision than the program.

Half precision left 2e-4 to 1e-3 on LeNet-5, ResNet-20 and MobileNetV3, eight bits 0.008 to 0.06; a network
that they destroy (a range spent on one outlier, channels that share a scale and must not) is off by its whole
output.
"""

LEAST_INT8_AGREEMENT = 0.9
"""Below this share of validation samples with the same answer an int8 file is not the same classifier."""

N_DATA_SAMPLES = 1000
_DATA_BATCH = 100

Run = Callable[[tuple[Tensor, ...]], list[np.ndarray]]
"""The written file as a function: outputs of one batch, in order."""


@dataclass(frozen=True)
class Agreement:
    """Largest differences over all checks, and what was allowed."""

    max_abs: float
    max_rel: float
    limit: float
    checks: tuple[Check, ...]
    top1_agreement: float | None

    @property
    def batch_sizes(self) -> tuple[int, ...]:
        """Sizes of the batches that were made for the check, those of the data left out."""
        return tuple(check.batch for check in self.checks if check.batch is not None)


def check_file(path: Path, *, full: bool = True) -> None:
    """Has onnx check the file, types and shapes included unless not `full`.

    Raises:  VerificationError if onnx refuses it.
    """
    try:
        onnx.checker.check_model(str(path), full_check=full)
    except Exception as error:  # ValidationError, InferenceError, protobuf's own
        raise VerificationError(f"the ONNX file is not valid: {innermost_line(error)}") from error


def check_data(program: Program, data: DataSource) -> None:
    """Raises:  DataError if the samples have another shape than the inputs."""
    wanted = tuple(tuple(spec.shape[1:]) for spec in program.inputs)
    if tuple(tuple(shape) for shape in data.input_shapes) != wanted:
        raise DataError(f"{data.ref}: its samples are {data.input_shapes}, the model reads {wanted}")


def limit_of(program: Program, precision: Precision) -> float:
    """Largest relative difference allowed."""
    if precision != "unchanged":
        return CONVERTED_LIMITS[precision]
    return LIMITS.get(input_dtype(program) or torch.float32, LIMITS[torch.float32])


@dataclass(frozen=True)
class Comparison:
    """A program's module beside a written file.

    `batch` is the only batch size that the file takes, None if it takes any.
    """

    program: Program
    module: nn.Module
    run: Run
    precision: Precision = "unchanged"
    batch: int | None = None

    def agreement(self, batch_sizes: Sequence[int], data: DataSource | None) -> Agreement:
        """How far the file is from torch.

        Random inputs of each batch size, then validation data. A file with static int8 ranges, which clip
        what the calibration never saw, gets validation samples for the batch sizes too where there are data.

        Raises:  VerificationError if they differ by more than the limit or the file does not run; ModelError
                 if torch cannot run the program.
        """
        limit = limit_of(self.program, self.precision)
        fixed = self.batch if self.program.has_dynamic_batch else 1
        sizes = tuple(batch_sizes) if fixed is None else (fixed,)
        from_data = self.precision == "int8 static" and data is not None
        checks: list[Check] = []
        for size in sizes:
            inputs = self._samples(data, size) if from_data and data is not None else self._random(size)
            pairs = self._pairs(inputs)
            kind: Literal["random", "validation"] = "validation" if from_data else "random"
            checks.append(_check(pairs, limit, kind, size, f"a {kind} batch of {size}"))
        n_same = n_compared = 0
        for inputs in _data_inputs(self.program, data, fixed or _DATA_BATCH, fixed) if data is not None else ():
            pairs = self._pairs(inputs)
            checks.append(_check(pairs, limit, "validation", None, "validation data"))
            same, compared = _same_top1(*pairs[0])
            n_same, n_compared = n_same + same, n_compared + compared
        share = n_same / n_compared if n_compared else None
        if share is not None and self.precision.startswith("int8") and share < LEAST_INT8_AGREEMENT:
            raise VerificationError(
                f"only {share:.1%} of the validation samples get the same answer as in torch, "
                f"{LEAST_INT8_AGREEMENT:.0%} is asked of int8"
            )
        worst_abs, worst_rel = max(check.max_abs for check in checks), max(check.max_rel for check in checks)
        return Agreement(worst_abs, worst_rel, limit, _merged(checks), share)

    def _random(self, size: int) -> tuple[Tensor, ...]:
        return self.program.example_inputs(size, seed=size, dtype=input_dtype(self.program))

    def _samples(self, data: DataSource, size: int) -> tuple[Tensor, ...]:
        return next(_data_inputs(self.program, data, size, None))

    def _pairs(self, inputs: tuple[Tensor, ...]) -> list[tuple[np.ndarray, np.ndarray]]:
        """Each output of torch beside that of the file."""
        expected = torch_outputs(self.module, inputs)
        got = self.run(inputs)
        if not all(np.isfinite(x).any() for x in expected if x.size and x.dtype.kind == "f"):
            raise VerificationError("the model's own output has no finite number in it, so there is nothing to compare")
        if len(expected) != len(got):
            raise VerificationError(f"the file gives {len(got)} outputs, the model {len(expected)}")
        return list(zip(expected, got, strict=True))


def torch_outputs(module: nn.Module, inputs: tuple[Tensor, ...]) -> list[np.ndarray]:
    """Outputs of the program's own module, flattened in order.

    Raises:  ModelError if torch cannot run it.
    """
    try:
        with torch.inference_mode():
            leaves = pytree.tree_leaves(module(*inputs))
    except Exception as error:  # torch raises anything from IndexError to its own C++ errors here
        raise ModelError(f"torch cannot run the model at batch {len(inputs[0])}: {innermost_line(error)}") from error
    return [to_numpy(leaf) for leaf in leaves if isinstance(leaf, Tensor)]


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


def open_onnx(path: Path) -> ort.InferenceSession:
    """A session on the CPU.

    Raises:  VerificationError if onnxruntime cannot open the file.
    """
    options = ort.SessionOptions()
    options.log_severity_level = 4
    options.intra_op_num_threads = torch.get_num_threads()
    try:
        return ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime's exceptions share no base class of their own
        raise VerificationError(f"onnxruntime cannot open the ONNX form: {innermost_line(error)}") from error


def onnx_run(session: ort.InferenceSession) -> Run:
    """The session as a function of torch's inputs, which it gets in its own element types."""
    given = session.get_inputs()

    def run(inputs: tuple[Tensor, ...]) -> list[np.ndarray]:
        if len(given) != len(inputs):
            raise VerificationError(f"the file reads {len(given)} inputs, the model {len(inputs)}")
        feeds = {spec.name: _as_type(to_numpy(x), spec.type) for spec, x in zip(given, inputs, strict=True)}
        try:
            return [np.asarray(output) for output in session.run(None, feeds)]
        except Exception as error:
            raise VerificationError(
                f"onnxruntime cannot run the ONNX form at batch {len(inputs[0])}: {innermost_line(error)}"
            ) from error

    return run


_HALF, _SINGLE = "tensor(float16)", "tensor(float)"


def _as_type(array: np.ndarray, wanted: str) -> np.ndarray:
    """Floating inputs in the precision that a foreign file wants; anything else as it is."""
    if array.dtype.kind == "f" and wanted in (_HALF, _SINGLE):
        return array.astype(np.float16 if wanted == _HALF else np.float32)
    return array


def _check(
    pairs: list[tuple[np.ndarray, np.ndarray]],
    limit: float,
    inputs: Literal["random", "validation"],
    batch: int | None,
    on: str,
) -> Check:
    """The largest differences of one run.

    Raises:  VerificationError above the limit.
    """
    differences = [difference(expected, got) for expected, got in pairs]
    worst_abs = max((absolute for absolute, _ in differences), default=0.0)
    worst_rel = max((relative for _, relative in differences), default=0.0)
    if worst_rel > limit:
        raise VerificationError(
            f"the file and torch differ by {worst_rel:.2g} of the largest output on {on}, {limit:g} is allowed"
        )
    return Check(inputs, batch, worst_abs, worst_rel)


def _merged(checks: Sequence[Check]) -> tuple[Check, ...]:
    """The checks with those over the data, batch by batch, as one."""
    kept = [check for check in checks if check.batch is not None]
    of_data = [check for check in checks if check.batch is None]
    if of_data:
        worst_abs, worst_rel = max(c.max_abs for c in of_data), max(c.max_rel for c in of_data)
        kept.append(Check("validation", None, worst_abs, worst_rel))
    return tuple(kept)


def _data_inputs(program: Program, data: DataSource, size: int, fixed: int | None) -> Iterator[tuple[Tensor, ...]]:
    """Validation inputs in the program's element types, up to 1,000 samples; whole batches only where `fixed`."""
    floating = input_dtype(program)
    for batch in data.batches("val", size, limit=N_DATA_SAMPLES):
        if fixed is not None and len(batch.inputs[0]) != fixed:
            continue
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
