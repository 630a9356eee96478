"""What makes a set of timings worth less than it looks; it must never change a number."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from compressor.asking.bench import Plan
from compressor.timing.measured import BenchWarning, Environment, Timing, WarningKind
from compressor.units import format_seconds

_FEW_RUNS = 50
_NOISY_MAD = 0.10
_OUTLIER_SHARE = 0.05
_LOADED_SHARE = 0.5
_FAST_S = 50e-6


@dataclass
class Reasons:
    """Why something could not be measured as asked, collected on the way."""

    memory: list[str] = field(default_factory=list)
    profile: list[str] = field(default_factory=list)
    fell_back: list[str] = field(default_factory=list)


def cautions(
    timings: Sequence[Timing], environment: Environment, plan: Plan, reasons: Reasons
) -> tuple[BenchWarning, ...]:
    """At most one warning of each kind, in the order of the kinds."""
    found = [
        *_few_runs(timings, plan),
        *_noisy(timings),
        *_outliers(timings),
        *_oversubscribed(timings, environment),
        *_loaded(environment),
        *_two_runtimes(timings),
        *_fast(timings),
    ]
    told = (
        (WarningKind.FELL_BACK, "not all on the provider", reasons.fell_back),
        (WarningKind.PROFILE_UNKNOWN, "no profile", reasons.profile),
        (WarningKind.MEMORY_UNKNOWN, "peak memory unknown", reasons.memory),
    )
    found += [BenchWarning(kind, f"{what}: {'; '.join(dict.fromkeys(why))}") for kind, what, why in told if why]
    return tuple(found)


def _few_runs(timings: Sequence[Timing], plan: Plan) -> Iterator[BenchWarning]:
    fewest = min(t.n_runs for t in timings)
    if fewest < max(_FEW_RUNS, plan.min_runs):
        yield BenchWarning(WarningKind.FEW_RUNS, f"only {fewest} runs; percentiles and intervals are coarse")


def _noisy(timings: Sequence[Timing]) -> Iterator[BenchWarning]:
    noisy = [t for t in timings if t.mad_s > _NOISY_MAD * t.median_s]
    if noisy:
        worst = max(noisy, key=lambda t: t.mad_s / t.median_s)
        share = worst.mad_s / worst.median_s
        yield BenchWarning(
            WarningKind.NOISY, f"{_names(noisy)}: half of the runs are more than {share:.0%} off the median"
        )


def _outliers(timings: Sequence[Timing]) -> Iterator[BenchWarning]:
    struck = [t for t in timings if t.n_outliers > _OUTLIER_SHARE * t.n_runs]
    if struck:
        worst = max(struck, key=lambda t: t.n_outliers / t.n_runs)
        yield BenchWarning(
            WarningKind.OUTLIERS,
            f"{_names(struck)}: up to {worst.n_outliers} of {worst.n_runs} runs are outliers",
        )


def _oversubscribed(timings: Sequence[Timing], environment: Environment) -> Iterator[BenchWarning]:
    most = max(t.threads for t in timings)
    if most > environment.n_cores:
        yield BenchWarning(
            WarningKind.OVERSUBSCRIBED, f"{most} threads on {environment.n_cores} core(s); they take turns"
        )


def _loaded(environment: Environment) -> Iterator[BenchWarning]:
    if environment.load is not None and environment.load > _LOADED_SHARE * environment.n_cores:
        yield BenchWarning(
            WarningKind.LOADED,
            f"the load average was {environment.load:.1f} on {environment.n_cores} core(s) before",
        )


def _two_runtimes(timings: Sequence[Timing]) -> Iterator[BenchWarning]:
    if len({t.subject.kind for t in timings}) > 1:
        yield BenchWarning(
            WarningKind.TORCH_VS_ORT,
            "models run in different runtimes; a speed-up between them is not the pruning's",
        )


def _fast(timings: Sequence[Timing]) -> Iterator[BenchWarning]:
    fast = [t for t in timings if t.median_s < _FAST_S]
    if fast:
        quickest = min(fast, key=lambda t: t.median_s)
        yield BenchWarning(WarningKind.FAST, f"{_names(fast)}: one inference takes {format_seconds(quickest.median_s)}")


def _names(timings: Sequence[Timing]) -> str:
    return ", ".join(dict.fromkeys(t.subject.name for t in timings))
