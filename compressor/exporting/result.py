"""What `export` wrote and how well it agrees with torch, as plain values; it must never hold tensors or
models."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from compressor.asking.export import Precision
from compressor.program.agreement import Judgment, basis

Format = Literal["onnx", "pt2", "python"]


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
    were put into the layers before them, `kept_norms` names those that are still operators of their own.
    """

    path: str | None
    opset: int | None
    size_bytes: int
    n_params: int
    n_program_params: int
    n_nodes: int
    batch_sizes: tuple[int, ...]
    max_abs: float
    max_rel: float
    limit: float
    on_data: bool
    top1_agreement: float | None
    external_data: bool
    seconds: float
    format: Format = "onnx"
    precision: Precision = "unchanged"
    batch: int | None = None
    n_sparse: int = 0
    plain_size_bytes: int | None = None
    checks: tuple[Check, ...] = ()
    judgment: Judgment = "limit"
    noise: float | None = None
    decisions: tuple[str, ...] = ()
    n_folded_norms: int = 0
    kept_norms: tuple[str, ...] = ()
