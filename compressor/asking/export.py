"""What kind of file an export makes: opset, batch, precision, storage; it must never hold how any of it is done."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from compressor.errors import UsageError

Int8 = Literal["dynamic", "static"]
Precision = Literal["unchanged", "fp16", "int8 dynamic", "int8 static"]

LOWEST_OPSET = 15
"""onnxscript's version converter gives up below it, whatever the model."""

HIGHEST_OPSET = 26
"""onnxruntime 1.31 opens none above, and what cannot be opened cannot be checked."""


@dataclass(frozen=True)
class ExportForm:
    """The wishes about one file.

    `batch` fixes the batch dimension, None leaves it open. `fp16` stores and computes in half precision
    between inputs and outputs of the program's own type. `int8` quantises weights, and activations by what is
    seen while running (dynamic) or by `n_calibration` training samples (static). `sparse` stores tensors that
    are mostly zero as positions and values.

    Raises:  UsageError for wishes that cannot be met together.
    """

    opset: int | None = None
    batch: int | None = None
    fp16: bool = False
    int8: Int8 | None = None
    n_calibration: int = 256
    sparse: bool = False

    def __post_init__(self) -> None:
        if self.opset is not None and not LOWEST_OPSET <= self.opset <= HIGHEST_OPSET:
            raise UsageError(f"--opset {self.opset}: {LOWEST_OPSET} to {HIGHEST_OPSET} can be written and checked here")
        if self.batch is not None and self.batch < 1:
            raise UsageError(f"--batch {self.batch}: give 1 or more, or leave it out for an open batch")
        if self.n_calibration < 1:
            raise UsageError(f"--calibration {self.n_calibration}: give 1 sample or more")
        if self.int8 is not None and (self.fp16 or self.sparse):
            other = "--fp16" if self.fp16 else "--sparse"
            raise UsageError(f"--int8 and {other} store the same weights in two ways; choose one of them")

    @property
    def precision(self) -> Precision:
        if self.fp16:
            return "fp16"
        if self.int8 is not None:
            return "int8 static" if self.int8 == "static" else "int8 dynamic"
        return "unchanged"

    @property
    def is_converted(self) -> bool:
        """Whether the file is made from a plain one afterwards."""
        return self.precision != "unchanged" or self.sparse

    def check_batch(self, has_dynamic_batch: bool) -> None:
        """Raises:  UsageError if the program's own batch is fixed at another size."""
        if self.batch not in (None, 1) and not has_dynamic_batch:
            raise UsageError(f"--batch {self.batch}: the model's own code fixes the batch at 1; leave it out")
