"""Networks of transformers pruned uniformly and written back: the library opens them alone and they answer the same."""

from __future__ import annotations

import gc
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from compressor.asking.prune import PruneSettings
from compressor.axes import find_units
from compressor.compaction import compact
from compressor.errors import ModelError, OutputError, PatternError, UsageError, VerificationError
from compressor.exporting import export_huggingface
from compressor.formats import load
from compressor.program import Program, capture, parse_input
from compressor.pruning import prune
from compressor.pruning.uniform import uniform_units
from tests.models.tiny_transformers import SMALL, save_small


@pytest.fixture(scope="module")
def transformers() -> Any:
    pytest.importorskip("transformers", reason="transformers is not installed")
    from compressor.models.huggingface import _transformers

    return _transformers()


def cut(program: Program, ratio: float, **how: Any) -> Program:
    settings = PruneSettings(method="magnitude", ratio=ratio, round_to=1, **{"uniform": True, **how})
    return prune(program, settings)[0]


def changed(before: Path, after: Path) -> dict[str, Any]:
    old, new = (json.loads((folder / "config.json").read_text()) for folder in (before, after))
    return {name: value for name, value in new.items() if old.get(name) != value}


CASES: list[tuple[str, float, dict[str, Any], set[str]]] = [
    ("bert", 1.3, {}, {"intermediate_size"}),
    ("bert", 1.5, {"through_norm": "rescale"}, {"hidden_size", "intermediate_size", "num_attention_heads"}),
    ("roberta", 1.2, {}, {"intermediate_size"}),
    ("distilbert", 1.2, {}, {"hidden_dim"}),
    ("vit", 1.2, {}, {"intermediate_size"}),
    ("gpt2", 1.3, {}, {"n_inner"}),
    ("llama", 1.5, {"through_norm": "exact"}, {"hidden_size", "intermediate_size", "rms_norm_eps"}),
    ("llama", 1.05, {"pattern": "head"}, {"num_attention_heads", "num_key_value_heads"}),
    ("mistral", 1.3, {"through_norm": "exact"}, {"hidden_size", "intermediate_size", "rms_norm_eps"}),
    ("qwen2", 1.3, {"through_norm": "exact"}, {"hidden_size", "intermediate_size", "rms_norm_eps"}),
    ("gemma", 1.1, {"through_norm": "exact"}, {"intermediate_size"}),  # its embeddings are scaled by √hidden_size
    ("t5", 1.2, {}, {"d_ff"}),
    ("llama", 1.2, {"pattern": "layer"}, {"num_hidden_layers"}),
    ("gpt-neo", 1.2, {"pattern": "layer"}, {"num_layers", "attention_layers"}),
    ("mixtral", 1.15, {"pattern": "expert"}, {"num_local_experts"}),
    ("qwen2-moe", 1.4, {"pattern": "expert+channel"}, {"num_experts"}),
    ("qwen3-moe", 1.1, {}, {"moe_intermediate_size"}),  # in steps of 16 bytes, which grouped products ask for
    ("qwen3-moe", 1.15, {"pattern": "expert"}, {"num_local_experts"}),
]


@pytest.mark.parametrize(("name", "ratio", "how", "entries"), CASES)
def test_transformers_opens_it_alone_and_it_answers_the_same(
    transformers: Any, tmp_path: Path, name: str, ratio: float, how: dict[str, Any], entries: set[str]
) -> None:
    save_small(transformers, name, tmp_path / "m")
    (tmp_path / "m" / "tokenizer.json").write_text("{}")
    dense = load(tmp_path / "m")
    smaller, _ = compact(cut(dense, ratio, **how))
    report = export_huggingface(smaller, tmp_path / "small")
    assert report.beside == ("tokenizer.json",) and (tmp_path / "small" / "tokenizer.json").is_file()
    assert dense.n_parameters / report.n_params >= ratio
    assert entries <= changed(tmp_path / "m", tmp_path / "small").keys()
    kind = getattr(transformers, SMALL[name][0])
    with torch.no_grad():
        opened = kind.from_pretrained(tmp_path / "small").eval()
        for batch, length in ((1, 7), (3, 33)):
            lengths = {"sequence": length, "target_sequence": 5}
            given = {spec.name: spec.example(batch, length, lengths) for spec in smaller.inputs}
            rows = given["attention_mask"].bool() if name in ("llama", "gpt2", "gemma") else slice(None)
            got, wanted = opened(**given).logits[rows], smaller.module(*given.values())[rows]
            assert torch.allclose(got, wanted, atol=1e-5), length


def test_what_comes_out_generates_and_can_be_pruned_again(transformers: Any, tmp_path: Path) -> None:
    save_small(transformers, "llama", tmp_path / "m")
    once, _ = compact(cut(load(tmp_path / "m"), 1.3, through_norm="exact"))
    export_huggingface(once, tmp_path / "once")
    opened = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "once")
    assert opened.generate(torch.ones(1, 5, dtype=torch.long), max_new_tokens=9, do_sample=False).shape == (1, 14)
    twice, _ = compact(cut(once, 1.2, through_norm="exact"))  # from the program, and from the directory
    report = export_huggingface(twice, tmp_path / "twice")
    again, _ = compact(cut(load(tmp_path / "once"), 1.2, through_norm="exact"))
    assert report.n_params == export_huggingface(again, tmp_path / "again").n_params < once.n_parameters


