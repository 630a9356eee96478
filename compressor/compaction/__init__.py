"""Physical removal of what is dead, and the proof that nothing else changed; it must never train."""

from compressor.compaction.compact import compact
from compressor.compaction.norms import rescaled_norms
from compressor.compaction.result import Agreement, CompactReport, LayerChange
from compressor.compaction.slicing import slice_program
from compressor.compaction.verify import verify

__all__ = ["Agreement", "CompactReport", "LayerChange", "compact", "rescaled_norms", "slice_program", "verify"]
