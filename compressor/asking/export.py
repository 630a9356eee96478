"""What kind of file an export makes and how it is checked; it must never hold how any of it is done."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from compressor.asking.counts import check_counts, read_counts
from compressor.asking.option import Range, at_least, check, option
from compressor.errors import UsageError

Format = Literal["onnx", "pt2", "python", "huggingface"]
Int8 = Literal["dynamic", "static"]
Precision = Literal["unchanged", "fp16", "int8 dynamic", "int8 static"]

LOWEST_OPSET = 15
"""onnxscript's version converter gives up below it, whatever the model."""

HIGHEST_OPSET = 26
"""onnxruntime 1.31 opens none above, and what cannot be opened cannot be checked."""

_OPSETS = Range(
    f"{LOWEST_OPSET} to {HIGHEST_OPSET}, which can be written and checked here",
    lambda value: LOWEST_OPSET <= value <= HIGHEST_OPSET,
)
_CALLED = {
    "pt2": "an archive of torch.export", "python": "Python source", "huggingface": "a directory of transformers",
}  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class ExportForm:
    """The wishes about one file.

    `format` None leaves the format to whoever names the file. `batch` fixes the batch dimension, None leaves it open.
    `fp16` stores and computes in half precision between inputs and outputs of the program's own type. `int8` quantises
    weights, and activations by what is seen while running (dynamic) or by `n_calibration` training samples (static).
    `sparse` stores tensors that are mostly zero as positions and values.

    Raises:  UsageError for wishes that cannot be met together.
    """

    opset: int | None = option(None, "ONNX operator set, 15 to 26. Default: torch's.", metavar="N", range=_OPSETS)
    format: Format | None = option(
        None,
        "pt2 is an archive of torch.export; python is source for PyTorch, a model.py with model.safetensors "
        "beside it; huggingface is a directory that transformers opens by itself. Default: by the name of the output "
        "(NAME/ is a directory), else onnx.",
    )
    batch: int | None = option(None, "Fix the batch at N. Default: any batch.", metavar="N", range=at_least(1))
    fp16: bool = option(False, "Weights and arithmetic in half precision; inputs stay float32.")
    int8: Int8 | None = option(
        None, "Weights in 8 bits; activations by what is seen while running, or by ranges found on --data."
    )
    n_calibration: int = option(
        256, "Training samples to find the ranges of --int8 static with.", name="calibration", metavar="N",
        range=at_least(1),
    )  # fmt: skip
    sparse: bool = option(False, "Store tensors that are mostly zero as ONNX sparse ones: a smaller file.")
    fold_norms: bool = option(
        False, "No effect: the exporter puts batch norms into the layers before them by itself. Will be removed."
    )

    def __post_init__(self) -> None:
        check(self)
        if self.int8 is not None and (self.fp16 or self.sparse):
            other = "--fp16" if self.fp16 else "--sparse"
            raise UsageError(f"--int8 and {other} store the same weights in two ways; choose one of them")
        if self.format in _CALLED and (wrong := self._only_in_onnx):
            raise UsageError(f"{wrong}: {_CALLED[self.format]} has no such thing; write ONNX for it (--format onnx)")

    @property
    def said(self) -> str | None:
        """The first option that changes the file, None where all are left at their defaults."""
        given = {"--opset": self.opset, "--format": self.format, "--batch": self.batch, **self._of_onnx}
        return next((name for name, value in given.items() if value), None)

    @property
    def _of_onnx(self) -> dict[str, object]:
        converted = {"--fp16": self.fp16, "--int8": self.int8, "--sparse": self.sparse}
        return {**converted, "--fold-norms": self.fold_norms}

    @property
    def _only_in_onnx(self) -> str | None:
        """The first option that this format does not have."""
        batch = self.batch if self.format != "pt2" else None
        given = {"--opset": self.opset, **self._of_onnx, "--batch": batch}
        return next((name for name, value in given.items() if value), None)

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


@dataclass(frozen=True, kw_only=True)
class Checking:
    """How a written file is compared with the model: on random inputs of each size in `batch_sizes`.

    Raises:  UsageError for a size below 1.
    """

    batch_sizes: tuple[int, ...] = option(
        (1, 2, 5),
        "Batch sizes of the check.",
        name="check_batch", metavar="1,8", repeat=True, read=read_counts("--check-batch"), unsaid=True, shown="1,2,5",
    )  # fmt: skip

    def __post_init__(self) -> None:
        check_counts("--check-batch", self.batch_sizes)


DEFAULT_FORM = ExportForm()
"""The file that is written where nothing is asked for."""

DEFAULT_CHECK = Checking()
"""The check of every file where nothing is asked for."""
