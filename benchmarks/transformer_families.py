"""Architectures of transformers down the whole road: `python -m benchmarks.transformer_families [--only GLOB]`.

Each small network of random weights is opened, cut and compacted, written as ONNX, and cut uniformly and written back
as a directory. What was found is one line of a file for each network; of one that the file holds, only the columns that
its line lacks are found.
`python -m docs.generated` makes the table of docs/transformers.md from it.
"""

from __future__ import annotations

import argparse
import fnmatch
import json
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from compressor.asking.prune import PruneSettings
from compressor.asking.walk import WalkOptions
from compressor.axes import find_units
from compressor.compaction import compact
from compressor.errors import CompressError, RatioError, first_line
from compressor.exporting import export_huggingface, export_onnx
from compressor.formats import load
from compressor.models.external import imported_beside_any_torch
from compressor.models.widths import name_of
from compressor.program import Program, all_lengths, open_choices, open_heads
from compressor.pruning import prune
from compressor.pruning.uniform import find_roles
from compressor.pruning.whole_layers import whole_layers
from tests.models.tiny_transformers import SMALL, save_small

OUT = Path(__file__).parent / "data" / "transformers.jsonl"
RATIOS = (1.2, 1.1, 1.05, 1.02)


def cut(program: Program, **how: Any) -> Program:
    """The program at the largest of a few ratios that its free widths allow, compacted and compared."""
    for ratio in RATIOS:
        try:
            masked, _ = prune(program, PruneSettings(method="magnitude", ratio=ratio, round_to=1, **how))
        except RatioError:
            if ratio == RATIOS[-1]:
                raise
            continue
        return compact(masked)[0]
    raise AssertionError


def check(name: str, library: Any, known: dict[str, Any]) -> dict[str, Any]:
    """What became of one network, by column: true, a list, or the reason why not; `known` is not found again."""
    found: dict[str, Any] = {"name": name, "class": SMALL[name][0], **known}
    started = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        here = Path(folder)
        save_small(library, name, here / "dense")
        program = step(found, "opens", lambda: load(here / "dense"))
        if program is not None and "layer" not in found:
            step(found, "layer", lambda: cut(program, pattern="layer"))
            step(found, "whole_layers", lambda: whole_layers(program))
            step(found, "expert", lambda: cut(program, pattern="expert"))
        if program is not None and "head" not in found:
            found["inputs"] = [spec.name for spec in program.inputs]
            found["lengths"] = sorted(all_lengths(program.inputs))
            found["batch"] = program.has_dynamic_batch
            found["notes"] = list(program.record.notes)
            found["head"] = bool(find_units(open_heads(program), WalkOptions(keep_heads=True)).heads.any())
            smaller = step(found, "channel", lambda: cut(program))
            step(found, "exact", lambda: cut(program, through_norm="exact"))
            step(found, "onnx", lambda: export_onnx(smaller or program, here / "net.onnx", batch_sizes=(1, 3)))
            found["entries"] = entries(open_choices(program))
            uniform = {"uniform": True, "through_norm": "exact"}
            step(found, "directory", lambda: export_huggingface(cut(program, **uniform), here / "small"))
    found["seconds"] = round(found.get("seconds", 0.0) + time.perf_counter() - started, 1)
    return found


def entries(program: Program) -> dict[str, list[str]]:
    """The entries of the configuration that can shrink, where norms are kept exactly and where they are rescaled."""
    found: dict[str, list[str]] = {}
    for how in ("exact", "rescale"):
        units = find_units(program, WalkOptions(keep_heads=True, through_norm=how))  # type: ignore[arg-type]
        roles, _ = find_roles(program, units)
        found[how] = sorted(name_of(key) for role in roles for key in (*role.entries, *role.heads))
    return found


def step(found: dict[str, Any], column: str, make: Callable[[], Any]) -> Any:
    """What `make` returns, and in the column true or why it returned nothing; only our own errors are reasons."""
    try:
        made = make()
    except CompressError as error:
        found[column] = first_line(error)[:160]
        return None
    found[column] = True
    return made


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--only", default="*", metavar="GLOB")
    asked = options.parse_args()
    torch.set_num_threads(1)
    imported_beside_any_torch("torchvision")  # transformers imports it where it is installed
    library = imported_beside_any_torch("transformers")
    library.utils.logging.set_verbosity_error()
    library.utils.logging.disable_progress_bar()
    names = [name for name in SMALL if fnmatch.fnmatch(name, asked.only)]
    for name in names:
        lines = {row["name"]: row for row in map(json.loads, OUT.read_text().splitlines())} if OUT.is_file() else {}
        if "layer" in lines.get(name, {}):
            continue
        try:
            found = check(name, library, lines.get(name, {}))
        except Exception as error:  # an error of ours: the line says so, and the next network has its turn
            found = {"name": name, "class": SMALL[name][0], "fault": f"{type(error).__name__}: {first_line(error)}"}
        text = "".join(json.dumps(row) + "\n" for row in {**lines, name: found}.values())
        OUT.write_text(text)
        print(name, found, flush=True)


if __name__ == "__main__":
    main()
