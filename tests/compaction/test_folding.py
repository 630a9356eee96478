"""Zeroed filters and inputs around every activation, pooling and padding: gone where that is exact, kept where not.

All combinations stand side by side in one network, so that they are captured once.
"""

from __future__ import annotations

from itertools import product

import pytest
import torch
from torch import Tensor, nn

from compressor.compaction import compact, folding, readers, transfer_contract
from compressor.compaction.removal import Removal, remove_dead
from compressor.errors import VerificationError
from compressor.program import InputSpec, Program, capture

ACTIVATIONS = {
    "none": nn.Identity, "relu": nn.ReLU, "sigmoid": nn.Sigmoid, "gelu": nn.GELU, "hardswish": nn.Hardswish,
    "tanh": nn.Tanh,
}  # fmt: skip
POOLS = {"none": nn.Identity, "max": lambda: nn.MaxPool2d(2), "avg": lambda: nn.AvgPool2d(2)}
EXACT = ("none", "relu")
"""Activations that make integers of integers, so that nothing rounds."""

GONE = (1, 4)


class Combinations(nn.Module):
    """conv -> (norm) -> activation -> pool -> conv, once for each combination; integer weights."""

    def __init__(self, norm: bool) -> None:
        super().__init__()
        random = torch.Generator().manual_seed(0)
        self.parts = nn.ModuleDict()
        for padding, bias, activation, pool in product((0, 1), (True, False), ACTIVATIONS, POOLS):
            first = nn.Conv2d(2, 6, 3, padding=padding, bias=bias)
            middle = nn.BatchNorm2d(6, eps=1.0) if norm else nn.Identity()
            second = nn.Conv2d(6, 3, 3, padding=padding, bias=bias)
            parts = nn.Sequential(first, middle, ACTIVATIONS[activation](), POOLS[pool](), second)
            self.parts[f"{padding} {bias} {activation} {pool}".replace(" ", "_")] = parts
        self.double().eval()
        for parameter in self.parameters():
            parameter.data.copy_(torch.randint(1, 4, parameter.shape, generator=random))
        for module in self.modules():
            if isinstance(module, nn.BatchNorm2d):
                assert module.running_mean is not None and module.running_var is not None
                module.running_mean.copy_(torch.randint(-3, 1, (6,), generator=random))
                module.running_var.fill_(3.0)  # var + eps is 4
                module.weight.data.mul_(2)

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        return {name: part(x) for name, part in self.parts.items()}


@pytest.fixture(scope="module", params=[False, True], ids=["plain", "norm"])
def whole(request: pytest.FixtureRequest) -> Program:
    return capture(Combinations(request.param), [InputSpec("x", (None, 2, 9, 9), "float64")])


@torch.no_grad()
def zeroed(whole: Program, which: str) -> Program:
    """Filters 1 and 4 of each first convolution, or what reads them in the second one, hold only zeros."""
    program = whole.clone()
    program.module.eval()
    for name, weight in program.parameters.items():
        if which == "filters" and name.endswith(".0.weight"):
            weight[list(GONE)] = 0
        if which == "inputs" and name.endswith(".4.weight"):
            weight[:, list(GONE)] = 0
    return program


@torch.no_grad()
def differences(before: Program, after: Program) -> dict[str, float]:
    """The largest difference of each combination, relative to its largest output; exactly 0 where integers allow."""
    random = torch.Generator().manual_seed(1)
    x = torch.randint(-2, 3, (3, 2, 9, 9), generator=random).double()
    left, right = before.module(x), after.module(x)
    found = {}
    for name, expected in left.items():
        if name.split("_")[2] in EXACT:
            found[name] = 0.0 if torch.equal(expected, right[name]) else 1.0
        else:
            found[name] = float((expected - right[name]).abs().max() / expected.abs().max())
    return found


def widths(removed: Removal) -> dict[str, int]:
    """Filters that the first convolution of each combination has left."""
    parameters = removed.program.parameters
    return {
        name.split(".")[1]: len(weight)
        for name, weight in parameters.items()
        if name.startswith("parts.") and name.endswith(".0.weight")
    }


@pytest.mark.parametrize("which", ["filters", "inputs"])
def test_every_combination_computes_what_it_did(whole: Program, which: str) -> None:
    program = zeroed(whole, which)
    removed = remove_dead(program)
    found = differences(program, removed.program)
    assert len(found) == 72
    assert {name: off for name, off in found.items() if not off <= 1e-12} == {}


def test_inputs_that_are_not_read_go_everywhere(whole: Program) -> None:
    assert set(widths(remove_dead(zeroed(whole, "inputs"))).values()) == {4}


