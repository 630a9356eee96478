"""Numbers of a graph as buffers of each layer's own, fixed places as slices: the same values, with heads that go."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from compressor.asking import PruneSettings, WalkOptions
from compressor.axes import find_units
from compressor.compaction import compact
from compressor.program import InputSpec, Program, capture, families, open_heads
from compressor.pruning import prune

HEADS, SIZE, WIDTH = 4, 3, 12


class Sloped(nn.Module):
    """Two layers of attention whose scores fall with the distance, by a slope for each head, as a power of a range."""

    def __init__(self) -> None:
        super().__init__()
        self.qkv = nn.ModuleList(nn.Linear(WIDTH, 3 * WIDTH) for _ in range(2))
        self.out = nn.ModuleList(nn.Linear(WIDTH, WIDTH) for _ in range(2))

    def forward(self, x_NTD: Tensor) -> Tensor:
        n, length, _ = x_NTD.shape
        slopes = torch.pow(torch.tensor(0.25), torch.arange(1, HEADS + 1, dtype=torch.int32))
        bias = slopes[:, None, None] * torch.arange(length, dtype=torch.float32)
        for qkv, out in zip(self.qkv, self.out, strict=True):
            q, k, v = (part.transpose(1, 2) for part in qkv(x_NTD).view(n, length, HEADS, 3, SIZE).unbind(3))
            weights = (q @ k.transpose(-1, -2) + bias).softmax(-1)
            x_NTD = x_NTD + out((weights @ v).transpose(1, 2).reshape(n, length, WIDTH))
        return x_NTD


class Packed(nn.Module):
    """Queries and the one key and value in one matrix; those two are taken out by places that are written down."""

    def __init__(self, places: tuple[list[int], list[int]]) -> None:
        super().__init__()
        self.qkv, self.out = nn.Linear(WIDTH, (HEADS + 2) * SIZE), nn.Linear(WIDTH, WIDTH)
        self._key, self._value = places

    def forward(self, x_NTD: Tensor) -> Tensor:
        n, length, _ = x_NTD.shape
        packed = self.qkv(x_NTD).view(n, length, HEADS + 2, SIZE)
        q, k, v = packed[..., :-2, :], packed[..., self._key, :], packed[..., self._value, :]
        mixed = nn.functional.scaled_dot_product_attention(*(part.transpose(1, 2) for part in (q, k, v)))
        out: Tensor = self.out(mixed.transpose(1, 2).reshape(n, length, WIDTH))
        return x_NTD + out


class Grouped(nn.Module):
    """Two groups, packed one after the other: two queries, then the key and the value that they share."""

    def __init__(self) -> None:
        super().__init__()
        self.qkv, self.out = nn.Linear(WIDTH, 2 * 4 * SIZE), nn.Linear(WIDTH, WIDTH)

    def forward(self, x_NTD: Tensor) -> Tensor:
        n, length, _ = x_NTD.shape
        packed = self.qkv(x_NTD).view(n, length, 2, 4, SIZE)
        q, k, v = packed[..., :-2, :], packed[..., [-2], :], packed[..., [-1], :]
        parts = (part.expand(n, length, 2, 2, SIZE).flatten(2, 3).transpose(1, 2) for part in (q, k, v))
        mixed = nn.functional.scaled_dot_product_attention(*parts)
        out: Tensor = self.out(mixed.transpose(1, 2).reshape(n, length, WIDTH))
        return x_NTD + out


def captured(network: nn.Module) -> Program:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        for parameter in network.parameters():
            nn.init.normal_(parameter, std=0.4)
    return capture(network.eval(), [InputSpec("x", (None, 5, WIDTH))])


def heads_of(program: Program) -> int:
    return int(find_units(program, WalkOptions(keep_heads=True)).heads.sum())


@pytest.mark.parametrize(
    ("network", "before", "heads"),
    [(Sloped(), 0, 2 * HEADS), (Packed(([-2], [-1])), 0, HEADS), (Packed(([4], [5])), 0, HEADS), (Grouped(), 2, 2)],
    ids=["slopes", "places from the end", "places from the start", "packed by groups"],
)
def test_heads_are_found_and_go_with_what_was_made_for_them(network: nn.Module, before: int, heads: int) -> None:
    program = captured(network)
    opened = open_heads(program)
    inputs = program.example_inputs(3)
    assert torch.equal(program.module(*inputs), opened.module(*inputs))
    assert (heads_of(program), heads_of(opened)) == (before, heads)
    pruned, report = prune(program, PruneSettings(ratio=1.1, pattern="head", method="magnitude", round_to=1))
    small, proof = compact(pruned)
    assert proof.agreement is not None and small.n_parameters == report.compact_params
    if isinstance(network, Sloped):  # the layers lose heads of their own
        left = {len(tensor) for name, tensor in small.module.tensors().items() if "table" in name}
        assert left <= {1, 2, 3, 4} and min(left) < HEADS


@pytest.mark.parametrize("places", [([1], [5]), ([-2], [5])])
def test_a_key_among_the_queries_or_at_either_end_is_taken_where_it_is(places: tuple[list[int], list[int]]) -> None:
    program = captured(Packed(places))
    opened = open_heads(program)
    inputs = program.example_inputs(2)
    assert torch.equal(program.module(*inputs), opened.module(*inputs))


def test_places_that_are_not_in_a_row_stay_an_index() -> None:
    class Apart(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(4, 6)

        def forward(self, x: Tensor) -> Tensor:
            out: Tensor = self.layer(x)
            return out[:, [0, 2, 3]]

    program = capture(Apart().eval(), [InputSpec("x", (None, 4))])
    opened = open_heads(program)
    assert any(node.target in families.INDEX for node in opened.module.graph.nodes)


def test_a_network_without_either_comes_back_as_it_is() -> None:
    program = capture(nn.Sequential(nn.Linear(4, 4), nn.ReLU()), [InputSpec("x", (None, 4))])
    assert open_heads(program) is program
