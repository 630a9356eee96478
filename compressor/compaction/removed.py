"""What `compact` removed and how well the result agrees, as plain values; it must never hold tensors."""

from __future__ import annotations

from dataclasses import dataclass

from compressor.compaction.lowering_result import LoweredLayer
from compressor.program.agreement import Judgment
from compressor.units import Macs, Params


@dataclass(frozen=True)
class Proof:
    """Largest difference between the masked and the compact model, in both precisions.

    `*_judgment` says what the limit follows from: the plain one, 1e-10 and 1e-5, or where float32 passes that, 8 times
    the `float32_noise` that was measured (`own rounding`: the masked model's float32 result against its float64 one;
    `sensitivity`: one rounding after every operator). `decisions` names operators (a topk, a random draw) that decided
    otherwise in the compact model; that was taken over, and compared by what it was decided from.

    Units:  `float64_relative` and `float32_relative` are relative to the largest value of the output in question, which
            counts as at least 1e-3 of that of all outputs; `*_limit` is what was allowed.
    """

    float64_relative: float
    float32_relative: float
    float64_limit: float
    float32_limit: float
    n_inputs: int
    on_data: bool
    float64_judgment: Judgment = "limit"
    float32_judgment: Judgment = "limit"
    float32_noise: float | None = None
    decisions: tuple[str, ...] = ()


@dataclass(frozen=True)
class LayerChange:
    """A weight before and after."""

    name: str
    before: tuple[int, ...]
    after: tuple[int, ...]


@dataclass(frozen=True)
class Folded:
    """What `n_channels` constant channels added to `layer` went into the tensor `into`."""

    layer: str
    n_channels: int
    into: str


@dataclass(frozen=True)
class Branch:
    """A value that never changed, made by `layer` and what lies before it; `became` says what stands in its place."""

    layer: str
    became: str


@dataclass(frozen=True)
class Kept:
    """`n_filters` filters of `layer` hold only zeros and stay all the same, because of what reads them at `reader`."""

    layer: str
    n_filters: int
    reason: str
    reader: str


@dataclass(frozen=True)
class CompactReport:
    """`removed` parameters are gone; `zeroed` were 0 before, masked or not, `still_zeroed` are in what is left.

    `folded` says where constants of removed channels went, `branches` what became of values that never changed, `kept`
    and `skipped` why units stayed.

    MACs are without those of `uncounted_operators`. `lowered` says what became of layers with columns of zeros.
    `rescaled` names norms that are taken over less than in the masked model; if there are any, the two models differ by
    intention and `agreement` is None.
    """

    dense_params: Params
    masked_params: Params
    compact_params: Params
    dense_macs: Macs
    compact_macs: Macs
    n_units_removed: int
    still_zeroed: int
    layers: tuple[LayerChange, ...]
    skipped: tuple[str, ...]
    agreement: Proof | None
    metrics: dict[str, float] | None = None
    seconds: float = 0.0
    rescaled: tuple[str, ...] = ()
    lowered: tuple[LoweredLayer, ...] = ()
    zeroed: int = 0
    folded: tuple[Folded, ...] = ()
    branches: tuple[Branch, ...] = ()
    kept: tuple[Kept, ...] = ()
    uncounted_operators: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()

    @property
    def removed(self) -> int:
        return self.masked_params - self.compact_params
