"""Perplexity of small language models by pattern, method and ratio: `python -m benchmarks.text`.

A GPT-like and a BERT-like network of 1.2 M parameters on text that every Python ships: the docstrings of its standard
library and `pydoc_data/topics.py` (Python Software Foundation License). Every tenth module is held out whole. Tokens
are bytes (by `tokenizers`), so a perplexity is that of the next byte.

The dense network trains `--dense` epochs, everything that is pruned `--heal` more (ADMM spends two fifths of them
before the cut), and a network of the same size, with narrower MLPs from the beginning, the sum of both. An epoch is
`--steps` steps, all by the same recipe, without distillation. Rows go to `--out` one by one; what stands there is not
run again. Needs transformers and tokenizers.
"""

from __future__ import annotations

import argparse
import ast
import itertools
import json
import sysconfig
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

import compressor
from compressor.asking import PruneSettings, Recipe
from compressor.data import DataSource, Task, open_data, open_task
from compressor.data.text import TextSource
from compressor.data.tokens import tokenized
from compressor.errors import CompressError
from compressor.formats.text_form import task_of, text_form
from compressor.models.huggingface import quiet
from compressor.program import Program
from compressor.training import evaluate, fit

KINDS = ("gpt", "bert")
RATIOS = (1.25, 1.5, 2.0)
_MIDDLE_FIRST = (1.5, 2.0, 1.25)
"""The order of running: a table that is not full yet says most with these."""
PATTERNS = ("channel", "head", "layer")
METHODS = ("magnitude", "admm")
_WIDTH, _LAYERS, _HEADS, _INNER, _LENGTH = 128, 6, 4, 512, 64
_SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
_TOKENS = 256 + len(_SPECIAL)
"""Bytes: of the tokens that a row has time for, a network of this size learns them and not a thousand pairs."""

Row = dict[str, Any]


def corpus() -> Iterator[tuple[str, str]]:
    """The text of each module of the standard library, with its name."""
    root = Path(sysconfig.get_path("stdlib"))
    for path in sorted(root.rglob("*.py")):
        name = path.relative_to(root)
        if {"site-packages", "test", "tests", "idlelib", "lib2to3"} & set(name.parts) or "config-" in str(name):
            continue
        try:
            tree = ast.parse(path.read_text(encoding="utf-8"))
        except (SyntaxError, UnicodeDecodeError):
            continue
        kinds = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
        texts = [ast.get_docstring(node) or "" for node in ast.walk(tree) if isinstance(node, kinds)]
        if name.as_posix() == "pydoc_data/topics.py":
            texts = [
                node.value for node in ast.walk(tree) if isinstance(node, ast.Constant) and len(str(node.value)) > 200
            ]
        yield name.as_posix(), " ".join(" ".join(map(str, texts)).split())


def samples(text: str) -> Iterator[str]:
    """Whole words up to a length; what is left at the end is left out."""
    held, length = list[str](), 0
    for word in text.split(" "):
        held.append(word)
        length += len(word) + 1
        if length > _LENGTH:
            yield " ".join(held)
            held, length = [], 0


