"""What `compact` removed and how well the result agrees, as plain values; it must never hold tensors."""

from __future__ import annotations

from dataclasses import dataclass

from compressor.units import Macs, Params


@dataclass(frozen=True)
class Agreement:
    """Largest difference between the masked and the compact model.

    Units:  `float64_relative` and `float32_relative` are relative to the largest output; `*_limit` is what was allowed.
    """

    float64_relative: float
    float32_relative: float
    float64_limit: float
    float32_limit: float
    n_inputs: int
    on_data: bool


@dataclass(frozen=True)
class LayerChange:
    """A weight before and after."""

    name: str
    before: tuple[int, ...]
    after: tuple[int, ...]


@dataclass(frozen=True)
class CompactReport:
    """`removed` parameters are gone; `still_zeroed` are masked in what is left; `skipped` says why units stayed.

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
    agreement: Agreement | None
    metrics: dict[str, float] | None = None
    seconds: float = 0.0
    rescaled: tuple[str, ...] = ()

    @property
    def removed(self) -> int:
        return self.masked_params - self.compact_params
