"""Networks that other tools have zeroed, without a mask: what is dead goes, and they compute what they did.

The recipes of EIDOSLab's `simplify` (random structured pruning of convolutions and norms through torch.nn.utils.prune),
what it gets wrong without a word (filters of zeros in front of norms that are alive), and what it cannot do.
"""

from __future__ import annotations

import importlib.util

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils import prune

from compressor.compaction import compact, removal
from compressor.errors import VerificationError
from compressor.models import build
from compressor.program import InputSpec, Program, capture

pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::DeprecationWarning")


def network(name: str) -> nn.Module:
    """A torchvision classifier of ten classes, in evaluation mode, with statistics and biases that are not trivial."""
    if importlib.util.find_spec("torchvision") is None:
        pytest.skip("torchvision is not installed")
    net = build(f"torchvision:{name}", {"num_classes": 10}, seed=0).module.eval()
    random = torch.Generator().manual_seed(1)
    for module in net.modules():
        if isinstance(module, nn.BatchNorm2d):
            assert module.running_mean is not None and module.running_var is not None
            module.running_mean.normal_(0, 0.2, generator=random)
            module.running_var.uniform_(0.5, 2, generator=random)
            nn.init.uniform_(module.weight, 0.5, 1.5, generator=random)
            nn.init.normal_(module.bias, 0, 0.3, generator=random)
        elif isinstance(module, (nn.Conv2d, nn.Linear)) and module.bias is not None:
            nn.init.normal_(module.bias, 0, 0.1, generator=random)
    return net


def zero_structured(net: nn.Module, kinds: tuple[type[nn.Module], ...], amount: float) -> None:
    """The recipe of simplify's own tests."""
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(2)
        for name, module in net.named_modules():
            if isinstance(module, kinds) and "classifier.1" not in name:
                if isinstance(module, nn.BatchNorm2d):  # its one dimension counts as no structure any more
                    prune.random_unstructured(module, "weight", amount=amount)
                else:
                    prune.random_structured(module, "weight", amount=amount, dim=0)
                prune.remove(module, "weight")


def captured(net: nn.Module, side: int = 32) -> Program:
    return capture(net, [InputSpec("x", (None, 3, side, side))])


@pytest.mark.parametrize("name", ["resnet18", "squeezenet1_1", "mobilenet_v3_small"])
def test_the_recipe_of_simplify(name: str) -> None:
    net = network(name)
    zero_structured(net, (nn.Conv2d, nn.BatchNorm2d), 0.8)
    x = torch.randn(16, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    program = captured(net, 64)
    small, report = compact(program, lowering="dense")
    assert report.n_units_removed > 0 and report.agreement is not None
    assert small.n_parameters < 0.6 * program.n_parameters and small.masks == {}
    with torch.no_grad():
        assert torch.equal(net(x).argmax(1), small.module(x).argmax(1))


@pytest.mark.parametrize("name", ["resnet18", "mobilenet_v2", "shufflenet_v2_x0_5"])
def test_filters_of_zeros_in_front_of_a_living_norm(name: str) -> None:
    net = network(name)
    zero_structured(net, (nn.Conv2d,), 0.4)
    small, report = compact(captured(net), lowering="dense")
    assert report.agreement is not None and report.agreement.float64_relative < 1e-12
    assert report.folded and report.removed > 0
    assert any("pads it with zeros" in kept.reason or "not the same" in kept.reason for kept in report.kept)
    assert len(small.parameters) >= len(dict(net.named_parameters()))


def test_twin_constants_of_living_norms_that_are_dropped_are_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    net = network("shufflenet_v2_x0_5")
    zero_structured(net, (nn.Conv2d,), 0.4)
    monkeypatch.setattr(removal, "fold_removed", lambda sliced, units, verdict, exact: (sliced, (), exact))
    with pytest.raises(VerificationError, match="masked and compact model differ"):
        compact(captured(net), lowering="dense")


class Attention(nn.Module):
    """Tokens of 8 features, two heads of 4; features i and i + 4 of a projection are one unit."""

    def __init__(self) -> None:
        super().__init__()
        self.q, self.k, self.v, self.out = (nn.Linear(8, 8) for _ in range(4))
        self.norm = nn.LayerNorm(8)
        with torch.no_grad():
            for layer, position, bias in ((self.v, 1, 0.5), (self.q, 0, 0.0), (self.k, 3, 0.7), (self.q, 2, 0.9)):
                layer.weight[[position, position + 4]] = 0
                layer.bias[[position, position + 4]] = bias

    def forward(self, x: Tensor) -> Tensor:
        y = self.norm(x)
        q, k, v = (part(y).view(-1, 5, 2, 4).transpose(1, 2) for part in (self.q, self.k, self.v))
        y = F.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(-1, 5, 8)
        return x + self.out(y)


def test_attention_loses_what_softmax_and_projection_do_not_need() -> None:
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(0)
        program = capture(Attention().eval(), [InputSpec("x", (None, 5, 8))])
    small, report = compact(program)
    parameters = small.parameters
    # Values: one constant feature, which the output projection's bias takes over.
    assert parameters["v.weight"].shape == (6, 8) and parameters["out.weight"].shape == (8, 6)
    assert [(folded.layer, folded.into) for folded in report.folded] == [("out", "out.bias")]
    # Queries and keys: a query of 0 adds nothing, a key that is the same everywhere shifts what softmax forgets; a
    # constant query still weighs living keys.
    assert parameters["q.weight"].shape == parameters["k.weight"].shape == (4, 8)
    assert [(kept.layer, kept.n_filters) for kept in report.kept] == [("q", 2)]


class Split(nn.Module):
    """Halves that are concatenated the other way round, shuffled, and read by two convolutions."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.depth = nn.Conv2d(3, 8, 1), nn.Conv2d(4, 4, 3, groups=4)
        self.norm, self.left, self.right = nn.BatchNorm2d(8), nn.Conv2d(8, 3, 1), nn.Conv2d(8, 2, 1)
        with torch.no_grad():
            nn.init.normal_(self.norm.bias)
            self.first.weight[[1, 5, 6]] = 0

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        a, b = self.norm(self.first(x)).sigmoid().chunk(2, 1)
        y = torch.cat((b[:, :, 1:-1, 1:-1], self.depth(a)), 1)
        n, _, height, width = y.shape
        y = y.view(n, 2, 4, height, width).transpose(1, 2).reshape(n, 8, height, width)
        return self.left(y), self.right(y.flip(1))


def test_concatenated_shuffled_halves() -> None:
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(0)
        program = capture(Split().eval(), [InputSpec("x", (None, 3, 6, 6))])
    small, report = compact(program)
    # The shuffle makes one unit of channels i and i + 4: 1 and 5 go, 6 stays with 2.
    assert report.n_units_removed == 1 and small.parameters["first.weight"].shape[0] == 6
    assert [(kept.layer, kept.n_filters) for kept in report.kept] == [("first", 1)]
    assert {folded.layer for folded in report.folded} == {"left", "right"}


def test_a_network_without_zeros_is_left_as_it_is() -> None:
    net = network("shufflenet_v2_x0_5")
    program = captured(net)
    _, report = compact(program, allow_noop=True)
    assert report.removed == 0 and report.zeroed == 0 and not (report.folded or report.kept or report.branches)
