"""Operators between two convolutions: the first one's filters go exactly, and a rule that is wrong is caught.

The twin of every rule: its labels are turned by one position, or, where nothing of it goes on, it unites nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchmarks.zoo import make_difficult, random_keep, removal_error, train_one_step
from compressor.axes import UnitMap, Value, find_units
from compressor.axes.ids import IdSpace
from compressor.axes.table import RULES
from compressor.compaction import compact
from compressor.errors import ModelError
from compressor.program import InputSpec, Program, capture
from compressor.sparsity import apply_masks, mask_units
from tests.axes.tracing import trace

aten = torch.ops.aten


class Between(nn.Module):
    def __init__(self, operator: Callable[[Any, Tensor], Any]) -> None:
        super().__init__()
        self.a, self.b = nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8, 4, 1)
        self.w, self.v = nn.Parameter(torch.rand(8)), nn.Parameter(torch.rand(8, 5))
        self.two, self.features, self.c = nn.Bilinear(8, 8, 6), nn.Linear(8, 32), nn.Conv2d(8, 8, 1)
        self.deep = nn.ConvTranspose2d(8, 8, 2, stride=2, groups=8)
        self.wide = nn.ConvTranspose2d(8, 16, 2, stride=2, groups=8)
        self.from_wide = nn.Conv2d(16, 8, 1)
        self.register_buffer("grid", torch.rand(1, 6, 6, 2) * 2 - 1)
        self.register_buffer("places", torch.tensor([0, 2, 1, 5]))
        self.operator = operator

    def forward(self, x: Tensor) -> Any:
        y = self.operator(self, self.a(x))
        return self.b(y) if isinstance(y, Tensor) and y.dim() == 4 else y


def tokens(y: Tensor) -> Tensor:
    return y.flatten(2).transpose(1, 2)


def index(m: Any, y: Tensor, width: int = 8) -> Tensor:
    return m.places.view(1, 1, 4, 1).expand(y.shape[0], width, 4, 6)


def best(y: Tensor) -> Tensor:
    """The four tokens of the largest sum of squares, gathered."""
    t = tokens(y)
    chosen = t.norm(dim=-1).topk(4, 1)[1].unsqueeze(-1)
    return t.gather(1, chosen.expand(-1, -1, 8)).transpose(1, 2).unsqueeze(-1)


OPERATORS: dict[str, tuple[Any, Callable[[Any, Tensor], Any]]] = {
    "grid_sample": (
        aten.grid_sampler.default,
        lambda m, y: F.grid_sample(y, m.grid.expand(y.shape[0], -1, -1, -1), align_corners=False),
    ),
    "max_unpool2d": (
        aten.max_unpool2d.default,
        lambda m, y: F.max_unpool2d(*F.max_pool2d(y, 2, return_indices=True), 2),  # type: ignore[misc]
    ),
    "scatter_add": (
        aten.scatter_add.default,
        lambda m, y: torch.zeros_like(y).scatter_add(2, index(m, y), y[:, :, :4]),
    ),
    "scatter of a number": (aten.scatter.value, lambda m, y: y.scatter(2, index(m, y), 2.0)),
    "scatter of a part of the channels": (
        aten.scatter.src,
        lambda m, y: torch.cat([y[:, :4].scatter(2, index(m, y, 4), y[:, 4:, :4]), y[:, :4]], 1),
    ),
    "scatter_reduce": (
        aten.scatter_reduce.two,
        lambda m, y: y.scatter_reduce(2, index(m, y), y[:, :, :4], "amax"),
    ),
    "index_add": (aten.index_add.default, lambda m, y: torch.zeros_like(y).index_add(2, m.places, y[:, :, :4])),
    "index_copy": (aten.index_copy.default, lambda m, y: y.index_copy(2, m.places, y[:, :, :4] * 2)),
    "gather by an expanded index": (aten.gather.default, lambda m, y: y.gather(2, index(m, y))),
    "gather by a repeated index": (
        aten.gather.default,
        lambda m, y: y.gather(2, m.places.view(1, 1, 4, 1).expand(y.shape[0], 1, 4, 6).repeat(1, 8, 1, 1)),
    ),
    "gather of the best tokens": (aten.gather.default, lambda m, y: best(y)),
    "take_along_dim": (
        aten.take_along_dim.default,
        lambda m, y: torch.take_along_dim(y, m.places.view(1, 1, 4, 1), dim=2),
    ),
    "vdot": (aten.vdot.default, lambda m, y: (y * m.w.view(1, 8, 1, 1)) * torch.vdot(m.w, m.v[:, 0])),
    "inner": (aten.inner.default, lambda m, y: torch.inner(tokens(y), m.v.t())),
    "inner with a number": (aten.inner.default, lambda m, y: torch.inner(y, m.w.sum())),
    "linalg_matmul": (aten.linalg_matmul.default, lambda m, y: torch.linalg.matmul(tokens(y), m.v)),
    "addmv": (aten.addmv.default, lambda m, y: torch.addmv(m.v.sum(0), m.v.t(), m.w) + y.mean((2, 3)) @ m.v),
    "addbmm": (
        aten.addbmm.default,
        lambda m, y: (
            y
            * torch.addbmm(m.v, y.flatten(2), y.sum(1).flatten(1)[:, :, None].expand(-1, -1, 5)).sum(1).view(1, 8, 1, 1)
        ),
    ),
    "tensordot": (aten.tensordot.default, lambda m, y: torch.tensordot(y, m.v, dims=([1], [0])).flatten(1)),
    "bilinear": (aten.bilinear.default, lambda m, y: m.two(tokens(y), tokens(m.c(y)))),
    "outer": (aten.outer.default, lambda m, y: y * torch.outer(m.w, m.w).sum(1).view(1, 8, 1, 1)),
    "cosine_similarity": (aten.cosine_similarity.default, lambda m, y: F.cosine_similarity(y, m.c(y), dim=1)),
    "cosine_similarity over space": (
        aten.cosine_similarity.default,
        lambda m, y: F.cosine_similarity(y.flatten(2), m.c(y).flatten(2), dim=2) @ m.v,
    ),
    "cdist": (aten.cdist.default, lambda m, y: torch.cdist(tokens(y), tokens(m.c(y)))),
    "rot90 of space": (aten.rot90.default, lambda m, y: torch.rot90(y, 1, (2, 3))),
    "rot90 of channels": (aten.rot90.default, lambda m, y: torch.rot90(y.mean(3), 1, (1, 2)) @ m.v),
    "diff": (aten.diff.default, lambda m, y: y.diff(dim=2)),
    "nearest-exact": (
        aten._upsample_nearest_exact2d.vec,
        lambda m, y: F.interpolate(y, scale_factor=2.0, mode="nearest-exact"),
    ),
    "antialiased": (
        aten._upsample_bilinear2d_aa.vec,
        lambda m, y: F.interpolate(y, size=(4, 4), mode="bilinear", antialias=True),
    ),
    "unfold": (
        aten.im2col.default,
        lambda m, y: F.unfold(y, 3, padding=1).view(y.shape[0], 8, 9, 6, 6).mean(2),
    ),
    "unfold and fold": (
        aten.col2im.default,
        lambda m, y: F.fold(F.unfold(y, 2, stride=2), (6, 6), 2, stride=2),
    ),
    "cumprod": (aten.cumprod.default, lambda m, y: y.cumprod(2)),
    "einsum with an ellipsis": (aten.einsum.default, lambda m, y: torch.einsum("...chw,cf->...hwf", y, m.v).flatten(1)),
    "depthwise transposed convolution": (aten.conv_transpose2d.input, lambda m, y: m.deep(y)),
    "two filters for every transposed channel": (
        aten.conv_transpose2d.input,
        lambda m, y: m.from_wide(m.wide(y)),
    ),
    "features made maps": (
        aten.reshape.default,
        lambda m, y: m.features(y.mean((2, 3))).reshape(-1, 8, 2, 2),
    ),
    "maxout": (aten.amax.default, lambda m, y: y.view(-1, 4, 2, 6, 6).amax(2).repeat_interleave(2, 1)),
}


def made(name: str) -> Program:
    torch.manual_seed(0)
    program = capture(Between(OPERATORS[name][1]), [InputSpec("x", (None, 3, 6, 6))])
    make_difficult(program, zero_biases=False)
    return program


def has_rule(program: Program, target: Any) -> bool:
    return any(node.target == target for node in program.module.graph.nodes)


def worst(program: Program, units: UnitMap) -> float:
    return max(removal_error(program, units, random_keep(units, seed=seed), torch.float64)[0] for seed in range(3))


@pytest.mark.parametrize("name", OPERATORS)
def test_filters_go_exactly(name: str) -> None:
    program = made(name)
    assert has_rule(program, OPERATORS[name][0]), [str(node.target) for node in program.module.graph.nodes]
    units = find_units(program)
    assert not units.walk.unknown
    assert (units.axes["a.weight", 0] >= 0).all(), units.pin_at.get(("a.weight", 0))
    assert worst(program, units) <= 1e-12
    keep = random_keep(units)
    masked = program.clone().replace(masks=mask_units(program.module, units, keep))
    apply_masks(masked.module, masked.masks)
    train_one_step(compact(masked)[0])


def turned(value: Any) -> Any:
    """The labels of a result with every position of the last dimension that they have one place further."""
    if isinstance(value, tuple):
        return tuple(turned(part) for part in value)
    if not isinstance(value, Value):
        return value
    return replace(value, labels=tuple(replace(x, ids=np.roll(x.ids, 1, axis=-1)) for x in value.labels))


def free(units: UnitMap, value: Any) -> bool:
    """Whether some unit goes on in a result."""
    if isinstance(value, tuple):
        return any(free(units, part) for part in value)
    return isinstance(value, Value) and any((units.of_ids(label.ids) >= 0).any() for label in value.labels)


@pytest.mark.parametrize("name", OPERATORS)
def test_twin_a_wrong_rule_is_caught(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    target, _ = OPERATORS[name]
    program, right, unite = made(name), RULES[target], IdSpace.unite
    nodes = {node.name for node in program.module.graph.nodes if node.target == target}
    known = find_units(program)
    if any(free(known, known.walk.values[node]) for node in nodes):
        monkeypatch.setitem(RULES, target, lambda ctx, node, a: turned(right(ctx, node, a)))
    else:
        monkeypatch.setattr(
            IdSpace, "unite", lambda self, a, b, node: None if node in nodes else unite(self, a, b, node)
        )
    units = find_units(program)
    try:
        caught = worst(program, units) > 1e-6
    except (ModelError, RuntimeError, ArithmeticError):
        caught = True
    assert caught


def test_a_shorter_index_reaches_a_part_of_the_channels_and_pins_them() -> None:
    torch.manual_seed(0)

    def part(m: Any, y: Tensor) -> Tensor:
        return y.gather(2, index(m, y, 4)).repeat(1, 2, 1, 1)

    units = find_units(capture(Between(part), [InputSpec("x", (None, 3, 6, 6))]))
    assert (units.axes["a.weight", 0] < 0).all()
    assert "a part of this dimension" in units.pin_at["a.weight", 0].reason


def test_a_number_that_is_scattered_over_channels_is_no_zero() -> None:
    """What is summed over them then may not go."""
    torch.manual_seed(0)

    def summed(m: Any, y: Tensor) -> Tensor:
        return y.scatter(2, index(m, y), 2.0).sum(1)

    units = find_units(capture(Between(summed), [InputSpec("x", (None, 3, 6, 6))]))
    assert "passes a sum over 8 positions" in units.pin_at["a.weight", 0].reason


@pytest.mark.filterwarnings("ignore::FutureWarning")
@pytest.mark.parametrize("new", [False, True])
def test_weight_norm_is_folded_and_told(new: bool) -> None:
    torch.manual_seed(0)
    norm = nn.utils.parametrizations.weight_norm if new else nn.utils.weight_norm
    shared = norm(nn.Conv2d(8, 8, 3, padding=1))
    net = nn.Sequential(
        norm(nn.Conv2d(3, 8, 3)), nn.ReLU(), shared, nn.ReLU(), shared, norm(nn.ConvTranspose2d(8, 4, 2))
    )
    program = capture(net, [InputSpec("x", (None, 3, 8, 8))])
    assert {"0.weight", "2.weight", "5.weight"} <= set(program.parameters) and len(program.parameters) == 6
    assert any("weight norm is folded" in note for note in program.record.notes)
    units = find_units(program)
    assert (units.axes["0.weight", 0] >= 0).all() and worst(program, units) <= 1e-12


def test_spectral_norm_as_a_parametrization_is_exact() -> None:
    torch.manual_seed(0)
    norm = nn.utils.parametrizations.spectral_norm
    net = nn.Sequential(norm(nn.Conv2d(3, 8, 3)), nn.ReLU(), norm(nn.Conv2d(8, 6, 3)), nn.Flatten(), nn.Linear(96, 2))
    program = capture(net.eval(), [InputSpec("x", (None, 3, 8, 8))])
    units = find_units(program)
    assert (units.axes["0.parametrizations.weight.original", 0] >= 0).all()
    assert worst(program, units) <= 1e-12


@pytest.mark.parametrize(
    ("operator", "reason"),
    [
        (lambda m, y: y + torch.trapezoid(m.v, dim=1).view(1, 8, 1, 1) * 1, "no axis rule for aten.trapezoid"),
        (
            lambda m, y: torch.cat([y[:, :4], torch.bucketize(y, m.w).float()[:, :4]], 1),
            "no axis rule for aten.bucketize",
        ),
    ],
)
def test_a_pin_names_what_stands_behind_the_value_that_it_meets(operator: Any, reason: str) -> None:
    torch.manual_seed(0)
    units = find_units(capture(Between(operator), [InputSpec("x", (None, 3, 6, 6))]))
    assert reason in units.pin_at["a.weight", 0].reason


def test_a_pin_names_the_input_that_it_meets() -> None:
    class Masked(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b = nn.Linear(6, 8), nn.Linear(8, 4)

        def forward(self, x: Tensor, mask: Tensor) -> Tensor:
            return self.b(self.a(x) * mask)

    inputs = [InputSpec("x", (None, 5, 6)), InputSpec("mask", (None, 5, 8))]
    pin = find_units(capture(Masked(), inputs)).pin_at["a.weight", 0]
    assert pin.reason.endswith("no units along this dimension: it comes from an input of the network")


@pytest.mark.parametrize(("left", "right"), [((2, 4, 5), (5, 6)), ((4, 5), (2, 5, 6)), ((3, 2, 4, 5), (2, 5, 6))])
def test_batches_of_different_ranks_meet_from_the_right(left: tuple[int, ...], right: tuple[int, ...]) -> None:
    """Rows of both factors pass to where they are in the product, whichever has more dimensions in front."""
    for multiply, turned in ((torch.linalg.matmul, False), (torch.cdist, True)):
        x, y = nn.Parameter(torch.randn(left)), nn.Parameter(torch.randn(right))
        traced = trace(
            lambda net, z, multiply=multiply, turned=turned: net.end(
                multiply(net.x, net.y.transpose(-1, -2) if turned else net.y) + z.sum()
            ),
            (3,), x=x, y=y, end=nn.Linear(6, 2),
        )  # fmt: skip
        assert traced.along("y", len(right) - 1) == traced.along("end.weight", 1), multiply
        assert len(set(traced.along("y", len(right) - 1)) - {-1}) == 6, multiply


def test_outputs_of_a_bilinear_layer_are_0_where_they_are_cut() -> None:
    traced = trace(
        lambda net, x: net.end(net.two(net.a(x), net.b(x)).sum(-1, keepdim=True)),
        (3,), a=nn.Linear(3, 4), b=nn.Linear(3, 5), two=nn.Bilinear(4, 5, 6), end=nn.Linear(1, 2),
    )  # fmt: skip
    assert len(set(traced.along("two.weight", 0)) - {-1}) == 6
    assert traced.along("two.weight", 0) == traced.along("two.bias", 0)
