"""Tensors from files are dense, whole and finite; written ones bring nothing along."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from compressor.errors import ModelError
from compressor.formats.tensors import check_dense, check_finite, plain


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.bool, torch.int64, torch.uint8])
def test_ordinary_tensors_pass(dtype: torch.dtype) -> None:
    assert check_dense("w", torch.zeros(2, 3, dtype=dtype)) is None
    assert check_dense("w", torch.zeros((), dtype=dtype)) is None
    assert check_dense("w", torch.zeros(3, 2).t()) is None


@pytest.mark.parametrize(
    "value",
    [
        torch.eye(2).to_sparse(), torch.zeros(2, dtype=torch.complex64), torch.zeros(2, device="meta"),
        torch.zeros(2, dtype=torch.complex64).conj().imag, torch.zeros(2, dtype=torch.float8_e4m3fn),
    ],
)  # fmt: skip
def test_other_tensors_do_not(value: torch.Tensor) -> None:
    with pytest.raises(ModelError, match=r"^w: only ordinary dense tensors"):
        check_dense("w", value)


@pytest.mark.parametrize("value", [3, None, [1.0], "w"])
def test_what_is_no_tensor_does_not(value: Any) -> None:
    with pytest.raises(ModelError, match=r"^w: is \w+ where a tensor should be"):
        check_dense("w", value)


def test_sizes_without_data_do_not() -> None:
    with pytest.raises(ModelError, match="has not that much data"):
        check_dense("w", torch.zeros(1).expand(10**12))


def test_finite_values_and_infinite_buffers_pass() -> None:
    infinite = torch.tensor([0.0, float("-inf")])
    largest = torch.full((4,), torch.finfo(torch.float64).max, dtype=torch.float64)
    assert check_finite({"w": torch.tensor([3e38, 3e38]), "d": largest}, {"w", "d"}) is None
    assert check_finite({"causal": infinite, "n": torch.tensor(3)}, {"w"}) is None
    with pytest.raises(ModelError, match=r"^causal: 1 of 2 values"):
        check_finite({"causal": infinite}, {"causal"})
    with pytest.raises(ModelError, match=r"^causal: 1 of 3 values"):
        check_finite({"causal": torch.tensor([float("inf"), float("-inf"), float("nan")])}, set())


def test_plain_is_contiguous_and_alone() -> None:
    whole = torch.arange(12.0).view(3, 4)
    for part in (whole[1], whole.t(), whole[:, 1:3]):
        found = plain(part)
        assert torch.equal(found, part)
        assert found.is_contiguous()
        assert found.untyped_storage().nbytes() == found.numel() * 4
    assert plain(whole).data_ptr() == whole.data_ptr()
