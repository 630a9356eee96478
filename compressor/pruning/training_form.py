"""Training a network in its author's own form: the module trains, on the very tensors that a program holds.

An evaluation graph has no auxiliary heads, no stochastic depth, and nothing else that stands behind `if self.training`.
Masks, the pull of a search and resume points are by parameter, so whichever form trains, they are the same. It must
never change what is cut: that follows from the evaluation graph, which is what ships.
"""

from __future__ import annotations

from collections.abc import Generator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from compressor.architectures import is_code
from compressor.data import DataSource, Task
from compressor.errors import CompressError, first_line, named_line
from compressor.models import exported_form, parameters_behind, rebuilt
from compressor.program import Program, leaves_out
from compressor.progress import Progress
from compressor.pruning.live_model import LiveModel
from compressor.training import (
    AUXILIARY_SHARE,
    BaseHook,
    TaughtSource,
    TrainedAs,
    TrainingOutputs,
    check_form,
    find_outputs,
    forked_rng,
    is_alike,
    names_of,
    random_state,
    seed_epoch,
)

_CLOSE = 1e-3
"""Largest difference between two forms that do the same, relative to the largest value: they run the same kernels."""


class TrainingForm:
    """The module as its author trains it, and how to read what it returns."""

    def __init__(self, live: LiveModel, outputs: TrainingOutputs, own: tuple[str, ...]) -> None:
        self._live, self.outputs, self._own = live, outputs, own

    @contextmanager
    def trains(self, program: Program) -> Generator[TrainedAs]:
        """The module on the program's tensors, for the time of the block; what it trains, the program has."""
        self._live.adopt(program)
        with self._live.taking_inputs_of(program) as module:
            yield TrainedAs(module, self.outputs)
            module.to("cpu")
        self.settle(program)

    @torch.no_grad()
    def settle(self, program: Program) -> None:
        """Gives the program the buffers that the module has put in place of those it was given."""
        there = self._live.tensors
        for name, buffer in program.module.named_buffers():
            if there.get(name, buffer) is not buffer:
                buffer.copy_(there[name])

    def state(self) -> dict[str, Tensor]:
        """The tensors that only this form has, such as those of auxiliary heads; copies on the CPU."""
        there = self._live.tensors
        return {name: there[name].detach().cpu().clone() for name in self._own}

    @torch.no_grad()
    def restore(self, state: Mapping[str, Any]) -> None:
        """Takes back what `state` gave.

        Raises:  TrainingError if it is of another network.
        """
        check_form(state, self.state(), "form")
        there = self._live.tensors
        for name in self._own:
            there[name].copy_(state[name])


class SettleHook(BaseHook):
    """Keeps the program up to date with the form that trains, for what is measured after an epoch."""

    def __init__(self, form: TrainingForm, program: Program) -> None:
        self._form, self._program = form, program

    def on_epoch(self, epoch: int) -> Mapping[str, float]:
        self._form.settle(self._program)
        return {}


def find_form(
    program: Program, model: nn.Module | None, data: DataSource | None, task: Task, progress: Progress
) -> TrainingForm | None:
    """The form in which the network should train, None where that is the program's own graph, which is faster.

    Without labels the graph trains: the dense network's features are targets there (`matching.py`).

    `model` is the live module that the program was captured from; without one it is made anew where the program
    remembers a network of a library. What only its training form has is then untrained, so it has no share in the loss.
    Why a graph trains though there is a module, and what trains beside it otherwise, is a note.
    """
    if isinstance(data, TaughtSource) and data.learns_answers:
        return None
    try:
        module = model if model is not None else _rebuilt(program)
        if module is not None:
            return _form(program, LiveModel(module.cpu()), model is not None, task, progress)
    except _NoFormError as why:
        progress.note(f"the evaluation graph trains: {why}")
    except CompressError as error:
        progress.note(f"the evaluation graph trains: {first_line(error)}")
    return None


def of_form(form: TrainingForm | None) -> dict[str, str]:
    """What a run's identity has of the form in which it trains."""
    return {} if form is None else {"trained as": repr(form.outputs)}


class _NoFormError(Exception):
    """The module cannot train in its own form; the message says why."""


