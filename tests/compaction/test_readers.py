"""Who can take over a constant, reader by reader: folded where it is exact, kept with the reason where not."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from compressor.compaction import readers
from compressor.compaction.removal import Removal, remove_dead
from compressor.program import InputSpec, Program, Record, capture

CONSTANT = (1, 2)
"""Channels of `first` that hold nothing but their bias."""


class Reader(nn.Module):
    """first (channels 1 and 2 constant) -> a reader of its channels."""

    def __init__(self, read: Callable[[nn.ModuleDict, Tensor], Tensor], parts: dict[str, nn.Module]) -> None:
        super().__init__()
        self.read, self.first, self.parts = read, nn.Conv2d(2, 5, 1), nn.ModuleDict(parts)
        self.double().eval()
        random = torch.Generator().manual_seed(0)
        with torch.no_grad():
            for parameter in self.parameters():
                parameter.copy_(torch.randint(1, 4, parameter.shape, generator=random))
            self.first.weight[list(CONSTANT)] = 0

    def forward(self, x: Tensor) -> Tensor:
        return self.read(self.parts, self.first(x))


@dataclass(frozen=True)
class Case:
    """A reader; `n_left` of the five channels stay, what went was folded into `into`, or `reason` says why not."""

    read: Callable[[nn.ModuleDict, Tensor], Tensor]
    parts: Callable[[], dict[str, nn.Module]]
    n_left: int
    into: tuple[str, ...] = ()
    reason: str = ""


class Product(nn.Module):
    """x @ w (+ b), as GPT-2 writes its layers."""

    def __init__(self, added: bool) -> None:
        super().__init__()
        self.weight, self.added = nn.Parameter(torch.ones(5, 3)), added
        self.bias = nn.Parameter(torch.ones(3)) if added else None

    def forward(self, x: Tensor) -> Tensor:
        return x @ self.weight if self.bias is None else torch.addmm(self.bias, x, self.weight, alpha=2)


def centre(parts: nn.ModuleDict, x: Tensor) -> Tensor:
    conv = parts["conv"]
    assert isinstance(conv, nn.Conv2d)
    weight = conv.weight * torch.tensor([[0.0, 0, 0], [0, 1, 0], [0, 0, 0]])
    return F.conv2d(x, weight, padding=1)


CASES = {
    "without padding": Case(lambda p, x: p["conv"](x), lambda: {"conv": nn.Conv2d(5, 3, 3)}, 3, ("parts.conv.bias",)),
    "padding": Case(
        lambda p, x: p["conv"](x), lambda: {"conv": nn.Conv2d(5, 3, 3, padding=1)}, 5, (), "parts.conv pads it"
    ),
    "same": Case(
        lambda p, x: p["conv"](x), lambda: {"conv": nn.Conv2d(5, 3, 3, padding="same")}, 5, (), "parts.conv pads it"
    ),
    "stride and dilation": Case(
        lambda p, x: p["conv"](x), lambda: {"conv": nn.Conv2d(5, 3, 2, 2, dilation=2, bias=False)}, 3,
        ("parts.conv.bias",),
    ),
    "grouped": Case(
        lambda p, x: p["conv"](torch.cat((x, x), 1)), lambda: {"conv": nn.Conv2d(10, 4, 1, groups=2)}, 3,
        ("parts.conv.bias",),
    ),
    "norm behind": Case(
        lambda p, x: p["norm"](p["conv"](x)),
        lambda: {"conv": nn.Conv2d(5, 3, 1, bias=False), "norm": nn.BatchNorm2d(3)}, 3, ("parts.norm.running_mean",),
    ),
    "norm behind, but read twice": Case(
        lambda p, x: p["norm"](y := p["conv"](x)) + y,
        lambda: {"conv": nn.Conv2d(5, 3, 1, bias=False), "norm": nn.BatchNorm2d(3)}, 3, ("parts.conv.bias",),
    ),
    "shared layer": Case(
        lambda p, x: p["conv"](x) + p["conv"](x.sigmoid()), lambda: {"conv": nn.Conv2d(5, 3, 1)}, 3,
        ("parts.conv.bias_2", "parts.conv.bias"),
    ),
    "one output position": Case(
        lambda p, x: p["conv"](x), lambda: {"conv": nn.Conv2d(5, 3, 4)}, 3, ("parts.conv.bias",)
    ),
    "one output position, uneven": Case(
        lambda p, x: p["conv"](F.pad(x, (1, 1, 1, 1))), lambda: {"conv": nn.Conv2d(5, 3, 6)}, 3, ("parts.conv.bias",)
    ),
    "uneven": Case(
        lambda p, x: p["conv"](F.pad(x, (1, 1, 1, 1))), lambda: {"conv": nn.Conv2d(5, 3, 3)}, 5, (), "not the same at"
    ),
    "flatten": Case(lambda p, x: p["fc"](x.flatten(1)), lambda: {"fc": nn.Linear(80, 3)}, 3, ("parts.fc.bias",)),
    "uneven flatten": Case(
        lambda p, x: p["fc"](F.pad(x, (1, 0)).flatten(1)), lambda: {"fc": nn.Linear(100, 3, bias=False)}, 3,
        ("parts.fc.bias",),
    ),
    "tokens": Case(
        lambda p, x: p["fc"](x.flatten(2).transpose(1, 2)), lambda: {"fc": nn.Linear(5, 3)}, 3, ("parts.fc.bias",)
    ),
    "uneven tokens": Case(
        lambda p, x: p["fc"](F.pad(x, (1, 0)).flatten(2).transpose(1, 2)), lambda: {"fc": nn.Linear(5, 3)}, 5, (),
        "not the same at every position that parts.fc reads",
    ),
    "transposed": Case(
        lambda p, x: p["up"](x), lambda: {"up": nn.ConvTranspose2d(5, 3, 2, 2)}, 5, (), "parts.up pads it"
    ),
    "product": Case(
        lambda p, x: p["times"](x.mean((2, 3))), lambda: {"times": Product(False)}, 3, ("parts.times.bias",)
    ),
    "addmm": Case(
        lambda p, x: p["times"](x.mean((2, 3))), lambda: {"times": Product(True)}, 3, ("parts.times.bias_2",)
    ),
    "centre of the kernel": Case(centre, lambda: {"conv": nn.Conv2d(5, 3, 3)}, 3, ("conv2d_1.bias",)),
    "sum over channels": Case(
        lambda p, x: x.sum(1, keepdim=True) + p["conv"](x), lambda: {"conv": nn.Conv2d(5, 3, 1)}, 5, (), ""
    ),
    "slice with steps, which pins": Case(lambda p, x: p["conv"](x[:, ::4]), lambda: {"conv": nn.Conv2d(2, 3, 1)}, 5),
    "slice that leaves them out": Case(
        lambda p, x: p["conv"](x[:, 3:]), lambda: {"conv": nn.Conv2d(2, 3, 3, padding=1)}, 2
    ),
}  # fmt: skip


def program_of(case: Case) -> Program:
    program = capture(Reader(case.read, case.parts()), [InputSpec("x", (None, 2, 4, 4), "float64")])
    program.module.eval()
    return program


@torch.no_grad()
def checked(program: Program) -> Removal:
    """What was removed; integers, so equal to the last bit."""
    removed = remove_dead(program)
    random = torch.Generator().manual_seed(1)
    x = torch.randint(-2, 3, (3, *program.inputs[0].concrete(3)[1:]), generator=random).double()
    torch.testing.assert_close(removed.program.module(x), program.module(x), rtol=1e-13, atol=1e-13)
    return removed


@pytest.mark.parametrize("name", CASES)
def test_who_takes_over_a_constant(name: str) -> None:
    case = CASES[name]
    removed = checked(program_of(case))
    assert removed.program.parameters["first.weight"].shape[0] == case.n_left
    assert tuple(folded.into for folded in removed.folded) == case.into
    if case.reason:
        (kept,) = (kept for kept in removed.verdict.kept if kept.layer == "first")
        assert case.reason in kept.reason and kept.n_filters == len(CONSTANT)


@pytest.mark.parametrize("name", ["uneven", "uneven tokens"])
def test_twin_unevenness_that_is_not_looked_at_is_seen(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        readers.Constants, "differs_along", lambda self, dim: torch.zeros(self.sizes[dim], dtype=torch.bool)
    )
    with pytest.raises(AssertionError, match="not close"):
        checked(program_of(CASES[name]))


def test_the_bias_of_a_bare_parameter_is_named_beside_it() -> None:
    class Bare(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.matrix = nn.Conv2d(2, 5, 1), nn.Parameter(torch.ones(5, 3))
            self.double().eval()
            with torch.no_grad():
                self.first.weight[list(CONSTANT)] = 0

        def forward(self, x: Tensor) -> Tensor:
            return self.first(x).mean((2, 3)) @ self.matrix

    removed = checked(capture(Bare(), [InputSpec("x", (None, 2, 4, 4), "float64")]))
    assert [folded.into for folded in removed.folded] == ["matrix_bias"]
    assert removed.program.parameters["matrix_bias"].shape == (3,)


class Stream(nn.Module):
    """A residual stream with a layer norm; channel 1 is always 0 in it."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.layer, self.norm, self.end = nn.Linear(3, 6), nn.Linear(6, 6), nn.LayerNorm(6), nn.Linear(6, 2)
        self.double().eval()
        with torch.no_grad():
            for layer in (self.stem, self.layer):
                layer.weight[1], layer.bias[1] = 0, 0

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        return self.end(self.norm(x + self.layer(self.norm(x))))


@pytest.mark.parametrize(("shift", "n_left"), [(0.0, 5), (0.5, 6)])
def test_a_norm_lets_zeros_go_when_its_divisor_is_kept(shift: float, n_left: int) -> None:
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(0)
        net = Stream()
    with torch.no_grad():
        net.norm.bias[1] = shift
        net.norm.weight[1] = 0
        net.stem.bias[1] = shift
    program = capture(net, [InputSpec("x", (None, 3), "float64")])
    assert checked(program).program.parameters["stem.weight"].shape[0] == 6
    exact = program.replace(record=replace(Record(), walk={"through_norm": "exact"}))
    assert checked(exact).program.parameters["stem.weight"].shape[0] == n_left
