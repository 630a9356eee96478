"""Every command with `--device`, and `bench` with its provider: `python -m benchmarks.gpu_commands --out FOLDER`.

The bundled LeNet-5 and digits, one short epoch of everything. A command that fails is a row like the others, and the
next one runs.
"""

from __future__ import annotations

import argparse
import os
import re
import shlex
import tempfile
import time
import traceback
from collections.abc import Sequence
from pathlib import Path

from benchmarks.side_by_side import ROOT, append_line
from compressor.cli.main import main as compress

MODEL = "sample_models/lenet5.pt"
DIGITS = "sample_models/mnist_5k.npz"


def commands(folder: Path, device: str, provider: str) -> list[list[str]]:
    """In the order in which one needs what another made."""
    on = f"--device {device}"
    short = f"--epoch-steps 4 {on}"
    cut = f"--pattern channel --ratio 4x --round-to 8 --data {DIGITS}"
    once = f"--data {DIGITS} --epochs 1 {short}"
    lines = f"""
        env
        analyze {MODEL} --sensitivity --pattern channel --data {DIGITS} --samples 200 {on}
        prune {MODEL} --method admm {cut} --epochs 1 --retrain-epochs 1 {short} -o FOLDER/pruned.pt
        prune {MODEL} --method magnitude --score taylor {cut} --reconstruct 2 --no-retrain {on} -o FOLDER/other.pt
        retrain FOLDER/pruned.pt --teacher {MODEL} {once} --precision bf16 -o FOLDER/trained.pt
        retrain FOLDER/pruned.pt {once} --compile -o FOLDER/compiled.pt
        compact FOLDER/pruned.pt {on} -o FOLDER/small.pt
        export {MODEL} {on} -o FOLDER/dense.onnx
        export FOLDER/small.pt {on} -o FOLDER/compact.onnx
        bench {MODEL} FOLDER/small.pt --provider {provider} --min-seconds 0.2
        bench FOLDER/dense.onnx FOLDER/compact.onnx --provider {provider} --min-seconds 0.2
    """
    words = [shlex.split(line) for line in lines.strip().splitlines()]
    return [[word.replace("FOLDER", str(folder)) for word in line] for line in words]


def run(words: Sequence[str]) -> tuple[int, str]:
    """The exit code, and what was raised that no command should raise."""
    try:
        return compress(list(words)), ""
    except SystemExit as error:
        return int(error.code or 0) if not isinstance(error.code, str) else 1, str(error.code)
    except Exception:  # a row of this report, and the commands after it are worth as much
        return 70, traceback.format_exc()[-1500:]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="folder of rows.jsonl")
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--provider", default="cuda")
    parser.add_argument("--only", default="", help="regular expression of the commands to run; what they need too")
    given = parser.parse_args()
    out, bad = given.out.resolve(), 0
    os.chdir(ROOT)
    with tempfile.TemporaryDirectory() as folder:
        for words in commands(Path(folder), given.device, given.provider):
            if not re.search(given.only, " ".join(words)):
                continue
            began = time.perf_counter()
            code, error = run(words)
            bad += code != 0
            told = shlex.join(["compress", *words]).replace(folder, "FOLDER")
            row = {"part": "commands", "command": told, "code": code, "error": error}
            append_line(out / "rows.jsonl", row | {"seconds": round(time.perf_counter() - began, 2)})
            print(f"{code:3}  {told}", flush=True)
    if bad:
        raise SystemExit(1)


if __name__ == "__main__":
    main()
