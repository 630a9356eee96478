"""The tool's own loop trains a network as its author wrote it, where that is not what its evaluation graph does."""

from __future__ import annotations

import contextlib
import copy
import importlib.util
import random
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import compressor
from compressor.asking import Admm, PruneSettings, Recipe
from compressor.data import Batch, Classification
from compressor.data.arrays import ArraySource
from compressor.program import Program, capture
from compressor.progress import Progress, Silent
from compressor.pruning import prune, retrain, sweep
from compressor.training import load_state

RECIPE = Recipe(epochs=2, batch_size=32, optimizer="sgd", lr=0.02, weight_decay=1e-3)
ADMM = PruneSettings(ratio=1.5, of="macs", round_to=1, prune_recipe=RECIPE, retrain_recipe=RECIPE)
MAGNITUDE = replace(ADMM, method="magnitude", steps=2)
STAGED = replace(ADMM, ratio=2.0, admm=Admm(stages=2), stage_recipe=RECIPE)


class Both(NamedTuple):
    logits: Tensor
    helped: Tensor
    features: Tensor


class Net(nn.Module):
    """(N, 1, 8, 8) -> (N, 3), with what authors write behind `self.training`."""

    def __init__(self, *, aux: bool = False, depth: float = 0.0, drop: float = 0.0, lift: bool = False,
        whose: str = "torch",
    ) -> None:  # fmt: skip
        super().__init__()
        self.one, self.norm = nn.Conv2d(1, 8, 3, padding=1), nn.BatchNorm2d(8)
        self.two, self.out = nn.Conv2d(8, 8, 3, padding=1), nn.Linear(8 * 16, 3)
        self.aux = nn.Linear(8 * 16, 3) if aux else None
        self.lift = nn.Parameter(torch.full((8, 1, 1), 0.1)) if lift else None
        self.depth, self.drop, self.whose = depth, drop, whose

    def forward(self, x: Tensor) -> Any:
        h = F.max_pool2d(self.norm(self.one(x)).relu(), 2)
        if self.training and self.lift is not None:
            h = h + self.lift  # gives a value to channels that are cut
        y = self.two(h).relu()
        if self.training and self.depth:
            drawn = {"python": random.random, "numpy": np.random.rand}.get(self.whose)
            y = y * ((torch.rand(len(x), 1, 1, 1) if drawn is None else drawn()) >= self.depth)
        features = F.dropout(h + y, self.drop, training=self.training)
        logits = self.out(features.flatten(1))
        if self.training and self.aux is not None:
            return Both(logits, self.aux(h.flatten(1)), features)
        return logits


def made(**what: Any) -> tuple[Net, Program]:
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(0)
        net = Net(**what)
    return net, capture(copy.deepcopy(net), "1x8x8")


class Told(Silent):
    def __init__(self) -> None:
        self.notes: list[str] = []

    def note(self, text: str) -> None:
        self.notes.append(text)

    @property
    def trains(self) -> list[str]:
        return [note for note in self.notes if "train" in note]


def same(one: Program, other: Program) -> bool:
    mine, theirs = one.module.tensors(), other.module.tensors()
    return all(torch.equal(mine[name], theirs[name]) for name in mine)


@pytest.mark.parametrize("what", [{}, {"drop": 0.3}], ids=["plain", "dropout"])
def test_where_both_forms_do_the_same_the_graph_trains(what: dict[str, Any], data: ArraySource) -> None:
    net, program = made(**what)
    before, told = dict(net.named_parameters()), Told()
    with_model, _ = prune(program, ADMM, data=data, model=net, progress=told)
    assert same(with_model, prune(program, ADMM, data=data)[0])
    assert told.trains == []
    assert all(parameter is before[name] for name, parameter in net.named_parameters()), "it got its own back"


