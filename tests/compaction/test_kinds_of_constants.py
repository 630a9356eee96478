"""What compaction makes of constants is a parameter only if something that training changes went in, else a buffer."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import pytest
import torch
from torch import Tensor, nn

from compressor.asking import Recipe
from compressor.compaction import compact
from compressor.data.arrays import Arrays, ArraySource
from compressor.formats import from_bytes, to_bytes
from compressor.program import InputSpec, Program, capture
from compressor.pruning import retrain


class Net(nn.Module):
    """stem -> `join`ed with what is constant -> end; the gate's weights are 0, so that only its bias is left."""

    def __init__(self, join: Callable[[Net, Tensor], Tensor], frozen: Iterable[str] = ()) -> None:
        super().__init__()
        self.join = join
        self.stem, self.gate = nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8, 8, 1)
        self.end, self.head = nn.Conv2d(8, 6, 1, bias=False), nn.Linear(6, 4)
        self.register_buffer("strides", torch.tensor([2.0, 4.0, 8.0, 16.0]))
        with torch.no_grad():
            self.gate.weight.zero_()
            self.gate.bias.uniform_(0.5, 1.0)
        for name in frozen:
            self.get_submodule(name).requires_grad_(False)

    def forward(self, x: Tensor) -> Tensor:
        return self.join(self, self.stem(x).relu())


def last(net: Net, y: Tensor) -> Tensor:
    return net.head(net.end(y).relu().mean((2, 3)))


def strides_made_on_the_fly(net: Net, y: Tensor) -> Tensor:
    """As the anchors of a YOLO head: numbers, in the type of a feature map."""
    return last(net, y) * torch.cat([y.new_full((2,), stride) for stride in (2.0, 4.0)])


def strides_of_a_buffer(net: Net, y: Tensor) -> Tensor:
    return last(net, y) * (net.strides + y.new_zeros(4))


def gated(net: Net, y: Tensor) -> Tensor:
    return last(net, y * net.gate(y).sigmoid())


def added(net: Net, y: Tensor) -> Tensor:
    return last(net, y + net.gate(y).relu())


def read_by_a_layer_without_bias(net: Net, y: Tensor) -> Tensor:
    return net.head(net.end(net.gate(y).relu() + 0 * y).flatten(2).sum(2)) + last(net, y)


def times_gate_and_strides(net: Net, y: Tensor) -> Tensor:
    return last(net, y) * (net.gate(y).sigmoid().mean((2, 3))[:, :4] * y.new_full((4,), 8.0))


EVERYTHING = ("stem", "gate", "end", "head")

CASES: list[tuple[str, Callable[[Net, Tensor], Tensor], tuple[str, ...], bool | None]] = [
    ("numbers", strides_made_on_the_fly, (), False),
    ("numbers, all frozen", strides_made_on_the_fly, EVERYTHING, False),
    ("a buffer and numbers", strides_of_a_buffer, (), False),
    ("a gate", gated, (), True),
    ("a frozen gate", gated, ("gate",), False),
    ("a branch that is added", added, (), True),
    ("a frozen branch that is added", added, ("gate",), False),
    ("a gate times numbers", times_gate_and_strides, (), True),
    ("a frozen gate times numbers", times_gate_and_strides, ("gate",), False),
]
"""Name, network, frozen layers, and whether what compaction makes is learned."""


def program_of(join: Callable[[Net, Tensor], Tensor], frozen: Iterable[str] = ()) -> Program:
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(0)
        net = Net(join, frozen)
    return capture(net, [InputSpec("x", (None, 3, 6, 6))])


def made_in(before: Program, after: Program) -> dict[str, Tensor]:
    known = before.module.tensors()
    return {name: tensor for name, tensor in after.module.tensors().items() if name not in known}


@pytest.mark.parametrize(("join", "frozen", "learned"), [c[1:] for c in CASES], ids=[c[0] for c in CASES])
def test_kinds(join: Callable[[Net, Tensor], Tensor], frozen: tuple[str, ...], learned: bool) -> None:
    program = program_of(join, frozen)
    small, report = compact(program)
    made = made_in(program, small)
    assert made and report.branches
    for name, tensor in made.items():
        assert isinstance(tensor, nn.Parameter) is learned, name
        assert tensor.requires_grad is learned
    kept = {name: p for name, p in small.parameters.items() if name in program.parameters}
    assert small.n_parameters == sum(p.numel() for p in kept.values()) + learned * sum(t.numel() for t in made.values())
    assert report.compact_params == small.n_parameters
    assert all(p.requires_grad == program.parameters[name].requires_grad for name, p in kept.items())


