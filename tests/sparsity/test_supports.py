"""As much of a layer as a selector left of it, chosen anew by other magnitudes."""

from __future__ import annotations

import torch

from compressor.asking.pattern import parse_pattern
from compressor.program import Layer
from compressor.sparsity.supports import WeightSupport, WindowSupport, supports_of


def layer(kind: str = "linear", out_dim: int = 0, in_dim: int = 1) -> Layer:
    return Layer("one", kind, "one", "w", ("w",), out_dim, in_dim)


def test_single_weights_are_counted_and_what_was_cut_stays_cut() -> None:
    before = torch.ones(4, 6, dtype=torch.bool)
    before[:, 0] = False
    mask = before.clone()
    mask[:2] = False
    support = supports_of((layer(),), parse_pattern("unstructured"), {"w": mask}, {"w": before})["w"]
    assert isinstance(support, WeightSupport) and support.n == 10
    magnitudes = torch.rand(4, 6, generator=torch.Generator().manual_seed(0))
    magnitudes[:, 0] = 9.0
    keep = support(magnitudes, 1.0)
    assert int(keep.sum()) == 10 and not keep[:, 0].any()
    assert float(magnitudes[keep].min()) >= float(magnitudes[before & ~keep].max())
    assert [int(support(magnitudes, share).sum()) for share in (0.0, 0.5)] == [20, 15]


def test_windows_lie_along_channels_of_a_kernel_position() -> None:
    mask = torch.zeros(2, 4, 1, 3, dtype=torch.bool)
    mask[:, :2] = True
    support = supports_of((layer("conv2d"),), parse_pattern("2:4"), {"w": mask}, {})["w"]
    assert isinstance(support, WindowSupport)
    magnitudes = torch.rand(2, 12, generator=torch.Generator().manual_seed(1))
    keep = support(magnitudes, 0.2).reshape(2, 4, 3)
    assert (keep.sum(1) == 2).all()
    largest = magnitudes.reshape(2, 4, 3).topk(2, dim=1).indices
    assert keep.gather(1, largest).all()


def test_blocks_lie_in_the_rows_of_filters() -> None:
    """A product's weight has its filters behind."""
    mask = torch.ones(8, 4, dtype=torch.bool)
    mask[:4] = False
    support = supports_of((layer("addmm", 1, 0),), parse_pattern("block:2x4"), {"w": mask}, {})["w"]
    assert isinstance(support, WeightSupport) and support.n == 2 and support.allowed.shape == (4, 8)
    keep = support(torch.arange(32.0).reshape(4, 8), 1.0)
    assert keep[2:].all() and not keep[:2].any()


def test_what_nothing_was_cut_from_now_has_nothing_to_choose() -> None:
    mask = torch.tensor([[True, False]])
    assert supports_of((layer(),), parse_pattern("unstructured"), {"w": mask}, {"w": mask}) == {}
    assert supports_of((layer("layer_norm", 0, 1),), parse_pattern("unstructured"), {"w": mask}, {}) == {}
