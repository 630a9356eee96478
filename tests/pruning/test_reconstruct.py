"""Least squares after a cut: every kind of layer, tokens, and that what can be made good is made good."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from compressor.data.arrays import Arrays, ArraySource
from compressor.errors import DataError, UsageError
from compressor.program import InputSpec, Program, capture
from compressor.pruning.reconstruct import reconstruct
from compressor.sparsity import apply_masks

Forward = Callable[[Any, Tensor], Tensor]


class Net(nn.Module):
    def __init__(self, forward: Forward, parts: dict[str, nn.Module]) -> None:
        super().__init__()
        for name, part in parts.items():
            self.add_module(name, part)
        self._forward = forward

    def forward(self, x: Tensor) -> Tensor:
        return self._forward(self, x)


def program(forward: Forward, shape: tuple[int, ...], **parts: nn.Module) -> Program:
    torch.manual_seed(0)
    for part in parts.values():
        part.reset_parameters()  # type: ignore[operator]
    return capture(Net(forward, parts), [InputSpec("x", (None, *shape))])


def source(shape: tuple[int, ...], n: int = 64) -> ArraySource:
    random = torch.Generator().manual_seed(1)
    x = torch.randn(n, *shape, generator=random)
    return ArraySource("noise", Arrays(x, torch.zeros(n)), Arrays(x, torch.zeros(n)), None)


def cut(dense: Program, **masks: Tensor) -> Program:
    pruned = dense.clone()
    named = {name.replace("__", "."): mask for name, mask in masks.items()}
    apply_masks(pruned.module, named)
    return pruned.replace(masks=named)


def away(pruned: Program, dense: Program, data: ArraySource) -> float:
    x = data.val.inputs
    with torch.no_grad():
        wanted = dense.module.eval()(x)
        return float((pruned.module.eval()(x) - wanted).norm() / wanted.norm())


def test_a_channel_that_is_a_copy_of_another_costs_nothing() -> None:
    dense = program(
        lambda net, x: net.two(net.one(x).relu()), (2, 7, 7), one=nn.Conv2d(2, 4, 3), two=nn.Conv2d(4, 3, 3, padding=1)
    )
    with torch.no_grad():
        for name in ("one.weight", "one.bias"):
            dense.parameters[name][3] = 2 * dense.parameters[name][0]
    keep = torch.tensor([True, True, True, False])
    pruned = cut(
        dense,
        one__weight=keep[:, None, None, None].expand(4, 2, 3, 3), one__bias=keep,
        two__weight=keep[None, :, None, None].expand(3, 4, 3, 3),
    )  # fmt: skip
    data = source((2, 7, 7))
    before = away(pruned, dense, data)
    done = reconstruct(pruned, dense, data, n_batches=2, batch_size=32, ridge=1e-7)
    assert before > 0.1 and away(pruned, dense, data) < 1e-3
    assert done.before["two"] > 0.1 > 1e-3 > done.after["two"] and not done.skipped
    for name, mask in pruned.masks.items():
        assert not pruned.parameters[name].detach()[~mask].any(), "what is cut stays cut"


LAYERS: dict[str, tuple[Forward, tuple[int, ...], dict[str, nn.Module]]] = {
    "linear": (lambda net, x: net.two(net.one(x).relu()), (6,), {"one": nn.Linear(6, 8), "two": nn.Linear(8, 3)}),
    "tokens": (
        lambda net, x: net.two(net.one(x).relu()), (5, 6), {"one": nn.Linear(6, 8), "two": nn.Linear(8, 3, bias=False)}
    ),
    "strided": (
        lambda net, x: net.two(net.one(x).relu()), (2, 9, 8),
        {"one": nn.Conv2d(2, 8, 3), "two": nn.Conv2d(8, 3, (3, 2), stride=2, padding=(1, 0), dilation=(2, 1))},
    ),
    "grouped": (
        lambda net, x: net.two(net.one(x).relu()), (2, 6, 6),
        {"one": nn.Conv2d(2, 8, 3), "two": nn.Conv2d(8, 4, 3, groups=2)},
    ),
    "same": (
        lambda net, x: net.two(net.one(x).relu()), (2, 6, 6),
        {"one": nn.Conv2d(2, 8, 3), "two": nn.Conv2d(8, 4, (2, 3), padding="same")},
    ),
    "product": (
        lambda net, x: net.one(x).relu() @ net.two.weight, (5, 6), {"one": nn.Linear(6, 8), "two": nn.Linear(3, 8)}
    ),
    "conv1d": (
        lambda net, x: net.two(net.one(x).relu()), (2, 12),
        {"one": nn.Conv1d(2, 8, 3), "two": nn.Conv1d(8, 4, 3, stride=2, padding=2, dilation=2)},
    ),
}  # fmt: skip


@pytest.mark.parametrize("kind", LAYERS)
def test_every_kind_of_layer_is_fitted(kind: str) -> None:
    forward, shape, parts = LAYERS[kind]
    dense, data = program(forward, shape, **parts), source(shape)
    weight = dense.parameters["two.weight"]
    random = torch.rand(weight.shape, generator=torch.Generator().manual_seed(0))
    pruned = cut(dense, two__weight=random > 0.4)
    before = away(pruned, dense, data)
    done = reconstruct(pruned, dense, data, n_batches=2, batch_size=32)
    after = away(pruned, dense, data)
    assert list(done.after) == ["two"], "what reads the same as before is left alone"
    assert after < 0.9 * before and done.after["two"] < done.before["two"]
    assert done.after["two"] == pytest.approx(after, rel=0.2), "the error that is told is the error"


class Words(nn.Module):
    """Token by token, or along time."""

    def __init__(self) -> None:
        super().__init__()
        self.table, self.up, self.flat = nn.Embedding(16, 8), nn.Linear(8, 12), nn.Parameter(torch.randn(12, 8))
        self.time, self.bias = nn.Conv1d(8, 8, 1), nn.Parameter(torch.zeros(8))

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        x = self.up(self.table(input_ids)).relu() * (1 + 0 * attention_mask.unsqueeze(-1))
        x = torch.addmm(self.bias, x.reshape(-1, 12), self.flat).reshape(*input_ids.shape, 8)
        return self.time(x.transpose(1, 2).relu())


class Padded(ArraySource):
    """Its second input is a mask that hides the last four of seven tokens."""

    def batches(self, split: Any, batch_size: int, **options: Any) -> Any:
        for batch in super().batches(split, batch_size, **options):
            mask = (torch.arange(7) < 3).long().expand(len(batch.inputs[0]), 7)
            yield batch._replace(inputs=(batch.inputs[0], mask))


def test_padding_is_no_equation() -> None:
    """What the hidden tokens are changes nothing; where nobody says that they are hidden it changes every layer."""
    torch.manual_seed(0)
    names = (("input_ids", 16), ("attention_mask", 2))
    dense = capture(Words().eval(), [InputSpec(name, (None, 7), dtype="int64", high=high) for name, high in names])
    ids = torch.randint(16, (64, 7))
    other = ids.clone()
    other[:, 3:] = 1
    unsaid = dense.replace(inputs=(dense.inputs[0], replace(dense.inputs[1], name="mask")))
    random = torch.Generator().manual_seed(2)
    layers = {"up.weight": "up", "flat": "flat", "time.weight": "time"}
    masks = {name: torch.rand(dense.parameters[name].shape, generator=random) > 0.4 for name in layers}
    for told, are_equal in ((dense, True), (unsaid, False)):
        weights: list[dict[str, Tensor]] = []
        for x in (ids, other):
            data = Padded("words", *(Arrays(x, torch.zeros(64)) for _ in range(2)), None)
            pruned = cut(told, **masks)
            done = reconstruct(pruned, told, data, n_batches=1)  # type: ignore[arg-type]
            assert set(done.after) == set(layers.values())
            assert all(done.after[name] < done.before[name] for name in done.after)
            weights.append({name: pruned.parameters[name].detach().clone() for name in layers})
        assert [torch.equal(weight, weights[1][name]) for name, weight in weights[0].items()] == [are_equal] * 3


def test_batches_add_up_to_the_same_equations() -> None:
    """However many samples run together, and wherever the graph is cut."""
    dense, data = program(*LAYERS["strided"][:2], **LAYERS["strided"][2]), source((2, 9, 8))
    keep = torch.rand(dense.parameters["two.weight"].shape, generator=torch.Generator().manual_seed(0)) > 0.4
    answers = []
    for n_batches, batch_size in ((1, 64), (4, 16), (8, 8)):
        pruned = cut(dense, two__weight=keep)
        reconstruct(pruned, dense, data, n_batches=n_batches, batch_size=batch_size)
        answers.append(pruned.parameters["two.weight"].detach().clone())
    assert all(torch.allclose(answers[0], other, atol=1e-4) for other in answers[1:])


def test_an_uncut_network_stays_bit_for_bit() -> None:
    dense = program(*LAYERS["strided"][:2], **LAYERS["strided"][2])
    same = dense.clone()
    done = reconstruct(same, dense, source((2, 9, 8)), n_batches=1)
    assert not done.after and all(torch.equal(p, dense.parameters[name]) for name, p in same.parameters.items())


def test_a_shared_weight_is_skipped_with_its_reason() -> None:
    dense = program(lambda net, x: net.one(net.one(x).relu()), (4,), one=nn.Linear(4, 4))
    pruned = cut(dense, one__weight=torch.tensor([[True, False, True, True]]).expand(4, 4))
    done = reconstruct(pruned, dense, source((4,)), n_batches=1)
    assert set(done.skipped) == {"one: its weight is shared by 2 operators"} and not done.after


def test_a_compact_model_is_refused() -> None:
    dense = program(*LAYERS["linear"][:2], **LAYERS["linear"][2])
    other = program(LAYERS["linear"][0], (6,), one=nn.Linear(6, 5), two=nn.Linear(5, 3))
    with pytest.raises(UsageError, match="the dense model has another graph; reconstruct before compact, not after"):
        reconstruct(other, dense, source((6,)), n_batches=1)


def test_no_batches_are_a_data_error() -> None:
    dense = program(*LAYERS["linear"][:2], **LAYERS["linear"][2])
    with pytest.raises(DataError, match="noise: the train split is empty; there is nothing to calibrate on"):
        reconstruct(dense.clone(), dense, source((6,)), n_batches=0)
