"""A program answers as its module does, at any batch that it takes; what cannot be so is refused or named."""

from __future__ import annotations

import importlib
import random
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from compressor.errors import ModelError
from compressor.formats import from_bytes, to_bytes
from compressor.program import InputSpec, Program, capture
from compressor.program.calls import Answer, ask, difference
from compressor.program.faithful import find_difference
from compressor.program.original import At, Original
from tests.program.faithful_networks import ANY_BATCH, DROPPED, NOTED, ONE_BATCH, REFUSED, Forward, Net

AT = (At(1), At(3))
IMAGE = [InputSpec("x", (None, 3, 6, 6))]


def net_of(forward: Forward) -> Net:
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(0)
        return Net(forward).eval()


def held(net: Net) -> list[Any]:
    """All that a call could have changed."""
    tensors = {name: tensor.clone() for name, tensor in net.state_dict().items()}
    modes = [module.training for module in net.modules()]
    return [tensors, modes, net.calls, net.cache, list(net.log), dict(net.table)]


def assert_unchanged(before: list[Any], net: Net) -> None:
    (tensors, *rest), (now, *rest_now) = before, held(net)
    assert all(torch.equal(tensor, now[name]) for name, tensor in tensors.items())
    assert rest == rest_now


def assert_pure(program: Program) -> None:
    """A call writes neither into its inputs nor into the program, and the next one returns the same."""
    before = {name: tensor.clone() for name, tensor in program.module.tensors().items()}
    (x,) = program.example_inputs(program.fixed_batch or 2)
    given = x.clone()
    first, second = ask(program.module.forward, [x]), ask(program.module.forward, [x])
    program.module(x)
    assert first.error is None and difference(first, second) is None
    assert torch.equal(x, given)
    assert all(torch.equal(tensor, before[name]) for name, tensor in program.module.tensors().items())


def assert_like(forward: Forward, program: Program, batches: Sequence[int]) -> None:
    """Module and program return the same, each sample of a fresh module."""
    for batch in batches:
        inputs = program.example_inputs(batch, seed=70 + batch)
        expected = ask(net_of(forward), inputs, equal_draws=True)
        got = ask(program.module.forward, inputs, equal_draws=True)
        assert expected.error is None and got.error is None, (expected.error, got.error)
        assert difference(expected, got) is None, batch


@pytest.mark.parametrize("case", ANY_BATCH)
def test_any_batch(case: str) -> None:
    net = net_of(ANY_BATCH[case])
    before = held(net)
    program = capture(net, IMAGE)
    assert program.has_dynamic_batch
    assert not [note for note in program.record.notes if "play no part" not in note]
    assert_like(ANY_BATCH[case], program, (1, 2, 3, 5, 9))
    assert_pure(program)
    assert_unchanged(before, net)


@pytest.mark.parametrize("case", ONE_BATCH)
def test_one_sample(case: str) -> None:
    net = net_of(ONE_BATCH[case])
    before = held(net)
    program = capture(net, IMAGE)
    assert program.fixed_batch == 1 and program.inputs[0].shape == (1, 3, 6, 6)
    assert program.record.notes[0].startswith("exported with the batch fixed at 1: ")
    assert_like(ONE_BATCH[case], program, (1,))
    assert_pure(program)
    assert_unchanged(before, net)


@pytest.mark.parametrize("case", REFUSED)
def test_refused(case: str) -> None:
    forward, told = REFUSED[case]
    with pytest.raises(ModelError, match=told) as raised:
        capture(net_of(forward), IMAGE)
    assert len(str(raised.value).splitlines()) <= 3


@pytest.mark.parametrize("case", NOTED)
def test_noted(case: str) -> None:
    forward, told = NOTED[case]
    net = net_of(forward)
    program = capture(net, IMAGE)
    assert program.has_dynamic_batch
    assert [note for note in program.record.notes if told in note], program.record.notes
    assert_like(forward, program, (2, 4))
    assert_pure(program)
    assert from_bytes(to_bytes(program)).record.notes == program.record.notes


@pytest.mark.parametrize("case", DROPPED)
def test_dropout_that_is_on_in_evaluation_is_on_in_training_only(case: str) -> None:
    program = capture(net_of(DROPPED[case]), IMAGE)
    told = "dropout in attention is on" if case == "in attention" else "dropout is on in evaluation"
    assert [note for note in program.record.notes if note.startswith(told)]
    assert_pure(program)
    x = program.example_inputs(2)[0]
    assert torch.equal(program.module(x), program.module(x))
    program.module.train()
    if case != "in attention":
        with torch.random.fork_rng(devices=[]):
            assert not torch.equal(program.module(x), program.module(x))