def _rebuilt(program: Program) -> nn.Module | None:
    record = program.record
    if is_code(record.arch):
        raise _NoFormError(
            f"{record.arch} is code that the model only remembers; name it again with --arch (in Python: model=)"
        )
    return rebuilt(record.arch, record.arch_args, record.configuration, program.module.tensors())


def _form(program: Program, live: LiveModel, is_known: bool, task: Task, progress: Progress) -> TrainingForm | None:
    """The module's own form, tried on a copy of the program's tensors; where it does not train it gets its own back."""
    if leaves_out(program):
        raise _NoFormError("its routers choose no expert that is cut, and the module's would")
    trial, given = program.clone(), live.tensors
    own = tuple(name for name in given if name not in trial.module.tensors() and name not in trial.aliases)
    before = {name: (given[name].detach().clone(), given[name].requires_grad) for name in own}
    missing = [name for name in trial.parameters if name not in given]
    if missing:
        raise _NoFormError(f"the module has no {missing[0]}")
    live.call_as(trial)
    live.adopt(trial)
    outputs: TrainingOutputs | None = None
    try:
        inputs = trial.example_inputs(trial.fixed_batch or 2)
        outputs = _tried(live, trial, inputs, _evaluated(live, trial, inputs), is_known, task, progress)
    finally:
        with torch.no_grad():
            for name, (value, _) in before.items():
                live.tensors[name].copy_(value)
        if outputs is None:
            live.hold(given)
            for name, (_, is_trained) in before.items():
                given[name].requires_grad_(is_trained)
    return None if outputs is None else TrainingForm(live, outputs, own)


def _evaluated(live: LiveModel, trial: Program, inputs: tuple[Tensor, ...]) -> Any:
    """What the module returns in evaluation, if that is what the program returns."""
    with live.taking_inputs_of(trial) as module, exported_form(module), torch.no_grad():
        module.eval()
        try:
            found = module(*inputs)
        except Exception as error:  # an author's code raises anything
            raise _NoFormError(f"the module cannot be called as the graph is: {named_line(error)}") from error
        expected = trial.module.eval()(*inputs)
    if not _close([_floats(found)], [_floats(expected)]):
        raise _NoFormError("the module computes something else than the graph")
    return found


def _tried(
    live: LiveModel, trial: Program, inputs: tuple[Tensor, ...], evaluated: Any, is_known: bool, task: Task,
    progress: Progress,
) -> TrainingOutputs | None:  # fmt: skip
    """How to read the training forward, None where it does what the graph does in training mode."""
    before = {name: buffer.clone() for name, buffer in trial.module.named_buffers()}
    with live.taking_inputs_of(trial) as module:
        module.train()
        try:
            mine = _Pass.of(module, inputs, trial)
        except Exception as error:  # an author's code raises anything
            raise _NoFormError(f"its training forward does not take the inputs alone: {named_line(error)}") from error
        finally:
            module.eval()
    outputs, n_left_out = _with_loss(mine.outputs, _outputs(mine.outputs, evaluated, task), live, trial, is_known)
    measured = outputs.measured(mine.outputs)
    if not outputs.auxiliary and is_alike(measured, evaluated):
        found = mine.found(measured, trial)
        for name, buffer in trial.module.named_buffers():
            buffer.copy_(before[name])
        graph = _Pass.of(trial.module.train(), inputs, trial)
        graph = replace(graph, buffers={name: graph.buffers[name] for name in mine.buffers})
        if mine.random == graph.random and _close(found, graph.found(graph.outputs, trial)):
            return None
    _tell(progress, mine.outputs, outputs, n_left_out, _trained_beside(live, trial))
    return outputs


