"""Foreign decisions are taken over whatever they decide, and compared by what they were chosen from."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from compressor.program import InputSpec, Program, capture
from compressor.program.replay import Replay, as_foreign, operand_of

NAN = float("nan")


class Applies(nn.Module):
    """A function as a network."""

    def __init__(self, function: Callable[[Tensor], object]) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: Tensor) -> object:
        return self.function(x)


def program_of(function: Callable[[Tensor], object], width: int = 4) -> Program:
    return capture(Applies(function), [InputSpec("x", (None, width))])


def replayed(function: Callable[[Tensor], object], x: object, decided: object = None) -> tuple[list[object], Replay]:
    """Outputs with that foreign value for the only decision, and the run."""
    given = torch.tensor([x])
    program = program_of(function, given.shape[1])
    first = Replay(program.module.eval())
    first.run(given)
    if decided is None:
        return [], first
    (name,) = first.decided
    run = Replay(program.module, {name: torch.tensor(decided)})
    outputs = run.run(given)
    return [part.tolist() for part in (outputs if isinstance(outputs, tuple) else (outputs,))], run


def chosen(run: Replay) -> tuple[list[float], list[float]]:
    (best,), (taken,) = run.best.values(), run.taken.values()
    return best.flatten().tolist(), taken.flatten().tolist()


X = [3.0, 1.0, 2.0, 4.0]
TOPK = lambda x: x.topk(2)  # noqa: E731


@pytest.mark.parametrize(
    ("function", "decided", "outputs", "best", "taken"),
    [
        (TOPK, [[3, 0]], [[[4.0, 3.0]], [[3, 0]]], [4, 3], [4, 3]),
        (TOPK, [[0, 3]], [[[3.0, 4.0]], [[0, 3]]], [4, 3], [3, 4]),
        (TOPK, [[3, 2]], [[[4.0, 2.0]], [[3, 2]]], [4, 3], [4, 2]),
        (lambda x: x.topk(2, largest=False)[1], [[2, 1]], [[[2, 1]]], [1, 2], [2, 1]),
        (lambda x: x.topk(2, sorted=False)[1].sum(1), [[0, 3]], [[3]], [3, 4], [3, 4]),
        (lambda x: x.sort(1)[1], [[1, 2, 3, 0]], [[[1, 2, 3, 0]]], [1, 2, 3, 4], [1, 2, 4, 3]),
        (lambda x: x.argsort(1, descending=True), [[3, 2, 0, 1]], [[[3, 2, 0, 1]]], [4, 3, 2, 1], [4, 2, 3, 1]),
        (lambda x: x.sort(dim=1, stable=True)[0] + x.sort(dim=1, stable=True)[0], None, [], [], []),
        (lambda x: x.argmax(1), [0], [[0]], [4], [3]),
        (lambda x: x.argmin(1, keepdim=True), [[2]], [[[2]]], [1], [2]),
        (lambda x: x.argmax(), 1, [1], [4], [1]),
        (lambda x: x.max(1)[1], [2], [[2]], [4], [2]),
        (lambda x: x.max(1), [2], [[2.0], [2]], [4], [2]),
        (lambda x: x.min(1, keepdim=True), [[0]], [[[3.0]], [[0]]], [1], [3]),
        (lambda x: x.max(1)[0], None, [], [], []),
        (lambda x: x.topk(2)[0], None, [], [], []),
        (lambda x: x > 2, [[True, False, True, True]], [[[True, False, True, True]]], [1, -1, 0, 2], [1, -1, 0, 2]),
        (lambda x: x > 2, [[False, False, False, True]], [[[False, False, False, True]]], [1, -1, 0, 2], [0, -1, 0, 2]),
        (lambda x: x <= x.flip(1), [[True] * 4], [[[True] * 4]], [-1, -1, 1, 1], [-1, -1, 0, 0]),
        (lambda x: x == 2, [[False] * 4], [[[False] * 4]], [1, -1, 0, 2], [1, -1, 0, 2]),
        (lambda x: x != 2, [[False] * 4], [[[False] * 4]], [1, -1, 0, 2], [0, 0, 0, 0]),
    ],
)
def test_what_was_chosen_stands_beside_the_best(
    function: Callable[[Tensor], object], decided: object, outputs: object, best: list[float], taken: list[float]
) -> None:
    found, run = replayed(function, X, decided)
    if decided is None:
        assert run.decided == {}
        return
    assert found == outputs and chosen(run) == (best, taken)


@pytest.mark.parametrize(
    ("function", "x", "decided", "taken"),
    [
        (torch.floor, [1.5, 1.999, 2.001, -0.5], [1, 2, 1, -1], [1.5, 2, 2, -0.5]),
        (torch.floor, [1.5, 1.5, 1.5, 1.5], [0, 1, 2, 3], [1, 1.5, 2, 3]),
        (torch.ceil, [1.5, 2.001, 1.999, -0.5], [2, 2, 3, 0], [1.5, 2, 2, -0.5]),
        (torch.round, [1.5, 2.5, 1.4, -0.5], [1, 3, 2, 0], [1.5, 2.5, 1.5, -0.5]),
        (torch.trunc, [1.999, -1.999, 0.5, -1.5], [2, -2, 0, -1], [2, -2, 0.5, -1.5]),
        (torch.trunc, [1.5, -1.5, 1.5, 0.5], [0, 0, -1, 1], [1, -1, -1, 1]),
        (torch.sign, [1.5, -1.5, 0.1, 0.0], [1, 1, 0, -1], [1.5, 0, 0, 0]),
        (lambda x: x.to(torch.int64), [1.999, -1.999, 0.5, -1.5], [2, -1, 0, 0], [2, -1.999, 0.5, -1]),
        (lambda x: x.to(torch.bool), [1.5, 0.0, 0.25, 0.0], [True, True, False, False], [1.5, 0, 0, 0]),
        (lambda x: x // 2, [1.5, 3.9, 4.1, -1.0], [0, 2, 1, -1], [0.75, 2, 2, -0.5]),
        (lambda x: torch.div(x, 2, rounding_mode="trunc"), [1.5, 3.9, -4.1, -1.0], [0, 2, -1, 0], [0.75, 2, -2, -0.5]),
    ],
)
def test_a_rounding_is_compared_with_the_nearest_operand_that_gives_it(
    function: Callable[[Tensor], object], x: list[float], decided: list[float], taken: list[float]
) -> None:
    kind = torch.bool if isinstance(decided[0], bool) else torch.float32
    outputs, run = replayed(function, x, torch.tensor([decided], dtype=kind).tolist())
    best, found = chosen(run)
    halved = 0.5 if taken[0] == 0.75 else 1.0
    assert best == pytest.approx([value * halved for value in x]) and found == pytest.approx(taken)
    assert outputs == [[decided]]


@pytest.mark.parametrize(
    ("function", "decided"),
    [
        (TOPK, [[3, 3]]),
        (TOPK, [[4, 0]]),
        (TOPK, [[3, -1]]),
        (lambda x: x.argmax(1), [4]),
        (lambda x: x.argmax(1), [-1]),
        (lambda x: x.argmax(), 4),
        (lambda x: x.max(1, keepdim=True), [[9]]),
    ],
)
def test_a_place_outside_or_taken_twice_is_chosen_from_nothing(
    function: Callable[[Tensor], object], decided: object
) -> None:
    def looked_up(x: Tensor) -> Tensor:
        found = function(x)
        places = found if isinstance(found, Tensor) else found[1]  # type: ignore[index]
        return x.flatten()[places.flatten()]

    _, run = replayed(looked_up, X, decided)
    assert any(value != value for value in chosen(run)[1])


def test_the_first_places_of_an_order_stand_for_all_of_it() -> None:
    outputs, run = replayed(lambda x: x.sort(1, descending=True)[1], X, [[0, 3]])
    assert outputs == [[[0, 3, 2, 1]]] and chosen(run) == ([4, 3, 2, 1], [3, 4, 2, 1])
    assert replayed(lambda x: x.sort(1)[1], X, [[0, 1, 2, 3, 3]])[1].best == {}
    assert replayed(lambda x: x.sort(1)[1], X, [0, 3])[1].best == {}
    assert replayed(lambda x: x.argmax(1), X, [0, 1])[1].best == {}


def test_random_numbers_of_another_generator_are_taken_over_if_they_are_of_the_same_kind() -> None:
    def drawn(foreign: Tensor) -> bool:
        program = program_of(lambda x: x + torch.randn_like(x), 400)
        run = Replay(program.module.eval(), {"randn_like": foreign})
        x = torch.zeros(1, 400)
        torch.manual_seed(0)
        assert torch.equal(run.run(x).nan_to_num(), foreign.nan_to_num())
        ((best,), (taken,)) = run.best["randn_like"], run.taken["randn_like"]
        return float(best) == float(taken) == 0.0

    other = torch.randn(1, 400, generator=torch.Generator().manual_seed(7))
    assert drawn(other)
    for wrong in (other * 1.8, other / 2, other + 0.8, other.abs(), other * 0, other.log()):
        assert not drawn(wrong)


def test_chances_must_fit_each_their_own() -> None:
    chances = torch.linspace(0, 1, 400)[None]

    def fits(foreign: Tensor, chances: Tensor = chances) -> bool:
        run = Replay(
            program_of(lambda x: torch.bernoulli(x.clamp(0, 1)), chances.shape[1]).module.eval(), {"bernoulli": foreign}
        )
        assert torch.equal(run.run(chances), foreign)
        return not bool(run.taken["bernoulli"].isnan().any())

    drawn = torch.bernoulli(chances, generator=torch.Generator().manual_seed(7))
    assert fits(drawn)
    assert not fits(drawn.flip(1)) and not fits(1 - drawn) and not fits(drawn * 0.5)
    shuffled = drawn[:, torch.randperm(400, generator=torch.Generator().manual_seed(1))]
    shuffled[0, 0], shuffled[0, -1] = 0, 1
    assert not fits(shuffled)
    few = torch.tensor([[0.0, 1.0, 0.5]])
    assert fits(torch.tensor([[0.0, 1.0, 1.0]]), few) and not fits(torch.tensor([[1.0, 1.0, 1.0]]), few)


def test_a_saturated_result_is_taken_over_with_its_operand() -> None:
    program = program_of(lambda x: (torch.tanh(x) + 2, torch.sigmoid(x).repeat_interleave(2, 1) * 3))
    x, foreign = torch.tensor([X]), torch.tensor([[0.5, 0.6, 0.7, 0.8]])
    given = {"sigmoid": foreign, operand_of("sigmoid"): x + 1}
    run = Replay(program.module.eval(), given)
    assert torch.equal(run.run(x)[1], foreign.repeat_interleave(2, 1) * 3)
    assert run.decided["sigmoid"].kind == "saturation" and torch.equal(run.best["sigmoid"], x.sigmoid())
    assert torch.equal(run.taken[operand_of("sigmoid")], x + 1) and torch.equal(run.best[operand_of("sigmoid")], x)
    for part in given:
        alone = Replay(program.module, {part: given[part]})
        assert torch.equal(alone.run(x)[1], x.sigmoid().repeat_interleave(2, 1) * 3) and not alone.best


def test_what_one_run_decided_is_foreign_to_another() -> None:
    """Taken over whole, operands of what saturates beside results: the outputs are those of the first run."""
    program = program_of(lambda x: (x.argmax(1), torch.sigmoid(x) * 2))
    first, x = Replay(program.module.eval()), torch.tensor([X])
    outputs = first.run(x)
    foreign = as_foreign(first.decided)
    assert {name: value.tolist() for name, value in foreign.items()} == {
        "argmax": [3], "sigmoid": x.sigmoid().tolist(), operand_of("sigmoid"): [X],
    }  # fmt: skip
    again = Replay(program.module, foreign)
    assert all(torch.equal(*pair) for pair in zip(again.run(x.flip(1)), outputs, strict=True))


@pytest.mark.parametrize(
    ("function", "names"),
    [
        (lambda x: torch.sigmoid(x).clamp(0.1), {"sigmoid"}),
        (lambda x: x.softmax(1)[:, 1] * torch.sigmoid(x.sum(1)), {"softmax", "sigmoid"}),
        (lambda x: torch.sigmoid(x) @ x.mT, set()),
        (lambda x: torch.sigmoid(torch.sigmoid(x) * 2), {"sigmoid_1"}),
        (lambda x: torch.nn.functional.silu(x), set()),
    ],
)
def test_saturated_are_the_operators_that_outputs_are_made_of(
    function: Callable[[Tensor], object], names: set[str]
) -> None:
    _, run = replayed(function, X)
    assert {name for name, part in run.decided.items() if part.kind == "saturation"} == names


def test_a_rounding_moves_every_result_by_its_own_size_and_views_not_at_all() -> None:
    def apart(function: Callable[[Tensor], object], x: list[float], rounding: float = 2.0**-10) -> Tensor:
        module, given = program_of(function, len(x)).module.eval(), torch.tensor([x])
        once, again = Replay(module, rounding=rounding).run(given), Replay(module, rounding=rounding).run(given)
        assert torch.equal(once.nan_to_num(), again.nan_to_num())
        return (once - module(given)).abs()[0] / rounding

    x = [4.0, -1.0, 0.0, 0.5]
    assert apart(lambda x: x + 0.0, x).tolist() == [4, 1, 0, 0.5]
    assert apart(lambda x: x.reshape(1, -1)[:, 1:], x).tolist() == [0, 0, 0]
    assert apart(torch.sigmoid, [-20.0, 1.0]).tolist() == [1, 1]
    assert apart(lambda x: x.cumsum(1), x).tolist() == [4, 4, 4, 4]
    assert apart(lambda x: x.split(2, 1)[1], x).tolist() == [0, 0]
    assert apart(lambda x: (x + 0.0).log(), [-1.0, 1.0]).tolist()[1] <= 1.01
    assert apart(lambda x: x.masked_fill(x > 1, float("-inf")).cumsum(1), [0.5, 2.0])[0].tolist() <= 1.0
    assert apart(lambda x: x[:, :0] + 1, x).numel() == 0
    endless = Replay(program_of(lambda x: x.cumsum(1)).module.eval(), rounding=0.5).run(
        torch.full((1, 4), float("inf"))
    )
    assert endless.isposinf().all(), "a sum without a finite result has no size to round by"
    huge = [3e38, 0.5, -1.0, 0.25]  # what a mask holds does not make its neighbours uncertain
    assert apart(lambda x: torch.cat([x, x.flip(1)], 1), huge).tolist()[1:3] == [0.5, 1.0]
    assert apart(lambda x: x.gather(1, torch.tensor([[1, 2]]).expand(x.shape[0], 2)), huge).tolist() == [0.5, 1.0]
    assert apart(torch.tanh, [1e-6, 20.0]).tolist() == pytest.approx([1e-6, 1.0], rel=1e-4)  # as vector units have it
    assert apart(torch.nn.functional.silu, [1e-6, -20.0]).tolist() == pytest.approx([1e-6, 20.0], rel=1e-4)
    assert apart(torch.nn.functional.elu, [-20.0, -1e-6]).tolist() == pytest.approx([1.0, 1.0], rel=1e-4)
    assert apart(lambda x: x.unsqueeze(1).mean(1), x).tolist() == [4, 4, 4, 4]
    assert apart(lambda x: x.softmax(1), [0.0, 100.0])[0] <= 1e-30


@pytest.mark.parametrize(
    "function",
    [
        lambda x: x.to(torch.int64) > 2,
        lambda x: x.to(torch.int64) // 2,
        lambda x: torch.div(x, 2),
        lambda x: x.to(torch.float64),
        lambda x: x.to(torch.int64).argmax(1),
    ],
)
def test_whole_numbers_and_plain_arithmetic_decide_nothing(function: Callable[[Tensor], object]) -> None:
    _, run = replayed(function, X)
    assert {part.kind for part in run.decided.values()} <= {"rounding"}
    assert all(name.startswith("to") for name in run.decided)
