"""Options of `prune` about what rates a filter and what is tried beside the cut; it must never hold a score."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any, Literal

from compressor.cli.options import option

_PANEL = "How"


@dataclass(frozen=True, kw_only=True)
class ScoringOptions:
    """What magnitude rates by, and the ingredients of Han et al. that can be switched alone."""

    score: Annotated[
        Literal["l2", "l1", "taylor", "fisher", "bn", "fpgm"],
        option(
            panel=_PANEL,
            help="What magnitude rates by: weights (l2, l1), loss (taylor, fisher), scale of batch norm (bn), distance "
            "to the layer's other filters (fpgm).",
        ),
    ] = "l2"
    score_batches: Annotated[
        int, option(metavar="N", panel=_PANEL, help="Training batches for the gradients of taylor and fisher.")
    ] = 8
    select_inputs: Annotated[
        bool,
        option("--select-inputs", panel=_PANEL, help="Cut inputs of a fully connected first layer (pixels), too."),
    ] = False
    rescale_dropout: Annotated[
        bool,
        option("--rescale-dropout", panel=_PANEL, help="Dropout rates times the root of the connections kept."),
    ] = False
    reinit: Annotated[
        bool, option("--reinit", panel=_PANEL, help="Retrain from fresh weights: the control to survivors that stay.")
    ] = False


def scoring_values(options: ScoringOptions) -> dict[str, Any]:
    """The fields of `PruneSettings` that these options fill."""
    return {
        "score": options.score,
        "score_batches": options.score_batches,
        "select_inputs": options.select_inputs,
        "rescale_dropout": options.rescale_dropout,
        "reinit": options.reinit,
    }
