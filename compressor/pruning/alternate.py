"""Convolutions and fully connected layers trained in turn; it must never hold masks or run the loop."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import nn

from compressor.errors import UsageError
from compressor.program import Program, find_layers
from compressor.training import BaseHook


class AlternateHook(BaseHook):
    """Freezes the convolutions (with their norms) in odd epochs and the linear layers in even ones.

    A frozen parameter's gradient is taken away altogether: a zero would still let momentum move it. So this hook comes
    after all that read gradients.

    Raises:  UsageError if the network has only one of both.
    Source:  Han et al. 2015, sec. 3.3: "retrain FC while CONV is fixed, and the reverse", against vanishing gradients.
    """

    def __init__(self, program: Program) -> None:
        linear, others = set[str](), set[str]()
        for layer in find_layers(program):
            (linear if layer.kind == "linear" else others).update(layer.tensors)
        parameters = dict(program.module.named_parameters())
        self._frozen_in: tuple[list[nn.Parameter], list[nn.Parameter]] = (
            [p for name, p in parameters.items() if name in linear],
            [p for name, p in parameters.items() if name in others - linear],
        )
        if not all(self._frozen_in):
            raise UsageError("--alternate: trains convolutions and linear layers in turn; this network has only one")
        self._epoch = 1

    def on_gradients(self) -> None:
        for parameter in self._frozen_in[self._epoch % 2]:
            parameter.grad = None

    def on_epoch(self, epoch: int) -> Mapping[str, float]:
        self._epoch = epoch + 1
        return {}

    def state_dict(self) -> dict[str, Any]:
        return {"epoch": self._epoch}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self._epoch = state["epoch"]
