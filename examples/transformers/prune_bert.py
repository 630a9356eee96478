"""A BERT classifier pruned inside transformers' own Trainer, compacted and exported.

    python examples/transformers/prune_bert.py --out runs/bert

Needs `pip install transformers accelerate`. The data are made here: does one word of a sentence come before another?
"""

from __future__ import annotations

import argparse
import contextlib
from pathlib import Path
from typing import Any

import torch
from torch.utils.data import Dataset

import compressor
from compressor.models.external import imported_beside_any_torch

LENGTH, WORDS = 16, 50
FIRST, SECOND = 1, 2
"""The two words; the label is whether the first one stands before the second."""


class Sentences(Dataset[dict[str, torch.Tensor]]):
    """Sentences of random words with both words in them, and their labels."""

    def __init__(self, n: int, seed: int) -> None:
        generator = torch.Generator().manual_seed(seed)
        self._ids = torch.randint(3, WORDS, (n, LENGTH), generator=generator)
        places = torch.rand(n, LENGTH, generator=generator).argsort(1)[:, :2]
        self._ids.scatter_(1, places, torch.tensor([[FIRST, SECOND]]).expand(n, 2).contiguous())
        self._labels = (places[:, 0] < places[:, 1]).long()

    def __len__(self) -> int:
        return len(self._ids)

    def __getitem__(self, index: int) -> dict[str, torch.Tensor]:
        ids = self._ids[index]
        return {"input_ids": ids, "attention_mask": torch.ones_like(ids), "labels": self._labels[index]}


def main(arguments: list[str] | None = None) -> dict[str, float]:
    """Runs the whole way and prints it; accuracies and the ratio by name."""
    asked = _parser().parse_args(arguments)
    with contextlib.suppress(ImportError):
        imported_beside_any_torch("torchvision")  # transformers asks for it, and may find one of another torch
    library: Any = imported_beside_any_torch("transformers")
    from compressor.integrations.transformers import PruneCallback

    train, test = Sentences(asked.sentences, seed=1), Sentences(500, seed=2)
    model = _model(library, asked.width)
    trainer = library.Trainer(model, _arguments(library, asked), train_dataset=train)
    trainer.train()
    found = {"dense": _accuracy(model, test)}

    callback = PruneCallback(ratio=asked.ratio, of="macs", method=asked.method, round_to=4)
    trainer = library.Trainer(model, _arguments(library, asked), train_dataset=train, callbacks=[callback])
    trainer.train()
    program = callback.program()
    small, proof = compressor.compact(program)
    assert proof.agreement is not None
    found["pruned"] = _accuracy(model, test)
    found["ratio"] = program.n_parameters / small.n_parameters
    asked.out.mkdir(parents=True, exist_ok=True)
    compressor.export(small, asked.out / "bert.onnx", force=True)
    report = callback.pruner.report()
    print(f"MACs: asked {report.asked:.2f}x, got {report.got:.2f}x")
    print(f"parameters: {program.n_parameters:,} -> {small.n_parameters:,}")
    print(f"accuracy: {found['dense']:.1%} dense, {found['pruned']:.1%} pruned; wrote {asked.out / 'bert.onnx'}")
    return found


def _model(library: Any, width: int) -> Any:
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(0)
        config = library.BertConfig(
            vocab_size=WORDS, hidden_size=width, num_hidden_layers=2, num_attention_heads=4,
            intermediate_size=4 * width, max_position_embeddings=LENGTH, num_labels=2,
            hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0,
        )  # fmt: skip
        return library.BertForSequenceClassification(config)


def _arguments(library: Any, asked: argparse.Namespace) -> Any:
    return library.TrainingArguments(
        output_dir=str(asked.out / "trainer"), num_train_epochs=asked.epochs, per_device_train_batch_size=32,
        learning_rate=1e-3, save_strategy="no", report_to=[], disable_tqdm=True, use_cpu=True, logging_steps=10_000,
    )  # fmt: skip


@torch.no_grad()
def _accuracy(model: Any, data: Sentences) -> float:
    batch = torch.utils.data.default_collate([data[i] for i in range(len(data))])
    labels = batch.pop("labels")
    logits = model.eval()(**batch).logits
    return float((logits.argmax(1) == labels).float().mean())


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--ratio", default="2x", help="of MACs")
    parser.add_argument("--method", default="admm", choices=("admm", "magnitude"))
    parser.add_argument("--epochs", type=int, default=6, help="of each of the two trainings")
    parser.add_argument("--sentences", type=int, default=4000)
    parser.add_argument("--width", type=int, default=64)
    parser.add_argument("--out", type=Path, default=Path("runs/bert"))
    return parser


if __name__ == "__main__":
    main()
