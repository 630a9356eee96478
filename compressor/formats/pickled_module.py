"""A whole module out of a pickle that the user trusts, made fit to be pruned; it must never open one.

Training scripts save modules for inference: in half precision, and with nothing left to train.
"""

from __future__ import annotations

import torch
from torch import nn

from compressor.models import fixed_for_good
from compressor.units import format_dtype

MODULE_KEYS = ("model", "net", "ema")
"""Keys under which training scripts put a module; the first that holds one counts."""
_HALF = (torch.float16, torch.bfloat16)


def fit_to_train(module: nn.Module) -> tuple[nn.Module, list[str]]:
    """The same module in float32 and with parameters to train, and what was changed.

    Only where nothing else can be meant: all of its parameters in half precision, none of them to be trained.
    """
    said: list[str] = []
    parameters = dict(module.named_parameters())
    types = {parameter.dtype for parameter in parameters.values() if parameter.is_floating_point()}
    if types and types <= set(_HALF):
        module = module.float()
        said.append(f"weights stored as {', '.join(sorted(map(format_dtype, types)))} were loaded as float32")
        parameters = dict(module.named_parameters())
    fixed = set(fixed_for_good(module))
    if parameters and not any(parameter.requires_grad for parameter in parameters.values()):
        for name, parameter in parameters.items():
            parameter.requires_grad_(parameter.is_floating_point() and name not in fixed)
        said.append("was saved with nothing to train; all of its weights are taken as trainable")
    return module, said
