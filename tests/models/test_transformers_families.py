"""Architectures of transformers as they open alone: every input they need, every output of their task, any length."""

from __future__ import annotations

import inspect
import json
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from compressor.analysis import analyze
from compressor.asking import PruneSettings, WalkOptions
from compressor.axes import find_blocks, find_units
from compressor.compaction import compact
from compressor.errors import ModelError
from compressor.exporting import export_onnx
from compressor.formats import load, save
from compressor.models import InputHint, keep_every_head
from compressor.models.hf_inputs import find_inputs
from compressor.models.task_outputs import return_tensors
from compressor.program import Program, open_heads
from compressor.pruning import prune
from tests.models.tiny_transformers import SMALL, save_small


@pytest.fixture(scope="module")
def transformers() -> Any:
    pytest.importorskip("transformers", reason="transformers is not installed")
    from compressor.models.huggingface import _transformers

    return _transformers()


def opened(transformers: Any, name: str, folder: Path) -> tuple[Any, Program]:
    return save_small(transformers, name, folder), load(folder)


def named(outputs: Any) -> dict[str, Tensor]:
    return outputs if isinstance(outputs, dict) else {"": outputs}


OUTPUTS = {
    "bert": {""},
    "bert-base": {"last_hidden_state", "pooler_output"},
    "bert-qa": {"start_logits", "end_logits"},
    "detr": {"logits", "pred_boxes"},
    "clip": {"logits_per_image", "logits_per_text", "text_embeds", "image_embeds"},
    "clip-text": {""},
    "siglip-vision": {"last_hidden_state", "pooler_output"},
    "t5": {""},
    "whisper": {""},
    "wav2vec2": {""},
}
"""What a task has; "" where that is one tensor."""


@pytest.mark.parametrize("name", OUTPUTS)
def test_it_opens_alone_with_every_output_of_its_task(transformers: Any, tmp_path: Path, name: str) -> None:
    model, program = opened(transformers, name, tmp_path)
    inputs = {spec.name: x for spec, x in zip(program.inputs, program.example_inputs(3), strict=True)}
    with torch.no_grad():
        expected, got = model(**inputs), named(program.module(*inputs.values()))
    assert got.keys() == OUTPUTS[name]
    for key, value in got.items():
        wanted = expected[key] if key else expected.get("logits", expected.get("text_embeds"))
        assert torch.allclose(value, wanted, atol=1e-5), key
    assert not [note for note in program.record.notes if "play no part" in note and "masked_spec_embed" not in note]


