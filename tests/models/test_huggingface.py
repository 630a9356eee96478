"""Networks of transformers from a directory on disk: whole pipelines, masks by name, and nothing from elsewhere."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from compressor.errors import ModelError, UsageError
from compressor.formats import load
from compressor.models import build, takes_by_name
from compressor.program import parse_input

SMALL = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 48, "num_labels": 3}


@pytest.fixture(scope="module")
def transformers() -> Any:
    pytest.importorskip("transformers", reason="transformers is not installed")
    from compressor.models.huggingface import _transformers

    return _transformers()


def saved(transformers: Any, kind: str, folder: Path, **more: Any) -> Any:
    """A small network of random weights, saved as its users do."""
    config = {
        "bert": lambda: transformers.BertConfig(**SMALL, vocab_size=50, max_position_embeddings=24, **more),
        "distilbert": lambda: transformers.DistilBertConfig(
            dim=32, n_layers=2, n_heads=4, hidden_dim=48, vocab_size=50, max_position_embeddings=24, **more
        ),
        "vit": lambda: transformers.ViTConfig(**SMALL, image_size=16, patch_size=8, **more),
    }[kind]()
    automatic = transformers.AutoModelForImageClassification if kind == "vit" else (
        transformers.AutoModelForSequenceClassification
    )  # fmt: skip
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(2)
        model = automatic.from_config(config).eval()
    model.save_pretrained(folder)
    return model


@pytest.mark.parametrize("kind", ["bert", "distilbert", "vit"])
def test_a_directory_is_a_model(transformers: Any, tmp_path: Path, kind: str) -> None:
    model = saved(transformers, kind, tmp_path)
    program = load(tmp_path)
    x = program.example_inputs(3)
    names = ["pixel_values"] if kind == "vit" else ["input_ids", "attention_mask"]
    assert torch.allclose(program.module(*x), model(**dict(zip(names, x, strict=True))).logits, atol=1e-6)
    assert [spec.name for spec in program.inputs] == names
    assert program.parameters.keys() <= model.state_dict().keys()  # its names, whatever the file calls them
    assert program.record.arch == f"transformers:{tmp_path.absolute()}"
    by_arch = load(tmp_path / "model.safetensors", arch=f"transformers:{tmp_path}")
    assert torch.equal(by_arch.module(*x), program.module(*x))


def test_inputs_are_taken_by_name(transformers: Any, tmp_path: Path) -> None:
    model = saved(transformers, "bert", tmp_path)
    inputs = [parse_input("input_ids=int64:12<50"), parse_input("attention_mask=int64:12<2")]
    program = load(tmp_path, inputs=inputs)
    ids, mask = torch.arange(24).view(2, 12), torch.ones(2, 12, dtype=torch.int64)
    mask[:, 7:] = 0
    assert [spec.name for spec in program.inputs] == ["input_ids", "attention_mask"]
    assert torch.allclose(program.module(ids, mask), model(ids, attention_mask=mask).logits, atol=1e-6)
    assert not torch.allclose(program.module(ids, mask), model(ids).logits, atol=1e-6)


def test_shards_and_entries_of_the_configuration(transformers: Any, tmp_path: Path) -> None:
    import safetensors.torch

    model = saved(transformers, "bert", tmp_path)
    state = dict(model.state_dict())
    (tmp_path / "model.safetensors").unlink()
    halves = (list(state)[::2], list(state)[1::2])
    for i, names in enumerate(halves):
        safetensors.torch.save_file({name: state[name].clone() for name in names}, tmp_path / f"part{i}.safetensors")
    weights = {name: f"part{i}.safetensors" for i, names in enumerate(halves) for name in names}
    index = tmp_path / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": weights}))
    program = load(tmp_path)
    ids, mask = program.example_inputs(2)
    assert torch.allclose(program.module(ids, mask), model(ids, attention_mask=mask).logits, atol=1e-6)
    (tmp_path / "part1.safetensors").unlink()
    with pytest.raises(ModelError, match=r"the shard part1\.safetensors is not there"):
        load(tmp_path)
    assert load("init", arch=f"transformers:{tmp_path}", arch_args={"num_hidden_layers": 1}).n_parameters < (
        program.n_parameters
    )
    with pytest.raises(UsageError, match=r"colour: .* has no such entry"):
        build(f"transformers:{tmp_path}", {"colour": "red"})


def test_the_pipeline_from_a_directory(transformers: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from compressor.cli.main import main

    saved(transformers, "bert", tmp_path / "bert")
    monkeypatch.chdir(tmp_path)
    cut = ["-r", "1.3x", "-m", "magnitude", "--no-retrain", "--through-norm", "exact", "-q"]
    assert main(["prune", "bert", *cut]) == 0
    assert main(["compact", "bert.pruned.pt", "-q"]) == 0
    assert load("bert.compact.pt").n_parameters < load("bert").n_parameters / 1.3
    assert main(["export", "bert.compact.pt", "-o", "bert.onnx", "-q"]) == 0


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda s: s.pop("classifier.bias"), "1 missing: classifier.bias"),
        (lambda s: s.update(more=torch.zeros(1)), "1 unexpected: more"),
        (lambda s: s.update({"classifier.bias": torch.zeros(4)}), "1 of another shape: classifier.bias"),
        (lambda s: s.update({"classifier.bias": torch.full((3,), float("nan"))}), "3 of 3 values are NaN"),
    ],
)
def test_weights_are_taken_whole_or_not_at_all(
    transformers: Any, tmp_path: Path, change: Any, message: str, capfd: pytest.CaptureFixture[str]
) -> None:
    import safetensors.torch

    state = dict(saved(transformers, "bert", tmp_path).state_dict())
    capfd.readouterr()
    change(state)
    safetensors.torch.save_file(state, tmp_path / "model.safetensors")
    with pytest.raises(ModelError, match=message):
        load(tmp_path)
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ("{", "is no JSON"),
        ('{"model_type": "none-such"}', "cannot be read"),
        ('{"model_type": "bert", "architectures": ["os"]}', "is not one of transformers'"),
        ('{"model_type": "bert", "architectures": ["AutoConfig"]}', "is not one of transformers'"),
        ('{"model_type": "own", "auto_map": {"AutoConfig": "own.Config"}}', "cannot be read"),
    ],
)
def test_a_configuration_that_is_none_or_brings_code(
    transformers: Any, tmp_path: Path, config: str, message: str
) -> None:
    (tmp_path / "config.json").write_text(config)
    (tmp_path / "own.py").write_text(f"import os; os.mkdir({str(tmp_path / 'canary')!r})")
    with pytest.raises(ModelError, match=message):
        build(f"transformers:{tmp_path}", {})
    assert not (tmp_path / "canary").exists()


def test_a_name_on_the_hub_is_not_downloaded() -> None:
    with pytest.raises(UsageError, match="nothing is downloaded here"):
        build("transformers:google-bert/bert-base-uncased", {})


def test_without_transformers_the_message_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    (tmp_path / "config.json").write_text("{}")
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(ModelError, match="pip install transformers"):
        build(f"transformers:{tmp_path}", {})


class Several(nn.Module):
    def forward(self, ids: torch.Tensor, kind: torch.Tensor | None = None, mask: torch.Tensor | None = None) -> Any:
        return ids.float() * (1 if mask is None else mask) + (0 if kind is None else 100)


def test_any_module_takes_inputs_by_the_names_of_its_forward() -> None:
    ones, twos = torch.ones(1, 2), torch.full((1, 2), 2.0)
    module = Several()
    takes_by_name(module, ["ids", "mask"])
    assert torch.equal(module(ones, twos), twos)
    for names in (["ids", "kind"], ["x", "y"]):  # as they stand already, or none of its names: by position
        other = Several()
        takes_by_name(other, names)
        assert torch.equal(other(ones, ones), ones * 101)


@pytest.mark.parametrize(
    ("index", "message"),
    [
        ('{"weight_map": {"w": "../secret.safetensors"}}', "which is not beside it"),
        ('{"weight_map": {"w": "/etc/passwd"}}', "which is not beside it"),
        ('{"weight_map": {"w": "a\\u0000b"}}', "which is not beside it"),
        ('{"weight_map": {"w": 3}}', "which is not beside it"),
        ('{"weight_map": {"w": "model.safetensors.none"}}', "is not there"),
        ('{"weight_map": []}', "is not an index of weights"),
        ("[]", "holds a list, no table"),
        ("[" * 100_000, "is no JSON"),
        ("", "is no JSON"),
    ],
)
def test_an_index_that_leads_elsewhere_is_refused(tmp_path: Path, index: str, message: str) -> None:
    inside = tmp_path / "model"
    inside.mkdir()
    (tmp_path / "secret.safetensors").write_bytes(b"secret")
    (inside / "config.json").write_text("{}")
    (inside / "model.safetensors.index.json").write_text(index)
    with pytest.raises(ModelError, match=message):
        load(inside)