@dataclass(frozen=True)
class _Pass:
    """A forward pass in training mode, and what it left behind: a branch that was skipped by chance drew a number."""

    outputs: Any
    buffers: Mapping[str, Tensor]
    random: tuple[object, ...]

    @classmethod
    def of(cls, module: nn.Module, inputs: tuple[Tensor, ...], trial: Program) -> _Pass:
        cpu = torch.device("cpu")
        with forked_rng(cpu), torch.enable_grad():
            seed_epoch(cpu, 0, 0, 0)
            outputs = module(*inputs)
            random = random_state()
        there = dict(module.named_buffers(remove_duplicate=False))
        known = sorted(name for name, _ in trial.module.named_buffers() if name in there)
        return cls(outputs, {name: there[name].clone() for name in known}, random)

    def found(self, measured: Any, trial: Program) -> list[list[Tensor]]:
        """What it gave: outputs, gradients of a fixed random combination of them, 0 where a parameter is not reached,
        and statistics."""
        outputs, generator = _floats(measured), torch.Generator().manual_seed(0)
        parts = [(x * torch.randn(x.shape, generator=generator)).sum() for x in outputs if x.requires_grad]
        trained = [p for p in trial.parameters.values() if p.requires_grad]
        gradients = torch.autograd.grad(torch.stack(parts).sum(), trained, materialize_grads=True) if parts else ()
        return [[x.detach() for x in outputs], list(gradients), _floats(self.buffers)]


def _outputs(training: Any, evaluation: Any, task: Task) -> TrainingOutputs:
    found = find_outputs(training, evaluation)
    if found is None and not hasattr(task, "training_loss"):
        raise _NoFormError(
            "the network returns something else in training than in evaluation, which the task reads; "
            "give the task a training_loss(outputs, batch), or train it yourself with --train"
        )
    return found or TrainingOutputs()


def _with_loss(
    returned: Any, outputs: TrainingOutputs, live: LiveModel, trial: Program, is_known: bool
) -> tuple[TrainingOutputs, int]:
    """The outputs whose heads can be trained, and how many others there are; what no loss reaches is frozen.

    Heads that start anew in a trained network are left out: they would teach it what they guess.
    """
    own = {id(p): name for name, p in live.tensors.items() if isinstance(p, nn.Parameter) and name not in trial.aliases}
    own = {key: name for key, name in own.items() if name not in trial.parameters}

    def behind(value: Any) -> set[int]:
        return parameters_behind(pytree.tree_leaves(value)) & own.keys()

    reached = behind(outputs.measured(returned))
    if reached and not is_known:
        raise _NoFormError(f"the file does not hold what its training forward needs: {own[min(reached, key=own.get)]}")  # type: ignore[arg-type]
    kept = tuple(place for place in outputs.auxiliary if is_known or not behind(returned[place]))
    reached |= {key for place in kept for key in behind(returned[place])}
    for key, name in own.items():
        live.tensors[name].requires_grad_(key in reached)
    return TrainingOutputs(outputs.main, kept), len(outputs.auxiliary) - len(kept)


def _trained_beside(live: LiveModel, trial: Program) -> list[str]:
    """Parameters that train along and are no part of the program."""
    known = (*trial.parameters, *trial.aliases)
    return [n for n, t in live.tensors.items() if isinstance(t, nn.Parameter) and t.requires_grad and n not in known]


def _tell(progress: Progress, returned: Any, outputs: TrainingOutputs, n_left_out: int, beside: list[str]) -> None:
    said = ["trains as its author wrote it, not the evaluation graph"]
    if outputs.auxiliary:
        said.append(f"share in the loss {AUXILIARY_SHARE:g} each: {', '.join(names_of(returned, outputs.auxiliary))}")
    if beside:
        said.append(f"{len(beside)} parameters train along and are no part of the result ({beside[0]} …)")
    if n_left_out:
        said.append(f"{n_left_out} auxiliary outputs have no share in the loss, their weights are not in the file")
    if n_more := 0 if outputs.main is None else len(returned) - 1 - len(outputs.auxiliary) - n_left_out:
        said.append(f"{n_more} more that it returns in training are of another form and have no loss")
    progress.note("; ".join(said))


def _floats(value: Any) -> list[Tensor]:
    return [leaf for leaf in pytree.tree_leaves(value) if isinstance(leaf, Tensor) and leaf.is_floating_point()]


def _close(mine: list[list[Tensor]], theirs: list[list[Tensor]]) -> bool:
    """Whether all values are the same but for rounding, in each group by its largest."""
    for ours, others in zip(mine, theirs, strict=True):
        if [x.shape for x in ours] != [x.shape for x in others]:
            return False
        largest = max((float(x.abs().max()) for x in others if x.numel()), default=0.0)
        if not all(bool(((a - b).abs() <= _CLOSE * largest).all()) for a, b in zip(ours, others, strict=True)):
            return False
    return True
