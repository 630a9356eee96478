"""Networks of transformers on texts: activations as scores, and layers fitted, token by token and padding left out."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from compressor.asking import PruneSettings, Recovery
from compressor.data import DataSource, open_data, open_task
from compressor.data.text import TextSource
from compressor.data.tokens import TextForm, tokenized
from compressor.formats import load
from compressor.models.huggingface import _transformers
from compressor.program import CONTRACTIONS, Program, find_layers
from compressor.pruning import prune
from compressor.pruning.activations import input_energies
from compressor.pruning.reconstruct import reconstruct
from tests.data.test_text import ROWS, Words, written
from tests.models.tiny_transformers import save_small

TASKS = {"llama": "causal-lm", "gpt2": "causal-lm", "bert-mlm": "masked-lm"}


@pytest.fixture(scope="module")
def transformers() -> Any:
    pytest.importorskip("transformers", reason="transformers is not installed")
    return _transformers()


def opened(transformers: Any, name: str, folder: Path) -> tuple[Program, DataSource]:
    save_small(transformers, name, folder / name)
    source = open_data(written(folder / "t.jsonl", ROWS * 2))
    assert isinstance(source, TextSource)
    program = load(folder / name)
    names = tuple(spec.name for spec in program.inputs)
    form = TextForm(names=names, length=6, tokenizer=Words(), labels={}, task=TASKS[name])
    return program, tokenized(source, form)


@pytest.mark.parametrize("name", TASKS)
def test_every_linear_layer_is_fitted_on_tokens(transformers: Any, name: str, tmp_path: Path) -> None:
    """Attention and MLP, the products of GPT-2 too; a head that is tied to an embedding is left, and said to be."""
    program, data = opened(transformers, name, tmp_path)
    settings = PruneSettings(pattern="2:4", method="magnitude")
    pruned, _ = prune(program, settings)
    pruned = pruned.clone()
    done = reconstruct(pruned, program, data, n_batches=1, batch_size=60)
    layers = {layer.name: layer for layer in find_layers(program) if layer.kind in CONTRACTIONS}
    tied = {n for n, layer in layers.items() if sum(o.weight == layer.weight for o in find_layers(program)) > 1}
    assert len(layers) >= 9 and {said.split(":")[0] for said in done.skipped} == tied
    assert set(done.after) == set(layers) - tied
    assert sum(done.after.values()) < 0.9 * sum(done.before.values())
    pruned.check_masks()


@pytest.mark.parametrize("name", TASKS)
def test_every_weight_has_what_reaches_it(transformers: Any, name: str, tmp_path: Path) -> None:
    program, data = opened(transformers, name, tmp_path)
    found = input_energies(program, data, n_batches=1)
    weights = {
        layer.weight for layer in find_layers(program) if layer.kind in CONTRACTIONS or layer.kind == "embedding"
    }
    assert set(found) == weights
    assert all(float(energy.min()) >= 0 < float(energy.max()) for energy in found.values())


@pytest.mark.parametrize("name", TASKS)
def test_a_cut_without_training_by_what_reaches_weights(transformers: Any, name: str, tmp_path: Path) -> None:
    program, data = opened(transformers, name, tmp_path)
    task = open_task(TASKS[name])
    for asked in ({"pattern": "channel", "ratio": 1.2}, {"pattern": "unstructured", "ratio": 1.6}):
        for method in ("magnitude", "admm"):
            if (method, asked["pattern"]) == ("admm", "channel"):
                continue
            settings = PruneSettings(
                method=method, score="activation", recovery=Recovery(reconstruct=1), round_to=1, **asked,  # type: ignore[arg-type]
            )  # fmt: skip
            pruned, report = prune(program, settings, data=data, task=task)
            healed = report.stages[-2].extra
            assert report.got >= asked["ratio"] and healed["output error"] < healed["unfitted"]
            pruned.check_masks()


def test_half_precision_stays(transformers: Any, tmp_path: Path) -> None:
    program, data = opened(transformers, "llama", tmp_path)
    half = program.replace(module=program.module.clone(torch.bfloat16))
    settings = PruneSettings(pattern="2:4", recovery=Recovery(reconstruct=1))
    pruned, report = prune(half, settings, data=data, task=open_task("causal-lm"))
    assert all(p.dtype == torch.bfloat16 for p in pruned.parameters.values())
    fitted = next(row.extra for row in report.stages if "output error" in row.extra)
    assert fitted["output error"] < fitted["unfitted"]
    pruned.check_masks()
