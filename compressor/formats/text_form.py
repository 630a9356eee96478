"""What a program of transformers reads of texts, by its configuration and the tokenizer beside the original weights.

It must never read texts.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from compressor.data.task import CAUSAL, MASKED
from compressor.data.tokens import TextForm
from compressor.errors import DataError
from compressor.models.hf_directory import open_tokenizer
from compressor.program import Program

_TASKS = {"ForMaskedLM": MASKED, "ForCausalLM": CAUSAL, "LMHeadModel": CAUSAL}
"""Ends of the names of classes."""


def task_of(program: Program, data: str | None) -> str | None:
    """The task of a network on texts, by its class; None for other data, and where it classifies."""
    if data is None or not data.startswith("text:"):
        return None
    kinds: Any = program.record.configuration.get("architectures") or [""]
    return next((task for end, task in _TASKS.items() if str(kinds[0]).endswith(end)), None)


def text_form(program: Program, task: str) -> TextForm:
    """Names, length, tokenizer and labels.

    Raises:  DataError for a program that reads no tokens, or has no tokenizer that can be opened.
    """
    ids = next((spec for spec in program.inputs if spec.name == "input_ids"), None)
    if ids is None or len(ids.shape) != 2 or ids.shape[1] is None:
        names = ", ".join(spec.name for spec in program.inputs)
        raise DataError(f"--data text: needs a model that reads input_ids; this one reads {names}")
    prefix, _, folder = (program.record.arch or "").partition(":")
    if prefix != "transformers":
        raise DataError("--data text: needs a model from a directory of transformers, for its tokenizer")
    named: Any = program.record.configuration.get("label2id") or {}
    labels = {str(name): number for name, number in named.items() if type(number) is int}
    is_named = not all(name == f"LABEL_{number}" for name, number in labels.items())
    return TextForm(
        tuple(spec.name for spec in program.inputs), ids.shape[1],
        open_tokenizer(Path(folder).expanduser()), labels if is_named else {}, task,
    )  # fmt: skip
