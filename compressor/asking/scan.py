"""A sensitivity scan: what it is asked for, and what it found, as values and JSON; it must never measure anything."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal, TypeAlias, cast

from compressor.asking.option import at_least, check, option
from compressor.asking.panels import SCAN
from compressor.errors import UsageError
from compressor.schema import read_as, read_json
from compressor.units import parse_duration, parse_share

SCHEMA = "compress.sensitivity/1"

Curve: TypeAlias = tuple[tuple[float, float], ...]
"""Points (removed share, metric), the smallest share first; the dense point (0, dense) is not among them."""


def read_shares(text: str) -> tuple[float, ...]:
    """`0.25,0.5` -> (0.25, 0.5).

    Raises:  UsageError for a part that is no number.
    """
    try:
        return tuple(parse_share(part, "--ratios") for part in text.split(","))
    except UsageError as error:
        raise UsageError(f"--ratios {text}: write removed shares, as 0.25,0.5,0.9 or 25%,50%") from error


@dataclass(frozen=True)
class ScanSettings:
    """What a scan is asked for: removed `shares` of each layer in `scope`, on `n_samples` of the validation split.

    With `budget_s` it stops after that many seconds and says what was not reached.
    """

    shares: tuple[float, ...] = option(
        (0.25, 0.5, 0.75, 0.9),
        "Removed shares of each layer to try.",
        name="ratios", metavar="0.25,0.5", panel=SCAN, read=read_shares, shown="0.25,0.5,0.75,0.9",
    )  # fmt: skip
    pattern: Literal["unstructured", "filter", "channel"] = option(
        "unstructured",
        "What is cut first: the smallest weights; filters with the smallest weights; the smallest units.",
        panel=SCAN, flags=("-p",),
    )  # fmt: skip
    n_samples: int = option(
        1000, "Validation samples, evenly spread.", name="samples", metavar="N", panel=SCAN, range=at_least(1)
    )
    scope: tuple[str, ...] = option(
        ("*",), "Layers to try; repeat. Default: all.", metavar="GLOB", panel=SCAN, repeat=True
    )
    budget_s: float | None = option(
        None,
        "Stop then, and say what was not reached.",
        name="budget", metavar="5m", panel=SCAN, read=parse_duration,
    )  # fmt: skip

    def __post_init__(self) -> None:
        check(self)
        wrong = [share for share in self.shares if not 0 < share < 1]
        if wrong or not self.shares:
            raise UsageError(f"--ratios {wrong[0] if wrong else ''}: removed shares lie between 0 and 1, as 0.25,0.5")
        if self.budget_s is not None and self.budget_s <= 0:
            raise UsageError(f"--budget {self.budget_s:g}: must be above 0 seconds")


@dataclass(frozen=True)
class Sensitivity:
    """`metric` of the network on `n_samples` samples: `dense` as it is, and for each layer along its curve.

    Only that layer is cut, to the removed share of its filters (or weights, for `unstructured`), and nothing is
    retrained. `unmeasured` names layers that a time budget did not reach.

    Raises:  UsageError for shares outside 0..1, shares that do not rise, values that are no numbers.
    """

    metric: str
    dense: float
    n_samples: int
    pattern: str
    curves: Mapping[str, Curve]
    higher_is_better: bool = True
    unmeasured: tuple[str, ...] = field(default=())

    def __post_init__(self) -> None:
        if not math.isfinite(self.dense):
            raise UsageError(f"sensitivity: {self.metric} of the dense network is {self.dense}, not a number")
        if self.n_samples < 1:
            raise UsageError(f"sensitivity: measured on {self.n_samples} samples; at least one is needed")
        for layer, curve in self.curves.items():
            shares = [share for share, _ in curve]
            if not curve or any(not 0 < share < 1 for share in shares):
                raise UsageError(f"sensitivity: {layer}: removed shares must lie between 0 and 1, got {shares}")
            if shares != sorted(set(shares)):
                raise UsageError(f"sensitivity: {layer}: removed shares must rise, got {shares}")

    def loss_at(self, layer: str, removed: float) -> float:
        """How much of the metric is lost when that share of the layer goes; straight lines between the points.

        Beyond the last point the last segment goes on. Positive is worse, whichever direction is the better one. An
        infinite or missing value (a diverged loss) counts as infinitely bad.
        """
        points = ((0.0, self.dense), *self.curves[layer])
        value = self.dense
        for (x0, y0), (x1, y1) in pairwise(points):
            if removed <= x1 or (x1, y1) == points[-1]:
                value = y0 + (y1 - y0) * (removed - x0) / (x1 - x0) if removed > x0 else y0
                break
        loss = self.dense - value if self.higher_is_better else value - self.dense
        return loss if math.isfinite(loss) else math.inf

    def to_mapping(self) -> dict[str, Any]:
        """Plain values for JSON, `schema` first; a metric that is no number becomes None."""
        curves = {
            layer: [[share, value if math.isfinite(value) else None] for share, value in curve]
            for layer, curve in self.curves.items()
        }
        return {
            "schema": SCHEMA,
            "metric": self.metric,
            "higher_is_better": self.higher_is_better,
            "dense": self.dense,
            "n_samples": self.n_samples,
            "pattern": self.pattern,
            "curves": curves,
            "unmeasured": list(self.unmeasured),
        }

    @staticmethod
    def from_mapping(entry: Mapping[str, Any]) -> Sensitivity:
        """The value of `to_mapping`, also as part `sensitivity` of a larger mapping.

        Raises:  UsageError if it is no scan.
        """
        entry = entry.get("sensitivity") or entry
        schema = entry.get("schema", SCHEMA)
        if schema != SCHEMA:
            raise UsageError(f"sensitivity: its schema is {str(schema)[:40]}, this version reads {SCHEMA}")
        found = read_as(_Written, entry, UsageError, "sensitivity: not a scan:")
        curves = {
            layer: tuple((share, math.nan if value is None else value) for share, value in curve)
            for layer, curve in found.curves.items()
        }
        return Sensitivity(
            found.metric, found.dense, found.n_samples, found.pattern, curves, found.higher_is_better, found.unmeasured
        )


@dataclass(frozen=True)
class _Written:
    """A scan as it stands in a file; a metric that is no number is None."""

    metric: str
    dense: float
    n_samples: int
    pattern: str
    curves: dict[str, tuple[tuple[float, float | None], ...]]
    higher_is_better: bool = True
    unmeasured: tuple[str, ...] = ()
    schema: str = SCHEMA


def load_sensitivity(path: str | Path) -> Sensitivity:
    """The scan in a file that `compress analyze --sensitivity` wrote, with -o or as its --json output.

    Raises:  UsageError if there is no such file or it holds none.
    """
    try:
        entry = read_json(Path(path), UsageError)
    except UsageError as error:
        raise UsageError(f"{error}\nmake one with `compress analyze MODEL --sensitivity -o {path}`") from error
    if type(entry) is not dict:
        raise UsageError(f"{path}: holds no scan; make one with `compress analyze MODEL --sensitivity -o {path}`")
    try:
        return Sensitivity.from_mapping(cast("dict[str, Any]", entry))
    except UsageError as error:
        raise UsageError(f"{path}: {error}") from error
