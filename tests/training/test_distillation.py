from __future__ import annotations

import pytest
import torch
from torch import nn

from compressor.errors import TrainingError
from compressor.training.distillation import soft_loss


def test_equal_outputs_have_no_loss_and_others_do() -> None:
    logits = torch.randn(3, 5, generator=torch.Generator().manual_seed(0))
    assert soft_loss(logits, logits, 4.0).item() == pytest.approx(0, abs=1e-6)
    assert soft_loss(logits, logits.flip(1), 4.0).item() > 0.1


def test_value_is_the_formula_of_the_paper() -> None:
    generator = torch.Generator().manual_seed(1)
    student, teacher = (torch.randn(6, 4, generator=generator, dtype=torch.float32) for _ in range(2))
    temperature = 3.0
    p, q = torch.softmax(teacher / temperature, 1), torch.softmax(student / temperature, 1)
    expected = temperature**2 * (p * (p / q).log()).sum(1).mean()
    assert soft_loss(student, teacher, temperature).item() == pytest.approx(expected.item(), rel=1e-5)


def test_gradient_keeps_its_size_over_temperatures() -> None:
    """For large T the gradient tends to (s - t) / C, whatever T is: why the loss is multiplied by T²."""
    student = torch.tensor([[0.3, -0.1, -0.2]], requires_grad=True)
    teacher = torch.tensor([[-0.2, 0.4, -0.2]])
    soft_loss(student, teacher, 1000.0).backward()
    assert student.grad is not None
    assert torch.allclose(student.grad, (student.detach() - teacher) / 3, atol=1e-3)


def test_positions_are_averaged() -> None:
    generator = torch.Generator().manual_seed(2)
    student, teacher = (torch.randn(2, 4, 3, generator=generator) for _ in range(2))
    flat = [x.permute(0, 2, 1).reshape(6, 4) for x in (student, teacher)]
    assert soft_loss(student, teacher, 2.0).item() == pytest.approx(soft_loss(*flat, 2.0).item(), rel=1e-5)


def test_outputs_that_do_not_fit_are_refused() -> None:
    with pytest.raises(TrainingError, match=r"teacher's output \(2, 5\) does not fit the model's \(2, 4\)"):
        soft_loss(torch.zeros(2, 4), torch.zeros(2, 5), 1.0)
    with pytest.raises(TrainingError, match="one output tensor"):
        soft_loss((torch.zeros(2, 4), nn.Identity()), torch.zeros(2, 4), 1.0)
