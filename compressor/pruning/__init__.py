"""The verbs that cut and heal: `prune` and `retrain`; it must never remove anything physically."""

from compressor.pruning.live import LiveReport, Pruner
from compressor.pruning.prune import prune
from compressor.pruning.result import LayerCut, PruneReport, RetrainReport, StageRow
from compressor.pruning.retrain import retrain, standing
from compressor.pruning.sweep import SweepRow, sweep

__all__ = [
    "LayerCut",
    "LiveReport",
    "PruneReport",
    "Pruner",
    "RetrainReport",
    "StageRow",
    "SweepRow",
    "prune",
    "retrain",
    "standing",
    "sweep",
]
