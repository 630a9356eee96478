"""Whole layers of transformers' networks: which may go for a configuration, and why others stay."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from compressor.asking.prune import PruneSettings
from compressor.errors import PatternError, UsageError
from compressor.formats import load
from compressor.program import InputSpec, capture
from compressor.pruning.whole_layers import whole_layers
from tests.models.tiny_transformers import save_small


@pytest.fixture(scope="module")
def transformers() -> Any:
    pytest.importorskip("transformers", reason="transformers is not installed")
    from compressor.models.huggingface import _transformers

    return _transformers()


def test_attention_and_mlp_of_a_layer_are_one_unit(transformers: Any, tmp_path: Path) -> None:
    save_small(transformers, "llama", tmp_path)
    program = load(tmp_path)
    blocks = whole_layers(program)
    assert [block.name for block in blocks] == ["model.layers.0", "model.layers.1"]
    for block in blocks:
        assert block.zeroed == {f"{block.name}.self_attn.o_proj.weight", f"{block.name}.mlp.down_proj.weight"}
        assert len(block.branches) == 2


PLACES: list[tuple[str, dict[str, Any], list[str], str]] = [
    # every second layer is a mixture: without one of the others, those behind it would be of the wrong kind
    ("qwen2-moe", {"num_hidden_layers": 3, "decoder_sparse_step": 2}, ["model.layers.2"],
     "num_hidden_layers: layers 0, 1: the library's network without it computes otherwise"),
    # the first layer holds the positions of all
    ("t5", {}, ["encoder.block.1", "decoder.block.1"], "layer 0: layer.0.SelfAttention.relative_attention_bias"),
]  # fmt: skip


@pytest.mark.parametrize(("name", "more", "free", "reason"), PLACES)
def test_layers_that_differ_by_place_stay(
    transformers: Any, tmp_path: Path, name: str, more: dict[str, Any], free: list[str], reason: str
) -> None:
    save_small(transformers, name, tmp_path, **more)
    said: list[str] = []
    assert [block.name for block in whole_layers(load(tmp_path), said.append)] == free
    assert any(reason in note for note in said), said


def test_norms_that_no_residual_goes_around_keep_their_layer(transformers: Any, tmp_path: Path) -> None:
    save_small(transformers, "bert", tmp_path)
    with pytest.raises(PatternError, match=r"layers 0, 1: .*LayerNorm.* works on what no residual goes around"):
        whole_layers(load(tmp_path))


def test_only_networks_with_a_configuration_have_layers_that_it_counts() -> None:
    program = capture(torch.nn.Sequential(torch.nn.Linear(4, 4)), [InputSpec("x", (None, 4))])
    with pytest.raises(UsageError, match="load one from its directory"):
        whole_layers(program)


def test_layers_and_widths_at_once_are_refused_with_the_way() -> None:
    with pytest.raises(UsageError, match="cut layers first"):
        PruneSettings(ratio=2, pattern="layer+channel", uniform=True)
