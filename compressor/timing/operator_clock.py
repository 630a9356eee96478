"""The time of single operators in onnxruntime, remembered from run to run; it must never choose by it."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort

from compressor.atomic import atomic_write
from compressor.errors import OutputError, first_line
from compressor.places import cache_folder
from compressor.program import Program
from compressor.schema import read_as, read_json
from compressor.timing.environment import cpu_name
from compressor.timing.operator_onnx import operator_model

_BLOCK_S = 1e-3
_ROUNDS, _OPENINGS = 7, 2
"""The least of so many blocks counts: what disturbs a measurement makes it longer, never shorter. Each program is
opened twice, because where its weights come to lie makes some per cent of difference."""

_MOST_S = 0.5
"""Largest share of time for one program in one opening, beyond which fewer rounds must do."""

_FINE_S = 1e-6
_LONGEST_S = 3600.0
"""Of one run of one operator; a remembered time beyond it, or one that is no number, was never measured."""

Take = Callable[[Sequence[bytes], int], "tuple[float, ...]"]


class OperatorClock:
    """A stopwatch (`cost.latency.Stopwatch`) on onnxruntime's CPU provider with `threads` threads.

    Times are kept under what decides them: operators, shapes, batch, threads, onnxruntime and processor, not the values
    of weights. `cache` is a JSON file that outlives the run. One that cannot be read is as good as none, and one that
    cannot be written stops nothing: `trouble` says so.
    """

    def __init__(self, threads: int = 1, cache: Path | None = None, take: Take | None = None) -> None:
        self.threads, self._cache = threads, cache
        self._take = take or take_times
        self._known, self.trouble = _read(cache)
        self._runtime = f"{ort.__version__} {cpu_name(Path('/proc/cpuinfo'))} {threads} threads"

    def seconds(self, programs: Sequence[Program], batch: int = 1) -> tuple[float, ...]:
        """Seconds of one run of each. Unless all are known already, all are measured in turns, and so comparable.

        Raises:  ModelError for an operator that trials do not consist of.
        """
        models = [operator_model(program, batch) for program in programs]
        keys = [self._key(model) for model in models]
        if not all(key in self._known for key in keys):
            self._known.update(zip(keys, self._take(models, self.threads), strict=True))
            self._write()
        return tuple(self._known[key] for key in keys)

    def _key(self, model: bytes) -> str:
        """Weights are named by shape and type only; integers (shapes, slices, how many are gathered) by value."""
        graph = onnx.load_from_string(model).graph
        constants = [
            (c.name, list(c.dims), c.data_type, b"" if c.data_type == onnx.TensorProto.FLOAT else c.raw_data)
            for c in graph.initializer
        ]
        parts = (self._runtime, graph.input, [n.SerializeToString(deterministic=True) for n in graph.node], constants)
        return hashlib.sha256(repr(parts).encode()).hexdigest()[:32]

    def _write(self) -> None:
        if self._cache is None:
            return
        try:
            self._cache.parent.mkdir(parents=True, exist_ok=True)
            with atomic_write(self._cache, force=True) as temporary:
                temporary.write_text(json.dumps(self._known))
        except (OSError, OutputError) as error:
            self.trouble = f"times are not remembered, each run measures again: {first_line(error)}"


def default_cache() -> Path | None:
    """Where times are kept: `operators.json` in the user's cache; None without a home."""
    folder = cache_folder()
    return None if folder is None else folder / "operators.json"


def _read(cache: Path | None) -> tuple[dict[str, float], str | None]:
    """Times that can be true, and what is to be said about the others."""
    if cache is None or not cache.is_file():
        return {}, None
    try:
        entries = read_as(dict[str, float], read_json(cache, OutputError), OutputError, str(cache))
    except OutputError as error:  # of another version, cut off, or somebody else's
        return {}, f"times that were remembered are measured again: {first_line(error)}"
    times = {key: seconds for key, seconds in entries.items() if 0 < seconds < _LONGEST_S}
    if len(times) < len(entries):
        return times, f"{cache}: {len(entries) - len(times)} of its times cannot be true; they are measured again"
    return times, None


def take_times(models: Sequence[bytes], threads: int, batch: int = 1) -> tuple[float, ...]:
    """Least seconds of one run of each model, measured in turns with random inputs; `batch` fills open dimensions."""
    best = [float("inf")] * len(models)
    for _ in range(_OPENINGS):
        runs = [_Run(model, threads, batch) for model in models]
        for k in range(_ROUNDS):
            for i, run in enumerate(runs):
                if k == 0 or run.spent_s < _MOST_S:
                    best[i] = min(best[i], run.block())
    return tuple(best)


class OpenModel:
    """A model in onnxruntime on the CPU with its inputs bound: `feeds` in their order, by default random numbers.

    It has run once, which took `once_s` or a little less.
    """

    def __init__(self, model: bytes, threads: int, batch: int = 1, feeds: Sequence[np.ndarray] | None = None) -> None:
        options = ort.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        options.log_severity_level = 4
        options.add_session_config_entry("session.force_spinning_stop", "1")
        self._session = ort.InferenceSession(model, options, providers=["CPUExecutionProvider"])
        self._binding = self._session.io_binding()
        for given, values in zip(self._session.get_inputs(), feeds or self._random(batch), strict=True):
            self._binding.bind_cpu_input(given.name, values)
        for output in self._session.get_outputs():
            self._binding.bind_output(output.name, "cpu")
        self._now = _clock(threads)
        self.once_s = self.block(1)

    def _random(self, batch: int) -> list[np.ndarray]:
        random = np.random.default_rng(0)
        shapes = [[s if isinstance(s, int) else batch for s in given.shape] for given in self._session.get_inputs()]
        return [random.standard_normal(sizes, dtype=np.float32) for sizes in shapes]

    def block(self, n_inner: int) -> float:
        """Seconds of `n_inner` runs."""
        began = self._now()
        for _ in range(n_inner):
            self._session.run_with_iobinding(self._binding)
        return self._now() - began


class _Run:
    """One open model that is warm, in blocks of a millisecond."""

    def __init__(self, model: bytes, threads: int, batch: int) -> None:
        self._open = OpenModel(model, threads, batch)
        once = max(min(self._open.block(1) for _ in range(3)), 1e-7)
        self.spent_s = 3 * once
        self._n_inner = max(1, round(_BLOCK_S / once))

    def block(self) -> float:
        """Seconds per run over one block."""
        took = self._open.block(self._n_inner)
        self.spent_s += took
        return took / self._n_inner


def _clock(threads: int) -> Callable[[], float]:
    """Seconds on the processor where one thread does all the work and that is told finely: what other processes take
    does not count then. On a crowded machine an operator of some milliseconds is interrupted in every single run."""
    if threads == 1 and time.get_clock_info("thread_time").resolution <= _FINE_S:
        return time.thread_time
    return time.perf_counter
