"""What reaches every weight: the sum of squares that a unit weight would make, for every operator that has weights."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from compressor.asking import PruneSettings, Recovery
from compressor.axes import find_units
from compressor.data.arrays import Arrays, ArraySource
from compressor.errors import DataError, TrainingError
from compressor.program import InputSpec, Program, capture
from compressor.pruning import prune
from compressor.pruning.activations import counted, input_energies, token_mask

Forward = Callable[[Tensor, Tensor], Tensor]


class One(nn.Module):
    """One weight and what is done with it."""

    def __init__(self, weight: Tensor, forward: Forward) -> None:
        super().__init__()
        self.weight, self._forward = nn.Parameter(weight), forward

    def forward(self, x: Tensor) -> Tensor:
        return self._forward(x, self.weight)


def _looked_up(x: Tensor, w: Tensor) -> Tensor:
    """Each row of the input goes to one of the matrices of w, as tokens go to experts."""
    places = (x[:, 0] > 0).long()
    return torch.bmm(w[places], x.unsqueeze(-1)).squeeze(-1)


KINDS: dict[str, tuple[tuple[int, ...], tuple[int, ...], Forward]] = {
    "linear": ((3, 5), (5,), F.linear),
    "tokens": ((3, 5), (4, 5), F.linear),
    "conv1d": ((3, 2, 3), (2, 9), lambda x, w: F.conv1d(x, w, stride=2, padding=1)),
    "conv2d": ((3, 2, 3, 2), (2, 7, 6), lambda x, w: F.conv2d(x, w, stride=(2, 1), padding=1, dilation=(1, 2))),
    "same": ((3, 2, 2, 3), (2, 6, 6), lambda x, w: F.conv2d(x, w, padding="same")),
    "conv3d": ((2, 2, 2, 2, 2), (2, 4, 4, 4), F.conv3d),
    "grouped": ((6, 2, 3, 3), (4, 6, 6), lambda x, w: F.conv2d(x, w, groups=2)),
    "depthwise": ((4, 1, 3, 3), (4, 6, 6), lambda x, w: F.conv2d(x, w, groups=4)),
    "twice as many": ((8, 1, 3, 3), (4, 6, 6), lambda x, w: F.conv2d(x, w, groups=4)),
    "transposed": ((4, 3, 2, 2), (4, 5, 5), lambda x, w: F.conv_transpose2d(x, w, stride=2)),
    "transposed, grouped": ((4, 3, 2), (4, 5), lambda x, w: F.conv_transpose1d(x, w, groups=2)),
    "product": ((5, 3), (4, 5), lambda x, w: x @ w),
    "added product": ((5, 3), (5,), lambda x, w: torch.addmm(torch.ones(3), x, w)),
    "from the left": ((3, 5), (5, 4), lambda x, w: w @ x),
    "transposed weight": ((3, 5), (4, 5), lambda x, w: x @ w.t()),
    "letters": ((2, 3, 5), (4, 5), lambda x, w: torch.einsum("ntd,eid->neti", x, w)),
    "gathered": ((2, 3, 5), (5,), _looked_up),
}


def source(x: Tensor, *more: Tensor) -> ArraySource:
    arrays = Arrays(x, torch.zeros(len(x), dtype=torch.int64))
    return ArraySource("noise", arrays, arrays, None)


@pytest.mark.parametrize("kind", KINDS)
def test_energy_is_what_a_unit_weight_makes(kind: str) -> None:
    """The squared output of the operator with one weight at 1 and all others at 0, a mean over samples."""
    shape, of_input, forward = KINDS[kind]
    random = torch.Generator().manual_seed(0)
    net = One(torch.randn(shape, generator=random), forward)
    x = torch.randn(20, *of_input, generator=random)
    program = capture(net, [InputSpec("x", (None, *of_input))])
    found = input_energies(program, source(x), n_batches=2, batch_size=20)["weight"].expand(shape)
    for place in range(0, net.weight.numel(), 3):
        unit = torch.zeros(shape)
        unit.view(-1)[place] = 1
        bias = forward(x, torch.zeros(shape))
        expected = (forward(x, unit) - bias).double().square().sum() / len(x)
        assert float(found.reshape(-1)[place]) == pytest.approx(float(expected), rel=1e-5), (kind, place)
    assert found.dtype == torch.float64


def test_what_is_held_of_a_layer_is_a_vector() -> None:
    """Also of a grouped one no more than its filters have inputs of their own."""
    net = nn.Sequential(nn.Conv2d(2, 8, 3), nn.ReLU(), nn.Flatten(), nn.Linear(128, 7))
    program = capture(net.eval(), [InputSpec("x", (None, 2, 6, 6))])
    found = input_energies(program, source(torch.randn(8, 2, 6, 6)), n_batches=1)
    assert {name: tuple(energy.shape) for name, energy in found.items()} == {
        "0.weight": (1, 2, 3, 3), "3.weight": (1, 128),
    }  # fmt: skip


class Text(nn.Module):
    """An embedding that is tied to the output, with a layer of tokens, one of a flat batch and one along time."""

    def __init__(self) -> None:
        super().__init__()
        self.table, self.up = nn.Embedding(11, 6), nn.Linear(6, 8)
        self.flat, self.time = nn.Parameter(torch.randn(8, 6)), nn.Conv1d(6, 6, 1)

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        x = self.up(self.table(input_ids)).relu() * (1 + 0 * attention_mask.unsqueeze(-1))
        x = torch.addmm(torch.zeros(6), x.reshape(-1, 8), self.flat).reshape(*input_ids.shape, 6)
        return F.linear(self.time(x.transpose(1, 2)).transpose(1, 2), self.table.weight)


class TextSource(ArraySource):
    """Tokens and their mask."""

    mask: Tensor

    def batches(self, split: Any, batch_size: int, **options: Any) -> Any:
        for i, batch in enumerate(super().batches(split, batch_size, **options)):
            n = len(batch.inputs[0])
            yield batch._replace(inputs=(batch.inputs[0], self.mask[i * batch_size : i * batch_size + n]))


def text_energies(ids: Tensor, mask: Tensor, name: str = "attention_mask") -> dict[str, Tensor]:
    torch.manual_seed(3)
    net = Text().eval()
    specs = [
        InputSpec(n, (None, 5), dtype="int64", high=high) for n, high in (("input_ids", 11), ("attention_mask", 2))
    ]
    program = capture(net, specs)
    program = program.replace(inputs=(program.inputs[0], replace(program.inputs[1], name=name)))
    arrays = Arrays(ids, torch.zeros(len(ids)))
    data = TextSource("texts", arrays, arrays, None)
    object.__setattr__(data, "mask", mask)
    return input_energies(program, data, n_batches=1, batch_size=len(ids), seed=None)  # type: ignore[arg-type]


def test_padding_is_no_input_of_any_layer() -> None:
    ids, mask = torch.randint(11, (6, 5)), torch.ones(6, 5, dtype=torch.int64)
    mask[:, 3:] = 0
    other = ids.clone()
    other[:, 3:] = torch.randint(11, (6, 2))
    mine, its = text_energies(ids, mask), text_energies(other, mask)
    assert set(mine) == {"table.weight", "up.weight", "flat", "time.weight"}
    assert all(torch.equal(energy, its[name]) for name, energy in mine.items())
    assert mine["table.weight"].shape == (11, 6), "looked up and multiplied: the sum of both"
    named, otherwise = (text_energies(x, mask, name="mask") for x in (ids, other))
    assert not any(torch.equal(energy, otherwise[name]) for name, energy in named.items()), "nobody says what it is"


def test_a_mask_counts_where_a_value_has_a_row_for_each_token() -> None:
    mask = torch.tensor([[1, 1, 0], [1, 0, 0]]).bool()
    shapes = {
        (2, 3, 4): (2, 3, 1), (6, 4): (6, 1), (2, 3, 5, 4): (2, 3, 1, 1), (2, 4): None, (2, 8, 8, 4): None,
        (3, 2): None,
    }  # fmt: skip
    for shape, expected in shapes.items():
        found = counted(torch.zeros(shape), mask, -1)
        assert (None if found is None else tuple(found.shape)) == expected
    assert counted(torch.zeros(2, 4, 3), mask, 1) is not None and counted(torch.zeros(2, 3, 4), mask, 1) is None
    assert token_mask([InputSpec("attention_mask", (None, 1, 3, 3))], [torch.zeros(2, 1, 3, 3)]) is None


def test_half_precision_is_measured_as_it_is_stored(tiny: Program, data: ArraySource) -> None:
    half = tiny.replace(module=tiny.module.clone(torch.bfloat16))
    half = half.replace(inputs=tuple(replace(spec, dtype="bfloat16") for spec in half.inputs))
    x = Arrays(data.train.inputs.bfloat16(), data.train.target)
    narrow = ArraySource("half", x, x, 3)
    wide = input_energies(tiny, data, n_batches=1)
    for name, energy in input_energies(half, narrow, n_batches=1).items():
        assert torch.allclose(energy, wide[name], rtol=0.05, atol=0.02 * float(wide[name].max()))
    pruned, report = prune(half, PruneSettings(ratio=2.0, method="magnitude", score="activation"), data=narrow)
    assert report.got >= 2.0 and all(p.dtype == torch.bfloat16 for p in pruned.parameters.values())


def test_a_unit_is_worth_what_its_readers_lose() -> None:
    """Of four equal units one is hardly ever active: magnitude sees no difference, its readers lose nothing."""
    net = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2))
    with torch.no_grad():
        net[0].weight.copy_(torch.eye(4, 3) + 1)
        net[0].bias.copy_(torch.tensor([0.0, 0.0, -50.0, 0.0]))
        net[2].weight.fill_(1.0)
        net[0].weight[2] *= 3
    program = capture(net.eval(), [InputSpec("x", (None, 3))])
    data = source(torch.rand(32, 3))
    gone = {}
    for score in ("l2", "activation"):
        settings = PruneSettings(ratio=1.2, method="magnitude", score=score, round_to=1)  # type: ignore[arg-type]
        pruned, _ = prune(program, settings, data=data)
        gone[score] = (~pruned.masks["0.weight"].any(1)).nonzero().flatten().tolist()
    assert gone["activation"] == [2] and gone["l2"] != [2]


def test_a_unit_that_no_weight_reads_keeps_its_own_worth() -> None:
    """Queries and keys meet each other only: what makes them is all there is to be rated."""

    class Attention(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.q, self.k, self.v, self.out = (nn.Linear(6, 6) for _ in range(4))

        def forward(self, x: Tensor) -> Tensor:
            return self.out((self.q(x) @ self.k(x).mT).softmax(-1) @ self.v(x)).mean(1)

    torch.manual_seed(0)
    program = capture(Attention(), [InputSpec("x", (None, 4, 6))])
    settings = PruneSettings(ratio=1.3, method="magnitude", score="activation", round_to=1)
    pruned, report = prune(program, settings, data=source(torch.randn(16, 4, 6)))
    assert report.got >= 1.3
    kept = pruned.masks.get("q.weight", torch.ones(6, 6, dtype=torch.bool))
    assert int(kept.any(1).sum()) >= 4, "not cut first for want of a score"
    assert "out.weight" in pruned.masks or "q.weight" in pruned.masks


@pytest.mark.parametrize("pattern", ["channel", "filter", "unstructured", "2:4", "block:4x2", "shape", "filter+shape"])
def test_every_pattern_takes_it_without_labels(tiny: Program, data: ArraySource, pattern: str) -> None:
    x = Arrays(data.train.inputs, None)  # type: ignore[arg-type]
    silent = ArraySource("unlabelled", x, x, None)
    asked = {} if pattern == "2:4" else {"ratio": 2.0}
    settings = PruneSettings(method="magnitude", score="activation", pattern=pattern, **asked)  # type: ignore[arg-type]
    pruned, report = prune(tiny, settings, data=silent)
    plain, _ = prune(tiny, replace(settings, score="l2"), data=silent)
    assert report.got >= 2.0 if asked else report.got > 1.0
    assert any(not torch.equal(mask, plain.masks[name]) for name, mask in pruned.masks.items() if name in plain.masks)
    healed, _ = prune(tiny, replace(settings, recovery=Recovery(reconstruct=1)), data=silent)
    assert all(torch.equal(mask, pruned.masks[name]) for name, mask in healed.masks.items())


def test_data_that_say_nothing_are_an_error(tiny: Program, data: ArraySource) -> None:
    with pytest.raises(DataError, match="the train split is empty; there is nothing to measure activations on"):
        input_energies(tiny, data, n_batches=0)
    x = Arrays(data.train.inputs * float("inf"), data.train.target)
    with pytest.raises(TrainingError, match=r"one\.weight: what it multiplies is not finite"):
        input_energies(tiny, ArraySource("endless", x, x, 3), n_batches=1)
    assert find_units(tiny).n_units, "the program is as it was"
