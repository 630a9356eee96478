"""What becomes of the weights that a cut leaves; it must never decide which those are."""

from __future__ import annotations

import math

import torch

from compressor.program import CONTRACTIONS, Program, find_layers
from compressor.sparsity import apply_masks


@torch.no_grad()
def reinitialise(program: Program, seed: int) -> None:
    """Draws all weights anew, in place, and keeps the masks: the control against survivors that keep their values.

    Convolutions and linear layers get torch's own initial distribution for the *dense* layer (uniform in ±1/√fan-in,
    biases too), norms scale 1 and shift 0; anything else keeps its values.

    Source:  Han et al. 2015, sec. 3.4: retraining from fresh weights loses accuracy; Liu et al. 2019, "Rethinking the
             Value of Network Pruning", for the opposite claim. Measure it.
    """
    random = torch.Generator().manual_seed(seed)
    tensors = program.module.tensors()
    for layer in find_layers(program):
        weight = tensors[layer.weight]
        if layer.kind in CONTRACTIONS and layer.in_dim is not None:
            bound = 1 / math.sqrt(max(weight.numel() // weight.shape[layer.out_dim], 1))
            for name in layer.tensors:
                drawn = torch.rand(tensors[name].shape, generator=random)
                tensors[name].copy_((2 * drawn - 1) * bound)
        elif layer.kind.endswith("norm"):
            weight.fill_(1.0)
            for name in layer.tensors[1:]:
                tensors[name].fill_(1.0 if name.endswith("running_var") else 0.0)
    apply_masks(program.module, program.masks)
