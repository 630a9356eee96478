"""Blocks of the GEMM view, element by element."""

from __future__ import annotations

import pytest
import torch

from compressor.sparsity.grouping import Blocks, Singles


@pytest.mark.parametrize(("shape", "out_dim"), [((4, 6), 0), ((4, 2, 3, 1), 0), ((2, 4, 3), 1)])
@pytest.mark.parametrize(("rows", "columns"), [(1, 3), (2, 1), (2, 3), (4, 6)])
def test_blocks_are_tiles_of_filters_by_columns(shape: tuple[int, ...], out_dim: int, rows: int, columns: int) -> None:
    weight = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    blocks = Blocks(rows, columns, out_dim)
    assert blocks.size == rows * columns and blocks.misfit(weight.shape) is None
    gemm = weight.movedim(out_dim, 0).flatten(1)
    tiles = [
        (r, c, gemm[r : r + rows, c : c + columns])
        for r in range(0, len(gemm), rows)
        for c in range(0, gemm.shape[1], columns)
    ]
    assert torch.allclose(blocks.magnitudes(weight), torch.stack([tile.norm() for _, _, tile in tiles]))
    for i, (r, c, _) in enumerate(tiles):
        only = torch.zeros(len(tiles), dtype=torch.bool)
        only[i] = True
        mask = blocks.spread(only, weight.shape)
        expected = torch.zeros_like(gemm, dtype=torch.bool)
        expected[r : r + rows, c : c + columns] = True
        assert mask.shape == weight.shape and torch.equal(mask.movedim(out_dim, 0).flatten(1), expected)
        assert torch.equal(blocks.all_of(mask), only)


def test_what_blocks_do_not_tile_is_said() -> None:
    assert Blocks(4, 1, 0).misfit(torch.Size((6, 8))) == "needs filters divisible by 4, got 6"
    assert (
        Blocks(1, 4, 0).misfit(torch.Size((8, 3, 3, 3))) == "needs channels x kernel positions divisible by 4, got 27"
    )


def test_single_weights_are_groups_of_one() -> None:
    weight = torch.tensor([[1.0, -2.0], [0.0, 3.0]])
    assert Singles().size == 1 and Singles().magnitudes(weight).tolist() == [1.0, 2.0, 0.0, 3.0]
    assert torch.equal(Singles().spread(Singles().all_of(weight > 0), weight.shape), weight > 0)