def test_dropout_that_is_off_is_no_news() -> None:
    program = capture(net_of(lambda net, x: net.fc(nn.functional.dropout(net.maps(x).mean((2, 3)), 0.0))), IMAGE)
    assert not [note for note in program.record.notes if "dropout" in note]


def test_a_batch_norm_left_in_training_uses_the_batch_in_both_modes() -> None:
    program = capture(net_of(NOTED["batch norm told to"][0]), IMAGE)
    assert not [name for name in program.module.tensors() if "running" in name]
    x = program.example_inputs(4)[0]
    evaluated = program.module(x)
    program.module.train()
    assert torch.equal(evaluated, program.module(x))


def test_a_module_that_overrides_train_and_eval() -> None:
    """eval() that returns nothing and leaves a part in training, as some adaptation code has it."""

    class Stubborn(Net):
        def eval(self) -> None:  # type: ignore[override]
            super().train(False)
            self.norm.training = True

    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(0)
        net = Stubborn(lambda net, x: net.fc(net.norm(net.maps(x)).mean((2, 3))))
    program = capture(net, IMAGE)
    assert "norm: normalises with the statistics of the batch" in " ".join(program.record.notes)
    x = program.example_inputs(3)[0]
    assert torch.equal(net(x), program.module(x))


def test_random_numbers_of_the_caller_go_on_as_if_nothing_had_been_drawn() -> None:
    torch.manual_seed(5)
    random.seed(5)
    np.random.seed(5)
    expected = torch.rand(1), random.random(), np.random.rand()
    torch.manual_seed(5)
    random.seed(5)
    np.random.seed(5)
    capture(net_of(NOTED["noise"][0]), IMAGE)
    assert (torch.rand(1), random.random(), np.random.rand()) == expected


def test_integers_stay_in_their_range_and_inputs_may_be_several() -> None:
    class Words(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.table, self.fc = nn.Embedding(11, 8), nn.Linear(8, 3)

        def forward(self, words: Tensor, mask: Tensor) -> dict[str, Any]:
            h = self.table(words) * mask[..., None]
            return {"logits": self.fc(h.mean(1)), "last": (h, None)}

    specs = [InputSpec("words", (None, 5), "int64", high=11), InputSpec("mask", (None, 5), "bool")]
    program = capture(Words(), specs)
    assert program.has_dynamic_batch and program.record.notes == ()


def test_a_lazy_module_gets_its_sizes() -> None:
    program = capture(nn.Sequential(nn.LazyConv2d(4, 3), nn.Flatten(), nn.LazyLinear(2)), IMAGE)
    assert program.parameters["2.weight"].shape == (2, 64)


def test_a_network_in_half_precision() -> None:
    program = capture(nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU()).to(torch.bfloat16), IMAGE)
    assert program.inputs[0].dtype == "bfloat16"


def test_what_is_not_compared_is_said() -> None:
    large = [InputSpec("x", (None, 3, 512, 512))]
    program = capture(net_of(lambda net, x: net.logits(x) * (2 if x.shape[0] > 100 else 1)), large)
    assert "from batch 128 on nothing was compared" in " ".join(program.record.notes)


# What the comparison is made of.


nan, inf = float("nan"), float("inf")


@pytest.mark.parametrize(
    ("expected", "got", "told"),
    [
        ([1.0, 2.0], [1.0, 2.0], None),
        ([1.0, 2.0], [1.0, 2.00001], None),
        ([1.0, 2.0], [1.0, 2.5], "it is off by 0.25 of its largest output"),
        ([nan, 2.0], [nan, 2.0], None),
        ([nan, nan], [nan, nan], None),
        ([nan, 2.0], [2.0, nan], "a NaN or an infinity"),
        ([inf, 2.0], [inf, 1.0], "off by 0.5"),
        ([inf, 2.0], [-inf, 2.0], "a NaN or an infinity"),
        ([0.0, 0.0], [0.0, 0.0], None),
        ([0.0, 0.0], [0.0, 1e-3], "off by 0.001"),
        ([7, 8], [8, 8], "off by 1"),
        ([7, 8], [7.0, 8.0], "output 0 is float32 where the model's is int64"),
        ([[1.0, 2.0]], [1.0, 2.0], "has the shape"),
        ([True, False], [True, True], "off by 1"),
        ([], [], None),
    ],
)
def test_differences(expected: list[Any], got: list[Any], told: str | None) -> None:
    found = difference(Answer((torch.tensor(expected),)), Answer((torch.tensor(got),)))
    assert found == told if told is None else told in (found or "")


