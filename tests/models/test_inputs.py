"""Modules that are called in the order of names."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from compressor.models.inputs import takes_by_name


class Net(nn.Module):
    def forward(self, ids: Tensor, positions: Tensor | None = None, mask: Tensor | None = None) -> Tensor:
        assert positions is None and mask is not None
        return ids * mask


def test_what_stands_between_two_inputs_is_left_out() -> None:
    net = Net()
    takes_by_name(net, ["ids", "mask"])
    assert net(torch.tensor([2]), torch.tensor([3])).item() == 6


def test_a_module_in_that_order_or_without_these_names_stays_as_it_is() -> None:
    for names in (["ids", "positions"], ["ids", "other"]):
        net = Net()
        takes_by_name(net, names)
        assert "forward" not in vars(net)