@pytest.mark.parametrize("frozen", [(), ("gate",), EVERYTHING])
def test_a_new_bias_is_learned_if_its_layer_or_what_it_reads_is(frozen: tuple[str, ...]) -> None:
    def join(net: Net, y: Tensor) -> Tensor:
        return last(net, torch.cat([y[:, :4], net.gate(y)[:, 4:].sigmoid()], 1))

    program = program_of(join, frozen)
    small, report = compact(program)
    made = made_in(program, small)
    assert report.folded and set(made) == {"end.bias"}
    assert isinstance(made["end.bias"], nn.Parameter) is (frozen != EVERYTHING)


@pytest.mark.parametrize(("join", "frozen"), [c[1:3] for c in CASES], ids=[c[0] for c in CASES])
def test_training_and_a_file_leave_buffers_as_they_are(
    join: Callable[[Net, Tensor], Tensor], frozen: tuple[str, ...]
) -> None:
    program = program_of(join, frozen)
    small = from_bytes(to_bytes(compact(program)[0]))
    if not any(p.requires_grad for p in small.parameters.values()):
        return
    fixed = {
        n: t.clone() for n, t in small.module.tensors().items() if n not in small.parameters or not t.requires_grad
    }
    random = torch.Generator().manual_seed(0)
    images = Arrays(torch.randn(32, 3, 6, 6, generator=random), torch.randint(0, 4, (32,), generator=random))
    recipe = Recipe(epochs=2, batch_size=8, lr=0.1, optimizer="sgd", weight_decay=0.1)
    tuned, _ = retrain(small, recipe, data=ArraySource("noise", images, images, 4))
    after = tuned.module.tensors()
    assert all(torch.equal(tensor, after[name]) for name, tensor in fixed.items())
    moved = [n for n, p in small.parameters.items() if p.requires_grad and not torch.equal(p, after[n])]
    assert moved


def test_compacting_twice_gives_no_name_twice() -> None:
    """The first compaction leaves `constant` behind; a second cut makes another one."""

    def join(net: Net, y: Tensor) -> Tensor:
        return last(net, y) * y.new_full((4,), 8.0) * net.head.bias.sigmoid()

    program = program_of(join)
    once, _ = compact(program)
    (first,) = made_in(program, once)
    with torch.no_grad():
        once.parameters["stem.weight"].zero_()
    again, report = compact(once, allow_noop=True)
    assert again.n_parameters <= once.n_parameters and report.agreement is not None
    assert len(set(again.module.tensors())) == len(again.module.tensors())
    thrice, _ = compact(again, allow_noop=True)
    assert set(thrice.module.tensors()) == set(again.module.tensors())
    assert first in once.module.tensors() and not isinstance(once.module.tensors()[first], nn.Parameter)


def test_a_name_that_is_taken_already_is_not_taken_again() -> None:
    class Taken(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.stem, self.head = nn.Conv2d(3, 8, 3, padding=1), nn.Linear(8, 4)
            self.constant = nn.Parameter(torch.rand(4))

        def forward(self, x: Tensor) -> Tensor:
            y = self.stem(x).relu()
            return self.head(y.mean((2, 3))) * y.new_full((4,), 8.0) + self.constant

    program = capture(Taken(), [InputSpec("x", (None, 3, 6, 6))])
    small, _ = compact(program)
    assert set(made_in(program, small)) == {"constant_2"}, "not of the stem, which lives on"
    assert torch.equal(small.parameters["constant"], program.parameters["constant"])


def test_twin_a_constant_that_counts_as_learned_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    from compressor.compaction import branches, folding

    monkeypatch.setattr(branches, "Made", lambda value, learned: folding.Made(value, True))
    with pytest.raises(AssertionError):
        test_kinds(strides_made_on_the_fly, (), False)
