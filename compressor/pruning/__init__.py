"""The verbs that cut and heal: `prune` and `retrain`; it must never remove anything physically."""

from compressor.pruning.prune import prune
from compressor.pruning.recovery import Recovery
from compressor.pruning.result import LayerCut, PruneReport, RetrainReport, StageRow
from compressor.pruning.retrain import retrain
from compressor.pruning.settings import Admm, PruneSettings

__all__ = [
    "Admm",
    "LayerCut",
    "PruneReport",
    "PruneSettings",
    "Recovery",
    "RetrainReport",
    "StageRow",
    "prune",
    "retrain",
]
