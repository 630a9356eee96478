"""The loss of a student that learns from a teacher; it must never train or change the teacher."""

from __future__ import annotations

from typing import Any

from torch import Tensor
from torch.nn import functional as F

from compressor.errors import TrainingError


def soft_loss(student_NC: Any, teacher_NC: Any, temperature: float) -> Tensor:
    """T² · KL(softmax(teacher / T) ‖ softmax(student / T)), the mean over everything but the classes.

    Shapes:  (N, C) or (N, C, positions...), both the same -> ()
    Raises:  TrainingError if the outputs are not one tensor each, of equal shape.
    Source:  Hinton et al. 2015, "Distilling the Knowledge in a Neural Network", sec. 2 (T² keeps the size
             of the gradient; there cross entropy, whose gradient is the same).
    """
    if not (isinstance(student_NC, Tensor) and isinstance(teacher_NC, Tensor)):
        raise TrainingError("distillation needs models with one output tensor; set distill = 0 for this model")
    if student_NC.shape != teacher_NC.shape:
        raise TrainingError(
            f"distillation: the teacher's output {tuple(teacher_NC.shape)} does not fit the model's "
            f"{tuple(student_NC.shape)}; give the dense model that this one was pruned from"
        )
    student = F.log_softmax(student_NC.float() / temperature, dim=1)
    teacher = F.log_softmax(teacher_NC.float() / temperature, dim=1)
    divergence = F.kl_div(student, teacher, reduction="sum", log_target=True)
    return divergence * (temperature**2 * student_NC.shape[1] / student_NC.numel())