def test_widths_of_layers_that_no_configuration_says_are_refused_by_name(transformers: Any, tmp_path: Path) -> None:
    save_small(transformers, "bert", tmp_path / "m")
    program = load(tmp_path / "m")
    masked = cut(program, 1.2, uniform=False)
    with pytest.raises(ModelError, match="remove it first with compress compact"):
        export_huggingface(masked, tmp_path / "small")
    with pytest.raises(ModelError, match=r"wide along dimension 0; intermediate_size is one number for all layers"):
        export_huggingface(compact(masked)[0], tmp_path / "small")
    assert not (tmp_path / "small").exists()


def test_a_layer_that_lost_a_part_only_is_refused_by_name(transformers: Any, tmp_path: Path) -> None:
    save_small(transformers, "llama", tmp_path / "m")
    program = load(tmp_path / "m")
    masked, _ = prune(program, PruneSettings(ratio=1.05, pattern="layer", method="magnitude"))
    smaller, _ = compact(masked)
    with pytest.raises(ModelError, match=r"model\.layers\.\d has lost .* counts\s+whole layers"):
        export_huggingface(smaller, tmp_path / "small")
    assert not (tmp_path / "small").exists()


def test_what_has_fewer_layers_can_lose_more_and_widths_too(transformers: Any, tmp_path: Path) -> None:
    save_small(transformers, "llama", tmp_path / "m", num_hidden_layers=4)
    once, _ = compact(cut(load(tmp_path / "m"), 1.2, pattern="layer"))
    export_huggingface(once, tmp_path / "three")
    twice, _ = compact(cut(load(tmp_path / "three"), 1.2, pattern="layer"))
    export_huggingface(twice, tmp_path / "two")
    widths, _ = compact(cut(load(tmp_path / "two"), 1.1))
    export_huggingface(widths, tmp_path / "narrow")
    assert changed(tmp_path / "m", tmp_path / "narrow").keys() >= {"num_hidden_layers", "intermediate_size"}
    assert json.loads((tmp_path / "narrow" / "config.json").read_text())["num_hidden_layers"] == 2


def test_nothing_is_written_over(transformers: Any, tmp_path: Path) -> None:
    save_small(transformers, "bert", tmp_path / "m")
    program = load(tmp_path / "m")
    with pytest.raises(OutputError, match="exists; give another"):
        export_huggingface(program, tmp_path / "m")
    export_huggingface(program, tmp_path / "m", force=True)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["m"]


def test_twin_a_norm_that_is_not_in_its_plain_form_is_found(
    transformers: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from compressor.models import hf_directory

    save_small(transformers, "llama", tmp_path / "m")
    smaller, _ = compact(cut(load(tmp_path / "m"), 1.5, through_norm="exact"))
    monkeypatch.setattr(hf_directory, "plain_norms", lambda *given: iter(()))
    with pytest.raises(VerificationError, match="nothing was written"):
        export_huggingface(smaller, tmp_path / "small")
    assert not (tmp_path / "small").exists()


def test_a_network_without_a_configuration(tmp_path: Path) -> None:
    program = capture(nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 2)), [parse_input("4")])
    with pytest.raises(UsageError, match="not from a directory of transformers"):
        export_huggingface(program, tmp_path / "small")
    with pytest.raises(UsageError, match="--uniform: is for networks of transformers"):
        cut(program, 1.2)
    with pytest.raises(UsageError, match="--uniform: --pattern shape leaves zeros"):
        cut(program, 1.2, pattern="shape")


def test_heads_that_share_a_width_are_refused_before_any_training(transformers: Any, tmp_path: Path) -> None:
    save_small(transformers, "bert", tmp_path / "m")
    program = load(tmp_path / "m")
    with pytest.raises(PatternError, match="nothing in scope can be pruned"):
        cut(program, 1.05, pattern="head")
    units = find_units(program)
    inside = "intermediate.dense.weight"
    pinned = {axis: of * 0 - 1 if axis[0].endswith(inside) else of for axis, of in units.axes.items()}
    with pytest.raises(PatternError, match=r"hidden_size stays: .* normalised over 32 .*intermediate_size stays"):
        uniform_units(program, replace(units, axes=pinned))


def test_networks_that_are_tried_let_go_of_their_weights(transformers: Any, tmp_path: Path) -> None:
    """Parts of a network hold each other: without a word they stay until Python looks for circles."""

    def held() -> int:
        storages = {
            tensor.untyped_storage().data_ptr(): tensor.untyped_storage().nbytes()
            for tensor in gc.get_objects()
            if type(tensor) in (torch.Tensor, nn.Parameter) and tensor.layout is torch.strided
        }  # fmt: skip
        return sum(storages.values())

    save_small(transformers, "llama", tmp_path / "m")
    program = load(tmp_path / "m")
    units = find_units(program)
    uniform_units(program, units)  # what is made once and kept is there by now
    gc.collect()
    gc.disable()
    try:
        before = held()
        uniform_units(program, units)
        after = held()
    finally:
        gc.enable()
    weights = sum(parameter.nbytes for parameter in program.parameters.values())
    assert after - before < weights / 4
