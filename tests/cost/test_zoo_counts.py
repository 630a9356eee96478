"""Networks of torchvision and timm, counted as torch counts them, whole and after a cut that the budget foresaw.

A few of them here; all, and the numbers, are the work of benchmarks/macs.py.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import cache

import pytest

from benchmarks.macs import Comparison, compare
from compressor.cost import Operator, Product
from compressor.cost.products import RULES
from compressor.models import build
from compressor.program import InputSpec, Program, capture

NETWORKS = {
    "torchvision:mobilenet_v3_small": 32,
    "torchvision:swin_v2_t": 32,
    "timm:efficientvit_b0": 32,
    "timm:levit_128s": 224,
    "timm:resnest14d": 32,
}


@cache
def captured(name: str) -> Program:
    return capture(build(name, {}, seed=0).module.eval(), [InputSpec("x", (None, 3, NETWORKS[name], NETWORKS[name]))])


def compared(name: str) -> Comparison:
    library = name.partition(":")[0]
    if importlib.util.find_spec(library) is None:
        pytest.skip(f"{library} is not installed")
    return compare(name, NETWORKS[name], captured(name))


@pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::DeprecationWarning", "ignore::UserWarning:timm")
@pytest.mark.parametrize("name", NETWORKS)
def test_counts_are_those_of_torch(name: str) -> None:
    found = compared(name)
    assert found.agrees
    assert found.ours == found.torch > found.cut[0] == found.cut[1] == found.cut[2]
    assert (found.differing, found.cut_differing, found.uncounted) == ({}, {}, ())


@pytest.mark.parametrize("kind", ["convolution", "linear", "matmul"])
def test_twin_a_broken_formula_is_noticed(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(rule: Callable[[Operator], Sequence[Product]]) -> Callable[[Operator], Sequence[Product]]:
        return lambda op: [replace(product, axes=product.axes[:-1]) for product in rule(op)]

    for target, rule in dict(RULES).items():
        if rule.__name__ == kind:
            monkeypatch.setitem(RULES, target, broken(rule))
    found = compared("timm:levit_128s")
    assert found.ours != found.torch and found.differing
