"""A program as Python source for PyTorch and a file of its weights, run beside the program before they get their names.

It must never write source that was not run, and never let that source import anything but what it names here.
"""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from safetensors.torch import save_file

from compressor.asking.counts import check_counts
from compressor.asking.export import DEFAULT_CHECK
from compressor.data.source import DataSource
from compressor.errors import ModelError, OutputError, UsageError
from compressor.exporting.exported import ExportReport
from compressor.exporting.metadata import properties, refuse_reserved, tool_version
from compressor.exporting.publish import publish
from compressor.exporting.source_check import check_source
from compressor.exporting.source_classes import Classes
from compressor.exporting.source_graph import tell
from compressor.exporting.source_text import quoted, variable
from compressor.exporting.verify import check_data
from compressor.formats.tensors import plain
from compressor.program import Program, find_layers
from compressor.program.normalise import foreign_operators
from compressor.units import format_count, format_ratio

_KNOWN_LIBRARIES = ("torchvision",)
_IN_METADATA = ("version", "arch", "params", "kept_params", "dense_params", "dense_macs", "normalisation")


def weights_file(path: Path) -> Path:
    """Where the weights of a `model.py` go: `model.safetensors` beside it."""
    return path.with_suffix(".safetensors")


def export_python(
    program: Program,
    target: str | Path,
    *,
    force: bool = False,
    batch_sizes: Sequence[int] = DEFAULT_CHECK.batch_sizes,
    data: DataSource | None = None,
    metadata: Mapping[str, str] | None = None,
    accept: Callable[[ExportReport], None] | None = None,
) -> ExportReport:
    """What was written: a `.py` that needs torch only, and a `.safetensors` of the same name beside it.

    The source is run as it stands, with nothing but torch to import, in evaluation and in training mode, in float32
    and in float64. `accept` sees the report before the files get their names.

    Raises:  VerificationError if the source disagrees with the program (nothing is written then); ModelError for an
             operator of a library that is not torch's; UsageError for a target that is no `.py`; OutputError if a
             file cannot be written.
    """
    started = time.perf_counter()
    program.check_masks()
    path = Path(target)
    if path.suffix != ".py":
        raise UsageError(f"{path}: Python source goes into a file that ends in .py")
    if weights_file(path).exists() and not force:
        raise OutputError(f"{weights_file(path)}: exists already; overwrite it with --force or choose another name")
    check_counts("--check-batch", batch_sizes)
    extra = dict(metadata or {})
    refuse_reserved(extra)
    if data is not None:
        check_data(program, data)

    def build(staged: Path) -> ExportReport:
        report = _build(program, staged, batch_sizes, data, extra)
        if accept is not None:
            accept(report)
        return report

    report = publish(build, path, force, ".py", beside=weights_file)
    return replace(report, seconds=time.perf_counter() - started)


def source_of(program: Program, weights: str) -> str:
    """The source; it reads its weights from a file called `weights` beside it.

    Raises:  ModelError for an operator of a library that is not torch's.
    """
    foreign = [name for name in foreign_operators(program.module.graph) if name.split(".")[0] not in _KNOWN_LIBRARIES]
    if foreign:
        raise ModelError(
            f"operator {foreign[0]} does not belong to torch, so source that needs only it cannot call that"
        )
    told = tell(program)
    placeholders = [node for node in told.graph.nodes if node.op == "placeholder"]
    inputs: dict[Any, str] = {}
    for node in placeholders:
        inputs[node] = variable(node.name, tuple(inputs.values()))
    output = next(node for node in told.graph.nodes if node.op == "output")
    classes = "\n\n\n".join(Classes(told, output.args[0], inputs).texts)
    body = f"{classes}\n\n\n{_loader(weights)}"
    return f'"""{_about(program, weights)}"""\n\n{_imports(body, program)}\n\n\n{body}'


