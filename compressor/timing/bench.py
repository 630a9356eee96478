"""The bench: models opened, measured configuration by configuration, compared with the first; it must never
print."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import torch

from compressor.asking.bench import DEFAULTS, Plan
from compressor.asking.counts import check_counts
from compressor.data import DataSource, Task
from compressor.errors import ModelError
from compressor.program import InputSpec, Program
from compressor.timing.accuracy import accuracy, questions
from compressor.timing.cautions import Reasons, cautions
from compressor.timing.environment import environment
from compressor.timing.measure import RoundProgress, Samples, copied_s, measure
from compressor.timing.measured import BenchReport, Environment, Profile, Timing
from compressor.timing.memory import peak_memory
from compressor.timing.onnx_runner import OnnxRunner
from compressor.timing.profile import profile
from compressor.timing.providers import Provider, find_provider, require_onnxruntime, require_torch
from compressor.timing.statistics import Comparison, compare, median_interval, summarise
from compressor.timing.subjects import Opened, gzip_bytes, open_subjects
from compressor.timing.torch_runner import TorchRunner
from compressor.timing.trial import check_ends


def bench(
    models: Sequence[str | Path | Program],
    *,
    provider: str = DEFAULTS.provider,
    threads: Sequence[int] = DEFAULTS.threads,
    batches: Sequence[int] = DEFAULTS.batches,
    min_runs: int = DEFAULTS.plan.min_runs,
    min_seconds: float = DEFAULTS.plan.min_seconds,
    max_seconds: float = DEFAULTS.plan.max_seconds,
    warmup: int = DEFAULTS.plan.warmup,
    seed: int = 0,
    data: DataSource | None = None,
    task: Task | None = None,
    with_accuracy: bool = DEFAULTS.accuracy,
    with_memory: bool = DEFAULTS.memory,
    with_gzip: bool = DEFAULTS.gzip,
    with_profile: bool = DEFAULTS.profile,
    trust_code: bool = False,
    inputs: Sequence[InputSpec] = (),
    on_round: Callable[[RoundProgress], None] | None = None,
) -> BenchReport:
    """Latency of each model at each number of threads and batch size, all against the first, in one run.

    A program, or a file that `load` takes, runs in torch; an ONNX file in onnxruntime. `inputs` says how
    large the dimensions are that an ONNX file leaves open behind the batch. On a device with a memory of its
    own the inputs are there beforehand; what it costs to bring them is measured apart. Each ONNX file first runs
    once in a process of its own, which is ended after `max_seconds` and what it may take to open it. Peak
    memory starts a process per model and configuration, and the profiler runs the model for another second,
    so both are only on request. `trust_code` runs what a checkpoint remembers as the code of its data or task.

    Units:   seconds per inference of a whole batch; throughput in samples per second.
    Raises:  ModelError if a file is no model or cannot run; ProviderError if the provider is not there;
             UsageError for numbers out of range, or accuracy without data; DataError if the data do
             not fit a model.
    """
    plan = Plan(min_runs, min_seconds, max_seconds, warmup)
    check_counts("--threads", threads)
    check_counts("--batch", batches)
    chosen = find_provider(provider)
    where = environment()
    opened = open_subjects(models, chosen)
    for entry in opened:
        _ = require_torch(chosen) if entry.program is not None else require_onnxruntime(chosen)
    _check_ends(opened, inputs, batches[0], max_seconds)
    asked = questions(opened, data, task, trust_code=trust_code) if with_accuracy else []
    setting = _Setting(opened, chosen, plan, seed, tuple(inputs), where)
    timings, profiles, reasons = setting.run(threads, batches, on_round, with_memory, with_profile)
    if asked:
        found = [accuracy(question, chosen, threads=where.n_cores, inputs=inputs) for question in asked]
        timings = [replace(timing, accuracy=found[i % len(opened)]) for i, timing in enumerate(timings)]
    if with_gzip:
        sizes = [gzip_bytes(entry) for entry in opened]
        subjects = [replace(entry.subject, gzip_bytes=size) for entry, size in zip(opened, sizes, strict=True)]
        timings = [replace(timing, subject=subjects[i % len(opened)]) for i, timing in enumerate(timings)]
    rounds = sum(timing.n_runs for timing in timings[:: len(opened)])
    return BenchReport(tuple(timings), cautions(timings, where, plan, reasons), where, rounds, tuple(profiles))


def _check_ends(opened: Sequence[Opened], inputs: Sequence[InputSpec], batch: int, max_seconds: float) -> None:
    """Raises:  ModelError for an ONNX file that another process could not run once in that time."""
    told = [{**spec.to_mapping(), "value": spec.value} for spec in inputs]
    for entry in opened:
        if entry.path is not None:
            why = check_ends(entry.path, entry.subject.size_bytes, told, batch, max_seconds)
            if why is not None:
                raise ModelError(f"{entry.subject.name}: {why}")


class _Setting:
    """What stays the same over all configurations of one bench."""

    def __init__(
        self,
        opened: Sequence[Opened],
        provider: Provider,
        plan: Plan,
        seed: int,
        inputs: tuple[InputSpec, ...],
        where: Environment,
    ) -> None:
        self._opened, self._provider, self._plan = opened, provider, plan
        self._seed, self._inputs, self._where = seed, inputs, where

    def run(
        self,
        threads: Sequence[int],
        batches: Sequence[int],
        on_round: Callable[[RoundProgress], None] | None,
        with_memory: bool,
        with_profile: bool,
    ) -> tuple[list[Timing], list[Profile], Reasons]:
        """Every configuration, one after the other; what could not be measured as asked is in the reasons."""
        configurations = [(n, size) for n in threads for size in batches]
        timings: list[Timing] = []
        profiles: list[Profile] = []
        reasons = Reasons()
        for position, (n_threads, batch) in enumerate(configurations):
            report = _progress(on_round, n_threads, batch, position, len(configurations))
            samples = self.measure(n_threads, batch, report)
            peaks = self.memory(n_threads, batch, reasons) if with_memory else [None] * len(self._opened)
            rows = self.timings(samples, n_threads, batch, peaks)
            timings += self.with_copies(rows, n_threads, batch, reasons) if self._provider.is_device else rows
            profiles += self.profiles(n_threads, batch, reasons) if with_profile else []
        return timings, profiles, reasons

    def measure(self, threads: int, batch: int, report: Callable[[int, float], None] | None) -> Samples:
        """Samples of all subjects at one configuration."""
        with _torch_threads(threads):
            return measure(lambda: self._open(threads, batch), self._plan, on_round=report)

    def _open(self, threads: int, batch: int) -> list[OnnxRunner | TorchRunner]:
        runners: list[OnnxRunner | TorchRunner] = []
        for entry in self._opened:
            crowded = threads > self._where.n_cores
            runner = entry.runner(self._provider, threads, oversubscribed=crowded, inputs=self._inputs)
            runner.prepare(batch, self._seed)
            runners.append(runner)
        return runners

    def memory(self, threads: int, batch: int, reasons: Reasons) -> list[int | None]:
        """Peak memory of each subject; why one has none joins the reasons."""
        peaks: list[int | None] = []
        for entry in self._opened:
            peak, reason = peak_memory(entry, self._provider, threads, batch, self._inputs)
            peaks.append(peak)
            reasons.memory += [reason] if peak is None else []
        return peaks

    def profiles(self, threads: int, batch: int, reasons: Reasons) -> list[Profile]:
        """Where the time of each subject goes; why one cannot tell joins the reasons."""
        found: list[Profile] = []
        for entry in self._opened:
            one, reason = profile(entry, self._provider, threads, batch, seed=self._seed, inputs=self._inputs)
            found += [one] if one is not None else []
            reasons.profile += [reason] if one is None else []
        return found

    def with_copies(self, timings: Sequence[Timing], threads: int, batch: int, reasons: Reasons) -> list[Timing]:
        """The rows with what an inference takes from main memory and back; nodes that run elsewhere are reasons."""
        rows: list[Timing] = []
        for timing, runner in zip(timings, self._open(threads, batch), strict=True):
            there = [f"{n} nodes of {timing.subject.name} run on {name}" for name, n in runner.elsewhere().items()]
            reasons.fell_back += there
            if runner.has_own_memory:
                timing = replace(timing, with_copies_s=copied_s(runner.block_with_copies))
            rows.append(timing)
        return rows

    def timings(self, samples: Samples, threads: int, batch: int, peaks: Sequence[int | None]) -> list[Timing]:
        """One row per subject."""
        return list(self._rows(samples, threads, batch, peaks))

    def _rows(self, samples: Samples, threads: int, batch: int, peaks: Sequence[int | None]) -> Iterator[Timing]:
        rng = np.random.default_rng(self._seed)
        reference = samples.seconds[:, 0]
        for i, entry in enumerate(self._opened):
            own = samples.seconds[:, i]
            against = compare(reference, own, rng, samples.opening) if i else Comparison(1.0, 1.0, 1.0, "reference")
            summary = summarise(own)
            low, high = median_interval(own, rng, samples.opening)
            yield Timing(
                subject=entry.subject,
                provider=self._provider.name,
                threads=threads,
                batch=batch,
                n_inner=samples.n_inner[i],
                n_openings=int(samples.opening[-1]) + 1,
                throughput_per_s=batch / summary.median_s,
                peak_memory_bytes=peaks[i],
                accuracy=None,
                speedup=against.speedup,
                speedup_low=against.low,
                speedup_high=against.high,
                verdict=against.verdict,
                median_low_s=low,
                median_high_s=high,
                **asdict(summary),
            )


def _progress(
    on_round: Callable[[RoundProgress], None] | None, threads: int, batch: int, position: int, n: int
) -> Callable[[int, float], None] | None:
    if on_round is None:
        return None
    return lambda rounds, share: on_round(RoundProgress(threads, batch, rounds, (position + share) / n))


@contextmanager
def _torch_threads(threads: int) -> Generator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        yield
    finally:
        torch.set_num_threads(before)
