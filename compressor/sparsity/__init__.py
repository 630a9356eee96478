"""Which weights go: scores, masks, budgets, allocation, projection; it must never train anything."""

from compressor.asking.score import CRITERIA, NEEDS_GRADIENTS, NEEDS_UNITS
from compressor.program.masks import apply_masks, merge_masks
from compressor.sparsity.budget import Budget
from compressor.sparsity.choice import Choice, Selection, Selector, matching_layers
from compressor.sparsity.criteria import PER_SAMPLE, Moments, rate
from compressor.sparsity.cut_blocks import cut_blocks, without_cut_blocks
from compressor.sparsity.latency import LatencyBudget, layer_trial
from compressor.sparsity.likes import FilledWork, Likes, find_likes, steps_of
from compressor.sparsity.masks import kept_units, mask_units
from compressor.sparsity.scores import score_units
from compressor.sparsity.select import block_prices, make_selector
from compressor.sparsity.select_units import free_units, routed_scores
from compressor.sparsity.supports import supports_of

__all__ = [
    "CRITERIA",
    "NEEDS_GRADIENTS",
    "NEEDS_UNITS",
    "PER_SAMPLE",
    "Budget",
    "Choice",
    "FilledWork",
    "LatencyBudget",
    "Likes",
    "Moments",
    "Selection",
    "Selector",
    "apply_masks",
    "block_prices",
    "cut_blocks",
    "find_likes",
    "free_units",
    "kept_units",
    "layer_trial",
    "make_selector",
    "mask_units",
    "matching_layers",
    "merge_masks",
    "rate",
    "routed_scores",
    "score_units",
    "steps_of",
    "supports_of",
    "without_cut_blocks",
]
