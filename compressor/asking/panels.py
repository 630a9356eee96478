"""Headings under which help lists options; it must never hold anything else."""

from __future__ import annotations

HOW_MUCH = "How much"
HOW = "How"
LAYERS = "How much of which layer"
HEALING = "Healing"
TRAINING = "Training"
SEARCH = "Training while the structure is found"
EXPERIMENTS = "Experiments"
"""Ingredients of papers that ablations switch one at a time; nobody needs them to prune a network."""
SCAN = "Sensitivity"
MEASURING = "Measuring"
