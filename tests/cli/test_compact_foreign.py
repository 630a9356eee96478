"""`compress compact` on a state dict that something else has zeroed: no mask, no graph, no history."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from compressor.formats import load
from compressor.models import build


@pytest.fixture
def foreign(here: Path) -> Path:
    """LeNet-5 with ten filters of the first layer zeroed, whose biases stay."""
    net = build("lenet5", {}, seed=0).module
    with torch.no_grad():
        state = net.state_dict()
        state["conv1.weight"][::2] = 0
        state["conv1.bias"].fill_(0.5)
    torch.save(state, here / "foreign.pth")
    return here / "foreign.pth"


def test_a_zeroed_state_dict_becomes_smaller(run: Any, here: Path, foreign: Path) -> None:
    done = run("compact", foreign.name, "--arch", "lenet5", "-o", "small.pt", "--json")
    assert done.code == 0, done.err
    body = done.json
    assert body["zeroed"] == 250 and body["still_zeroed"] == 0 and body["n_units_removed"] == 10
    assert body["folded"] == [{"layer": "conv2", "n_channels": 10, "into": "conv2.bias"}]
    assert body["kept"] == [] and body["branches"] == []
    assert load(here / "small.pt").parameters["conv1.weight"].shape[0] == 10
    table = run("compact", foreign.name, "--arch", "lenet5", "-o", "small.pt", "--force").out
    assert "zeroed before 250; 10 constant channels folded into 1 tensor" in table


def test_masks_only_leaves_what_no_mask_cuts(run: Any, here: Path, foreign: Path) -> None:
    done = run("compact", foreign.name, "--arch", "lenet5", "-o", "small.pt", "--masks-only")
    assert done.code == 1 and "nothing to remove: 250 weights are zeroed" in done.err
    assert not (here / "small.pt").exists()


def test_folding_norms_is_for_onnx(run: Any, here: Path, foreign: Path) -> None:
    done = run("export", foreign.name, "--arch", "lenet5", "-o", "m.pt2", "--fold-norms")
    assert done.code == 2 and "--fold-norms: an archive of torch.export has no such thing" in done.err
