"""A network that a file remembers is made by its library, or not at all."""

from __future__ import annotations

import importlib.util

import pytest
import torch

from compressor.errors import CompressError, ModelError
from compressor.models import rebuilt

WEIGHTS = {"conv.weight": torch.zeros(64, 3, 7, 7), "fc.weight": torch.zeros(1000, 512)}


@pytest.mark.parametrize("arch", [None, "lenet5", "LeNet-5", "resnet20", "net.py:Net", "package.module:Net"])
def test_what_is_bundled_or_code_is_not_made(arch: str | None) -> None:
    assert rebuilt(arch, {}, {}, WEIGHTS) is None


@pytest.mark.skipif(importlib.util.find_spec("torchvision") is None, reason="torchvision is not installed")
def test_a_network_of_a_library_is_made_without_touching_random_numbers() -> None:
    before = torch.get_rng_state()
    module = rebuilt("torchvision:squeezenet1_1", {"num_classes": 3}, {}, {"a": torch.zeros(2_000_000)})
    assert module is not None and type(module).__name__ == "SqueezeNet"
    assert torch.equal(before, torch.get_rng_state())


@pytest.mark.skipif(importlib.util.find_spec("torchvision") is None, reason="torchvision is not installed")
@pytest.mark.parametrize(
    ("name", "arguments", "said"),
    [
        ("resnet50", {"num_classes": 10**9}, "is remembered, and larger than any weight that is there"),
        ("resnet50", {"weights": "DEFAULT"}, "torchvision"),
    ],
)
def test_more_than_the_weights_account_for_is_refused(name: str, arguments: dict[str, object], said: str) -> None:
    with pytest.raises(CompressError, match=said):
        rebuilt(f"torchvision:{name}", arguments, {}, WEIGHTS)


@pytest.mark.skipif(importlib.util.find_spec("torchvision") is None, reason="torchvision is not installed")
def test_layers_are_counted_while_they_are_made(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("compressor.models.budget._BUFFERS", 0)
    with pytest.raises(CompressError, match="describes a network of more than 60,000 elements"):
        rebuilt("torchvision:squeezenet1_1", {}, {}, {"a": torch.zeros(30_000)})


def test_a_library_that_does_not_know_it_says_so() -> None:
    with pytest.raises(CompressError, match=r"unknown name|cannot be imported"):
        rebuilt("torchvision:no_such_network", {}, {}, WEIGHTS)
    assert issubclass(ModelError, CompressError)
