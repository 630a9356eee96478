"""The loss of what a network computes on the way."""

import pytest
import torch

from compressor.training import feature_loss


def test_the_loss_is_relative_and_looks_at_what_is_not_cut() -> None:
    theirs = torch.tensor([[1.0, 2.0, 5.0], [3.0, 4.0, torch.inf]])
    mine = torch.tensor([[1.0, 4.0, 0.0], [3.0, 4.0, 1.0]])
    assert float(feature_loss((mine,), (theirs,))) == pytest.approx(4 / 30)
    assert float(feature_loss((mine, theirs), (theirs, theirs))) == pytest.approx(2 / 30)
    assert float(feature_loss((torch.zeros(2),), (torch.ones(2),))) == 0
