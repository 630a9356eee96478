"""Where the time of an ONNX file goes, from onnxruntime's own profiler; it must never be on while anything is timed."""

from __future__ import annotations

import json
import re
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx

from compressor.formats.onnx_weights import QUANTISED_SUFFIX
from compressor.program import InputSpec
from compressor.timing.measured import OperatorTime, Profile
from compressor.timing.providers import Provider
from compressor.timing.subjects import Opened

_WARM_UPS = 5
_LEAST_RUNS, _MOST_RUNS, _LEAST_S = 20, 300, 1.0
_TRIM = 0.1
"""Share of the runs left out at either end of each operator's mean: the profiler counts whole microseconds, so
that a median of a fast one would be a whole number, and one interruption would spoil the mean."""

_WEIGHTED = re.compile(r"(Conv|Gemm|MatMul|Gather|LSTM|GRU|RNN|Attention|Embed)")
"""Operators that do their work on weights; an addition may read a parameter too and is not that layer."""

_DECORATION = re.compile(r"^fused |^InsertedPrecisionFreeCast_|_nchwc$|_token_\d+$|_quant$|/.*Fusion.*$")
"""What onnxruntime's passes put before and behind the name of a node or value."""


def profile(
    entry: Opened, provider: Provider, threads: int, batch: int, *, seed: int = 0, inputs: Sequence[InputSpec] = ()
) -> tuple[Profile | None, str]:
    """Seconds of every operator, or None and why not.

    Raises:  as the runner: a file that cannot run was found out before.
    """
    if entry.program is not None or entry.path is None:
        return None, f"{entry.subject.name} runs in torch"
    if provider.ort_name != "CPUExecutionProvider":
        return None, f"on {provider.name} the profiler sees when work is handed over, not how long it takes"
    with tempfile.TemporaryDirectory(prefix="compress-profile-") as folder:
        runner = entry.onnx_runner(provider, threads, inputs=inputs, profile=Path(folder, "profile"))
        runner.prepare(batch, seed)
        ended, n_runs = time.perf_counter() + _LEAST_S, 0
        while n_runs < _WARM_UPS + _LEAST_RUNS or (n_runs < _MOST_RUNS and time.perf_counter() < ended):
            runner.block(1)
            n_runs += 1
        events = json.loads(Path(runner.session.end_profiling()).read_text())
    runs = runs_of(events)[_WARM_UPS:]
    operators = [event[:2] for event in runs[-1]]
    runs = [run for run in runs if [event[:2] for event in run] == operators]  # branches may run others
    layers = Layers(onnx.load(str(entry.path), load_external_data=False))
    names = [(layers.layer(*operator), operator[1]) for operator in operators]
    seconds = _trimmed(np.array([[duration for _, _, duration in run] for run in runs]) / 1e6)
    times = tuple(OperatorTime(*name, float(own)) for name, own in zip(names, seconds, strict=True))
    return Profile(entry.subject, provider.name, threads, batch, len(runs), float(seconds.sum()), times), ""


Event = tuple[str, str, float]
"""Name, operator and microseconds."""


def runs_of(events: Sequence[Mapping[str, Any]]) -> list[list[Event]]:
    """The profiler's events by run, in order.

    How long the run itself took is in there too, and of no use: writing down an operator takes the profiler
    longer than many an operator takes.
    """
    runs: list[list[Event]] = []
    now: list[Event] = []
    for event in events:
        name = str(event.get("name", ""))
        if event.get("cat") == "Node" and name.endswith("_kernel_time"):
            operator = str(event["args"]["op_name"])
            now.append((name.removesuffix("_kernel_time"), operator, float(event["dur"])))
        elif event.get("cat") == "Session" and name == "model_run":
            runs.append(now)
            now = []
    return runs


def _trimmed(durations: np.ndarray) -> np.ndarray:
    """Mean over runs without the smallest and largest tenth. Shapes:  (runs, operators) -> (operators,)"""
    cut = int(len(durations) * _TRIM)
    return np.sort(durations, axis=0)[cut : len(durations) - cut].mean(axis=0)


class Layers:
    """The file's nodes by the names that onnxruntime's optimiser makes of them."""

    def __init__(self, model: onnx.ModelProto) -> None:
        graph = model.graph
        self._nodes = list(graph.node)
        self._weights = {tensor.name for tensor in graph.initializer if len(tensor.dims) > 1}
        self._weights |= {entry.values.name for entry in graph.sparse_initializer}
        self._by_name = {node.name: node for node in graph.node if node.name}
        self._by_output = {output: node for node in graph.node for output in node.output}
        self._place = {node.output[0]: i for i, node in enumerate(graph.node) if node.output}

    def layer(self, name: str, operator: str) -> str | None:
        """The layer whose weights an operator of the optimised graph reads; None if it reads none.

        A fused operator is called after one of its parts or after the value that comes out of the last, so
        the search goes upwards from there.
        """
        if not _WEIGHTED.search(operator):
            return None
        node = self._find(name)
        while node is None and (bare := _DECORATION.sub("", name)) != name:
            name, node = bare, self._find(bare)
        seen: set[int] = set()
        while node is not None and id(node) not in seen:
            seen.add(id(node))
            weight = self._weight(node)
            if weight is not None:
                return weight.removesuffix(QUANTISED_SUFFIX).removesuffix(".T").removesuffix(".weight")
            before = [self._by_output[value] for value in node.input if value in self._by_output]
            node = max(before, key=lambda one: self._place[one.output[0]], default=None)
        return None

    def _find(self, name: str) -> onnx.NodeProto | None:
        """By the node's name, by the value that it makes, or, without a name, by operator and place."""
        found = self._by_name.get(name) or self._by_output.get(name)
        operator, _, place = name.rpartition("_")
        if found is None and place.isdecimal() and int(place) < len(self._nodes):
            nameless = self._nodes[int(place)]
            found = nameless if not nameless.name and nameless.op_type == operator else None
        return found

    def _weight(self, node: onnx.NodeProto) -> str | None:
        """The node's own weight, also behind a cast or the operator that makes floats of int8."""
        if not _WEIGHTED.search(node.op_type):
            return None
        for value in node.input:
            before = self._by_output.get(value)
            if before is not None and before.op_type in ("DequantizeLinear", "Cast", "Transpose"):
                value = before.input[0]
            if value in self._weights:
                return value
        return None