def test_another_number_of_outputs_is_a_difference() -> None:
    assert "there are 2 outputs" in (difference(Answer((torch.ones(1),)), Answer((torch.ones(1),) * 2)) or "")


def test_twin_a_wrong_weight_is_seen() -> None:
    net = net_of(ANY_BATCH["plain"])
    program = capture(net, IMAGE)
    original = Original(net, IMAGE)
    assert find_difference(program, original, AT) is None
    with torch.no_grad():
        program.parameters["fc.weight"][0, 0] += 1e-3
    assert "at batch 1 it is off by" in (find_difference(program, original, AT) or "")


class Cancelling(nn.Module):
    """y, by way of a difference of large numbers that float32 cannot hold."""

    def __init__(self, size: float, factor: float = 1.0) -> None:
        super().__init__()
        self.fc, self.size, self.factor = nn.Linear(8, 4), size, factor

    def forward(self, x: Tensor) -> Tensor:
        y = self.fc(x)
        return ((y + self.size) - self.size) * self.factor


def test_rounding_is_no_difference_and_float64_decides_which_it_is() -> None:
    spec = [InputSpec("x", (None, 8))]
    plain, rounded, other = Cancelling(0.0), Cancelling(1e4), Cancelling(0.0, 1.001)
    for net in (rounded, other):
        net.load_state_dict(plain.state_dict())
    program = capture(plain, spec)
    x = program.example_inputs(3)[0]
    with torch.no_grad():
        assert float((rounded(x) - program.module(x)).abs().max()) > 1e-4
    assert find_difference(program, Original(rounded.eval(), spec), AT) is None
    assert "at batch 1 it is off by 0.001" in (find_difference(program, Original(other.eval(), spec), AT) or "")


class OnlySingle(nn.Module):
    """Reads the bits of its input as whole numbers, of which float64 has twice as many: it runs in float32 alone."""

    def __init__(self, factor: float = 1.0) -> None:
        super().__init__()
        self.fc, self.factor = nn.Linear(8, 4), factor
        self.register_buffer("whole", torch.zeros(8, dtype=torch.int32))

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(x) * self.factor + (x.view(torch.int32) * self.whole).sum(1, keepdim=True)


def test_what_cannot_run_in_float64_is_judged_without_it() -> None:
    spec = [InputSpec("x", (None, 8))]
    net, other = OnlySingle(), OnlySingle(1.001)
    other.load_state_dict(net.state_dict())
    program, original = capture(net, spec), Original(other.eval(), spec)
    assert original.exact_answer(At(1)).error is not None
    assert find_difference(program, Original(net, spec), AT) is None
    assert "at batch 1 it is off by" in (find_difference(program, original, AT) or "")


@pytest.mark.parametrize("case", ["more than one", "exactly five", "more than eight", "a split by four"])
def test_twin_without_the_comparison_a_wrong_program_comes_out(case: str, monkeypatch: pytest.MonkeyPatch) -> None:
    module = importlib.import_module("compressor.program.capture")
    monkeypatch.setattr(module, "find_difference", lambda *given: None)
    program = capture(net_of(ONE_BATCH[case]), IMAGE)
    assert program.has_dynamic_batch
    with pytest.raises(AssertionError):
        assert_like(ONE_BATCH[case], program, (1, 3, 5, 9))


@pytest.mark.parametrize("case", ["exactly five", "more than eight", "more than 200"])
def test_twin_without_the_questions_that_the_code_asks_batches_1_and_3_are_not_enough(
    case: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = importlib.import_module("compressor.program.capture")
    monkeypatch.setattr(module, "turning_points", lambda exported: {})
    assert capture(net_of(ONE_BATCH[case]), IMAGE).has_dynamic_batch


@pytest.mark.parametrize(
    "forward",
    [NOTED["a buffer for one call"][0], ANY_BATCH["its input written through a view"]],
    ids=["buffer", "input"],
)
def test_twin_without_the_copies_a_program_writes_where_it_must_not(
    forward: Forward, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = importlib.import_module("compressor.program.normalise")
    monkeypatch.setattr(module, "shield", lambda graph: ())
    with pytest.raises((AssertionError, ModelError)):
        assert_pure(capture(net_of(forward), IMAGE))
