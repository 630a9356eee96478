"""Which weights go: scores, masks, budgets, allocation, projection; it must never train anything."""

from compressor.patterns import Pattern, parse_pattern
from compressor.sparsity.budget import Budget
from compressor.sparsity.choice import Choice, Selection, Selector, matching_layers
from compressor.sparsity.criteria import CRITERIA, NEEDS_GRADIENTS, NEEDS_UNITS, Moments, rate
from compressor.sparsity.latency import LatencyBudget, layer_trial
from compressor.sparsity.likes import FilledWork, Likes, find_likes
from compressor.sparsity.masks import apply_masks, kept_units, mask_units, merge_masks
from compressor.sparsity.scores import SCORES, score_units
from compressor.sparsity.select import make_selector
from compressor.sparsity.sensitivity import Sensitivity, load_sensitivity

__all__ = [
    "CRITERIA",
    "NEEDS_GRADIENTS",
    "NEEDS_UNITS",
    "SCORES",
    "Budget",
    "Choice",
    "FilledWork",
    "LatencyBudget",
    "Likes",
    "Moments",
    "Pattern",
    "Selection",
    "Selector",
    "Sensitivity",
    "apply_masks",
    "find_likes",
    "kept_units",
    "layer_trial",
    "load_sensitivity",
    "make_selector",
    "mask_units",
    "matching_layers",
    "merge_masks",
    "parse_pattern",
    "rate",
    "score_units",
]
