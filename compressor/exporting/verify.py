"""Whether a written file computes what the program computes, found by running both; it must never change
either."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Literal

import onnx
import torch
from torch import Tensor

from compressor.asking.export import Precision
from compressor.data.source import DataSource
from compressor.errors import DataError, ModelError, VerificationError, innermost_line
from compressor.exporting.convert import input_dtype
from compressor.exporting.exported import Check, Verification
from compressor.formats.onnx_session import OnnxFile
from compressor.program import Interface, Program, misfit
from compressor.program.agreement import Outputs
from compressor.program.runs import Other, Yardstick, examples_at_other_lengths, with_short_examples

LIMITS = {torch.float64: 1e-9, torch.float32: 1e-5, torch.float16: 2e-2}
"""Largest difference that is not looked into, relative to the largest |output|, by element type.

The two runtimes add the same products in another order, and a batch normalisation is rounded once more when
it is folded. With float32's 6e-8 per operation that left 3e-7 to 7e-7 on everything that was measured
(LeNets, VGG-16, ResNet-20 to ResNet-110 trained and with random statistics, a six-layer transformer; opset
20). A wrong stride, a lost bias or a swapped axis shows at 1e-2 and above. What is beyond is held against the noise
of rounding (program/agreement.py). The other types get the same number of roundings of their own.
"""

CONVERTED_LIMITS: dict[Precision, float] = {"fp16": 2e-2, "int8 dynamic": 0.25, "int8 static": 0.25}
"""The same for files of less precision than the program.