@pytest.mark.parametrize(
    ("what", "settings"),
    [
        ({"aux": True}, MAGNITUDE),
        ({"depth": 0.3}, ADMM),
        ({"aux": True, "depth": 0.3, "drop": 0.3}, ADMM),
        ({"lift": True}, MAGNITUDE),
    ],
    ids=["auxiliary", "depth", "all", "lift"],
)
def test_what_stands_behind_self_training_acts(
    what: dict[str, Any], settings: PruneSettings, data: ArraySource
) -> None:
    net, program = made(**what)
    told = Told()
    pruned, report = prune(program, settings, data=data, model=net, progress=told)
    assert len(told.trains) == 1 and "as its author wrote it" in told.trains[0]
    assert not same(pruned, prune(program, settings, data=data)[0])
    assert report.got >= 1.5 and pruned.masks
    pruned.check_masks()
    smaller, proof = compressor.compact(pruned)
    assert proof.agreement is not None
    net.eval()
    x = torch.rand(4, 1, 8, 8)
    assert torch.equal(net(x), pruned.module(x)), "the module ends with the weights of the result"
    torch.testing.assert_close(smaller.module(x), net(x), rtol=1e-4, atol=1e-5)


def test_auxiliary_heads_are_named_and_train_along_and_do_not_ship(data: ArraySource) -> None:
    net, program = made(aux=True)
    before, told = copy.deepcopy(net.state_dict()), Told()
    pruned, _ = prune(program, ADMM, data=data, model=net, progress=told)
    (note,) = told.trains
    assert "share in the loss 0.3 each: helped" in note and "2 parameters train along" in note
    assert "1 more that it returns in training are of another form" in note
    assert not torch.equal(net.aux.weight, before["aux.weight"])  # type: ignore[union-attr]
    assert not any(name.startswith("aux") for name in pruned.module.tensors())


