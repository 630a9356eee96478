"""When a trainer's callback makes, finishes and saves its Pruner; it must never know which trainer it is."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from compressor.errors import UsageError
from compressor.program import Program
from compressor.pruning import LiveReport, Pruner


class Course:
    """A Pruner over one training: the first `share` of its steps searches, the rest trains under the masks.

    `inputs` and what is `asked` go to `Pruner`. Methods that cut in rounds spread them over the same share.

    Raises:  UsageError for a share outside 0 to 1.
    """

    def __init__(self, inputs: Any = None, *, share: float = 0.5, **asked: Any) -> None:
        if not 0 < share <= 1:
            raise UsageError(f"share {share:g}: of the steps that search; above 0, at most 1")
        self._inputs, self._share, self._asked = inputs, share, asked
        self._pruner: Pruner | None = None
        self._waiting: Mapping[str, Any] | None = None

    @property
    def pruner(self) -> Pruner:
        """Raises:  UsageError before the training has begun."""
        if self._pruner is None:
            raise UsageError("the training has not begun: there is no Pruner yet")
        return self._pruner

    @property
    def has_begun(self) -> bool:
        return self._pruner is not None

    def begin(self, model: nn.Module, optimizer: torch.optim.Optimizer, n_steps: int, inputs: Any = None) -> None:
        """Makes the Pruner for a training of `n_steps` optimizer steps and attaches it; a second call does nothing.

        Raises:  UsageError if nobody said what goes into the model; as `Pruner` for the rest.
        """
        if self._pruner is not None:
            return
        given = self._inputs if self._inputs is not None else inputs
        if given is None:
            raise UsageError("nobody says what goes into the model; give the callback inputs=, an example or 3x224x224")
        n_search = max(int(n_steps * self._share), 1)
        self._pruner = Pruner(model, given, steps=n_search, **self._asked)
        if self._waiting is not None:
            self._pruner.load_state_dict(self._waiting)
            self._waiting = None
        self._pruner.attach(optimizer)

    def after_step(self) -> LiveReport | None:
        """Finishes once the search has had its steps; the report then, None otherwise."""
        if self._pruner is None or self._pruner.is_finished or self._pruner.n_done < self._pruner.n_steps:
            return None
        return self._pruner.finish()

    def move(self, optimizer: torch.optim.Optimizer) -> None:
        """Goes on with another optimizer, which a trainer made after it ran out of memory."""
        state = self.pruner.state_dict()
        self.pruner.detach()
        self.pruner.load_state_dict(state)
        self.pruner.attach(optimizer)

    def end(self, of: nn.Module | None = None) -> Program:
        """Finishes, if that has not been, and gives the masked program, or that of a copy which an average keeps."""
        self.pruner.finish()
        self.pruner.detach()
        return self.pruner.program(of)

    def state_dict(self) -> dict[str, Any]:
        return dict(self._waiting or {}) if self._pruner is None else self._pruner.state_dict()

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Taken up now, or when the training begins."""
        if self._pruner is not None:
            self._pruner.load_state_dict(state)
        elif state:
            self._waiting = state
