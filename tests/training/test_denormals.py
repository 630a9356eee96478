"""Denormal numbers are flushed while training and only then."""

from __future__ import annotations

import pytest
import torch

from compressor.training.devices import flushed_denormals

TINY = 2.0**-1070


def product() -> float:
    return torch.tensor(TINY, dtype=torch.float64).mul(1.0).item()


def test_flushed_inside_and_restored_after() -> None:
    if not torch.set_flush_denormal(False):
        pytest.skip("this processor cannot flush denormals")
    assert product() == TINY
    with flushed_denormals():
        assert product() == 0.0
    assert product() == TINY


def test_restored_after_an_error() -> None:
    if not torch.set_flush_denormal(False):
        pytest.skip("this processor cannot flush denormals")
    with pytest.raises(RuntimeError, match="inside"), flushed_denormals():
        raise RuntimeError("inside")
    assert product() == TINY


def test_a_caller_who_flushes_keeps_flushing() -> None:
    if not torch.set_flush_denormal(True):
        pytest.skip("this processor cannot flush denormals")
    try:
        with flushed_denormals():
            assert product() == 0.0
        assert product() == 0.0
    finally:
        torch.set_flush_denormal(False)