@pytest.mark.parametrize("name", ["bert", "gpt2", "llama", "t5"])
def test_texts_of_any_length_and_batch(transformers: Any, tmp_path: Path, name: str) -> None:
    model, program = opened(transformers, name, tmp_path)
    for batch, length in ((1, 7), (3, 64), (2, 90)):
        lengths = {"sequence": length, "target_sequence": length // 2}
        inputs = {spec.name: spec.example(batch, 5, lengths) for spec in program.inputs}
        with torch.no_grad():
            got, wanted = program.module(*inputs.values()), model(**inputs).logits
        rows = inputs["attention_mask"].bool() if got.shape[:2] == (batch, length) else slice(None)
        assert torch.allclose(got[rows], wanted[rows], atol=1e-5), length


def test_padding_does_not_move_the_answer(transformers: Any, tmp_path: Path) -> None:
    _, program = opened(transformers, "bert", tmp_path)
    ids = torch.randint(3, 60, (2, 10), generator=torch.Generator().manual_seed(1))
    padded = torch.nn.functional.pad(ids, (0, 54))
    mask = (torch.arange(64) < 10).long().expand(2, 64)
    with torch.no_grad():
        alone = program.module(ids, torch.ones_like(ids))
        assert torch.allclose(program.module(padded, mask), alone, atol=1e-5)
        assert not torch.allclose(program.module(padded, torch.ones_like(padded)), alone, atol=1e-3)


@pytest.mark.parametrize("name", ["bert-mlm", "gpt2", "t5"])
def test_tied_weights_are_known_by_all_their_names(transformers: Any, tmp_path: Path, name: str) -> None:
    model, program = opened(transformers, name, tmp_path)
    state = model.state_dict()
    assert program.aliases and not program.record.notes
    for other, first in program.aliases.items():
        assert torch.equal(state[other], program.module.tensors()[first].detach())


def test_what_is_remembered_of_a_configuration_names_no_place(transformers: Any, tmp_path: Path) -> None:
    _, program = opened(transformers, "clip", tmp_path)
    text = json.dumps(program.record.configuration)
    assert "compress-" not in text and str(tmp_path) not in text and "transformers_version" not in text
    assert program.record.configuration["architectures"] == ["CLIPModel"]
    assert load(tmp_path).record.configuration == program.record.configuration


def test_every_architecture_says_what_goes_in(transformers: Any, tmp_path: Path) -> None:
    unknown = []
    for name, (kind, entries) in SMALL.items():
        cls = getattr(transformers, kind)
        with torch.device("meta"):
            module = cls(cls.config_class(**entries))
        hints = find_inputs(module, module.config, tmp_path)
        known = inspect.signature(module.forward).parameters
        if module.main_input_name not in [hint.name for hint in hints] or not {h.name for h in hints} <= set(known):
            unknown.append(name)
    assert not unknown


def test_sides_of_an_image_are_read_off_the_processor(transformers: Any, tmp_path: Path) -> None:
    cls = transformers.ResNetForImageClassification
    with torch.device("meta"):
        module = cls(cls.config_class(**SMALL["resnet"][1]))
    assert find_inputs(module, module.config, tmp_path) == (InputHint("pixel_values", (3, 224, 224)),)
    (tmp_path / "preprocessor_config.json").write_text('{"size": {"height": 96, "width": 64}}')
    assert find_inputs(module, module.config, tmp_path) == (InputHint("pixel_values", (3, 96, 64)),)
    (tmp_path / "preprocessor_config.json").write_text("{")
    with pytest.raises(ModelError, match=r"preprocessor_config\.json: is no JSON"):
        find_inputs(module, module.config, tmp_path)


class TwoHeads(nn.Module):
    """Returns the library's kind of object; the second head shows where `where` says."""

    def __init__(self, where: str) -> None:
        super().__init__()
        self.body, self.first, self.second, self.where = nn.Linear(4, 4), nn.Linear(4, 2), nn.Linear(4, 3), where

    def forward(self, x: Tensor, return_dict: bool = True) -> dict[str, Any]:
        hidden = self.body(x)
        other = self.second(hidden)
        return {"logits": self.first(hidden), "last_hidden_state": hidden, self.where: other} | (
            {} if self.where != "tokens" else {"tokens": (other,)}
        )


@pytest.mark.parametrize(
    ("where", "kept"), [("scores", {"logits", "scores"}), ("enc_scores", {"logits", "enc_scores"})]
)
def test_a_head_is_kept_whatever_its_output_is_called(where: str, kept: set[str]) -> None:
    module, x = TwoHeads(where), torch.randn(2, 4)
    return_tensors(module)
    keep_every_head(module, ["x"], [x])
    assert module(x).keys() == kept


def test_a_head_without_an_output_is_an_error() -> None:
    module, x = TwoHeads("tokens"), torch.randn(2, 4)
    return_tensors(module)
    with pytest.raises(ModelError, match=r"second\.weight and 1 more: show in no output"):
        keep_every_head(module, ["x"], [x])


BLOCKS = {
    "bert": 4, "roberta": 4, "albert": 2, "gpt2": 4, "gpt-neox": 4, "llama": 4, "gemma2": 4, "t5": 10, "vit": 4,
    "swin": 8, "convnext": 2,
}  # fmt: skip
"""Attention and MLP of each layer; ALBERT's layers share both; two in a layer of T5's encoder, three in its decoder."""


@pytest.mark.parametrize("name", BLOCKS)
def test_attention_and_mlp_of_every_layer_are_blocks_of_their_own(transformers: Any, tmp_path: Path, name: str) -> None:
    _, program = opened(transformers, name, tmp_path)
    assert len(find_blocks(program).free) == BLOCKS[name]
    pruned, report = prune(program, PruneSettings(ratio=1.02, pattern="layer", method="magnitude"))
    small, proof = compact(pruned)
    assert len(proof.branches) >= 1 and small.n_parameters == report.compact_params
    if name in ("bert", "llama"):
        export_onnx(small, tmp_path / "small.onnx")


@pytest.mark.parametrize(
    ("name", "heads", "keys", "units"),
    [
        ("llama", 4, 1, 4), ("llama", 8, 2, 4), ("llama", 8, 4, 4), ("gemma3", 4, 1, 4), ("qwen2", 8, 2, 4),
        ("qwen3", 4, 1, 4), ("phi3", 4, 1, 4), ("deberta-v2", 4, 4, 4), ("bloom", 4, 4, 4), ("falcon", 4, 1, 4),
    ],
)  # fmt: skip
def test_heads_go_and_groups_of_queries_stay_equal(
    transformers: Any, tmp_path: Path, name: str, heads: int, keys: int, units: int
) -> None:
    """As many units in a layer as queries in a group, or groups where these are more; exact, and in ONNX."""
    more = {"num_attention_heads": heads, "num_key_value_heads": keys, "num_hidden_layers": 1}
    save_small(transformers, name, tmp_path, **more)
    program = load(tmp_path)
    assert int(find_units(open_heads(program), WalkOptions(keep_heads=True)).heads.sum()) == units
    pruned, _ = prune(program, PruneSettings(ratio=1.02, pattern="head", method="magnitude"))
    small, proof = compact(pruned)
    assert small.n_parameters < program.n_parameters and proof.agreement is not None
    if (name, heads) in (("llama", 8), ("gemma3", 4), ("deberta-v2", 4)):
        export_onnx(small, tmp_path / "small.onnx")


EXPERTS = ("mixtral", "qwen2-moe", "qwen3-moe")


@pytest.mark.parametrize("name", EXPERTS)
def test_a_mixture_of_experts_opens_alone_and_answers_as_before(transformers: Any, tmp_path: Path, name: str) -> None:
    model = save_small(transformers, name, tmp_path, num_hidden_layers=1)
    program = load(tmp_path)
    inputs = {spec.name: spec.example(3, 5, {"sequence": 11}) for spec in program.inputs}
    with torch.no_grad():
        assert torch.allclose(program.module(*inputs.values()), model(**inputs).logits, atol=1e-5)
    assert "experts_implementation" not in json.dumps(program.record.configuration)
    save(program, tmp_path / "model.pt")


@pytest.mark.parametrize("name", EXPERTS)
def test_what_is_offered_of_experts_is_what_prune_takes(transformers: Any, tmp_path: Path, name: str) -> None:
    """The inner width of all experts, in one unit: along another axis of their weights than the first."""
    save_small(transformers, name, tmp_path, num_hidden_layers=1)
    program = load(tmp_path)
    scope = "model.layers.0.mlp.experts.*"
    rows = {row.name: row for row in analyze(program).layers if fnmatchcase(row.name, scope)}
    assert all(row.n_prunable == row.n_filters > 0 and row.pinned is None for row in rows.values()) and len(rows) == 2
    pruned, report = prune(
        program, PruneSettings(ratio=1.5, pattern="channel", method="magnitude", scope=(scope,), round_to=1)
    )
    small, proof = compact(pruned)
    inner = rows["model.layers.0.mlp.experts.down_proj"].n_filters
    up, down = (small.parameters[f"model.layers.0.mlp.experts.{n}"] for n in ("gate_up_proj", "down_proj"))
    assert down.shape[2] * 1.5 <= inner and up.shape[1] == 2 * down.shape[2] and up.shape[0] == down.shape[0] == 4
    assert small.n_parameters == report.compact_params and proof.agreement is not None
    if name == "mixtral":
        export_onnx(small, tmp_path / "small.onnx")


@pytest.mark.parametrize("name", EXPERTS)
def test_whole_experts_go_with_their_row_in_the_router(transformers: Any, tmp_path: Path, name: str) -> None:
    save_small(transformers, name, tmp_path, num_hidden_layers=1)
    program = load(tmp_path)
    (row,) = analyze(program).routers
    assert (row.n_experts, row.n_chosen, row.n_prunable) == (4, 2, 2) and len(row.layers) == 3
    pruned, report = prune(program, PruneSettings(ratio=1.15, pattern="expert", method="magnitude"))
    small, proof = compact(pruned)
    assert proof.agreement is not None and small.n_parameters == report.compact_params < program.n_parameters
    left = {small.parameters[f"model.layers.0.mlp.{part}"].shape[0] for part in ("gate.weight", *TENSORS)}
    assert len(left) == 1 and left <= {2, 3}
    if name == "mixtral":
        export_onnx(small, tmp_path / "small.onnx")


TENSORS = ("experts.gate_up_proj", "experts.down_proj")
