"""Heads, and norms that units pass, from the command line."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from compressor.formats import load

VIT = """
import torch
from torch import nn
from torch.nn.functional import scaled_dot_product_attention as attend

class Vit(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.patches = nn.Conv2d(1, 24, 2, 2)
        self.norm1, self.qkv, self.proj = nn.LayerNorm(24), nn.Linear(24, 72), nn.Linear(24, 24)
        self.norm2, self.up, self.down = nn.LayerNorm(24), nn.Linear(24, 48), nn.Linear(48, 24)
        self.norm, self.head = nn.LayerNorm(24), nn.Linear(24, 3)

    def forward(self, x):
        x = self.patches(x).flatten(2).transpose(1, 2)
        n, t, _ = x.shape
        q, k, v = self.qkv(self.norm1(x)).reshape(n, t, 3, 4, 6).permute(2, 0, 3, 1, 4)
        x = x + self.proj(attend(q, k, v).transpose(1, 2).reshape(n, t, 24))
        x = x + self.down(torch.relu(self.up(self.norm2(x))))
        return self.head(self.norm(x).mean(1))

@torch.library.custom_op("compressortests::twice", mutates_args=())
def twice(x: torch.Tensor) -> torch.Tensor:
    return 2 * x

@twice.register_fake
def _(x):
    return torch.empty_like(x)

class Foreign(Vit):
    def forward(self, x):
        return super().forward(twice(x))
"""
SOURCE = ("init", "--arch", "vit.py:Vit", "--input", "1x8x8")
CUT = ("--method", "magnitude", "--no-retrain", "--ratio")


@pytest.fixture(autouse=True)
def vit(here: Path) -> None:
    (here / "vit.py").write_text(VIT)


def test_heads_from_prune_to_compact(run: Any) -> None:
    done = run("prune", *SOURCE, *CUT, "1.15x", "--pattern", "head", "-o", "pruned.pt")
    assert done.code == 0, done.err
    done = run("compact", "pruned.pt", "-o", "compact.pt", "--json")
    assert done.code == 0, done.err
    assert done.json["agreement"]["float64_relative"] < 1e-10
    assert load("compact.pt").parameters["qkv.weight"].shape == (2 * 18, 24)


def test_exact_norms_from_prune_to_compact(run: Any) -> None:
    done = run("prune", *SOURCE, *CUT, "3x", "--through-norm", "exact", "-o", "pruned.pt", "--json")
    assert done.code == 0, done.err
    assert done.json["got"] >= 3
    done = run("compact", "pruned.pt", "-o", "compact.pt")
    assert done.code == 0, done.err
    assert "agrees with the masked model" in done.out
    program = load("compact.pt")
    assert program.parameters["patches.weight"].shape[0] < 24
    assert program.record.steps[0].options["through-norm"] == "exact"


def test_rescaled_norms_are_said_not_to_be_equal(run: Any) -> None:
    assert run("prune", *SOURCE, *CUT, "3x", "--through-norm", "rescale", "-o", "pruned.pt").code == 0
    done = run("compact", "pruned.pt", "-o", "compact.pt")
    assert done.code == 0, done.err
    assert "NOT equal to the masked model, and not verified: 3 norms" in " ".join(done.out.split())
    assert "agrees" not in done.out
    body = run("compact", "pruned.pt", "-o", "again.pt", "--json").json
    assert (body["agreement"], body["rescaled"]) == (None, ["norm1", "norm2", "norm"])


def test_the_default_cannot_reach_the_residual_stream(run: Any) -> None:
    done = run("prune", *SOURCE, *CUT, "6x", "-o", "pruned.pt")
    assert done.code == 1
    assert "the largest feasible is" in done.err


def test_analyze_counts_what_the_options_free(run: Any) -> None:
    n_units = {
        options: run("analyze", *SOURCE, *options, "--json").json["n_units"]
        for options in ((), ("--heads",), ("--through-norm", "exact"), ("--through-norm", "exact", "--heads"))
    }
    assert list(n_units.values()) == [48 + 6, 48 + 4, 48 + 6 + 24, 48 + 4 + 24]


def test_analyze_explains_heads_and_pins(run: Any) -> None:
    found = run("analyze", *SOURCE, "--heads", "--explain", "qkv:0", "--json").json["explanation"]
    assert found["slices"][-1] == {"parameter": "proj.weight", "axis": 1, "positions": [0, 1, 2, 3, 4, 5]}
    pinned = run("analyze", *SOURCE, "--explain", "patches")
    assert pinned.code == 0
    assert "filter 0 of patches is pinned: normalised over 24 features (--through-norm)" in pinned.out
    assert "norm1: vit.py:" in pinned.out


def test_a_pruned_model_is_analysed_as_it_was_pruned(run: Any) -> None:
    assert run("prune", *SOURCE, *CUT, "1.15x", "--pattern", "head", "-o", "pruned.pt").code == 0
    assert run("analyze", "pruned.pt", "--json").json["n_units"] == 48 + 4


def test_an_operator_of_ones_own_is_listed_and_refused_before_any_work(run: Any, here: Path) -> None:
    source = ("init", "--arch", "vit.py:Foreign", "--input", "1x8x8")
    done = run("analyze", *source, "--json")
    assert done.code == 0
    assert any("compressortests.twice.default" in note for note in done.json["notes"])
    done = run("prune", *source, *CUT, "1.5x", "-o", "pruned.pt")
    assert done.code == 1
    assert "compressortests.twice.default cannot be kept in a checkpoint" in done.err
    assert not (here / "pruned.pt").exists()
