"""Pruning inside anybody's own training loop: masks and the pull of a search ride on the optimizer's steps.

It must never run a loop, a loss or a schedule: those are the user's. What is cut follows from the graph of the model in
evaluation mode, as everywhere else; the model that trains is the user's own, in whatever form it trains.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from compressor.asking import PruneSettings, Recipe, build
from compressor.asking.prune import SEARCHING
from compressor.asking.score import NEEDS_DATA, NEEDS_GRADIENTS
from compressor.axes import UnitMap
from compressor.cost import USUAL, Stopwatch, find_preferences
from compressor.errors import UsageError
from compressor.program import Program, leaves_out, open_response_norms
from compressor.progress import Silent
from compressor.pruning.block_order import order_of
from compressor.pruning.choosing import layers_of, remember, resolved, units_of
from compressor.pruning.drawing import DrawHook
from compressor.pruning.hooks import MaskHook
from compressor.pruning.live_model import LiveModel
from compressor.pruning.phases import step_ratios
from compressor.pruning.rating import rated_tensors
from compressor.pruning.searching import search_hook
from compressor.sparsity import Choice, Selector, kept_units, make_selector, merge_masks
from compressor.training import StepHook

_VERSION = 1


@dataclass(frozen=True)
class LiveReport:
    """Where a live pruning stands: `got` is dense ÷ kept of the compacted model in the unit of the budget, `residual`
    ‖W − Z‖/‖W‖ of the search (None under masks), `untouched` the parameters that the evaluation graph does not read."""

    asked: float
    got: float
    steps: int
    n_cut: int
    residual: float | None
    untouched: tuple[str, ...]


class Pruner:
    """Prunes a live `nn.Module` while somebody else trains it.

        pruner = compressor.Pruner(model, inputs, ratio="4x", of="macs", method="admm", steps=len(loader) * epochs)
        pruner.attach(optimizer)
        ...                             # the loop as it was
        pruner.finish()                 # the hard prune; go on training under the masks, or:
        program = pruner.program()      # a masked Program with the trained weights: compact it, export it

    `inputs` are example tensors, specifications, or texts such as "3x224x224"; a dictionary
    of them names parameters of `forward`. What is asked is that of
    `PruneSettings`, as values or as the command line writes them; `steps` are the optimizer steps of the search (admm,
    group-lasso), or those over which the `rounds` of magnitude and random are spread, the first cut being at once.

    What happens to what stands around the loop: a `GradScaler` that skips a step skips it here too, and gradients that
    a fused optimizer unscales itself are pulled at their scale; accumulation counts optimizer steps; clipping comes
    before the pull and does not touch it; under DDP every process makes the same choice from the same weights; an
    averaged copy (EMA) comes out masked once it is named to `follow`.

    Raises:  UsageError for settings that are out of range or need the tool's own loop; ModelError if the model cannot
             be captured; RatioError if the ratio is infeasible; PatternError if nothing can be pruned.
    """

    def __init__(
        self,
        model: nn.Module,
        inputs: Any,
        settings: PruneSettings | None = None,
        *,
        steps: int = 0,
        rounds: int = 1,
        stopwatch: Stopwatch | None = None,
        **asked: Any,
    ) -> None:
        if settings is not None and asked:
            raise UsageError(f"Pruner: give settings or single values, not both ({', '.join(asked)})")
        settings = settings or build(PruneSettings, {**asked, "steps": rounds})
        _refuse(settings, steps)
        self._live = LiveModel(model)
        self._choose(open_response_norms(self._live.captured(inputs)), settings, steps, stopwatch)

    def _choose(self, dense: Program, settings: PruneSettings, steps: int, stopwatch: Stopwatch | None) -> None:
        settings = resolved(settings, stopwatch)
        preferences = find_preferences(stopwatch) if settings.likes_widths else USUAL
        self._start(dense, settings, steps)
        blocks = layers_of(dense, settings)
        order = order_of(dense, settings, None, Silent(), blocks)
        choice = Choice(settings, stopwatch, preferences, order, blocks=blocks)
        self._selector = make_selector(dense, self._units, choice)
        self._selector.select(dense.parameters, settings.ratio, dense.masks)  # infeasible is found now

    @classmethod
    def of(
        cls, model: nn.Module, program: Program, settings: PruneSettings, *, steps: int = 0,
        stopwatch: Stopwatch | None = None,
    ) -> Pruner:  # fmt: skip
        """As `Pruner`, of a model whose program is known: what `load` captured from it, or whose own module it is.

        Raises:  as `Pruner`; ModelError if the two do not fit.
        """
        _refuse(settings, steps)
        pruner = cls.__new__(cls)
        pruner._live = LiveModel(model)
        pruner._live.check_fits(program)
        pruner._live.call_as(program)
        pruner._choose(open_response_norms(program), settings, steps, stopwatch)
        return pruner

    @classmethod
    def under_masks(cls, model: nn.Module, program: Program) -> Pruner:
        """Masks alone: `model`, whose parameters have the names of `program`'s, keeps cut what its masks cut.

        Raises:  ModelError if a masked parameter is not there, or has another shape; UsageError if experts are cut.
        """
        if leaves_out(program):
            raise UsageError(
                "the routers of this program choose no expert that is cut, and the module's would: retrain with"
                " compressor.retrain, or compact it first"
            )
        pruner = cls.__new__(cls)
        pruner._live = LiveModel(model)
        pruner._live.check_fits(program)
        left = program.n_parameters - program.n_zeroed
        pruner._start(program, PruneSettings(ratio=max(program.n_parameters / left, 1.001), method="magnitude"), 0)
        pruner._rounds, pruner._is_finished = (), True
        pruner._set_masks(program.masks)
        return pruner

    def _start(self, dense: Program, settings: PruneSettings, steps: int) -> None:
        self._dense, self._settings, self._n_steps, self._step = dense, settings, steps, 0
        self._units = units_of(dense, settings)
        self._view = self._live.view(dense)
        self._masks: dict[str, Tensor] = dict(dense.masks)
        self._search: DrawHook | None = None
        self._selector: Selector | None = None
        self._waiting: dict[str, Any] | None = None
        self._followers: list[LiveModel] = []
        self._handles: list[Any] = []
        self._mask_hook = MaskHook(self._view, self._masks)
        self._is_finished = False
        self._rounds: tuple[float, ...] = () if settings.method in SEARCHING else tuple(
            step_ratios(settings.ratio, settings.steps, settings.schedule)
        )  # fmt: skip

    @property
    def masks(self) -> dict[str, Tensor]:
        """What is cut now, by parameter name of the model; True = keep."""
        return dict(self._masks)

    @property
    def is_finished(self) -> bool:
        """Whether the hard prune is done, and only masks are held."""
        return self._is_finished

    @property
    def n_steps(self) -> int:
        """Optimizer steps of the search, or of the rounds."""
        return self._n_steps

    @property
    def n_done(self) -> int:
        """Optimizer steps so far."""
        return self._step

    @property
    def untouched(self) -> tuple[str, ...]:
        """Parameters that play no part in evaluation (auxiliary heads): never cut, never pulled."""
        return self._live.unread(self._dense)

    def attach(self, optimizer: torch.optim.Optimizer) -> Pruner:
        """Rides on the optimizer's steps from now on; a first cut of magnitude or random is made at once.

        Raises:  UsageError if it is attached already, or the optimizer holds none of the parameters to be cut.
        """
        if self._handles:
            raise UsageError("Pruner: is attached already; detach() first")
        held = {id(parameter) for group in optimizer.param_groups for parameter in group["params"]}
        if not any(id(parameter) in held for _, parameter in self._view.named_parameters()):
            raise UsageError("Pruner: the optimizer holds no parameter of the model; build it from model.parameters()")
        if self._settings.method in SEARCHING and not self._is_finished:
            self._search = self._new_search(optimizer)
        self._cut_if_due()
        self._handles = [
            optimizer.register_step_pre_hook(self._before_step),
            optimizer.register_step_post_hook(self._after_step),
        ]
        return self

    def _new_search(self, optimizer: torch.optim.Optimizer) -> DrawHook:
        assert self._selector is not None
        dense = self._live.program(self._dense, self._masks, check=False)
        recipe = _recipe_of(optimizer)
        hook = search_hook(self._view, dense, self._units, self._selector, self._settings, self._n_steps, recipe)
        if self._waiting is not None:
            hook.load_state_dict(self._waiting)
            self._waiting = None
        return hook

    def detach(self) -> None:
        """Lets the optimizer go; what is cut stays 0 only as long as nobody trains it."""
        for handle in self._handles:
            handle.remove()
        self._handles = []

    def follow(self, *modules: nn.Module) -> Pruner:
        """Masks copies of the model as well, after every step and at the end: an EMA, a teacher that is averaged.

        Raises:  ModelError if a copy lacks a parameter of the model, or has it in another shape.
        """
        for module in modules:
            follower = LiveModel(module)
            follower.check_fits(self._dense)
            follower.mask(self._masks)
            self._followers.append(follower)
        return self

    @torch.no_grad()
    def finish(self) -> LiveReport:
        """The hard prune: what the search drew to 0 is cut, or what is left of the rounds. Training may go on under
        the masks. A second call changes nothing."""
        self._live.check_unchanged()
        if not self._is_finished:
            if self._search is not None:
                self._set_masks(merge_masks(self._masks, {n: m.cpu() for n, m in self._search.masks.items()}))
            elif self._rounds:
                self._cut(self._settings.ratio)
            self._search, self._rounds, self._is_finished = None, (), True
        return self.report()

    def over(self, steps: int) -> Pruner:
        """This one, with a search of that many steps; before it is attached."""
        self._n_steps = steps
        return self

    @torch.no_grad()
    def cut_next(self) -> float:
        """Makes the next cut of the rounds now, not when its step comes; the ratio that it cut to."""
        ratio, self._rounds = self._rounds[0], self._rounds[1:]
        self._cut(ratio)
        return ratio

    @property
    def selector(self) -> Selector:
        """What chooses, and counts what is left."""
        assert self._selector is not None, "a Pruner under masks chooses nothing"
        return self._selector

    @property
    def units(self) -> UnitMap:
        """What goes together."""
        return self._units

    def report(self) -> LiveReport:
        """Where it stands."""
        got = 1.0
        if self._selector is not None and self._masks:
            kept = kept_units(self._units, self._masks, self._dense.parameters)
            got = self._selector.dense / self._selector.kept_cost(self._masks, kept)
        residual = None if self._search is None else self._search.residual
        n_cut = sum(int((~mask).sum()) for mask in self._masks.values())
        return LiveReport(self._settings.ratio, got, self._step, n_cut, residual, self.untouched)

    def program(self, of: nn.Module | None = None) -> Program:
        """The model as it is now, or the copy `of` it that an average keeps, as a masked `Program`: the way on to
        `compact` and `export`.

        Raises:  ModelError if the model computes something else than when the Pruner was made, or the copy does not
                 fit it.
        """
        self._live.check_unchanged()
        live = self._live if of is None else LiveModel(of)
        if of is not None:
            live.check_fits(self._dense)
            live.mask(self._masks)
        return self._record(live.program(self._dense, self._masks))

    def state_dict(self) -> dict[str, Any]:
        """All that a checkpoint of the user's needs beside the model and the optimizer; tensors and plain values."""
        return {
            "version": _VERSION,
            "identity": self._identity(),
            "masks": {name: mask.cpu() for name, mask in self._masks.items()},
            "step": self._step,
            "finished": self._is_finished,
            "n_rounds_left": len(self._rounds),
            "search": self._waiting if self._search is None else self._search.state_dict(),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Goes on where `state_dict` was taken; load model and optimizer first.

        Raises:  UsageError if it was taken under other settings, or by another version.
        """
        if state.get("version") != _VERSION:
            raise UsageError(f"Pruner: this state is of version {state.get('version')}, this one reads {_VERSION}")
        if state["identity"] != self._identity():
            raise UsageError("Pruner: this state was taken with other settings; make the Pruner with those of then")
        self._set_masks(state["masks"])
        self._step, self._is_finished = state["step"], state["finished"]
        self._rounds = self._rounds[len(self._rounds) - state["n_rounds_left"] :]
        if self._search is not None and state["search"] is not None:
            self._search.load_state_dict(state["search"])
        else:  # it is taken up once there is an optimizer
            self._search, self._waiting = None, state["search"]

    def _hooks(self) -> tuple[StepHook, ...]:
        """The search comes first: what is cut already must not follow its pull."""
        return (self._mask_hook,) if self._search is None else (self._search, self._mask_hook)

    def _before_step(self, optimizer: torch.optim.Optimizer, *_: Any) -> None:
        self._live.check_unchanged()
        scale = getattr(optimizer, "grad_scale", None)
        with self._view.gradients_at(scale):
            for hook in self._hooks():
                hook.on_gradients()

    def _after_step(self, *_: Any) -> None:
        for hook in self._hooks():
            hook.on_update()
        self._step += 1
        self._cut_if_due()
        for follower in self._followers:
            follower.mask(self._masks)

    @torch.no_grad()
    def _cut_if_due(self) -> None:
        """The rounds of magnitude and random: evenly spread over the steps, the first one at once."""
        n_all = self._settings.steps
        while self._rounds and self._step >= (n_all - len(self._rounds)) * self._n_steps // n_all:
            self._cut(self._rounds[0])
            self._rounds = self._rounds[1:]

    def _cut(self, ratio: float) -> None:
        now = self._live.program(self._dense, self._masks, check=False)
        rated = rated_tensors(now, self._units, self._settings, None)
        assert self._selector is not None
        self._set_masks(merge_masks(self._masks, self._selector.select(rated, ratio, self._masks).masks))

    def _set_masks(self, masks: Mapping[str, Tensor]) -> None:
        self._masks = dict(masks)
        self._mask_hook = MaskHook(self._view, self._masks)
        self._live.mask(self._masks)
        for follower in self._followers:
            follower.mask(self._masks)

    def _record(self, program: Program) -> Program:
        """The program with its units and the size of the dense one in its record, as `prune` leaves it."""
        return remember(program, self._dense, self._settings)

    def _identity(self) -> dict[str, Any]:
        settings = asdict(replace(self._settings, prune_recipe=None, retrain_recipe=None, sensitivity=None))
        return {**{key: str(value) for key, value in settings.items()}, "n_steps": self._n_steps}


def _recipe_of(optimizer: torch.optim.Optimizer) -> Recipe:
    """What the penalty must know of the training: the family of the optimizer and its peak rate."""
    rates = [float(rate) for group in optimizer.param_groups for rate in (group["lr"], group.get("initial_lr", 0.0))]
    is_sgd = isinstance(optimizer, torch.optim.SGD)
    return Recipe(optimizer="sgd" if is_sgd else "adam", lr=max(rates) or None)  # type: ignore[arg-type]


def _refuse(settings: PruneSettings, steps: int) -> None:
    """Raises:  UsageError for what only the tool's own loop can do, and for a search without a length."""
    if settings.score in NEEDS_DATA:
        what = "takes gradients" if settings.score in NEEDS_GRADIENTS else "makes runs"
        raise UsageError(f"Pruner: --score {settings.score} {what} of its own; prune with compressor.prune")
    for name, asked in (
        ("recovery", bool(settings.recovery)),
        ("alternate", settings.alternate),
        ("freeze", bool(settings.freeze)),
        ("rescale_dropout", settings.rescale_dropout),
        ("reinit", settings.reinit),
        ("select_inputs", settings.select_inputs),
        ("pattern expert", settings.pattern.experts),
        ("a recipe", bool(settings.recipes)),
        ("stages above 1", settings.admm.stages > 1),
    ):
        if asked:
            raise UsageError(f"Pruner: {name} is of the tool's own loop; leave it out, or prune with compressor.prune")
    if (settings.method in SEARCHING or settings.steps > 1) and steps < 1:
        raise UsageError(
            f"Pruner: {settings.method} is spread over the training; say over how many optimizer steps: steps="
            "len(loader) * epochs"
        )
