"""Networks of torchvision and timm: random units are removed exactly, and most parameters lie in units.

One small network per family at a small input; all of them, and their numbers, are the work of benchmarks/coverage.py.
"""

from __future__ import annotations

import importlib.util

import pytest
import torch

from benchmarks.zoo import check, make_difficult, random_keep, removal_error
from compressor.axes import find_units
from compressor.models import build
from compressor.program import InputSpec, capture

TORCHVISION = {
    "alexnet": (64, 0.99),
    "convnext_tiny": (32, 0.90),
    "densenet121": (32, 0.99),
    "efficientnet_b0": (32, 0.99),
    "googlenet": (32, 0.99),
    "mnasnet0_5": (32, 0.99),
    "mobilenet_v3_small": (32, 0.99),
    "regnet_y_400mf": (32, 0.99),
    "resnet18": (32, 0.99),
    "resnext50_32x4d": (32, 0.99),
    "shufflenet_v2_x0_5": (32, 0.99),
    "squeezenet1_1": (32, 0.99),
    "swin_t": (32, 0.90),
    "swin_v2_t": (32, 0.90),
}
TIMM = {
    "efficientvit_b0": (32, 0.60),
    "ghostnet_050": (32, 0.99),
    "hgnetv2_b0": (32, 0.99),
    "levit_128s": (224, 0.99),
    "mobilevit_xxs": (64, 0.99),
    "res2next50": (32, 0.99),
    "resnest14d": (32, 0.99),
    "vit_tiny_patch16_224": (224, 0.90),
    "xcit_nano_12_p16_224": (224, 0.60),
}


def require(library: str) -> None:
    if importlib.util.find_spec(library) is None:
        pytest.skip(f"{library} is not installed")


@pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::DeprecationWarning", "ignore::UserWarning:timm")
@pytest.mark.parametrize("name", [*(f"torchvision:{name}" for name in TORCHVISION), *(f"timm:{name}" for name in TIMM)])
def test_random_units_go_exactly(name: str) -> None:
    library, _, model = name.partition(":")
    require(library)
    side, least_share = (TORCHVISION if library == "torchvision" else TIMM)[model]
    found = check(name, side, ways=("random biases",))
    assert found.error == ""
    assert found.prunable_share >= least_share


def test_a_wrong_removal_is_found() -> None:
    """The twin: one index that is taken from the wrong place must show."""
    require("torchvision")
    program = capture(build("torchvision:resnet18", {}, seed=0).module, [InputSpec("x", (None, 3, 32, 32))])
    make_difficult(program, zero_biases=False)
    units = find_units(program)
    keep = random_keep(units)
    wrong = units.axes["layer1.0.conv2.weight", 1]
    wrong[:] = wrong[::-1].copy()
    difference, _ = removal_error(program, units, keep, torch.float64)
    assert difference > 1e-3
