"""Options of the training while the structure is found, where it differs from the last one; it must never train."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Annotated, Any, Literal, NamedTuple

from compressor.cli.options import option

if TYPE_CHECKING:
    from compressor.training import Recipe

_PANEL = "Training while the structure is found"
_PREFIX = "search_"


def _like(name: str, metavar: str | None = None) -> Any:
    return option(metavar=metavar, panel=_PANEL, help=f"--{name}, where it differs from that of the retraining.")


@dataclass(frozen=True, kw_only=True)
class SearchOptions:
    """How long each training is, and what the search has for itself; it takes all else from the retraining's options.

    Fields that begin with `search_` are those of `RecipeOptions`.
    """

    epochs: Annotated[
        int | None,
        option(
            "--epochs",
            "-e",
            metavar="N",
            panel=_PANEL,
            help="Epochs of the search (ADMM, growing regularisation), or of each magnitude step but the last. "
            "Default: 20.",
        ),
    ] = None
    search_optimizer: Annotated[Literal["adam", "adamw", "sgd"] | None, _like("optimizer")] = None
    search_lr: Annotated[float | None, _like("lr", "RATE")] = None
    search_lr_schedule: Annotated[Literal["cosine", "linear", "constant", "step"] | None, _like("lr-schedule")] = None
    search_weight_decay: Annotated[float | None, _like("weight-decay", "X")] = None
    search_l1: Annotated[float | None, _like("l1", "X")] = None
    stage_epochs: Annotated[
        int,
        option(metavar="N", panel=_PANEL, help="Epochs of masked retraining after every stage but the last."),
    ] = 0
    retrain_epochs: Annotated[
        int | None,
        option(metavar="N", panel=_PANEL, help="Epochs of the final masked retraining. Default: 20."),
    ] = None
    no_retrain: Annotated[bool, option("--no-retrain", panel=_PANEL, help="Leave out the final retraining.")] = False


class Recipes(NamedTuple):
    """The trainings of a run: while the structure is found, between stages, the last one; None where there is none."""

    search: Recipe | None
    between: Recipe | None
    last: Recipe | None


def recipes_of(options: SearchOptions, values: Mapping[str, Any], *, searches: bool) -> Recipes:
    """The trainings that the options ask for, with the `values` that all of them share.

    Raises:  ConfigError for a value out of range.
    """
    from compressor.training import Recipe

    last = None if options.no_retrain else Recipe.from_mapping(_with(values, epochs=options.retrain_epochs))
    between = Recipe.from_mapping({**values, "epochs": options.stage_epochs}) if options.stage_epochs else None
    search = None
    if searches:
        # The search must end where it converges, not at its luckiest epoch, and learns from the data alone.
        common = {key: value for key, value in values.items() if key not in ("keep", "patience", "distill")}
        search = Recipe.from_mapping(_with(_for_search(options, common), epochs=options.epochs))
    return Recipes(search, between, last)


def _for_search(options: SearchOptions, common: Mapping[str, Any]) -> dict[str, Any]:
    """The common values with the search's own in their place; another optimizer has a usual rate of its own."""
    own = {
        field.name.removeprefix(_PREFIX): getattr(options, field.name)
        for field in fields(SearchOptions)
        if field.name.startswith(_PREFIX)
    }
    own = {("schedule" if name == "lr_schedule" else name): v for name, v in own.items() if v is not None}
    if own.get("optimizer", common.get("optimizer")) != common.get("optimizer") and "lr" not in own:
        common = {name: value for name, value in common.items() if name != "lr"}
    return {**common, **own}


def _with(values: Mapping[str, Any], **more: Any) -> dict[str, Any]:
    return {**values, **{key: value for key, value in more.items() if value is not None}}
