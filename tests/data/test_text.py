"""Texts from tables as tensors for a model, and the tasks that read them."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.utils.data import Dataset, default_collate

from compressor.data import Batch, LanguageModelling, means_of, open_data, open_task
from compressor.data.datasets import DatasetSource
from compressor.data.task import IGNORED
from compressor.data.text import TextSource
from compressor.data.tokens import TextForm, tokenized
from compressor.errors import DataError

ROWS = [{"text": f"word{i % 7} is word{i % 5}", "label": "ab"[i % 2]} for i in range(30)]


class Words:
    """A tokenizer with the calls of transformers': 0 pads, 1 is the mask, 2 begins a text, then words by number."""

    mask_token_id = 1

    def __len__(self) -> int:
        return 40

    def __call__(self, texts: list[str], seconds: list[str] | None, *, max_length: int, **how: Any) -> dict[str, Any]:
        whole = [f"{a} {b}" for a, b in zip(texts, seconds, strict=True)] if seconds else texts
        rows = [[2, *(3 + sum(map(ord, word)) % 37 for word in text.split())][:max_length] for text in whole]
        pad = [max_length - len(row) for row in rows]
        made = {
            "input_ids": [row + [0] * n for row, n in zip(rows, pad, strict=True)],
            "attention_mask": [[1] * len(row) + [0] * n for row, n in zip(rows, pad, strict=True)],
            "special_tokens_mask": [[1] + [0] * (len(row) - 1) + [1] * n for row, n in zip(rows, pad, strict=True)],
        }
        return {name: torch.tensor(values) for name, values in made.items()}


def form(task: str = "classification", **more: Any) -> TextForm:
    given = {"names": ("input_ids", "attention_mask"), "length": 6, "tokenizer": Words(), "labels": {}, "task": task}
    return TextForm(**{**given, **more})


def written(path: Path, rows: list[dict[str, Any]] = ROWS) -> str:
    if path.suffix == ".jsonl":
        path.write_text("\n".join(map(json.dumps, rows)) + "\n")
    else:
        names = list(rows[0])
        path.write_text("\n".join([",".join(names), *(",".join(f'"{row[n]}"' for n in names) for row in rows)]))
    return f"text:{path}"


@pytest.mark.parametrize("suffix", [".jsonl", ".csv"])
def test_a_table_of_texts_becomes_tokens_masks_and_labels(tmp_path: Path, suffix: str) -> None:
    source = open_data(written(tmp_path / f"train{suffix}"))
    assert isinstance(source, TextSource) and (source.n_train, source.n_val) == (27, 3)
    data = tokenized(source, form())
    assert (data.n_classes, data.input_shapes) == (2, ((6,), (6,)))
    (batch,) = data.batches("val", 8)
    ids, mask = batch.inputs
    assert ids.shape == mask.shape == (3, 6) and torch.equal(mask, (ids != 0).long())
    assert batch.target.tolist() == [1, 1, 1]  # every tenth sample: 9, 19, 29
    named = tokenized(source, form(labels={"b": 5, "a": 2}, names=("attention_mask", "input_ids")))
    (batch,) = named.batches("val", 8)
    assert batch.target.tolist() == [5, 5, 5] and torch.equal(batch.inputs[1], ids)


def test_a_directory_has_a_file_for_each_split(tmp_path: Path) -> None:
    written(tmp_path / "train.jsonl")
    with pytest.raises(DataError, match=r"has no validation file, such as validation\.jsonl"):
        open_data(f"text:{tmp_path}")
    written(tmp_path / "dev.csv", ROWS[:4])
    source = open_data(f"text:{tmp_path}")
    assert (source.n_train, source.n_val) == (30, 4)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ('{"text": "a"}\n{', "line 2 is no JSON"),
        ("[1]\n", "line 1 is no object with columns but a list"),
        ('{"body": "a"}\n' * 2, r"no column is called text .*; it has body"),
        ('{"text": 3}\n{"text": "b"}\n', "sample 1: text is int, not a text"),
        ('{"text": "a", "label": 0.5}\n' * 2, "its label is float, not a number or a name"),
        ('{"text": "a", "label": 1}\n', "one sample cannot train and validate"),
        ("", "holds no samples"),
        (b"\xff\xfe", "is not written in UTF-8"),
    ],
)
def test_what_is_no_table_of_texts(tmp_path: Path, content: str | bytes, message: str) -> None:
    path = tmp_path / "train.jsonl"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(DataError, match=message):
        open_data(f"text:{path}")


