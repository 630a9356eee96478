"""Operators that networks hold beside those of a family, by name, and which operators are known at all.

It must never hold what is done with an operator. What stands here has no axis rule: it is kept and run, and what
reaches it stays whole. The kernels behind these names check what they are given (or `formats/contracts.py` does it for
them) and work no longer than their sizes say; a name that has a family needs none here.
"""

from __future__ import annotations

from functools import lru_cache

import torch
from torch._ops import OpOverload

from compressor.program import families
from compressor.program.family import Family
from compressor.typed_torch import is_overload, schema_of

_NUMBERS = (
    "absolute", "arccos", "arccosh", "arcsin", "arcsinh", "arctan", "arctan2", "arctanh", "concatenate", "divide",
    "fix", "floor_divide", "greater", "greater_equal", "less", "less_equal", "multiply", "negative", "not_equal",
    "rsub", "item", "special_digamma", "special_erf", "special_erfc", "special_erfinv", "special_exp2", "special_expit",
    "special_expm1", "special_gammaln", "special_i0", "special_log1p", "special_logit", "special_ndtr", "special_round",
    "special_sinc", "special_xlogy", "subtract", "true_divide", "__and__", "__or__", "isclose", "isreal", "isin",
    "_prelu_kernel", "bucketize", "searchsorted", "copy", "zero", "empty_like", "binary_cross_entropy_with_logits",
    "mse_loss", "l1_loss", "smooth_l1_loss", "huber_loss", "fake_quantize_per_tensor_affine",
    "fake_quantize_per_channel_affine", "where", "linspace", "embedding_bag",
)  # fmt: skip
"""Element by element, other names of that, and what torch leaves without its tag."""

_SHAPES = (
    "atleast_1d", "atleast_2d", "atleast_3d", "block_diag", "broadcast_tensors", "cartesian_prod", "column_stack",
    "diag", "diag_embed", "diagflat", "dsplit", "dstack", "fliplr", "flipud", "hsplit", "hstack", "meshgrid",
    "moveaxis", "native_channel_shuffle", "rot90", "row_stack", "select_scatter", "slice_scatter", "diagonal_scatter",
    "sum_to_size", "tril_indices", "triu_indices", "unsafe_chunk", "unsafe_split", "unsafe_split_with_sizes", "vsplit",
    "vstack", "col2im", "reflection_pad1d", "reflection_pad3d", "replication_pad1d", "replication_pad3d", "size",
    "sym_size", "view", "sym_numel", "sym_stride", "numel", "dim", "_shape_as_tensor", "mH", "linalg_diagonal", "trace",
    "diff", "max_unpool2d", "max_unpool3d", "masked_select",
)  # fmt: skip

_PLACES = (
    "index_add", "index_copy", "index_fill", "index_put", "masked_scatter", "scatter", "scatter_add", "scatter_reduce",
    "take", "argsort", "msort", "aminmax", "cummax", "cummin", "cumprod", "logcumsumexp", "median", "mode",
    "histc", "kthvalue", "count_nonzero", "any", "all", "std", "var", "std_mean", "var_mean", "nanmean", "nansum",
    "prod", "special_softmax", "special_log_softmax", "special_logsumexp", "_log_softmax", "_safe_softmax", "norm",
    "linalg_norm", "linalg_matrix_norm", "frobenius_norm", "quantile", "nanquantile", "native_layer_norm",
    "native_group_norm", "native_batch_norm", "_native_batch_norm_legit_no_training", "max_pool1d_with_indices",
    "max_pool3d_with_indices", "adaptive_max_pool3d", "_adaptive_avg_pool2d", "_adaptive_avg_pool3d",
)  # fmt: skip

_PRODUCTS = (
    "cdist", "cosine_similarity", "cross", "dist", "ger", "kron", "linalg_cross", "linalg_vecdot", "outer",
    "pairwise_distance", "cov", "grid_sampler", "grid_sampler_2d", "grid_sampler_3d", "upsample_bicubic2d",
    "upsample_linear1d", "upsample_nearest1d", "upsample_nearest3d", "upsample_trilinear3d",
    "_upsample_nearest_exact1d",
    "_upsample_nearest_exact2d", "_upsample_nearest_exact3d", "_upsample_bicubic2d_aa", "_upsample_bilinear2d_aa",
    "linalg_inv", "inverse", "linalg_det", "det", "linalg_solve", "linalg_matrix_exp", "matrix_exp", "linalg_cholesky",
    "matrix_power", "linalg_matrix_power", "linalg_eigh", "linalg_svd", "linalg_qr", "linalg_pinv", "linalg_slogdet",
    "_weight_norm_interface",
)  # fmt: skip

_COMPLEX = (
    "complex", "conj", "fft_fft", "fft_fft2", "fft_fftn", "fft_fftshift", "fft_hfft", "fft_ifft", "fft_ifft2",
    "fft_ifftn", "fft_ifftshift", "fft_ihfft", "fft_irfft", "fft_irfft2", "fft_irfftn", "fft_rfft", "fft_rfft2",
    "fft_rfftn", "imag", "polar", "real", "resolve_conj", "resolve_neg", "stft", "istft", "view_as_complex",
    "view_as_real",
)  # fmt: skip

_DRAWN = (
    "bernoulli", "exponential", "multinomial", "normal", "normal_functional", "rand", "randint", "randint_like",
    "randn", "randperm", "random", "uniform",
)  # fmt: skip

NAMES = frozenset((*_NUMBERS, *_SHAPES, *_PLACES, *_PRODUCTS, *_COMPLEX, *_DRAWN))

_COUNTING = ("mvlgamma", "polygamma", "chebyshev_polynomial", "hermite_polynomial", "laguerre_polynomial",
             "legendre_polynomial")  # fmt: skip
"""Tagged as pointwise, but each element is a loop as long as an argument says."""

UNRULED = Family("unruled")
"""What has a name above, or a rule of the user's, and no family."""

_own: set[OpOverload] = set()


def admit(target: OpOverload) -> None:
    """Makes an operator known: a plugin has a rule for it, so whoever named the plugin wants it."""
    _own.add(target)
    known.cache_clear()


@lru_cache(maxsize=4096)
def known(target: OpOverload) -> Family | None:
    """The family of an operator that may be kept and run; None for one that nothing here knows.

    One that writes into its operand is known when the one that makes its result anew is.
    """
    name = families.operator_name(target)
    found = families.family_of(target)
    if found is not None and not (found is families.TAGGED and any(part in name for part in _COUNTING)):
        return found
    if found is None and (name in NAMES or target in _own):
        return UNRULED
    if found is None and schema_of(target).is_mutable and name.endswith("_") and not name.endswith("__"):
        packet = getattr(torch.ops.aten, name[:-1], None)
        own = schema_of(target).overload_name or "default"
        overload = getattr(packet, own, None) or getattr(packet, "default", None)
        return known(overload) if is_overload(overload) and not schema_of(overload).is_mutable else None
    return None
