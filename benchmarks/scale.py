"""Time and peak memory of the commands on language models of 10 M to 1 B weights in bfloat16, each in its own process.

    python -m benchmarks.scale --sizes 10m,100m            # rows go into benchmarks/data/scale.jsonl as they come
    python -m benchmarks.scale --sizes 1b                  # rows of this commit that are there are not made again
    python -m benchmarks.scale --table > table.md          # what is in benchmarks/SCALE.md

The models are Llamas with random weights: no download, and nothing here depends on what the weights are. Peak memory is
the largest resident set of the process less what it held once everything was imported.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import resource
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

ROWS = Path(__file__).parent / "data" / "scale.jsonl"
_MIB = 1 << 20
_ROOM = 500 * 10**6
"""What a command may take beside twice its file."""

SIZES: dict[str, dict[str, int]] = {
    "10m": {"hidden_size": 256, "intermediate_size": 1024, "num_hidden_layers": 8, "vocab_size": 8000},
    "100m": {"hidden_size": 768, "intermediate_size": 3072, "num_hidden_layers": 11, "vocab_size": 16000},
    "300m": {"hidden_size": 1024, "intermediate_size": 4096, "num_hidden_layers": 18, "vocab_size": 32000},
    "1b": {"hidden_size": 2048, "intermediate_size": 8192, "num_hidden_layers": 16, "vocab_size": 32000},
}


def commands(name: str, folder: Path) -> Iterator[tuple[str, list[str]]]:
    """The commands in their order, each by its row's name; later ones read what earlier ones wrote."""
    dense, pruned, compact = (str(folder / f"{name}{end}") for end in ("", ".pruned.pt", ".compact.pt"))
    yield "analyze", ["analyze", dense]
    yield "prune", [
        "prune", dense, "-r", "1.3x", "--method", "magnitude", "--no-retrain", "--uniform", "--round-to", "16",
        "-o", pruned, "--force",
    ]  # fmt: skip
    yield "compact", ["compact", pruned, "--masks-only", "-o", compact, "--force"]
    yield "export, directory", ["export", compact, "-o", str(folder / f"{name}-small") + "/", "--force"]


def make(name: str, folder: Path) -> Path:
    """The directory of a model, made in a process of its own if it is not there."""
    target = folder / name
    if not (target / "config.json").is_file():
        target.mkdir(parents=True, exist_ok=True)
        subprocess.run([sys.executable, "-m", "benchmarks.scale", "--make", name, str(target)], check=True)
    return target


def write_model(name: str, target: Path) -> None:
    """Writes the model with random weights."""
    import torch

    from compressor.models.external import imported_beside_any_torch

    imported_beside_any_torch("torchvision")
    transformers = imported_beside_any_torch("transformers")
    torch.manual_seed(0)
    torch.set_default_dtype(torch.bfloat16)
    sizes = SIZES[name]
    heads = sizes["hidden_size"] // 64
    config = transformers.LlamaConfig(
        **sizes, num_attention_heads=heads, num_key_value_heads=max(heads // 4, 1), tie_word_embeddings=True
    )
    transformers.LlamaForCausalLM(config).save_pretrained(target)


def measure(arguments: list[str]) -> dict[str, Any]:
    """One command in this process: how long it took, and its peak above the imports. Units: seconds, bytes."""
    import compressor.exporting
    from compressor.cli.main import main
    from compressor.models.external import imported_beside_any_torch

    assert compressor.exporting
    imported_beside_any_torch("torchvision")
    _ = imported_beside_any_torch("transformers").LlamaForCausalLM
    base = _peak()
    began = time.perf_counter()
    code = main(arguments)
    return {"code": code, "seconds": time.perf_counter() - began, "peak": _peak() - base, "imports": base}


def _peak() -> int:
    """The largest resident set of this process so far. Units: bytes."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def run(name: str, folder: Path, rows: Path) -> None:
    """Measures the commands on a model and appends a row for each; what is there of this commit is left."""
    commit, source = _commit(), make(name, folder)
    n_bytes = (source / "model.safetensors").stat().st_size
    done = {(row["size"], row["command"]) for row in read(rows) if row["commit"] == commit}
    for command, arguments in commands(name, folder):
        if (name, command) in done:
            continue
        began = os.getloadavg()[0]
        ended = subprocess.run(
            [sys.executable, "-m", "benchmarks.scale", "--measure", json.dumps(arguments)],
            capture_output=True, text=True, check=False,
        )  # fmt: skip
        if ended.returncode != 0:
            sys.exit(f"{name}, {command}: {ended.stdout[-2000:]}{ended.stderr[-2000:]}")
        found = json.loads(ended.stdout.splitlines()[-1])
        row = {"size": name, "command": command, "file": n_bytes, **found, "commit": commit, "load": began}
        with rows.open("a", encoding="utf-8") as file:
            file.write(json.dumps({**row, "machine": f"{platform.machine()}, {os.cpu_count()} cores"}) + "\n")


def read(rows: Path) -> list[dict[str, Any]]:
    """The rows so far."""
    return [json.loads(line) for line in rows.read_text(encoding="utf-8").splitlines()] if rows.is_file() else []


def table(rows: list[dict[str, Any]]) -> str:
    """The latest row of each model and command, as Markdown."""
    latest = {(row["size"], row["command"]): row for row in rows}
    lines = [
        "| weights | file | command | time | peak above imports | ÷ file | 2 × file + 0.5 GB | commit | load |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for (size, command), row in sorted(latest.items(), key=lambda item: list(SIZES).index(item[0][0])):
        within = "within" if row["peak"] <= 2 * row["file"] + _ROOM else "beyond"
        lines.append(
            f"| {size} | {row['file'] / _MIB:,.0f} MiB | {command} | {row['seconds']:,.0f} s "
            f"| {row['peak'] / _MIB:,.0f} MiB | {row['peak'] / row['file']:.2f} | {within} | {row['commit']} "
            f"| {row['load']:.1f} |"
        )
    return "\n".join(lines)


def _commit() -> str:
    found = subprocess.run(
        ["git", "describe", "--always", "--dirty"],
        capture_output=True,
        text=True,
        check=False,
        cwd=Path(__file__).parent,
    )
    return found.stdout.strip() or "unknown"


def main() -> None:
    """Runs what the arguments ask for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", default="10m,100m", help=f"of {', '.join(SIZES)}")
    parser.add_argument("--folder", type=Path, default=Path("scale"), help="where models and results lie")
    parser.add_argument("--rows", type=Path, default=ROWS)
    parser.add_argument("--table", action="store_true", help="print the rows that are there")
    parser.add_argument("--make", nargs=2, metavar=("SIZE", "DIRECTORY"), help=argparse.SUPPRESS)
    parser.add_argument("--measure", help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.table:
        print(table(read(asked.rows)))
    elif asked.make:
        write_model(asked.make[0], Path(asked.make[1]))
    elif asked.measure:
        found = measure(json.loads(asked.measure))
        print(json.dumps(found))
        sys.exit(0 if found["code"] == 0 else 1)
    else:
        for name in asked.sizes.split(","):
            run(name, asked.folder, asked.rows)


if __name__ == "__main__":
    main()