def test_labels_that_are_missing_or_unknown(tmp_path: Path) -> None:
    source = open_data(written(tmp_path / "t.jsonl"))
    with pytest.raises(DataError, match=r"the label '.' is not one of the model's: good, bad"):
        tokenized(source, form(labels={"good": 0, "bad": 1}))  # type: ignore[arg-type]
    bare = open_data(written(tmp_path / "u.jsonl", [{"text": "a b"}] * 9))
    with pytest.raises(DataError, match="has no label; for texts alone give --task masked-lm or causal-lm"):
        tokenized(bare, form())  # type: ignore[arg-type]
    with pytest.raises(DataError, match="the model reads decoder_input_ids"):
        tokenized(bare, form(names=("input_ids", "decoder_input_ids")))  # type: ignore[arg-type]
    with pytest.raises(DataError, match="needs the tokenizer of a model"):
        next(iter(source.batches("val", 1)))


def test_the_next_token_is_asked_where_there_is_one(tmp_path: Path) -> None:
    data = tokenized(open_data(written(tmp_path / "t.jsonl")), form("causal-lm"))  # type: ignore[arg-type]
    batch = next(iter(data.batches("val", 3)))
    ids, mask = batch.inputs
    assert torch.equal(batch.target[:, :-1][mask[:, 1:] == 1], ids[:, 1:][mask[:, 1:] == 1])
    assert bool((batch.target[:, :-1][mask[:, 1:] == 0] == IGNORED).all() and (batch.target[:, -1] == IGNORED).all())


def test_masked_tokens_are_asked_the_same_for_the_same_seed(tmp_path: Path) -> None:
    data = tokenized(open_data(written(tmp_path / "t.jsonl")), form("masked-lm"))  # type: ignore[arg-type]
    first, again, other = (next(iter(data.batches("train", 27, seed=seed))) for seed in (1, 1, 2))
    assert torch.equal(first.inputs[0], again.inputs[0]) and torch.equal(first.target, again.target)
    assert not torch.equal(first.target, other.target)
    asked = first.target != IGNORED
    assert bool(asked.any(1).all()) and not bool(asked[:, 0].any())  # one in each text, never what begins it
    assert bool(((first.inputs[0] == 1) & ~asked).sum() == 0)
    assert bool((first.inputs[1][asked] == 1).all())


def test_perplexity_is_that_of_all_tokens_together() -> None:
    task = open_task("causal-lm")
    assert isinstance(task, LanguageModelling) and not task.higher_is_better
    scores = torch.randn(4, 5, 9, generator=torch.Generator().manual_seed(0))
    target = torch.randint(0, 9, (4, 5), generator=torch.Generator().manual_seed(1))
    target[0, 2:] = IGNORED
    sums: dict[str, tuple[float, int]] = {}
    for part in (slice(0, 1), slice(1, 4)):
        for name, (value, n) in task.metrics(scores[part], Batch((), target[part])).items():
            old = sums.get(name, (0.0, 0))
            sums[name] = (old[0] + value, old[1] + n)
    loss = float(task.loss(scores, Batch((), target)))
    assert sums["perplexity"][1] == 17 and math.isclose(
        means_of(task, sums)["perplexity"], math.exp(loss), rel_tol=1e-5
    )
    with pytest.raises(DataError, match=r"--task causal-lm reads \(N, T, tokens\)"):
        task.loss(scores[:, 0], Batch((), target))


class Ragged(Dataset[Any]):
    def __len__(self) -> int:
        return 4

    def __getitem__(self, i: int) -> Any:
        return torch.ones(3 + i), 0


def test_items_of_different_sizes_are_the_data_sets_own_fault() -> None:
    data = DatasetSource("mine.py:make", Ragged(), Ragged(), (default_collate, default_collate), 2, ((3,),))
    with pytest.raises(DataError, match=r"mine\.py:make: val samples 0, 1.* have different sizes, .*\n.*pad texts"):
        next(iter(data.batches("val", 4)))
