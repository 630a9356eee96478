"""The digest changes with everything that a checkpoint means and with nothing else."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from compressor.errors import ModelError
from compressor.formats.digest import digest

BASE: dict[str, Any] = {
    "graph": "g",
    "metadata": {"schema": 1, "record": {"a": [1, 2.5, None]}},
    "tensors": {"a": torch.arange(6.0).view(2, 3), "b": torch.tensor(3)},
    "masks": {"a": torch.ones(2, 3, dtype=torch.bool)},
}


@pytest.mark.parametrize(
    "change",
    [
        {"graph": "h"},
        {"metadata": {"schema": 1, "record": {"a": [1, 2.5, 0]}}},
        {"tensors": {**BASE["tensors"], "b": torch.tensor(4)}},
        {"tensors": {**BASE["tensors"], "b": torch.tensor(3.0)}},
        {"tensors": {**BASE["tensors"], "b": torch.tensor([3])}},
        {"tensors": {"a": BASE["tensors"]["a"].view(3, 2), "b": BASE["tensors"]["b"]}},
        {"tensors": {"a": BASE["tensors"]["a"], "c": BASE["tensors"]["b"]}},
        {"tensors": {**BASE["tensors"], "a": -BASE["tensors"]["a"]}},
        {"masks": {}},
        {"masks": {"b": BASE["masks"]["a"]}},
        {"masks": {"a": ~BASE["masks"]["a"]}},
    ],
)
def test_every_change_shows(change: dict[str, Any]) -> None:
    assert digest(**{**BASE, **change}) != digest(**BASE)


def test_order_layout_and_the_old_digest_do_not() -> None:
    a, b = BASE["tensors"]["a"], BASE["tensors"]["b"]
    same = {
        "graph": "g",
        "metadata": {"sha256": "x", "record": {"a": [1, 2.5, None]}, "schema": 1},
        "tensors": {"b": b.clone(), "a": a.t().contiguous().t()},
        "masks": dict(BASE["masks"]),
    }
    assert digest(**same) == digest(**BASE)


def test_empty_and_half_tensors() -> None:
    odd = {"e": torch.zeros(0, 3), "h": torch.zeros(2, dtype=torch.bfloat16)}
    assert len(digest("g", {}, odd, {})) == 64


@pytest.mark.parametrize("value", [torch.zeros(1), {3, 4}, b"a", {1: 2, "a": 3}])
def test_metadata_must_be_json(value: Any) -> None:
    with pytest.raises(ModelError, match="not plain JSON"):
        digest("g", {"x": value}, {}, {})


def test_metadata_inside_itself_is_refused() -> None:
    loop: dict[str, Any] = {}
    loop["x"] = loop
    with pytest.raises(ModelError, match="not plain JSON"):
        digest("g", loop, {}, {})
