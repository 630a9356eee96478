"""Physical removal of what is dead, and the proof that nothing else changed; it must never train."""

from compressor.compaction.compact import compact, preview
from compressor.compaction.lowering import LOWERINGS, LoweringChoice, lower
from compressor.compaction.lowering_result import LoweredLayer
from compressor.compaction.norms import rescaled_norms
from compressor.compaction.result import Agreement, Branch, CompactReport, Folded, Kept, LayerChange
from compressor.compaction.slicing import slice_program
from compressor.compaction.verify import verify

__all__ = [
    "LOWERINGS",
    "Agreement",
    "Branch",
    "CompactReport",
    "Folded",
    "Kept",
    "LayerChange",
    "LoweredLayer",
    "LoweringChoice",
    "compact",
    "lower",
    "preview",
    "rescaled_norms",
    "slice_program",
    "verify",
]
