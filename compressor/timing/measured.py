"""What a bench found, as plain values; it must never hold models, sessions or samples.

All times are seconds per inference (one batch), all sizes bytes.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import Literal

Kind = Literal["onnx", "torch", "torch-compile"]
Verdict = Literal["faster", "slower", "no difference", "reference"]


@dataclass(frozen=True)
class CutLatency:
    """How many times faster one inference is after a cut, in onnxruntime on the CPU.

    Measured, with the 95 % interval and the medians before and after; or, where `estimated` says why it could not be
    measured, by the widths alone. `macs_ratio` is how many times fewer MACs there are, `missing` why it is
    not as many times faster.
    """

    speedup: float
    low: float | None = None
    high: float | None = None
    verdict: Verdict | None = None
    before_s: float | None = None
    after_s: float | None = None
    threads: int = 1
    batch: int = 1
    estimated: str | None = None
    macs_ratio: float | None = None
    missing: tuple[str, ...] = ()

    @property
    def is_faster(self) -> bool:
        return self.verdict == "faster" if self.verdict is not None else self.speedup > 1


@dataclass(frozen=True)
class Subject:
    """A model as it was measured: through which runtime, how large.

    `size_bytes` is that of the file with its external data, or of the tensors where there is no file.
    `n_params` counts what the model holds, zeroed ones included; normalisations that an export folded are no
    longer there.
    """

    name: str
    path: str | None
    kind: Kind
    size_bytes: int
    n_params: int
    gzip_bytes: int | None = None
    """What travels when it is downloaded; None where that was not asked for."""
    macs: int | None = None
    """Of one sample, as the program counts them or the export noted them; None for a file of others."""


@dataclass(frozen=True)
class Timing:
    """One subject at one number of threads and one batch size.

    `n_runs` timed blocks of `n_inner` inferences each, spread over `n_openings` of the model; the statistics
    are over blocks. `speedup` is the ratio of medians to the first subject of the same configuration, with
    its 95 % interval. `mad_s` is the median distance from the median, unscaled; `median_low_s` and
    `median_high_s` are the median's own 95 % interval. `with_copies_s` is the median of an inference whose
    inputs come from main memory and whose outputs go back there, measured where the device has a memory of
    its own, for there the other times leave the copies out.
    """

    subject: Subject
    provider: str
    threads: int
    batch: int
    n_runs: int
    n_inner: int
    n_openings: int
    median_s: float
    mean_s: float
    p90_s: float
    p99_s: float
    min_s: float
    mad_s: float
    n_outliers: int
    throughput_per_s: float
    peak_memory_bytes: int | None
    accuracy: float | None
    speedup: float
    speedup_low: float
    speedup_high: float
    verdict: Verdict
    median_low_s: float | None = None
    median_high_s: float | None = None
    with_copies_s: float | None = None


@dataclass(frozen=True)
class OperatorTime:
    """One operator of the graph that the runtime made: seconds per inference, and the layer whose weights it reads.

    `layer` is None for operators without weights. What the runtime fused into one is one.
    """

    layer: str | None
    operator: str
    seconds: float


@dataclass(frozen=True)
class Profile:
    """Where the time of one subject goes, by the runtime's own profiler; `seconds` is the sum of its operators.

    They are in the order in which they ran. An inference takes longer than their sum by what the runtime does
    between them, and the profiler slows them down a little: the medians of the bench are the times, and these
    the shares.
    """

    subject: Subject
    provider: str
    threads: int
    batch: int
    n_runs: int
    seconds: float
    operators: tuple[OperatorTime, ...]


class WarningKind(Enum):
    """Everything that can make these numbers worth less; the value is the hint."""

    FEW_RUNS = "raise --max-seconds or --min-runs, or take a smaller --batch"
    NOISY = "close other programs, fix the clock frequency, or raise --min-seconds"
    OUTLIERS = "close other programs or raise --min-runs; compare medians, not means or p99"
    OVERSUBSCRIBED = "lower --threads to the number of cores"
    LOADED = "wait until the other programs are done; other work takes cores, caches and memory bandwidth"
    TORCH_VS_ORT = "compare like with like: export the reference too and give its .onnx file"
    FAST = "raise --batch: at this speed the call itself, some microseconds, is part of the number"
    FELL_BACK = "data are copied back and forth for them; export with another --opset, or take --provider cpu"
    PROFILE_UNKNOWN = "export the model and bench the .onnx file with --provider cpu to see its operators"
    MEMORY_UNKNOWN = "leave the memory column out, or measure a file on Linux with --provider cpu"

    @property
    def hint(self) -> str:
        return self.value


@dataclass(frozen=True)
class BenchWarning:
    """What was found, and through `hint` what to do about it."""

    kind: WarningKind
    message: str

    @property
    def hint(self) -> str:
        return self.kind.hint


@dataclass(frozen=True)
class Environment:
    """Where it was measured; `n_cores` is what this process may use, `load` the 1-minute average before it
    began."""

    cpu: str
    n_cores: int
    gpu: str | None
    torch: str
    onnxruntime: str
    python: str
    system: str
    load: float | None


@dataclass(frozen=True)
class BenchReport:
    """Timings by configuration, in the order in which the models were given; `rounds` over all
    configurations."""

    timings: tuple[Timing, ...]
    warnings: tuple[BenchWarning, ...]
    environment: Environment
    rounds: int
    profiles: tuple[Profile, ...] = ()
