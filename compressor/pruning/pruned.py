"""What `prune` was asked and what it got, as plain values; it must never hold tensors or how it looks."""

from __future__ import annotations

from dataclasses import dataclass, field

from compressor.asking.pattern import Pattern
from compressor.units import Macs, Params


@dataclass(frozen=True)
class LayerCut:
    """Kept and dense filters of one layer (or weights, where these are cut), and kept and dense columns for `shape`."""

    name: str
    kept: int
    dense: int
    kept_params: Params
    dense_params: Params
    columns: tuple[int, int] | None = None


@dataclass(frozen=True)
class StageRow:
    """One stage of the run: `dense`, `admm`, `hard prune`, `retrain`, `step 2/4` … with what was measured after it.

    `ratio` is dense ÷ kept of what is cut by then, in the unit the budget was asked in; `metrics` is None without data;
    `history` are its epochs: `epoch`, `lr`, `train_loss`, the metrics, `sparsity` (cut ÷ all parameters; during a
    search, what it would cut now) where anything is cut, and what else the search told: `penalty` is the term that
    `train_loss` leaves out, `planned residual` what the penalty is steered towards. `residuals` say of every tensor
    that a search draws how far it is from its aim, ‖W − Z‖ / ‖W‖.
    """

    name: str
    ratio: float
    params: Params
    epochs: int
    seconds: float
    metrics: dict[str, float] | None
    extra: dict[str, float] = field(default_factory=dict)
    history: tuple[dict[str, float], ...] = ()
    residuals: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class PruneReport:
    """Asked and got. `asked` is None where layers were told what to keep; `got` is counted on what compaction leaves,
    `zeroed` are masked weights that it cannot remove. `kept_*` are without these where the pattern cuts single weights;
    `compact_*` are those of the compacted network, zeros and all. MACs are without those of `uncounted_operators`."""

    method: str
    pattern: Pattern
    of: str
    asked: float | None
    got: float
    dense_params: Params
    kept_params: Params
    dense_macs: Macs
    kept_macs: Macs
    compact_params: Params
    compact_macs: Macs
    zeroed: int
    layers: tuple[LayerCut, ...]
    stages: tuple[StageRow, ...]
    warnings: tuple[str, ...] = ()
    seconds: float = 0.0
    uncounted_operators: tuple[str, ...] = ()


@dataclass(frozen=True)
class RetrainReport:
    """Before and after of a retraining, and every epoch between: `epoch`, `lr`, `train_loss`, the metrics, `sparsity`
    (cut ÷ all parameters) where anything is cut."""

    stages: tuple[StageRow, ...]
    history: tuple[dict[str, float], ...]
    n_zeroed: int
    stopped: str | None = None
    seconds: float = 0.0
    warnings: tuple[str, ...] = ()
