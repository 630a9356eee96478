"""Networks in the wild, one after another: `python -m benchmarks.wild [--only TEXT] [--write]`.

Each is captured, cut at random (40 % of the units of every width), compacted and compared, exported to ONNX and run in
onnxruntime, and trained for one step. `--write` puts the table into docs/coverage.md.
"""

from __future__ import annotations

import argparse
import re
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

import compressor
from benchmarks.wild_layers import NETWORKS
from benchmarks.zoo import make_difficult, random_keep, train_one_step
from compressor.axes import UnitMap, find_units
from compressor.compaction import compact
from compressor.errors import CompressError
from compressor.models.external import imported_beside_any_torch
from compressor.program import InputSpec, Program, capture
from compressor.sparsity import apply_masks, mask_units

PAGE = Path(__file__).parents[1] / "docs" / "coverage.md"
BEGIN, END = "<!-- wild: begin -->", "<!-- wild: end -->"


@dataclass
class Outcome:
    """What was found of one network. `answer` is right, refused or wrong; `told` the reason and what to do instead."""

    name: str
    answer: str = "right"
    n_params: int = 0
    share: float = 0.0
    removed: float = 0.0
    difference: float | None = None
    onnx: str = ""
    step: str = ""
    told: str = ""

    def row(self) -> str:
        if self.answer == "refused":
            return f"| {self.name} | refused | | | | | | | {self.told} |"
        difference = "" if self.difference is None else f"{self.difference:.0e}"
        return (
            f"| {self.name} | {self.answer} | {self.n_params:,} | {self.share:.1%} | {self.removed:.0%} |"
            f" {difference} | {self.onnx} | {self.step} | {self.told} |"
        )


def transformers_networks() -> dict[str, tuple[str, Callable[[], nn.Module]]]:
    """Small networks of the transformers library, from configurations made here; none where it is not installed."""
    try:
        hf = imported_beside_any_torch("transformers")
        imported_beside_any_torch("torchvision")
    except ImportError:
        return {}
    size = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 64}
    words = {"vocab_size": 11, "max_position_embeddings": 16}
    gpt = {"vocab_size": 11, "n_positions": 16, "n_embd": 32, "n_layer": 2, "n_head": 4, "use_cache": False}
    configurations: dict[str, tuple[str, str, dict[str, Any]]] = {
        "BERT": ("7:int64", "BertConfig", {**size, **words}),
        "DistilBERT": (
            "7:int64",
            "DistilBertConfig",
            {"dim": 32, "n_layers": 2, "n_heads": 4, "hidden_dim": 64, **words},
        ),
        "GPT-2": ("7:int64", "GPT2Config", gpt),
        "Llama": ("7:int64", "LlamaConfig", {**size, **words, "num_key_value_heads": 2, "use_cache": False}),
        "ViT": ("3x16x16", "ViTConfig", {**size, "image_size": 16, "patch_size": 4}),
    }

    def maker(kind: str, options: dict[str, Any]) -> Callable[[], nn.Module]:
        return lambda: hf.AutoModel.from_config(getattr(hf, kind)(**options))

    return {
        f"transformers: {name}": (inputs, maker(kind, options))
        for name, (inputs, kind, options) in configurations.items()
    }


def specs(text: str) -> list[InputSpec]:
    found = []
    for i, one in enumerate(text.split(",")):
        shape, _, dtype = one.partition(":")
        sizes = (None, *map(int, shape.split("x")))
        found.append(InputSpec(f"x{i}", sizes, dtype or "float32", high=11 if dtype else None))
    return found


def outcome(name: str, inputs: str, make: Callable[[], nn.Module]) -> Outcome:
    found = Outcome(name)
    torch.manual_seed(0)
    try:
        program = capture(make().eval(), specs(inputs))
        units = find_units(program)
        analysis = compressor.analyze(program)
        found.n_params, found.share = program.n_parameters, analysis.prunable_params / max(program.n_parameters, 1)
        if not analysis.prunable_params:
            raise CompressError("; ".join([*program.record.notes, *(f"{pin.reason}" for pin in analysis.pins[:1])]))
        _cut(program, units, found)
    except CompressError as error:
        found.answer, found.told = "refused", _one_line(str(error))
    except Exception as error:  # whatever it is, it belongs into the table
        found.answer, found.told = "wrong", _one_line(f"{type(error).__name__}: {error}")
    return found


def _cut(program: Program, units: UnitMap, found: Outcome) -> None:
    make_difficult(program, zero_biases=False)
    masked = program.replace(masks=mask_units(program.module, units, random_keep(units)))
    apply_masks(masked.module, masked.masks)
    smaller, report = compact(masked)
    found.removed = 1 - smaller.n_parameters / program.n_parameters
    found.difference = report.agreement.float64_relative if report.agreement is not None else None
    with tempfile.TemporaryDirectory() as folder:
        try:
            found.onnx = f"{compressor.export(smaller, Path(folder) / 'm.onnx').max_rel:.0e}"
        except CompressError as error:
            found.onnx, found.told = "refused", _one_line(str(error))
    try:
        train_one_step(smaller)
        found.step = "yes"
    except ArithmeticError as error:
        found.step = _one_line(str(error))


def _one_line(text: str) -> str:
    return re.sub(r"\s+", " ", text.replace("|", "/").replace(str(Path.cwd()), "."))[:330]


def table(rows: list[Outcome]) -> str:
    n = {answer: sum(row.answer == answer for row in rows) for answer in ("right", "refused", "wrong")}
    lines = [
        "",
        "## In the wild",
        "",
        "Written by `python -m benchmarks.wild --write`; the networks, small ones after public designs and bug reports,"
        " are in `benchmarks/wild_networks.py`, `wild_more.py` and `wild_layers.py`.",
        f"{len(rows)} networks: {n['right']} right, {n['refused']} refused with a reason, {n['wrong']} wrong.",
        "",
        "*In units*: share of the parameters that `prune` may take, as `analyze` tells it. *Removed*: with a random"
        " 40 % of the units of every width. *Difference*: masked and compact in float64, over the largest output."
        " *ONNX*: the compact file in onnxruntime against torch. *Step*: one optimizer step of the compact network.",
        "",
        "| network | answer | parameters | in units | removed | difference | ONNX | step | told |",
        "|---|---|--:|--:|--:|--:|--:|---|---|",
        *(row.row() for row in rows),
        "",
    ]
    return "\n".join(lines)


def write(text: str, page: Path = PAGE) -> None:
    """Puts the section into the page, in the place of an earlier one."""
    told = page.read_text()
    section = f"{BEGIN}\n{text}\n{END}\n"
    if BEGIN in told:
        told = told[: told.index(BEGIN)] + section + told[told.index(END) + len(END) + 1 :]
    else:
        told = f"{told.rstrip()}\n\n{section}"
    page.write_text(told)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", default="", help="networks whose name holds this text")
    parser.add_argument("--write", action="store_true", help="put the table into docs/coverage.md")
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    rows = []
    for name, (inputs, make) in {**NETWORKS, **transformers_networks()}.items():
        if options.only.lower() in name.lower():
            began = time.perf_counter()
            rows.append(outcome(name, inputs, make))
            print(f"{rows[-1].row()} {time.perf_counter() - began:.1f} s", file=sys.stderr, flush=True)
    print(table(rows))
    if options.write:
        write(table(rows))


if __name__ == "__main__":
    main()
