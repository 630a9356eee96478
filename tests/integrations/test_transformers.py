"""Pruning inside transformers' own Trainer, checkpoints and resuming included."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.utils.data import Dataset

import compressor
from compressor.errors import ModelError
from compressor.models.external import imported_beside_any_torch
from tests.integrations.processes import run_on_two

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


def trainer_of(library: Any, folder: Path, *callbacks: Any, n_steps: int = 8, **more: Any) -> Any:
    asked = {
        "max_steps": n_steps, "per_device_train_batch_size": 4, "save_steps": 4, "report_to": [], "use_cpu": True,
        "gradient_accumulation_steps": 2, "disable_tqdm": True, "learning_rate": 1e-3, "logging_steps": 1000, **more,
    }  # fmt: skip
    args = library.TrainingArguments(output_dir=str(folder), **asked)
    return library.Trainer(bert(library), args, train_dataset=Sentences(), callbacks=list(callbacks))


ASKED: dict[str, Any] = {"ratio": "1.3x", "round_to": 1, "share": 0.75}


def is_cut(model: torch.nn.Module, masks: dict[str, torch.Tensor]) -> bool:
    own = dict(model.named_parameters())
    return bool(masks) and all(not own[name].detach()[~mask].any() for name, mask in masks.items())


@pytest.mark.filterwarnings("default")
@pytest.mark.parametrize("method", ["admm", "magnitude"])
def test_a_trainer_prunes_and_goes_on_after_a_break(library: Any, method: str, tmp_path: Path) -> None:
    from compressor.integrations.transformers import PruneCallback

    asked = {**ASKED, "method": method}
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


@pytest.mark.filterwarnings("default")
def test_mixed_precision(library: Any, tmp_path: Path) -> None:
    from compressor.integrations.transformers import PruneCallback

    callback = PruneCallback(**ASKED, method="admm")
    trainer = trainer_of(library, tmp_path, callback, bf16=True)
    trainer.train()
    assert callback.pruner.n_done == 8 and is_cut(trainer.model, callback.pruner.masks)
    assert compressor.compact(callback.program())[1].agreement is not None


@pytest.mark.filterwarnings("default")
def test_an_average_is_followed(library: Any, tmp_path: Path) -> None:
    from compressor.integrations.transformers import PruneCallback

    callback = PruneCallback(**ASKED, method="magnitude")

    class Average(library.TrainerCallback):  # type: ignore[name-defined, misc]
        def on_train_begin(self, args: Any, state: Any, control: Any, **given: Any) -> None:
            self.model = torch.optim.swa_utils.AveragedModel(given["model"])
            callback.pruner.follow(self.model)

        def on_step_end(self, args: Any, state: Any, control: Any, **given: Any) -> None:
            self.model.update_parameters(given["model"])

    average = Average()
    trainer_of(library, tmp_path, callback, average, n_steps=4).train()
    assert is_cut(average.model.module, callback.pruner.masks)
    program = callback._course.end(average.model)
    assert program.masks and compressor.compact(program)[1].agreement is not None


@pytest.mark.skipif(importlib.util.find_spec("peft") is None, reason="peft is not installed")
@pytest.mark.filterwarnings("default")
def test_adapters_are_cut_with_their_layers(library: Any) -> None:
    peft: Any = importlib.import_module("peft")
    plain = bert(library)
    asked: dict[str, Any] = {"ratio": "1.3x", "round_to": 1, "method": "magnitude"}
    example = {"input_ids": torch.ones(2, LENGTH, dtype=torch.long)}
    program = compressor.Pruner(plain, example, **asked)
    config = peft.LoraConfig(target_modules=["query", "value", "dense"], r=2, init_lora_weights=False)
    adapted = peft.get_peft_model(bert(library), config)
    pruner = compressor.Pruner(adapted, example, **asked)
    pruner.attach(torch.optim.AdamW(adapted.parameters(), lr=1e-3))
    pruner.finish()
    assert any("lora" in name for name in pruner.masks)
    assert compressor.compact(pruner.program())[1].agreement is not None
    program.attach(torch.optim.SGD(plain.parameters(), lr=0.1))
    with pytest.raises(ModelError, match="merge its adapters"):
        compressor.Pruner.under_masks(adapted, program.program())


PARALLEL = """
import os, sys
import torch
from pathlib import Path
sys.path.insert(0, sys.argv[2])
from compressor.models.external import imported_beside_any_torch
imported_beside_any_torch("torchvision")
library = imported_beside_any_torch("transformers")
from tests.integrations.test_transformers import ASKED, trainer_of
from compressor.integrations.transformers import PruneCallback
folder = Path(sys.argv[1])
callback = PruneCallback(**ASKED, method="admm")
trainer_of(library, folder, callback, n_steps=4, ddp_backend="gloo", save_strategy="no").train()
assert torch.distributed.get_world_size() == 2
program = callback.program()
torch.save({"weights": program.module.state_dict(), "masks": dict(program.masks)}, folder / os.environ["RANK"])
torch.distributed.barrier()
sys.stdout.flush()
os._exit(0)
"""


def test_two_processes_cut_the_same(library: Any, tmp_path: Path) -> None:
    run_on_two(PARALLEL, tmp_path)
    one, two = (torch.load(tmp_path / rank, weights_only=True) for rank in ("0", "1"))
    for part in ("weights", "masks"):
        assert one[part] and one[part].keys() == two[part].keys()
        assert all(torch.equal(value, two[part][name]) for name, value in one[part].items())
