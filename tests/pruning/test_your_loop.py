"""Somebody's own training function between the cuts: what it is given, and what it must not do."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

import compressor
from compressor.asking import Recovery
from compressor.errors import CompressError, TrainingError, UsageError
from compressor.formats import load
from compressor.program import Program, capture, parse_input
from compressor.pruning import Loop, prune_in_your_loop


class Net(nn.Module):
    """A classifier with an auxiliary head that plays no part in evaluation."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Linear(8, 24), nn.ReLU(), nn.Linear(24, 16), nn.ReLU())
        self.head, self.aux = nn.Linear(16, 3), nn.Linear(16, 3)

    def forward(self, x: Tensor) -> Any:
        features = self.body(x)
        return (self.head(features), self.aux(features)) if self.training else self.head(features)


def made() -> tuple[Net, Program]:
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(0)
        net = Net()
    return net, capture(net, [parse_input("8")])


class Training:
    """Ten steps of each phase; notes what it saw."""

    def __init__(self, optimizer: type[torch.optim.Optimizer] = torch.optim.Adam) -> None:
        self.seen: list[tuple[str, int, float]] = []
        self._optimizer = optimizer

    def __call__(self, model: nn.Module, loop: Loop) -> None:
        assert model.training
        optimizer = self._optimizer(model.parameters(), lr=1e-2)  # type: ignore[call-arg]
        loop.attach(optimizer, steps=10)
        self.seen.append((loop.phase, loop.number, loop.report().got))
        generator = torch.Generator().manual_seed(loop.number)
        for _ in range(10):
            x = torch.randn(16, 8, generator=generator)
            optimizer.zero_grad()
            outputs = model(x)
            loss = sum(y.square().mean() for y in (outputs if isinstance(outputs, tuple) else (outputs,)))
            loss.backward()  # type: ignore[union-attr]
            optimizer.step()


def settings(**asked: Any) -> compressor.PruneSettings:
    return compressor.PruneSettings(**{"ratio": 2.0, "round_to": 1, **asked})


@pytest.mark.parametrize(
    ("asked", "phases"),
    [
        ({"method": "admm"}, ["search", "retrain"]),
        ({"method": "group-lasso"}, ["search", "retrain"]),
        ({"method": "magnitude"}, ["retrain"]),
        ({"method": "magnitude", "steps": 3}, ["round", "round", "retrain"]),
        ({"method": "random"}, ["retrain"]),
        ({"method": "admm", "pattern": "unstructured"}, ["search", "retrain"]),
    ],
)
def test_each_phase_once_and_asked_is_got(asked: dict[str, Any], phases: list[str]) -> None:
    net, dense = made()
    aux = net.aux.weight.detach().clone()
    training = Training()
    pruned, report = prune_in_your_loop(dense, net, settings(**asked), training)
    assert [(phase, number) for phase, number, _ in training.seen] == [(p, i) for i, p in enumerate(phases, 1)]
    assert 2.0 <= report.got <= 2.2
    assert training.seen[-1][2] == pytest.approx(report.got), "the last phase is under the masks"
    ratios = [got for _, _, got in training.seen]
    assert ratios == sorted(ratios) and (phases[0] == "search") == (ratios[0] == 1.0)
    assert report.stages[0].name == "dense"
    assert not torch.equal(aux, net.aux.weight), "what evaluation does not read trains along"
    pruned.check_masks()
    torch.testing.assert_close(pruned.module(torch.ones(2, 8)), net.eval()(torch.ones(2, 8)))
    if asked.get("pattern") is None:
        smaller, proof = compressor.compact(pruned)
        assert proof.agreement is not None and dense.n_parameters / smaller.n_parameters >= 2.0


def test_without_code_the_graph_trains_and_the_program_stays() -> None:
    _, dense = made()
    before = {name: p.detach().clone() for name, p in dense.parameters.items()}
    pruned, report = prune_in_your_loop(dense, None, settings(method="admm"), Training())
    assert report.got >= 2.0 and pruned.masks
    assert all(torch.equal(before[name], p) for name, p in dense.parameters.items())


def without_attaching(model: nn.Module, loop: Loop) -> None:
    if loop.phase == "search":
        Training()(model, loop)
        return
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1)


def no_length(model: nn.Module, loop: Loop) -> None:
    loop.attach(torch.optim.SGD(model.parameters(), lr=0.1))


def of_another_network(model: nn.Module, loop: Loop) -> None:
    loop.attach(torch.optim.SGD(Net().parameters(), lr=0.1), steps=3)


def follows_first(model: nn.Module, loop: Loop) -> None:
    loop.follow(Net())


def replaces_a_weight(model: nn.Module, loop: Loop) -> None:
    Training()(model, loop)
    model.head.weight = nn.Parameter(torch.zeros(3, 16))  # type: ignore[union-attr]


def raises(model: nn.Module, loop: Loop) -> None:
    raise KeyError("images")


@pytest.mark.parametrize(
    ("train", "error", "said"),
    [
        (without_attaching, TrainingError, r"cut weights came back in retrain; attach every optimizer"),
        (lambda model, loop: None, UsageError, "did not attach in the search"),
        (no_length, UsageError, "a search must know its length; give steps="),
        (of_another_network, UsageError, "holds no parameter of the model"),
        (follows_first, UsageError, "attach the optimizer first"),
        (replaces_a_weight, CompressError, "head.weight: was replaced"),
        (raises, TrainingError, r"raised KeyError: 'images' \(test_your_loop.py:\d+ raise KeyError"),
    ],
)
def test_what_the_function_must_not_do(train: Any, error: type[CompressError], said: str) -> None:
    net, dense = made()
    with pytest.raises(error, match=said) as raised:
        prune_in_your_loop(dense, net, settings(method="admm"), train, name="mine.py:train")
    assert len(str(raised.value).splitlines()) <= 3


def test_what_only_the_tools_own_training_does_is_refused() -> None:
    net, dense = made()
    for asked in ({"score": "taylor", "method": "magnitude"}, {"recovery": Recovery(recalibrate=4)}):
        with pytest.raises(UsageError, match=r"of its own|own loop"):
            prune_in_your_loop(dense, net, settings(**asked), Training())


def test_what_it_prints_is_no_result(capsys: pytest.CaptureFixture[str]) -> None:
    net, dense = made()

    def talks(model: nn.Module, loop: Loop) -> None:
        print("epoch 1", loop.device)

    prune_in_your_loop(dense, net, settings(method="magnitude"), talks)
    printed = capsys.readouterr()
    assert printed.out == "" and "epoch 1 cpu" in printed.err


def test_load_hands_out_the_module_as_its_author_wrote_it() -> None:
    modules: list[nn.Module] = []
    program = load("init", arch="lenet5", on_module=modules.append)
    assert type(modules[0]).__name__ == "LeNet5" and "forward" not in vars(modules[0])
    pruned, _ = prune_in_your_loop(program, modules[0], settings(method="magnitude"), lambda model, loop: None)
    assert pruned.masks
