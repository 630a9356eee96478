"""Options that speak about single layers when pruning; it must never hold what a layer loses by them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any

from compressor.cli.options import option
from compressor.errors import UsageError

if TYPE_CHECKING:
    from compressor.sparsity import Sensitivity

_PANEL = "How much of which layer"


@dataclass(frozen=True, kw_only=True)
class LayerOptions:
    """Amounts per layer, beside or instead of one ratio."""

    layer: Annotated[
        list[str] | None,
        option(
            "--layer",
            metavar="GLOB=SHARE",
            panel=_PANEL,
            help="Share of these layers that stays, as conv1=0.66; repeat. With --ratio the rest shares what is left.",
        ),
    ] = None
    quality: Annotated[
        list[str] | None,
        option(
            "--quality",
            metavar="[GLOB=]Q",
            panel=_PANEL,
            help="Cut what is below Q standard deviations of its layer, in every step anew; repeat. Needs no --ratio.",
        ),
    ] = None
    sensitivity: Annotated[
        str | None,
        option(metavar="FILE", panel=_PANEL, help="What `compress analyze --sensitivity -o FILE` found."),
    ] = None
    max_loss: Annotated[
        float | None,
        option(metavar="X", panel=_PANEL, help="Cut each layer until the scan says that it loses X. Needs no --ratio."),
    ] = None


def decides_alone(options: LayerOptions) -> bool:
    """Whether an amount is said without a ratio."""
    return bool(options.layer or options.quality) or options.max_loss is not None


def layer_values(options: LayerOptions, allocation: str) -> dict[str, Any]:
    """The fields of `PruneSettings` that these options fill.

    Raises:  UsageError for text that is no pair, a scan that is missing or cannot be read.
    """
    scan = _scan(options, allocation)
    return {
        "layers": glob_values(options.layer or (), "--layer", "conv1=0.66"),
        "quality": glob_values(options.quality or (), "--quality", "0.8, or conv*=0.5", alone="*"),
        "sensitivity": scan,
        "max_loss": options.max_loss,
    }


def _scan(options: LayerOptions, allocation: str) -> Sensitivity | None:
    if options.sensitivity is None:
        if allocation == "sensitivity" or options.max_loss is not None:
            asked = "--allocation sensitivity" if allocation == "sensitivity" else "--max-loss"
            raise UsageError(
                f"{asked}: needs a scan; make one with `compress analyze MODEL --sensitivity -o scan.json`"
                " and give --sensitivity scan.json"
            )
        return None
    from compressor.sparsity import load_sensitivity

    return load_sensitivity(options.sensitivity)


def glob_values(
    texts: Sequence[str], name: str, example: str, *, alone: str | None = None
) -> tuple[tuple[str, float], ...]:
    """`conv1=1e-2` -> ("conv1", 0.01); a bare number is for the glob `alone`, where there is one.

    Raises:  UsageError for text that is no such pair; it names the option and shows `example`.
    """
    found: list[tuple[str, float]] = []
    for text in texts:
        glob, equals, value = text.rpartition("=")
        if not equals and alone is not None:
            glob = alone
        try:
            found.append((glob, float(value)))
        except ValueError:
            glob = ""
        if not glob:
            raise UsageError(f"{name} {text}: write it as {example}")
    return tuple(found)
