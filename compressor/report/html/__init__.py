"""Results as one self-contained HTML page each; it must never load anything from outside or compute a result."""

from compressor.report.html.analysis_page import analysis_page
from compressor.report.html.compaction_page import compact_page
from compressor.report.html.page import About
from compressor.report.html.pruning_page import prune_page, retrain_page
from compressor.report.html.timing_page import bench_page

__all__ = ["About", "analysis_page", "bench_page", "compact_page", "prune_page", "retrain_page"]