def test_the_loss_is_that_of_the_papers(data: ArraySource) -> None:
    """One step by hand: cross entropy of both heads, 1 : 0.3."""
    net, program = made(aux=True)
    mine = copy.deepcopy(net).train()
    recipe = Recipe(epochs=1, epoch_steps=1, batch_size=32, optimizer="sgd", lr=0.1, momentum=0.0, schedule="constant")
    tuned, _ = retrain(program, recipe, data=data, model=net)
    (batch,) = [part for i, part in enumerate(data.batches("train", 32, seed=0, epoch=0)) if i == 0]
    returned = mine(*batch.inputs)
    cross_entropy = nn.functional.cross_entropy
    (cross_entropy(returned.logits, batch.target) + 0.3 * cross_entropy(returned.helped, batch.target)).backward()
    for name, parameter in mine.named_parameters():
        assert parameter.grad is not None
        there = dict(net.named_parameters())[name]
        torch.testing.assert_close(there.detach(), parameter.detach() - 0.1 * parameter.grad, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(tuned.module.tensors()["norm.running_var"], mine.norm.running_var)


@pytest.mark.parametrize("whose", ["python", "numpy"])
def test_random_numbers_that_are_not_torchs_are_the_same_when_a_run_goes_on(
    whose: str, data: ArraySource, tmp_path: Path, break_after: Callable[[int], Progress], stopped: type[Exception]
) -> None:
    """With a chance so small that the trial itself hardly ever draws it: that a number was drawn is what counts."""
    what = {"depth": 0.02, "whose": whose}
    before, told = (random.getstate(), np.random.get_state()[1].tolist()), Told()
    whole, _ = prune(made(**what)[1], ADMM, data=data, model=made(**what)[0], progress=told)
    assert len(told.trains) == 1
    assert (random.getstate(), np.random.get_state()[1].tolist()) == before, "the caller's own stay as they were"
    net, program = made(**what)
    with pytest.raises(stopped):
        prune(program, ADMM, data=data, model=net, progress=break_after(7), resume_file=tmp_path / "run")
    random.random(), np.random.rand()
    net, program = made(**what)
    assert same(whole, prune(program, ADMM, data=data, model=net, resume_file=tmp_path / "run", resume=True)[0])


@pytest.mark.parametrize("settings", [ADMM, STAGED], ids=["admm", "staged"])
@pytest.mark.parametrize("broken_after", [7, 10, 25])
def test_a_run_goes_on_where_it_was_broken_off(
    settings: PruneSettings, broken_after: int, data: ArraySource, tmp_path: Path,
    break_after: Callable[[int], Progress], stopped: type[Exception],
) -> None:  # fmt: skip
    what = {"aux": True, "depth": 0.3}
    whole, _ = prune(made(**what)[1], settings, data=data, model=(net := made(**what)[0]))
    file = tmp_path / "run.resume"
    again, program = made(**what)
    with contextlib.suppress(stopped):
        prune(program, settings, data=data, model=again, progress=break_after(broken_after), resume_file=file)
    later, program = made(**what)
    resumed, _ = prune(program, settings, data=data, model=later, resume_file=file, resume=True)
    assert same(whole, resumed)
    assert all(torch.equal(net.state_dict()[name], value) for name, value in later.state_dict().items())


def test_twin_a_run_that_forgets_the_heads_ends_elsewhere(
    data: ArraySource, tmp_path: Path, break_after: Callable[[int], Progress], stopped: type[Exception],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    from compressor.pruning.training_form import TrainingForm

    whole, _ = prune(made(aux=True)[1], ADMM, data=data, model=made(aux=True)[0])
    net, program = made(aux=True)
    with pytest.raises(stopped):
        prune(program, ADMM, data=data, model=net, progress=break_after(10), resume_file=tmp_path / "run")
    assert load_state(tmp_path / "run")["form"].keys() >= {"aux.weight", "aux.bias"}
    monkeypatch.setattr(TrainingForm, "restore", lambda self, state: None)
    net, program = made(aux=True)
    resumed, _ = prune(program, ADMM, data=data, model=net, resume_file=tmp_path / "run", resume=True)
    assert not same(whole, resumed)


def test_a_run_in_one_form_does_not_go_on_in_the_other(
    data: ArraySource, tmp_path: Path, break_after: Callable[[int], Progress], stopped: type[Exception]
) -> None:
    net, program = made(depth=0.3)
    with pytest.raises(stopped):
        prune(program, ADMM, data=data, model=net, progress=break_after(7), resume_file=tmp_path / "run")
    with pytest.raises(compressor.CompressError, match="another model, other data or other options"):
        prune(program, ADMM, data=data, resume_file=tmp_path / "run", resume=True)


def test_masks_are_exact_in_both_forms(data: ArraySource) -> None:
    """What auxiliary heads read of channels that are cut changes nothing that ships: as if it were sliced away."""
    net, program = made(aux=True)
    pruned, _ = prune(program, replace(MAGNITUDE, steps=1, prune_recipe=None, retrain_recipe=None))
    dead = ~pruned.masks["norm.weight"]
    assert 0 < int(dead.sum()) < 8
    columns = dead.repeat_interleave(16)  # the head reads 16 positions of each channel
    results = []
    for value in (0.0, 7.0):
        model = copy.deepcopy(net)
        with torch.no_grad():
            model.aux.weight[:, columns] = value  # type: ignore[union-attr,index]
        results.append(retrain(pruned, RECIPE, data=data, model=model)[0])
    assert same(*results)
    with torch.no_grad():
        model.aux.weight[:, ~columns] += 1.0  # type: ignore[union-attr,index]
    assert not same(results[0], retrain(pruned, RECIPE, data=data, model=model)[0]), "twin: other columns count"


def test_a_compact_network_trains_so_too(data: ArraySource) -> None:
    """Tensors of other widths are put into the module, if it then computes what the graph does."""
    small, _ = compressor.compact(prune(made()[1], replace(MAGNITUDE, prune_recipe=None, retrain_recipe=None))[0])
    net, told = made(depth=0.3)[0], Told()
    assert small.n_parameters < sum(parameter.numel() for parameter in net.parameters())
    tuned, _ = retrain(small, RECIPE, data=data, model=net, progress=told)
    assert "as its author wrote it" in told.trains[0]
    assert not same(tuned, retrain(small, RECIPE, data=data)[0])
    x = torch.rand(4, 1, 8, 8)
    assert torch.equal(net.eval()(x), tuned.module(x))


def test_a_task_may_read_the_training_forward_itself(data: ArraySource) -> None:
    class Own(Classification):
        n_seen = 0

        def training_loss(self, outputs: Any, batch: Batch, *, smoothing: float = 0.0) -> Tensor:
            assert isinstance(outputs, Both)
            self.n_seen += 1
            return self.loss(outputs.logits, batch) + outputs.features.square().mean()

    task = Own()
    net, program = made(aux=True)
    with_task, _ = retrain(program, RECIPE, data=data, task=task, model=net)
    assert task.n_seen == 10
    assert not same(with_task, retrain(program, RECIPE, data=data, model=made(aux=True)[0])[0])


def test_a_ratio_of_a_sweep_starts_from_the_model_as_it_was(data: ArraySource, tmp_path: Path) -> None:
    net, program = made(aux=True)
    found: list[Program] = []
    sweep(program, ADMM, [1.3, 1.5], tmp_path, data=data, model=net, on_pruned=lambda r, p, _: found.append(p.clone()))
    alone, _ = prune(program, ADMM, data=data, model=made(aux=True)[0])
    assert same(found[1], alone)


class Wrong(Net):
    """Its evaluation form is not the network's that was captured."""

    def forward(self, x: Tensor) -> Any:
        return super().forward(x) + (0 if self.training else 1)


class Asks(Net):
    """Its training form takes more than its inputs."""

    def forward(self, x: Tensor, target: Tensor | None = None) -> Any:
        return super().forward(x) if not self.training else super().forward(x) * target


class Maps(Net):
    """Its training form returns no outputs that a loss for its evaluation form could read."""

    def forward(self, x: Tensor) -> Any:
        return [self.one(x), self.two(self.one(x))] if self.training else super().forward(x)


@pytest.mark.parametrize(
    ("kind", "why"),
    [
        (Wrong, "computes something else than the graph"),
        (Asks, "does not take the inputs alone"),
        (Maps, "give the task a training_loss"),
        (lambda: nn.Linear(64, 3), "has no one.weight"),
    ],
    ids=["wrong", "asks", "maps", "another"],
)
def test_what_cannot_train_in_its_own_form_says_why(kind: Callable[[], nn.Module], why: str, data: ArraySource) -> None:
    torch.manual_seed(0)
    model = kind()
    program = capture(copy.deepcopy(model), "1x8x8") if isinstance(model, Asks | Maps) else made()[1]
    before, told = copy.deepcopy(model.state_dict()), Told()
    if isinstance(model, Wrong):
        program.module.load_state_dict(model.state_dict(), strict=False)
    tuned, _ = retrain(program, RECIPE, data=data, model=model, progress=told)
    assert [why in note for note in told.trains] == [True]
    assert same(tuned, retrain(program, RECIPE, data=data)[0])
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())


@pytest.mark.skipif(importlib.util.find_spec("timm") is None, reason="timm is not installed")
def test_a_network_of_a_library_is_made_anew(data: ArraySource) -> None:
    """A checkpoint remembers the name: its stochastic depth acts without the module at hand."""
    program = compressor.load(
        "init", arch="timm:convnext_atto", inputs=["1x8x8"],
        arch_args={"num_classes": 3, "in_chans": 1, "drop_path_rate": 0.5, "depths": (1, 1, 1, 1), "patch_size": 1},
    )  # fmt: skip
    told = Told()
    tuned, _ = retrain(program, RECIPE, data=data, progress=told)
    assert any("as its author wrote it" in note for note in told.trains)
    forgotten = program.replace(record=replace(program.record, arch=None))
    assert not same(tuned, retrain(forgotten, RECIPE, data=data)[0])
