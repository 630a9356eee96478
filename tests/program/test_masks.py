"""Masks held against the weights they cut."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from compressor.errors import ModelError
from compressor.program.masks import apply_masks, refuse_broken_masks


def test_what_is_cut_becomes_0_and_stays_the_rule() -> None:
    net = nn.Linear(3, 2)
    mask = torch.tensor([[True, False, True], [True, True, False]])
    before = net.weight.detach().clone()
    with pytest.raises(ModelError, match=r"2 weights that the masks cut are not 0 \(weight 2\)"):
        refuse_broken_masks(net, {"weight": mask})
    apply_masks(net, {"weight": mask})
    refuse_broken_masks(net, {"weight": mask})
    assert torch.equal(net.weight, before * mask)
