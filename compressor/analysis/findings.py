"""What `analyze` found, as plain values; it must never hold how it was found or how it looks."""

from __future__ import annotations

from dataclasses import dataclass, field

from compressor.units import Macs, Params


@dataclass(frozen=True)
class LayerRow:
    """One weighted operator: a convolution, a linear layer, a normalisation, an embedding, or a bare parameter.

    `n_filters` indices on its output axis, of which `n_prunable` belong to units that may be removed;
    `pinned` says why the others may not.
    """

    name: str
    kind: str
    weight_shape: tuple[int, ...]
    output_shape: tuple[int | None, ...]
    params: Params
    macs: Macs
    n_zeroed: int
    n_filters: int
    n_prunable: int
    pinned: str | None

    @property
    def sparsity(self) -> float:
        return self.n_zeroed / self.params if self.params else 0.0


@dataclass(frozen=True)
class UnitGroup:
    """Layers whose indices are removed together: `n_units` units of `params_per_unit` parameters each (on average)."""

    n_units: int
    params_per_unit: float
    layers: tuple[str, ...]


@dataclass(frozen=True)
class PinRow:
    """`n_indices` indices that may not be removed, and why; `where` is the operator and the user's source line."""

    where: str
    reason: str
    n_indices: int


@dataclass(frozen=True)
class BlockRow:
    """A residual block: what goes with it alone, or why it may not go (`pinned`; then nothing is counted)."""

    name: str
    layers: tuple[str, ...]
    params: Params
    macs: Macs
    pinned: str | None = None


@dataclass(frozen=True)
class RouterRow:
    """A router: of its `n_experts` it chooses `n_chosen`, and `n_prunable` may go, each with `params` of the layers
    `layers`; or why all stay (`pinned`)."""

    name: str
    n_experts: int
    n_chosen: int
    n_prunable: int
    params: Params
    layers: tuple[str, ...]
    pinned: str | None = None


@dataclass(frozen=True)
class Analysis:
    """The whole answer of `analyze`. `metrics` is None when no data is known.

    `unknown_operators` have no axis rule; `macs` is without `uncounted_operators`, of which nobody knows what they
    multiply. `n_bytes` is what the parameters take in the types that they are `stored_as`.
    """

    n_params: Params
    n_zeroed: int
    macs: Macs
    n_activations: int
    n_units: int
    prunable_params: Params
    layers: tuple[LayerRow, ...]
    groups: tuple[UnitGroup, ...]
    pins: tuple[PinRow, ...]
    unknown_operators: tuple[str, ...]
    notes: tuple[str, ...] = ()
    metrics: dict[str, float] | None = None
    seconds: float = 0.0
    uncounted_operators: tuple[str, ...] = ()
    blocks: tuple[BlockRow, ...] = ()
    routers: tuple[RouterRow, ...] = ()
    n_bytes: int | None = None
    stored_as: str = "float32"


@dataclass(frozen=True)
class CoupledSlice:
    """One parameter axis with the positions that go when one filter goes."""

    parameter: str
    axis: int
    positions: tuple[int, ...]


@dataclass(frozen=True)
class Explanation:
    """Everything that leaves together with one filter of a layer, and the operators that couple it, nearest first.

    A filter that may not go has the reason in `pinned` and the place in the user's source in `pinned_at`; `chain` is
    then the way there.
    """

    layer: str
    index: int
    slices: tuple[CoupledSlice, ...]
    params: Params
    pinned: str | None
    chain: tuple[str, ...] = field(default=())
    pinned_at: str | None = None
