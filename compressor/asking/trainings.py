"""The trainings of one pruning run: how long each is, and what the search has for itself; it must never train."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields
from typing import Any, NamedTuple

from compressor.asking.option import at_least, build, check, option
from compressor.asking.panels import EXPERIMENTS, SEARCH
from compressor.asking.recipe import Optimizer, Recipe, Schedule
from compressor.errors import UsageError

_PREFIX = "search_"
_LAST_ONLY = ("keep_best", "patience", "distill")
"""A search must end where it converges, not at its luckiest epoch, and learns from the data alone."""


def _like(name: str, metavar: str | None = None) -> Any:
    return option(None, f"--{name}, where it differs from that of the retraining.", metavar=metavar, panel=EXPERIMENTS)


class Recipes(NamedTuple):
    """The trainings of a run: while the structure is found, between stages, the last one; None where there is none."""

    search: Recipe | None
    between: Recipe | None
    last: Recipe | None


@dataclass(frozen=True)
class Trainings:
    """How long each training is, and what the search has for itself; it takes all else from the retraining's options.

    Fields that begin with `search_` are options of `Recipe`.

    Raises:  UsageError for a value out of range.
    """

    epochs: int | None = option(
        None,
        "Epochs of the search (ADMM, growing regularisation), or of each magnitude step but the last; 0: none. "
        "Default: 20.",
        metavar="N", panel=SEARCH, flags=("-e",), range=at_least(0),
    )  # fmt: skip
    search_optimizer: Optimizer | None = _like("optimizer")
    search_lr: float | None = _like("lr", "RATE")
    search_lr_schedule: Schedule | None = _like("lr-schedule")
    search_weight_decay: float | None = _like("weight-decay", "X")
    search_l1: float | None = _like("l1", "X")
    stage_epochs: int = option(
        0, "Epochs of masked retraining after every stage but the last.", metavar="N", panel=SEARCH, range=at_least(0)
    )
    retrain_epochs: int | None = option(
        None, "Epochs of the final masked retraining. Default: 20.", metavar="N", panel=SEARCH, range=at_least(1)
    )
    no_retrain: bool = option(False, "Leave out the final retraining.", panel=SEARCH)
    train: str | None = option(
        None,
        "Your own training, file.py:function; it is called with the network and a loop to attach to your optimizer, "
        "once for every phase.",
        metavar="REF", panel=SEARCH,
    )  # fmt: skip

    def __post_init__(self) -> None:
        check(self)
        if self.train is not None:
            self._refuse_lengths()

    def _refuse_lengths(self) -> None:
        unsaid = Trainings()
        said = (f.name for f in fields(self) if getattr(self, f.name) != getattr(unsaid, f.name))
        self._refuse(name for name in said if name != "train")

    def _refuse(self, names: Iterable[str]) -> None:
        """Raises:  UsageError for the first of what is said about the tool's own trainings, where none takes place."""
        for name in names:
            hint = "return at once where loop.phase is retrain" if name == "no_retrain" else "your code says it"
            flag = name.replace("_", "-")
            raise UsageError(f"--train {self.train}: --{flag} is of the tool's own training; leave it out, {hint}")

    def recipes(self, said: Mapping[str, Any], *, searches: bool) -> Recipes:
        """The trainings, with what was `said` about all of them by option name.

        Raises:  UsageError for a value out of range.
        """
        if self.train is not None:
            asked, usual = build(Recipe, {**said, "epochs": None}), Recipe()
            self._refuse(f.name for f in fields(Recipe) if getattr(asked, f.name) != getattr(usual, f.name))
            return Recipes(None, None, None)
        last = None if self.no_retrain else build(Recipe, {**said, "epochs": self.retrain_epochs})
        between = build(Recipe, {**said, "epochs": self.stage_epochs}) if self.stage_epochs else None
        searches = searches and self.epochs != 0
        search = build(Recipe, {**self._for_search(said), "epochs": self.epochs}) if searches else None
        return Recipes(search, between, last)

    def _for_search(self, said: Mapping[str, Any]) -> dict[str, Any]:
        """What was said, with the search's own in its place; another optimizer has a usual rate of its own."""
        common = {name: value for name, value in said.items() if name not in _LAST_ONLY}
        own = {
            field.name.removeprefix(_PREFIX): getattr(self, field.name)
            for field in fields(self)
            if field.name.startswith(_PREFIX) and getattr(self, field.name) is not None
        }
        if own.get("optimizer", common.get("optimizer")) != common.get("optimizer") and "lr" not in own:
            common.pop("lr", None)
        return {**common, **own}
