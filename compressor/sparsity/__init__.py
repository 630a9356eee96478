"""Which weights go: scores, masks, budgets, allocation, projection; it must never train anything."""

from compressor.sparsity.budget import Budget
from compressor.sparsity.choice import Choice, Selection, Selector
from compressor.sparsity.masks import apply_masks, kept_units, mask_units, merge_masks
from compressor.sparsity.scores import SCORES, score_units, score_weights
from compressor.sparsity.select import make_selector

__all__ = [
    "SCORES",
    "Budget",
    "Choice",
    "Selection",
    "Selector",
    "apply_masks",
    "kept_units",
    "make_selector",
    "mask_units",
    "merge_masks",
    "score_units",
    "score_weights",
]
