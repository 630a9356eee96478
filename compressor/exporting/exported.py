"""What `export` wrote and how well it agrees with torch, as plain values; it must never hold tensors or
models."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from compressor.asking.export import Format, Precision
from compressor.program.agreement import Judgment, basis

if TYPE_CHECKING:
    from compressor.program import Program


@dataclass(frozen=True)
class Check:
    """One comparison: on what inputs, how far off; `max_rel` relative to the largest |output|.

    `batch` is None for up to 1,000 validation samples together. `judgment` says what the limit follows from: it is the
    plain `limit` of the precision, or 8 times a `noise` that was measured because that was passed (`own rounding`: the
    model's float32 result against its float64 one; `runtime noise`: onnxruntime with and without its optimiser;
    `sensitivity`: one rounding after every operator). `decisions` names operators (a topk, a random draw) whose choice
    was taken over from the file and compared by what it was chosen from.
    """

    inputs: Literal["random", "validation"]
    batch: int | None
    max_abs: float
    max_rel: float
    limit: float
    judgment: Judgment = "limit"
    noise: float | None = None
    decisions: tuple[str, ...] = ()

    @property
    def basis(self) -> str:
        """What the limit follows from, in words; empty for the plain one."""
        return basis(self.judgment, self.noise)


@dataclass(frozen=True)
class Verification:
    """All checks of one file, and the share of up to 1,000 validation samples with the same largest output."""

    checks: tuple[Check, ...]
    top1_agreement: float | None

    @property
    def worst(self) -> Check:
        """The one with the largest difference."""
        return max(self.checks, key=lambda check: check.max_rel)

    @property
    def batch_sizes(self) -> tuple[int, ...]:
        """Sizes of the batches that were made for the check, those of the data left out."""
        return tuple(dict.fromkeys(check.batch for check in self.checks if check.batch is not None))


@dataclass(frozen=True)
class ExportReport:
    """One file.

    `n_params` is what the file holds: elements of its weights, single numbers (an epsilon, an attention
    scale) left out. It can be below `n_program_params`, the parameters of the program, for the exporter folds
    a batch normalisation into the convolution before it (2 per channel fewer, a bias more where there was
    none), drops a bias of zeros and stores small equal tensors once. For a trained network without
    normalisation the two are equal.

    `path` is None for a stream, `opset` for an archive of torch.export. `batch` is the batch size that the
    file fixes. `max_rel` is the largest difference from torch relative to the largest |output|, and `limit`,
    `judgment`, `noise` and `decisions` are those of the check where it was found. `top1_agreement` is the share of up
    to 1,000 validation samples with the same largest output. `n_sparse` tensors are stored as sparse ones;
    `plain_size_bytes` is what the file measured before it was made sparse, half or int8. `n_folded_norms` batch norms
    were put into the layers before them, `kept_norms` names those that are still operators of their own. `beside` are
    the files of a tokenizer or processor that came into a directory of transformers with the network; `left_out` names
    what the network returns beside tensors: a number is no output of a file; `notes` say in what the file is no drop-in
    for the ONNX file that the program was imported from.
    """

    path: str | None
    opset: int | None
    size_bytes: int
    n_params: int
    n_program_params: int
    n_nodes: int
    verification: Verification
    on_data: bool
    external_data: bool
    seconds: float
    format: Format = "onnx"
    precision: Precision = "unchanged"
    batch: int | None = None
    n_sparse: int = 0
    plain_size_bytes: int | None = None
    n_folded_norms: int = 0
    kept_norms: tuple[str, ...] = ()
    beside: tuple[str, ...] = ()
    left_out: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()

    @staticmethod
    def of(program: Program, files: Sequence[Path], verification: Verification, **more: Any) -> ExportReport:
        """What is there to be said of `files`, the model and what lies beside it; how long it took is not known yet."""
        facts: dict[str, Any] = {"path": None, "opset": None, "seconds": 0.0, **more}
        return ExportReport(
            size_bytes=sum(file.stat().st_size for file in files),
            n_program_params=program.n_parameters,
            verification=verification,
            external_data=len(files) > 1,
            **facts,
        )

    @property
    def max_abs(self) -> float:
        """Largest difference from torch, on any input."""
        return self.verification.worst.max_abs

    @property
    def max_rel(self) -> float:
        """Largest difference from torch, relative to the largest |output|."""
        return self.verification.worst.max_rel

    @property
    def limit(self) -> float:
        """What `max_rel` was held against."""
        return self.verification.worst.limit

    @property
    def top1_agreement(self) -> float | None:
        """Share of up to 1,000 validation samples with the same largest output."""
        return self.verification.top1_agreement

    @property
    def batch_sizes(self) -> tuple[int, ...]:
        """Sizes of the batches that were made for the check."""
        return self.verification.batch_sizes

    @property
    def checks(self) -> tuple[Check, ...]:
        """Every comparison that was made."""
        return self.verification.checks
