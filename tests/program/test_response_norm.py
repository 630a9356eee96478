"""Response normalisation as a product, which capturing makes of it: the same values, and channels that can go."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from compressor.asking import PruneSettings
from compressor.axes import find_units
from compressor.compaction import compact
from compressor.program import InputSpec, Program, capture, open_response_norms
from compressor.program.response_norm import band_matrix
from compressor.pruning import prune


class Normalised(nn.Module):
    """Two convolutions with a normalisation between them."""

    def __init__(self, size: int = 5, pool: bool = False) -> None:
        super().__init__()
        self.a, self.b, self.size, self.pool = nn.Conv2d(2, 12, 3), nn.Conv2d(12, 3, 3), size, pool

    def forward(self, x: Tensor) -> Tensor:
        x = self.a(x).relu()
        if self.pool:
            x = F.avg_pool3d(x[:, None], (3, 1, 1), 1).squeeze(1)
            return F.conv2d(x, self.b.weight[:, :10])
        return self.b(F.local_response_norm(x, self.size, alpha=0.5, beta=0.75, k=1.5))


def traced(**options) -> Program:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return capture(Normalised(**options), [InputSpec("x", (None, 2, 7, 6))])


@pytest.mark.parametrize("size", [1, 3, 4, 5, 24])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_same_values(size: int, dtype: torch.dtype) -> None:
    net = Normalised(size).to(dtype)
    program = capture(net, [InputSpec("x", (None, 2, 7, 6), str(dtype).removeprefix("torch."))])
    assert not poolings(program) and program.has_dynamic_batch
    (x,) = program.example_inputs(3)
    with torch.no_grad():
        assert torch.allclose(program.module(x), net(x), rtol=1e-5, atol=1e-6)
    assert program.n_parameters == sum(p.numel() for p in net.parameters())


def poolings(program: Program) -> list[str]:
    return [n.name for n in program.module.graph.nodes if n.target is torch.ops.aten.avg_pool3d.default]


def test_the_window_of_every_channel() -> None:
    assert band_matrix(4, 1, 3).mul(3).tolist() == [[1, 1, 0, 0], [1, 1, 1, 0], [0, 1, 1, 1], [0, 0, 1, 1]]


def test_the_channels_are_units() -> None:
    units = find_units(traced())
    assert units.n_units == 12
    assert {name for name, _ in units.slices[0]} == {"a.weight", "a.bias", "b.weight", *_windows(units.tensors)}


def _windows(names: tuple[str, ...]) -> list[str]:
    return [name for name in names if name.endswith(".window")]


def test_prune_and_compact_go_through_it_exactly() -> None:
    pruned, report = prune(traced(), PruneSettings(ratio=2.0, method="magnitude"))
    small, check = compact(pruned)
    assert report.got >= 2 and small.parameters["b.weight"].shape[1] == small.parameters["a.weight"].shape[0] <= 6
    assert check.agreement is not None and check.agreement.float64_relative < 1e-12


def test_without_a_normalisation_the_program_comes_back() -> None:
    plain = capture(nn.Sequential(nn.Conv2d(2, 3, 3)), [InputSpec("x", (None, 2, 7, 6))])
    assert open_response_norms(plain) is plain


def test_a_pooling_that_is_not_padded_is_left_alone() -> None:
    assert len(poolings(traced(pool=True))) == 1
