"""Texts as the tensors that a model reads: tokens, padding and what is to be predicted, by the model's own tokenizer.

It must never read tables, nor run code that lies beside a tokenizer.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from compressor.data.datasets import DatasetSource
from compressor.data.task import CAUSAL, IGNORED, MASKED
from compressor.data.text import Sample, TextSource
from compressor.errors import DataError
from compressor.typed_torch import default_collate

_INPUTS = ("input_ids", "attention_mask", "token_type_ids")
_SHARE, _AS_MASK, _AS_OTHER = 0.15, 0.8, 0.1
"""Of the tokens 15 % are to be predicted; of those 80 % are masked, 10 % another token (Devlin et al. 2018, 3.1)."""


@dataclass(frozen=True)
class TextForm:
    """What a model reads: the names of its inputs, how many tokens, by which tokenizer, and its labels by name."""

    names: tuple[str, ...]
    length: int
    tokenizer: Any
    labels: Mapping[str, int]
    task: str


def tokenized(source: TextSource, form: TextForm) -> DatasetSource:
    """The texts as tensors for a model, cut and padded to `form.length` tokens.

    Raises:  DataError if it reads what texts do not have, or labels are missing or unknown.
    """
    odd = [name for name in form.names if name not in _INPUTS]
    if odd or not form.names:
        raise DataError(f"{source.ref}: texts make {', '.join(_INPUTS)}; the model reads {', '.join(odd) or 'nothing'}")
    n_classes = None
    if form.task not in (MASKED, CAUSAL):
        known = form.labels or _numbered(source)
        n_classes = max(known.values(), default=0) + 1
        train, val = (_Classes(form, part, known, source.ref) for part in (source.train, source.val))
    else:
        kind = _Masked if form.task == MASKED else _Causal
        train, val = (kind(form, part, source.ref) for part in (source.train, source.val))
    together = (default_collate, default_collate)
    return DatasetSource(source.ref, train, val, together, n_classes, ((form.length,),) * len(form.names))


def _numbered(source: TextSource) -> dict[str, int]:
    """Numbers for the labels of the data where the model names none: their own, or by the order of the alphabet."""
    found = {sample.label for sample in (*source.train, *source.val) if sample.label is not None}
    if all(isinstance(label, int) for label in found):
        return {str(label): int(label) for label in found}
    return {name: i for i, name in enumerate(sorted(map(str, found)))}


class _Tokens:
    """A data set of tokens: inputs in the model's order, then what is to be predicted."""

    def __init__(self, form: TextForm, samples: Sequence[Sample], ref: str) -> None:
        seconds = [sample.second or "" for sample in samples] if any(s.second is not None for s in samples) else None
        self._made = form.tokenizer(
            [sample.text for sample in samples], seconds, truncation=True, padding="max_length", max_length=form.length,
            return_tensors="pt", return_attention_mask=True, return_special_tokens_mask=True,
            return_token_type_ids="token_type_ids" in form.names,
        )  # fmt: skip
        self._names, self._tokenizer, self._ref = form.names, form.tokenizer, ref

    def __len__(self) -> int:
        return len(self._made["input_ids"])

    def __getitem__(self, i: int) -> tuple[Tensor, ...]:
        ids, target = self.predicted(i)
        others = {name: self._made[name][i] for name in self._names if name != "input_ids"}
        return (*({**others, "input_ids": ids}[name] for name in self._names), target)

    def predicted(self, i: int) -> tuple[Tensor, Tensor]:
        """Tokens that go in, and the target. Shapes: -> (T,), (T,) or ()"""
        raise NotImplementedError


class _Classes(_Tokens):
    def __init__(self, form: TextForm, samples: Sequence[Sample], known: Mapping[str, int], ref: str) -> None:
        super().__init__(form, samples, ref)
        unknown = next((s.label for s in samples if str(s.label) not in known and s.label not in known.values()), None)
        missing = next((i for i, s in enumerate(samples) if s.label is None), None)
        if missing is not None:
            raise DataError(f"{ref}: a sample has no label; for texts alone give --task {MASKED} or {CAUSAL}")
        if unknown is not None:
            raise DataError(
                f"{ref}: the label {str(unknown)[:40]!r} is not one of the model's: {', '.join(list(known)[:6])}"
            )
        self._labels = torch.tensor([known.get(str(s.label), s.label) for s in samples])

    def predicted(self, i: int) -> tuple[Tensor, Tensor]:
        return self._made["input_ids"][i], self._labels[i]


class _Causal(_Tokens):
    def predicted(self, i: int) -> tuple[Tensor, Tensor]:
        """The next token at every place; none behind the last, and none that is padding."""
        ids, counts = self._made["input_ids"][i], self._made["attention_mask"][i].bool()
        target = torch.full_like(ids, IGNORED)
        target[:-1] = torch.where(counts[1:], ids[1:], IGNORED)
        return ids, target


class _Masked(_Tokens):
    def __init__(self, form: TextForm, samples: Sequence[Sample], ref: str) -> None:
        super().__init__(form, samples, ref)
        if form.tokenizer.mask_token_id is None:
            raise DataError(f"{ref}: the tokenizer has no mask token; --task {CAUSAL} needs none")

    def predicted(self, i: int) -> tuple[Tensor, Tensor]:
        """Drawn from torch's generator, which is seeded for each sample."""
        ids = self._made["input_ids"][i]
        may = (self._made["special_tokens_mask"][i] == 0) & self._made["attention_mask"][i].bool()
        drawn = torch.rand(ids.shape).masked_fill(~may, 2.0)
        asked = (drawn < _SHARE) | (may & (drawn == drawn.min()))  # one at least
        how = torch.rand(ids.shape)
        other = torch.randint(0, len(self._tokenizer), ids.shape)
        hidden = torch.where(how < _AS_MASK, self._tokenizer.mask_token_id, ids)
        hidden = torch.where((how >= _AS_MASK) & (how < _AS_MASK + _AS_OTHER), other, hidden)
        return torch.where(asked, hidden, ids), torch.where(asked, ids, IGNORED)
