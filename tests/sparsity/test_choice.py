"""What a selector is made for: the request itself, and globs that name its layers."""

from __future__ import annotations

import pytest

from compressor.asking import PruneSettings
from compressor.errors import UsageError
from compressor.program import Layer
from compressor.sparsity import Choice, matching_layers


class Named:
    def __init__(self, name: str) -> None:
        self.name = name


LAYERS: list[Layer] = [Named(name) for name in ("conv1", "conv2", "fc")]  # type: ignore[misc]


def test_a_choice_holds_the_request_and_copies_nothing_of_it() -> None:
    settings = PruneSettings(ratio=2.0, method="random", pattern="2:4", seed=3)
    choice = Choice(settings)
    measured = {"stopwatch", "preferences", "order", "routed", "blocks"}
    assert choice.asked is settings and set(vars(choice)) == {"asked", *measured}
    assert (choice.asked.rates, choice.asked.pattern.window) == ("random", (2, 4))


def test_globs_name_layers_and_one_that_names_none_is_refused() -> None:
    assert matching_layers(LAYERS, ["conv*", "fc"], "--scope") == {"conv1", "conv2", "fc"}
    with pytest.raises(UsageError, match="--keep gc: matches no layer; layers are conv1, conv2, fc"):
        matching_layers(LAYERS, ["gc"], "--keep")