def _about(program: Program, weights: str) -> str:
    record = program.record
    arch = re.sub(r"[^A-Za-z0-9_.:+-]", "_", (record.arch or "network").replace("\\", "/").rsplit("/", 1)[-1])[:80]
    count = f"{format_count(program.n_parameters)} parameters"
    if record.dense_params and record.dense_params != program.n_parameters:
        ratio = format_ratio(record.dense_params / max(program.n_parameters, 1))
        count += f" of {format_count(record.dense_params)} ({ratio} smaller)"
    lines = [f"{arch}: {count}.", ""]
    steps = [re.sub(r"[^a-z-]", "", step.command)[:20] for step in record.steps]
    lines += [f"Written by compress {tool_version()}" + (f" after {', '.join(steps)}." if steps else ".")]
    if program.n_zeroed:
        lines += [
            f"{format_count(program.n_zeroed)} of the parameters are zero by masks that are not part of this file:",
            "training changes them.",
        ]
    shapes = ", ".join(
        f"{variable(spec.name)} ({', '.join('N' if size is None else str(size) for size in spec.shape)}) {spec.dtype}"
        for spec in program.inputs
    )
    lines += [f"Inputs: {shapes}.", "", f"    model = load()  # evaluation mode; weights from {_shown(weights)}"]
    return "\n".join([*lines, ""])


def _shown(name: str) -> str:
    return re.sub(r"[^A-Za-z0-9_.+-]", "_", name)[:100]


def _imports(body: str, program: Program) -> str:
    known = [name for name in _KNOWN_LIBRARIES if f"torch.ops.{name}." in body]
    lines = ["import math"] if re.search(r"\bmath\.", body) else []
    lines += ["from collections import OrderedDict"] if "OrderedDict(" in body else []
    lines += ["from pathlib import Path", "", "import torch"]
    lines += ["import torch.nn.functional as F"] if re.search(r"\bF\.", body) else []
    lines += [f"import {name}  # noqa: F401 (its operators)" for name in known]
    return "\n".join([*lines, "from torch import nn"])


def _loader(weights: str) -> str:
    return f'''def load(weights=Path(__file__).with_name({quoted(weights)})) -> Model:
    """The network with its weights, ready to infer; `.train()` makes it ready to train."""
    from safetensors.torch import load_file

    model = Model()
    model.load_state_dict(load_file(weights), assign=True)
    return model.eval()
'''


def _build(
    program: Program,
    path: Path,
    batch_sizes: Sequence[int],
    data: DataSource | None,
    extra: Mapping[str, str],
) -> ExportReport:
    source = source_of(program, weights_file(path).name)
    path.write_text(source, encoding="utf-8")
    _save_weights(program, weights_file(path), data, extra)
    found = check_source(program, path, batch_sizes, data)
    return ExportReport.of(
        program,
        [path, weights_file(path)],
        found,
        n_params=program.n_parameters,
        n_nodes=sum(1 for node in program.module.graph.nodes if node.op == "call_function"),
        on_data=data is not None,
        format="python",
        batch=None if program.has_dynamic_batch else 1,
    )


def _save_weights(program: Program, path: Path, data: DataSource | None, extra: Mapping[str, str]) -> None:
    """The state dict; its metadata say the widths as JSON: [channels, filters] of every layer by name."""
    known = properties(program, data)
    widths = {
        layer.name: [None if layer.in_dim is None else shape[layer.in_dim], shape[layer.out_dim]]
        for layer in find_layers(program)
        if (shape := tuple(program.module.tensors()[layer.weight].shape))
    }
    told = {f"compress.{key}": known[f"compress.{key}"] for key in _IN_METADATA if f"compress.{key}" in known}
    arch = told.get("compress.arch")
    if arch is not None:
        told["compress.arch"] = arch.replace("\\", "/").rsplit("/", 1)[-1]
    tensors = {name: plain(tensor) for name, tensor in program.module.tensors().items()}
    save_file(tensors, path, metadata={"format": "pt", **told, "compress.widths": json.dumps(widths), **extra})
