"""Training of any module on any data and task; it must never know of sparsity, masks or programs."""

from compressor.training.auxiliary import AUXILIARY_SHARE, TrainedAs, TrainingOutputs, find_outputs, is_alike, names_of
from compressor.training.devices import forked_rng, random_state, resolve_device, seed_epoch
from compressor.training.evaluation import EVALUATED_AT_ONCE, evaluate
from compressor.training.features import FeatureOutputs, feature_loss
from compressor.training.form import check_form, plain_as
from compressor.training.gradients import gradient_moments
from compressor.training.hooks import BaseHook, StepHook
from compressor.training.loop import fit, steps_per_epoch
from compressor.training.processes import open_processes, share_masks, share_state
from compressor.training.records import EpochRecord, FitResult, StepReport
from compressor.training.resume import load_state, save_state
from compressor.training.spread import gathered, held, is_spread, own_part, refuse_spread, spread, total
from compressor.training.taught import (
    Agreement,
    TaughtSource,
    evaluate_where_possible,
    is_measurable,
    with_agreement,
    with_targets,
)

__all__ = [
    "AUXILIARY_SHARE",
    "EVALUATED_AT_ONCE",
    "Agreement",
    "BaseHook",
    "EpochRecord",
    "FeatureOutputs",
    "FitResult",
    "StepHook",
    "StepReport",
    "TaughtSource",
    "TrainedAs",
    "TrainingOutputs",
    "check_form",
    "evaluate",
    "evaluate_where_possible",
    "feature_loss",
    "find_outputs",
    "fit",
    "forked_rng",
    "gathered",
    "gradient_moments",
    "held",
    "is_alike",
    "is_measurable",
    "is_spread",
    "load_state",
    "names_of",
    "open_processes",
    "own_part",
    "plain_as",
    "random_state",
    "refuse_spread",
    "resolve_device",
    "save_state",
    "seed_epoch",
    "share_masks",
    "share_state",
    "spread",
    "steps_per_epoch",
    "total",
    "with_agreement",
    "with_targets",
]