def test_constant_channels_go_where_no_padding_meets_them(whole: Program) -> None:
    removed = remove_dead(zeroed(whole, "filters"))
    left = widths(removed)
    has_norm = any(name.endswith(".1.weight") for name in whole.parameters)
    for name, n_filters in left.items():
        padding, bias, activation, _ = name.split("_")
        # Without bias and norm the channel is 0, and sigmoid is the only one here that makes something of it.
        is_zero = not has_norm and bias == "False" and activation != "sigmoid"
        assert n_filters == (4 if padding == "0" or is_zero else 6), name
    reasons = {kept.reason for kept in removed.verdict.kept}
    assert reasons and all("pads it with zeros" in reason for reason in reasons)
    assert sum(kept.n_filters for kept in removed.verdict.kept) == sum(6 - 4 for n in left.values() if n == 6)


def test_a_reader_without_bias_gets_one_and_one_with_bias_keeps_its_own(whole: Program) -> None:
    removed = remove_dead(zeroed(whole, "filters"))
    into = {folded.into for folded in removed.folded}
    assert "parts.0_True_relu_none.4.bias" in into and "parts.0_False_sigmoid_none.4.bias" in into
    assert "parts.0_False_sigmoid_none.4.bias" not in whole.parameters
    assert isinstance(removed.program.parameters["parts.0_False_sigmoid_none.4.bias"], nn.Parameter)


def test_twin_a_constant_that_is_dropped_is_seen(whole: Program, monkeypatch: pytest.MonkeyPatch) -> None:
    right = folding.added_by
    monkeypatch.setattr(folding, "added_by", lambda reading, channels: right(reading, channels) * 0)
    program = zeroed(whole, "filters")
    found = differences(program, remove_dead(program).program)
    assert found["0_True_relu_none"] == 1.0 and found["0_True_sigmoid_max"] > 1e-3


def test_twin_a_border_that_is_not_looked_at_is_seen(whole: Program, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(readers, "_reads_padding", lambda *given: None)
    program = zeroed(whole, "filters")
    found = differences(program, remove_dead(program).program)
    assert found["1_True_relu_none"] == 1.0 and found["0_True_relu_none"] == 0.0


class Edges(nn.Module):
    """A Sobel filter, whose weights add up to 0, beside one that is really 0."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(1, 3, 3), nn.Conv2d(3, 2, 1)
        self.double().eval()
        with torch.no_grad():
            sobel = torch.tensor([[1.0, 0, -1], [2, 0, -2], [1, 0, -1]])
            self.first.weight.copy_(torch.stack((sobel, sobel * 0, sobel.T))[:, None])
            self.second.weight[:, 2] = torch.tensor([1.0, -1.0]).reshape(2, 1, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.second(self.first(x).relu())


def edges() -> Program:
    return capture(Edges(), [InputSpec("x", (None, 1, 8, 8), "float64")])


def test_a_sobel_filter_stays() -> None:
    small, report = compact(edges())
    assert small.parameters["first.weight"].shape == (2, 1, 3, 3)
    assert torch.equal(small.parameters["first.weight"], edges().parameters["first.weight"][[0, 2]])
    assert report.n_units_removed == 1


def test_twin_filters_that_are_judged_by_their_sum_are_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    def by_sum(node: torch.fx.Node, a: dict[str, object]) -> Tensor:
        weight = a["weight"]
        assert isinstance(weight, readers.Constants)
        return (weight.value.flatten(2).sum(2) != 0)[None]

    for module in (readers, transfer_contract):
        monkeypatch.setattr(module, "reads_of", by_sum)
    with pytest.raises(VerificationError, match="masked and compact model differ"):
        compact(edges())


def test_an_eval_program_is_not_written_to(whole: Program) -> None:
    program = zeroed(whole, "filters")
    before = {name: tensor.clone() for name, tensor in program.module.tensors().items()}
    code = program.module.code
    remove_dead(program)
    assert program.module.code == code
    assert all(torch.equal(tensor, before[name]) for name, tensor in program.module.tensors().items())


def test_only_channels_that_add_something_are_told() -> None:
    """Of three filters of zeros two have a bias, and one of these is negative before a relu: one constant is left."""
    first, second = nn.Conv2d(1, 5, 1), nn.Conv2d(5, 2, 1)
    with torch.no_grad():
        first.weight[:3] = 0
        assert first.bias is not None
        first.bias[:3] = torch.tensor([2.0, 0.0, -1.0])
    removed = remove_dead(capture(nn.Sequential(first, nn.ReLU(), second), [InputSpec("x", (None, 1, 4, 4))]))
    assert [(folded.layer, folded.n_channels, folded.into) for folded in removed.folded] == [("2", 1, "2.bias")]
