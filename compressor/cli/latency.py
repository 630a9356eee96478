"""What `prune` and `compact` say about latency, and what to run where there is nothing gained; it must never time."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Annotated

from compressor.cli.options import RunOptions, option
from compressor.cli.session import Session

if TYPE_CHECKING:
    from compressor.asking.compact import CompactSettings
    from compressor.compaction import CompactReport
    from compressor.cost import Stopwatch
    from compressor.program import Program
    from compressor.pruning import PruneReport
    from compressor.timing import CutLatency

_CAREFUL_S = 3.0
"""How long a speed-up is measured that a cut is chosen by; one that is only told takes a second."""
_MOST_MACS = 3e10
"""Beyond this one inference takes a good part of a second anywhere: it is not even tried."""


@dataclass(frozen=True, kw_only=True)
class LatencyOptions:
    """Whether a cut is followed by a look at what it does to latency."""

    no_latency: Annotated[
        bool, option("--no-latency", help="Do not measure what the cut does to latency, which takes a second or two.")
    ] = False


def clock(threads: int = 1) -> Stopwatch:
    """A stopwatch for operators, with what this machine measured before."""
    from compressor.timing import OperatorClock, default_cache

    return OperatorClock(threads, default_cache())


def tell_trouble(session: Session, stopwatch: Stopwatch | None) -> None:
    """A note where times could not be kept."""
    trouble = getattr(stopwatch, "trouble", None)
    if trouble is not None:
        session.note(trouble)


def after_prune(
    options: RunOptions, model: str, session: Session, before: Program, pruned: Program, report: PruneReport,
    stopwatch: Stopwatch | None,
) -> tuple[PruneReport, CutLatency | None]:  # fmt: skip
    """The report with what is to be said about latency, and the latency.

    Only whole units make a network smaller at once: columns are left out by `compact`, which measures in which form.
    """
    from compressor.compaction import foresee, preview

    tell_trouble(session, stopwatch)
    if report.pattern.weights is not None:
        return report, None
    shrunk = preview if unmeasurable(before) is None else foresee
    latency = cut_latency(options, session, before, lambda: shrunk(pruned))
    again = f"compress prune {model}" + (f" --ratio {said}" if (said := options.said.get("ratio")) else " …")
    remedy = "what costs time is not what was cut; ask for a larger --ratio, or --allocation latency"
    if options.said.get("round_to", "auto") != "auto":
        remedy = f"widths that kernels like may be: {again} --round-to auto"
    elif report.of != "latency":
        remedy = f"a ratio of time may be: {again} --of latency"
    return replace(report, warnings=(*report.warnings, *not_faster(latency, remedy))), latency


def after_compact(
    options: RunOptions, model: str, asked: CompactSettings, session: Session, before: Program, compacted: Program,
    report: CompactReport,
    stopwatch: Stopwatch | None,
) -> tuple[CompactReport, CutLatency | None]:  # fmt: skip
    """The same for `compact`, where dead channels may have been what made a width fast."""
    from compressor.compaction import foresee

    tell_trouble(session, stopwatch)
    latency = cut_latency(options, session, before, lambda: compacted, asked.threads)
    remedy = "cut by time instead: compress prune MODEL --ratio 2x --of latency"
    if latency is not None and not latency.is_faster and asked.round_to == 1:
        fuller = foresee(before, round_to=0, stopwatch=clock())
        if fuller.n_parameters > compacted.n_parameters:
            remedy = f"widths that kernels like may be: compress compact {model} --round-to auto"
    return replace(report, warnings=(*report.warnings, *not_faster(latency, remedy))), latency


def cut_latency(
    options: RunOptions, session: Session, before: Program, shrunk: Callable[[], Program], threads: int = 1
) -> CutLatency | None:
    """The speed-up from `before` to what `shrunk` makes, at batch 1; None where nobody asked or would see it."""
    unseen = options.quiet and options.printing.form == "text"
    if getattr(options, "no_latency", False) or unseen or not session.is_main:
        return None
    with session.working("measuring what the cut does to latency"):
        after = shrunk()
        found, why = _measured(before, after, threads)
        found = found if found is not None else _estimated(before, after, why)
        return None if found is None else _explained(found, before, after)


def network_speedup(threads: int = 1) -> Callable[[Program, Program], float | None]:
    """What `prune` asks for a ratio of time: how many times faster a masked network is once it is compacted."""

    def measured(before: Program, masked: Program) -> float | None:
        from compressor.compaction import preview

        found, _ = _measured(before, preview(masked), threads, _CAREFUL_S)
        return None if found is None else found.speedup

    return measured


def unmeasurable(program: Program) -> str | None:
    """Why no inference of the network is tried; None where it is."""
    from compressor.cost import count_macs
    from compressor.program import has_halves

    if count_macs(program) > _MOST_MACS:
        return "one inference takes too long"
    return "onnxruntime would compute its half precision in float32" if has_halves(program) else None


def _measured(before: Program, after: Program, threads: int, seconds: float = 1.0) -> tuple[CutLatency | None, str]:
    """What was measured; or why nothing could be."""
    from compressor.exporting import feeds_of, to_runnable
    from compressor.timing import glance

    if (why := unmeasurable(before)) is not None:
        return None, why
    try:
        feeds = feeds_of(before)
        return glance(to_runnable(before), to_runnable(after), feeds, threads, seconds), "one inference takes too long"
    except Exception as error:  # exporter and runtime raise what they like; the cut itself is fine
        return None, (str(error).strip().splitlines() or [type(error).__name__])[0][:120]


def _estimated(before: Program, after: Program, why: str) -> CutLatency | None:
    from compressor.cost import filled_work, find_preferences
    from compressor.timing import CutLatency

    preferences = find_preferences(clock())
    works = filled_work(before, preferences), filled_work(after, preferences)
    return CutLatency(works[0] / works[1], estimated=why) if all(works) else None


def _explained(latency: CutLatency, before: Program, after: Program) -> CutLatency:
    """Held against the MACs that went, with reasons for what is missing."""
    from compressor.cost import USUAL, count_macs, filled_work, macs_of_layers
    from compressor.program import find_layers
    from compressor.timing import why_missing

    left, works = count_macs(after), (filled_work(before, USUAL), filled_work(after, USUAL))
    if not left:
        return latency
    macs, sizes = macs_of_layers(after), {name: p.numel() for name, p in after.parameters.items()}
    weights = {layer.node: sizes.get(layer.weight, 0) for layer in find_layers(after)}
    once = sum(n for node, n in weights.items() if macs.get(node, 0) <= n)
    ratio = count_macs(before) / left
    missing = why_missing(
        latency.speedup, ratio, after_s=latency.after_s, batch=latency.batch,
        filled_ratio=works[0] / works[1] if all(works) else None, read_once=once / max(sum(weights.values()), 1),
    )  # fmt: skip
    return replace(latency, macs_ratio=ratio, missing=missing)


def not_faster(latency: CutLatency | None, remedy: str) -> tuple[str, ...]:
    """A warning that names what to run, where the cut gained nothing."""
    from compressor.report.latency import speedup

    if latency is None or latency.is_faster:
        return ()
    return (f"no faster than before ({speedup(latency)}); {remedy}",)
