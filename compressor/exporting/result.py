"""What `export` wrote and how well it agrees with torch, as plain values; it must never hold tensors or
models."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class ExportReport:
    """One ONNX file.

    `n_params` is what the file holds: elements of its floating initializers, single numbers (an epsilon, an
    attention scale) left out. It can be below `n_program_params`, the parameters of the program, for the
    exporter folds a batch normalisation into the convolution before it (2 per channel fewer, a bias more
    where there was none), drops a bias of zeros and stores small equal tensors once. For a trained network
    without normalisation the two are equal.

    `path` is None for a stream. `max_rel` is the largest difference between onnxruntime and torch relative to
    the largest |output|, `limit` what was allowed; both over random inputs of each of `batch_sizes` and, when
    `on_data`, over up to 1,000 validation samples. `top1_agreement` is the share of those samples with the
    same largest output.
    """

    path: str | None
    opset: int
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
