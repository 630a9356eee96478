"""What `bench` is asked for: on what, how long, and what beside latency; it must never measure anything."""

from __future__ import annotations

from dataclasses import dataclass

from compressor.asking.counts import check_counts, read_counts
from compressor.asking.option import at_least, check, group, option
from compressor.errors import UsageError


def provider_names() -> tuple[str, ...]:
    """What the shell may complete; written out, because asking onnxruntime would import it."""
    return ("cpu", "cuda", "tensorrt", "openvino", "dml", "coreml", "migraphx", "qnn", "torch-compile")


@dataclass(frozen=True)
class Plan:
    """How long to measure one configuration.

    It ends after `min_runs` rounds and `min_seconds` of measured time per subject, at the latest after
    `max_seconds`.

    Raises:  UsageError for a value out of range.
    """

    min_runs: int = option(50, "Least number of timed runs.", metavar="N", range=at_least(1))
    min_seconds: float = option(3.0, "Least measured time of each model.", metavar="S", range=at_least(0))
    max_seconds: float = option(60.0, "Longest time for one configuration.", metavar="S", range=at_least(0))
    warmup: int = option(10, "Runs that are not timed.", metavar="N", range=at_least(0))

    def __post_init__(self) -> None:
        check(self)
        if self.max_seconds < self.min_seconds:
            raise UsageError(f"--max-seconds {self.max_seconds:g} is below --min-seconds {self.min_seconds:g}")


@dataclass(frozen=True, kw_only=True)
class BenchSettings:
    """Every number of `threads` is combined with every size in `batches`.

    Raises:  UsageError for a value out of range.
    """

    provider: str = option(
        "cpu", "cpu, cuda, tensorrt, openvino … or torch-compile.", flags=("-p",), metavar="NAME", texts=provider_names
    )
    threads: tuple[int, ...] = option(
        (1,), "Threads.", metavar="1,2", repeat=True, read=read_counts("--threads"), unsaid=True, shown="1"
    )
    batches: tuple[int, ...] = option(
        (1,), "Batches.", name="batch", metavar="1,16", repeat=True, read=read_counts("--batch"), unsaid=True, shown="1"
    )
    plan: Plan = group(Plan)
    require: tuple[str, ...] = option(
        (),
        "speedup>=3, latency<=2ms, accuracy>=0.98, size<=1MiB, ratio>=10 …; repeat. Exit 3 if one is not met.",
        metavar="GATE", repeat=True,
    )  # fmt: skip
    accuracy: bool = option(False, "Measure accuracy on the validation data too.")
    memory: bool = option(False, "Measure peak memory too, in a process of its own.")
    gzip: bool = option(False, "Size after gzip too: what a download weighs.")
    profile: bool = option(False, "Where the time of .onnx files goes, layer by layer, side by side.")

    def __post_init__(self) -> None:
        check(self)
        check_counts("--threads", self.threads)
        check_counts("--batch", self.batches)


DEFAULTS = BenchSettings()
"""What is measured where nothing is asked for."""
