"""Fresh weights under old masks."""

from __future__ import annotations

import torch

from compressor.program import Program
from compressor.pruning.survivors import reinitialise


def test_everything_is_drawn_anew_within_its_bound_and_masks_hold(tiny: Program) -> None:
    mask = torch.rand(8, 8, 3, 3, generator=torch.Generator().manual_seed(0)) > 0.5
    net = tiny.clone().replace(masks={"two.weight": mask})
    with torch.no_grad():
        net.module.tensors()["bn1.running_mean"].fill_(5.0)
        net.parameters["bn1.weight"].fill_(3.0)
    reinitialise(net, 0)
    tensors = net.module.tensors()
    weight = tensors["two.weight"]
    assert not torch.equal(weight, tiny.parameters["two.weight"]) and not weight[~mask].any()
    assert weight.abs().max() <= (8 * 9) ** -0.5 and tensors["two.bias"].abs().max() <= (8 * 9) ** -0.5
    assert weight.abs().max() > 0.9 * (8 * 9) ** -0.5
    assert (tensors["bn1.weight"] == 1).all() and not tensors["bn1.running_mean"].any()
    assert (tensors["bn1.running_var"] == 1).all() and not tensors["bn1.bias"].any()


def test_the_seed_decides(tiny: Program) -> None:
    nets = [tiny.clone() for _ in range(3)]
    for net, seed in zip(nets, (1, 1, 2), strict=True):
        reinitialise(net, seed)
    first, same, other = (net.parameters["out.weight"] for net in nets)
    assert torch.equal(first, same) and not torch.equal(first, other)
