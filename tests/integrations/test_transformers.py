"""Pruning inside transformers' own Trainer, checkpoints and resuming included."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch.utils.data import Dataset

import compressor
from compressor.models.external import imported_beside_any_torch

pytest.importorskip("transformers")
LENGTH, WORDS = 12, 40


class Sentences(Dataset[dict[str, torch.Tensor]]):
    """The label is whether the first word is odd."""

    def __len__(self) -> int:
        return 32

    def __getitem__(self, index: int) -> dict[str, torch.Tensor]:
        ids = torch.randint(1, WORDS, (LENGTH,), generator=torch.Generator().manual_seed(index))
        return {"input_ids": ids, "attention_mask": torch.ones_like(ids), "labels": ids[0] % 2}


@pytest.fixture(scope="module")
def library() -> Any:
    imported_beside_any_torch("torchvision")
    library = imported_beside_any_torch("transformers")
    pytest.importorskip("accelerate")
    return library


def bert(library: Any) -> Any:
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(0)
        config = library.BertConfig(
            vocab_size=WORDS, hidden_size=16, num_hidden_layers=1, num_attention_heads=4, intermediate_size=32,
            max_position_embeddings=LENGTH, num_labels=2, hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0,
        )  # fmt: skip
        return library.BertForSequenceClassification(config)


def trainer_of(library: Any, folder: Path, callback: Any, n_steps: int = 8) -> Any:
    args = library.TrainingArguments(
        output_dir=str(folder), max_steps=n_steps, per_device_train_batch_size=4, save_steps=4, report_to=[],
        gradient_accumulation_steps=2, disable_tqdm=True, use_cpu=True, learning_rate=1e-3, logging_steps=1000,
    )  # fmt: skip
    return library.Trainer(bert(library), args, train_dataset=Sentences(), callbacks=[callback])


@pytest.mark.filterwarnings("default")
@pytest.mark.parametrize("method", ["admm", "magnitude"])
def test_a_trainer_prunes_and_goes_on_after_a_break(library: Any, method: str, tmp_path: Path) -> None:
    from compressor.integrations.transformers import PruneCallback

    asked: dict[str, Any] = {"ratio": "1.3x", "method": method, "round_to": 1, "share": 0.75}
    whole = PruneCallback(**asked)
    trainer_of(library, tmp_path / "whole", whole).train()
    report = whole.pruner.report()
    assert (report.steps, whole.pruner.is_finished) == (8, True)
    program = whole.program()
    smaller, proof = compressor.compact(program)
    assert proof.agreement is not None and program.n_parameters / smaller.n_parameters >= 1.3

    resumed = PruneCallback(**asked)
    trainer_of(library, tmp_path / "whole", resumed).train(resume_from_checkpoint=str(tmp_path / "whole/checkpoint-4"))
    again = resumed.program()
    assert set(again.masks) == set(program.masks)
    for name, mask in program.masks.items():
        assert torch.equal(mask, again.masks[name]), name
    for name, tensor in program.module.tensors().items():
        torch.testing.assert_close(again.module.tensors()[name], tensor, rtol=1e-5, atol=1e-6)
