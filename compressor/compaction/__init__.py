"""Physical removal of what is dead, and the proof that nothing else changed; it must never train."""

from compressor.asking.compact import LOWERINGS, LoweringChoice
from compressor.compaction.compact import compact, foresee, preview
from compressor.compaction.lowering import lower
from compressor.compaction.lowering_result import LoweredLayer
from compressor.compaction.norms import rescaled_norms
from compressor.compaction.removed import Branch, CompactReport, Folded, Kept, LayerChange, Proof
from compressor.compaction.slicing import slice_program
from compressor.compaction.verify import verify

__all__ = [
    "LOWERINGS",
    "Branch",
    "CompactReport",
    "Folded",
    "Kept",
    "LayerChange",
    "LoweredLayer",
    "LoweringChoice",
    "Proof",
    "compact",
    "foresee",
    "lower",
    "preview",
    "rescaled_norms",
    "slice_program",
    "verify",
]
