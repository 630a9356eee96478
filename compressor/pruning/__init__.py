"""The verbs that cut and heal: `prune` and `retrain`; it must never remove anything physically."""

from compressor.pruning.live import LiveReport, Pruner
from compressor.pruning.prune import prune
from compressor.pruning.pruned import LayerCut, PruneReport, RetrainReport, StageRow
from compressor.pruning.retrain import retrain, standing
from compressor.pruning.sweep import SweepRow, sweep
from compressor.pruning.your_loop import Loop, TrainFunction, prune_in_your_loop

__all__ = [
    "LayerCut",
    "LiveReport",
    "Loop",
    "PruneReport",
    "Pruner",
    "RetrainReport",
    "StageRow",
    "SweepRow",
    "TrainFunction",
    "prune",
    "prune_in_your_loop",
    "retrain",
    "standing",
    "sweep",
]