Half precision left 2e-4 to 1e-3 on LeNet-5, ResNet-20 and MobileNetV3, eight bits 0.008 to 0.06; a network
that they destroy (a range spent on one outlier, channels that share a scale and must not) is off by its whole
output.
"""

ONE_HALF_ROUNDING = 2.0**-10
"""The same where float32 results leave the file as float16: the last rounding, or its neighbour."""

LEAST_INT8_AGREEMENT = 0.9
"""Below this share of validation samples with the same answer an int8 file is not the same classifier."""

N_DATA_SAMPLES = 1000
_DATA_BATCH = 100

Run = Callable[[Sequence[Tensor]], Other]
"""The written file as a function: what it makes of one batch."""


class SizesDifferError(VerificationError):
    """A file with open sizes is right at those that the program was made for, and not at others."""


def onnx_run(path: Path, precision: Precision = "unchanged", interface: Interface | None = None) -> Run:
    """An ONNX file in onnxruntime, inputs that were bound at their numbers.

    Raises:  VerificationError if it cannot be opened.
    """
    bound = {} if interface is None else {p.name: p.value for p in interface.inputs if p.value is not None}
    file = OnnxFile(path, bound)
    coarser = {"unchanged": None, "fp16": torch.float16}.get(precision, torch.int8)
    return partial(file.other, precision=coarser)


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
    if len(data.input_shapes) != len(wanted) or misfit(program.inputs, data.input_shapes) is not None:
        raise DataError(f"{data.ref}: its samples are {data.input_shapes}, the model reads {wanted}")


def limit_of(program: Program, precision: Precision) -> float:
    """Largest relative difference that is not looked into: by the finest type among the weights, or the form."""
    if precision != "unchanged":
        return CONVERTED_LIMITS[precision]
    weights = {p.dtype for p in program.module.parameters() if p.dtype in LIMITS}
    return min((LIMITS[dtype] for dtype in weights), default=LIMITS[torch.float32])


@dataclass(frozen=True)
class FileComparison:
    """A program, on the CPU, beside a written file.

    `batch` is the only batch size that the file takes, None if it takes any.
    """

    program: Program
    run: Run
    precision: Precision = "unchanged"
    batch: int | None = None

    def verification(self, batch_sizes: Sequence[int], data: DataSource | None) -> Verification:
        """How far the file is from torch.

        Random inputs of each batch size, then validation data. A file with static int8 ranges, which clip
        what the calibration never saw, gets validation samples for the batch sizes too where there are data.

        Raises:  VerificationError if they differ by more than the limit or the file does not run; ModelError
                 if torch cannot run the program.
        """
        fixed = self.batch if self.program.has_dynamic_batch else 1
        sizes = tuple(batch_sizes) if fixed is None else (fixed,)
        calibrated = data if self.precision == "int8 static" else None
        checks: list[Check] = []
        for size in sizes:
            inputs = self._random(size) if calibrated is None else self._samples(calibrated, size)
            kind = "random" if calibrated is None else "validation"
            checks.append(self._check(self._yardstick.own(inputs), self.run(inputs), kind, size))
        for inputs in examples_at_other_lengths(self._short, sizes, input_dtype(self.program)):
            checks.append(self._check(self._yardstick.own(inputs), self.run(inputs), "random", len(inputs[0])))
        for size in sizes[:1]:
            checks += self._other_sizes(size)
        on_data, share = self._on_data(data, fixed) if data is not None else ([], None)
        if share is not None and self.precision.startswith("int8") and share < LEAST_INT8_AGREEMENT:
            raise VerificationError(
                f"only {share:.1%} of the validation samples get the same answer as in torch, "
                f"{LEAST_INT8_AGREEMENT:.0%} is asked of int8"
            )
        checks += [_worst(on_data)] if on_data else []
        return Verification(tuple(checks), share)

    def _other_sizes(self, size: int) -> list[Check]:
        """The checks of inputs of other sizes, where those behind the batch are open too.

        Raises:  SizesDifferError if one of them fails.
        """
        try:
            return [self._check(self._yardstick.own(x), self.run(x), "random", size) for x in self._grown(size)]
        except (VerificationError, ModelError) as error:
            raise SizesDifferError(f"at another size: {error}") from error

    def _on_data(self, data: DataSource, fixed: int | None) -> tuple[list[Check], float | None]:
        """The checks of the validation data batch by batch, and the share of samples with the same answer."""
        checks: list[Check] = []
        n_same = n_compared = 0
        for inputs in _data_inputs(self.program, data, fixed or _DATA_BATCH, fixed):
            inputs = self._arriving(inputs)
            own, other = self._yardstick.own(inputs), self.run(inputs)
            checks.append(self._check(own, other, "validation", None))
            same, compared = _same_top1(own[0], other.outputs[0])
            n_same, n_compared = n_same + same, n_compared + compared
        return checks, n_same / n_compared if n_compared else None

    def _random(self, size: int) -> tuple[Tensor, ...]:
        return self._arriving(self._short.example_inputs(size, seed=size, dtype=input_dtype(self.program)))

    def _grown(self, size: int) -> Iterator[tuple[Tensor, ...]]:
        """Random inputs of other sizes, where those behind the batch are open too."""
        interface = self.program.record.interface
        if interface is None or not interface.has_open_sizes:
            return
        for specs in dict.fromkeys(interface.grown(self.program.inputs, last) for last in (True, False)):
            yield self._arriving(self.program.replace(inputs=specs).example_inputs(size, seed=size))

    def _samples(self, data: DataSource, size: int) -> tuple[Tensor, ...]:
        return self._arriving(next(_data_inputs(self.program, data, size, None)))

    def _arriving(self, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        """The inputs with what the types of the file's own inputs let through."""
        interface = self.program.record.interface
        return inputs if interface is None else interface.rounded(inputs)

    @cached_property
    def _short(self) -> Program:
        return with_short_examples(self.program)

    @cached_property
    def _yardstick(self) -> Yardstick:
        return Yardstick(self.program)

    def _check(self, own: Outputs, other: Other, kind: Literal["random", "validation"], batch: int | None) -> Check:
        """The agreement on one batch.

        Raises:  VerificationError above the limit.
        """
        limit = limit_of(self.program, self.precision)
        if any(x.dtype == torch.float16 != mine.dtype for x, mine in zip(other.outputs, own, strict=False)):
            limit = max(limit, ONE_HALF_ROUNDING)
        found = self._yardstick.agreement([other], limit, own=[own])
        if not found.passed:
            on = "validation data" if batch is None else f"a {kind} batch of {batch}"
            raise VerificationError(f"the file and torch {found.apart} on {on}")
        judged = (found.limit, found.judgment, found.noise, found.decisions)
        return Check(kind, batch, found.max_abs, found.max_rel, *judged)


def _worst(checks: Sequence[Check]) -> Check:
    return max(checks, key=lambda check: check.max_rel)


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


def _same_top1(expected: Tensor, got: Tensor) -> tuple[int, int]:
    """Positions whose largest entry along dimension 1 is the same, and all; (0, 0) where there are no
    classes."""
    if expected.dim() < 2 or expected.shape[1] < 2 or not expected.is_floating_point():
        return 0, 0
    same = expected.argmax(1) == got.argmax(1)
    return int(same.sum()), same.numel()