def write_data(folder: Path) -> Path:
    """`train.jsonl` and `val.jsonl`; the documentation's topics are for training."""
    folder.mkdir(parents=True, exist_ok=True)
    parts: dict[str, list[str]] = {"train": [], "val": []}
    for number, (_, text) in enumerate(corpus()):
        parts["val" if number % 10 == 9 else "train"] += samples(text)
    parts["val"] = parts["val"][:: max(len(parts["val"]) // 300, 1)][:300]
    for name, texts in parts.items():
        content = "".join(json.dumps({"text": text}) + "\n" for text in texts)
        (folder / f"{name}.jsonl").write_text(content, encoding="utf-8")
    return folder


def save_tokenizer(folder: Path) -> None:
    """One of bytes, beside a model."""
    import tokenizers

    made = tokenizers.Tokenizer(tokenizers.models.BPE(unk_token="[UNK]"))
    made.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=True)
    made.decoder = tokenizers.decoders.ByteLevel()
    trainer = tokenizers.trainers.BpeTrainer(
        vocab_size=_TOKENS, special_tokens=list(_SPECIAL), show_progress=False,
        initial_alphabet=tokenizers.pre_tokenizers.ByteLevel.alphabet(),
    )  # fmt: skip
    made.train_from_iterator([""], trainer)
    names = ("pad_token", "unk_token", "cls_token", "sep_token", "mask_token")
    named = dict(zip(names, _SPECIAL, strict=True))
    with quiet() as transformers:
        transformers.PreTrainedTokenizerFast(tokenizer_object=made, **named).save_pretrained(folder)


def save_model(kind: str, inner: int, seed: int, folder: Path) -> None:
    """A network with random weights, as a directory of transformers."""
    torch.manual_seed(seed)
    with quiet() as transformers:
        if kind == "gpt":
            config: Any = transformers.GPT2Config(
                vocab_size=_TOKENS, n_positions=4 * _LENGTH, n_embd=_WIDTH, n_layer=_LAYERS, n_head=_HEADS,
                n_inner=inner, resid_pdrop=0.0, embd_pdrop=0.0, attn_pdrop=0.0, bos_token_id=2, eos_token_id=3,
                pad_token_id=0,
            )  # fmt: skip
            transformers.GPT2LMHeadModel(config).save_pretrained(folder)
            return
        config = transformers.BertConfig(
            vocab_size=_TOKENS, max_position_embeddings=4 * _LENGTH, hidden_size=_WIDTH, num_hidden_layers=_LAYERS,
            num_attention_heads=_HEADS, intermediate_size=inner, hidden_dropout_prob=0.0,
            attention_probs_dropout_prob=0.0,
        )  # fmt: skip
        transformers.BertForMaskedLM(config).save_pretrained(folder)


@dataclass(frozen=True)
class Bench:
    """What every run has in common."""

    given: argparse.Namespace
    kind: str
    data: DataSource
    task: Task

    def recipe(self, epochs: int, lr: float) -> Recipe:
        """The training of every row."""
        return Recipe(
            epochs=epochs, epoch_steps=self.given.steps, batch_size=self.given.batch, lr=lr, clip_norm=1.0,
            warmup_epochs=1 if epochs > 2 else 0, weight_decay=0.01, optimizer="adamw",
        )  # fmt: skip

    def trained(self, program: Program, epochs: int) -> Program:
        """The same, trained from where it is."""
        recipe = self.recipe(epochs, 2e-3)
        fit(program.module, self.data, self.task, recipe, seed=self.given.seed, evaluate_every=epochs)
        return program

    def perplexity(self, program: Program) -> float:
        """On the modules that were held out."""
        return evaluate(program.module, self.data, self.task)["perplexity"]


def opened(kind: str, inner: int, given: argparse.Namespace) -> tuple[Program, Bench]:
    """A network with random weights and the data as it reads them."""
    data = given.work / "data"
    if not (data / "val.jsonl").is_file():
        write_data(data)
    folder = given.work / f"{kind}-{inner}"
    if not (folder / "config.json").is_file():
        save_model(kind, inner, given.seed, folder)
        save_tokenizer(folder)
    ref = f"text:{data}"
    program = compressor.load(folder, data=ref)
    task = open_task(task_of(program, ref))
    source = open_data(ref)
    assert isinstance(source, TextSource)
    return program, Bench(given, kind, tokenized(source, text_form(program, task.name)), task)


def dense(kind: str, given: argparse.Namespace) -> tuple[Program, Bench]:
    """The trained network, from `--work` if it is there."""
    program, bench = opened(kind, _INNER, given)
    file = given.work / f"{kind}-{given.dense}x{given.steps}-{given.seed}.pt"
    if not file.is_file():
        compressor.save(bench.trained(program, given.dense), file)
    return compressor.load(file), bench


def pruned(program: Program, bench: Bench, pattern: str, method: str, ratio: float) -> Row:
    """One row; what the pattern cannot reach is one too, with the reason."""
    given = bench.given
    search = round(0.4 * given.heal) if method == "admm" else 0
    settings = PruneSettings(
        ratio=ratio, pattern=pattern, method=method, seed=given.seed, round_to=1,  # type: ignore[arg-type]
        prune_recipe=bench.recipe(search, 1e-3) if search else None,
        retrain_recipe=bench.recipe(given.heal - search, 1e-3),
    )  # fmt: skip
    try:
        found, report = compressor.prune(program, settings, data=bench.data, task=bench.task)
        small, _ = compressor.compact(found)
    except CompressError as error:
        return {"refused": str(error).splitlines()[0]}
    stages = {row.name: (row.metrics or {}).get("perplexity") for row in report.stages}
    return {"got": report.got, "params": small.n_parameters, "stages": stages, "perplexity": bench.perplexity(small)}


def narrow(kind: str, goal: float, given: argparse.Namespace) -> Row:
    """A network of the size that a ratio leaves, trained from random weights as long as dense and pruned together."""
    wide, _ = opened(kind, _INNER, given)
    other, _ = opened(kind, _INNER // 2, given)
    per_width = (wide.n_parameters - other.n_parameters) / (_INNER - _INNER // 2)
    inner = int(_INNER - (wide.n_parameters - wide.n_parameters / goal) / per_width)
    if inner < 1:
        return {"refused": f"MLPs of width 0 are larger than {goal}x"}
    program, bench = opened(kind, inner, given)
    bench.trained(program, given.dense + given.heal)
    got = wide.n_parameters / program.n_parameters
    return {"got": got, "params": program.n_parameters, "perplexity": bench.perplexity(program)}


def rows(given: argparse.Namespace) -> Iterator[tuple[tuple[Any, ...], Any]]:
    """The key of every row, and what makes it."""
    held: dict[str, tuple[Program, Bench]] = {}

    def of(kind: str) -> tuple[Program, Bench]:
        if kind not in held:
            held[kind] = dense(kind, given)
        return held[kind]

    for kind in given.kinds:
        yield (kind, "dense", "", 1.0), lambda kind=kind: {
            "got": 1.0, "params": of(kind)[0].n_parameters, "perplexity": of(kind)[1].perplexity(of(kind)[0]),
        }  # fmt: skip
    for ratio, kind in itertools.product(_MIDDLE_FIRST, given.kinds):
        yield (kind, "from scratch", "", ratio), lambda kind=kind, ratio=ratio: narrow(kind, ratio, given)
        for how in itertools.product(PATTERNS, METHODS, (ratio,)):
            yield (kind, *how), lambda kind=kind, how=how: pruned(*of(kind), *how)


def table(found: Sequence[Row]) -> str:
    """Markdown, one line for pattern and method, one column for each ratio."""
    lines = [
        "| network | pattern | method | " + " | ".join(f"{ratio:g}x" for ratio in RATIOS) + " |",
        "|---|---|---|--:|--:|--:|",
    ]
    for kind in dict.fromkeys(row["kind"] for row in found):
        mine = [row for row in found if row["kind"] == kind]
        for pattern, method in dict.fromkeys((row["pattern"], row["method"]) for row in mine):
            cells = {row["ratio"]: _cell(row) for row in mine if (row["pattern"], row["method"]) == (pattern, method)}
            if pattern == "dense":
                lines.append(f"| {kind} | dense | | {cells[1.0]} | | |")
            else:
                shown = " | ".join(cells.get(ratio, "") for ratio in RATIOS)
                lines.append(f"| {kind} | {pattern} | {method} | {shown} |")
    return "\n".join(lines)


def _cell(row: Row) -> str:
    if "refused" in row:
        return "–"
    return f"{row['perplexity']:.2f}" + (f" ({row['got']:.2f}x)" if row["got"] > 1.03 * row["ratio"] else "")


def main() -> None:
    """Runs what is missing and prints the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--work", type=Path, default=Path("benchmarks/out/text"), help="data, tokenizers, dense networks"
    )
    parser.add_argument("--out", type=Path, default=Path("benchmarks/data/text.jsonl"))
    parser.add_argument("--kinds", nargs="+", choices=KINDS, default=list(KINDS))
    parser.add_argument("--dense", type=int, default=15, help="epochs of the dense network")
    parser.add_argument("--heal", type=int, default=4, help="epochs of everything pruned")
    parser.add_argument("--steps", type=int, default=100, help="steps of an epoch")
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--minutes", type=float, default=90.0, help="processor time after which no row is begun")
    given = parser.parse_args()
    given.work.mkdir(parents=True, exist_ok=True)
    given.out.parent.mkdir(parents=True, exist_ok=True)
    found = [json.loads(line) for line in given.out.read_text().splitlines()] if given.out.is_file() else []
    asked = {name: getattr(given, name) for name in ("dense", "heal", "steps", "batch", "seed")}
    found = [row for row in found if all(row[name] == value for name, value in asked.items())]
    spent = sum(row["cpu_s"] for row in found)
    done = {(row["kind"], row["pattern"], row["method"], row["ratio"]) for row in found}
    for key, make in rows(given):
        if key in done or time.process_time() + spent > 60 * given.minutes:
            continue
        began = time.process_time()
        kind, pattern, method, ratio = key
        row = {"kind": kind, "pattern": pattern, "method": method, "ratio": ratio, **make(), **asked}
        found.append({**row, "cpu_s": round(time.process_time() - began, 1)})
        with given.out.open("a") as file:
            file.write(json.dumps(found[-1]) + "\n")
        print(key, {name: found[-1].get(name) for name in ("got", "perplexity", "refused", "cpu_s")}, flush=True)
    print(table(found))


if __name__ == "__main__":
    main()
