"""`compress bench`; it must never hold how anything is measured."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from compressor.asking.bench import BenchSettings
from compressor.asking.gates import gates_of
from compressor.cli.html_report import ReportOptions, check_report, write_report
from compressor.cli.named import check_named
from compressor.cli.options import MODEL_HELP, SourceOptions, option
from compressor.cli.session import Session
from compressor.cli.streams import INITIAL, STREAM, read_source, refuse_taken, stdin_bytes
from compressor.errors import GateError, UsageError

if TYPE_CHECKING:
    from compressor.progress import Progress
    from compressor.timing import BenchReport, RoundProgress, Subject

_PERCENT = 100


@dataclass(frozen=True, kw_only=True)
class BenchOptions(ReportOptions, SourceOptions):
    """Options of `compress bench`, beside those that `BenchSettings` declares."""

    asks = (BenchSettings,)

    models: Annotated[
        list[str],
        typer.Argument(
            metavar="MODELS",
            help=f"Any number; the first is the reference. Each: {MODEL_HELP}",
            show_default=False,
        ),
    ]
    plot: Annotated[str | None, option(metavar="FILE.svg", help="Draw the latencies into an SVG file too.")] = None


def bench(options: BenchOptions, session: Session) -> None:
    """Measures models side by side and compares with the first.

    Latency, throughput and size, interleaved in one run; .onnx runs in onnxruntime, anything else in torch.

    \b
    Examples:
      compress bench model.pt model.onnx
      compress bench dense.onnx small.onnx --threads 1,2 --batch 1,16 --require 'speedup>=3'
      compress bench dense.onnx small.onnx --profile --table markdown
      compress bench model.onnx --accuracy --data mnist:data --require 'accuracy>=98%'
      compress export small.pt -o - | compress bench dense.onnx -
    """
    asked = options.request(BenchSettings)
    gates = gates_of("bench", asked.require).gates
    check_report(options)
    _check_plot(options)
    check_named(options, session)
    from compressor.report.html import bench_page
    from compressor.report.timing import bench_table

    gated = {gate.metric for gate in gates}
    asked = replace(asked, **{name: True for name in ("accuracy", "memory", "gzip") if name in gated})
    with tempfile.TemporaryDirectory(prefix="compress-bench-") as folder:
        paths = [
            _as_file(options, model, Path(folder, str(position)), session)
            for position, model in enumerate(options.models)
        ]
        with session.progress() as progress:
            report = _measure(options, asked, paths, session, progress)
        report = _with_given_names(report, dict(zip(map(str, paths), options.models, strict=True)))
    _write_plot(options, report, session)
    failures = _failures(report, [gate.text for gate in gates])
    met = {text: failure is None for text, failure in failures.items()}
    write_report(options, session, lambda about: bench_page(report, about, met), model=options.models)
    session.show(
        lambda: bench_table(report, met, every_row=options.verbose),
        _body(report, failures),
    )
    failed = [failure for failure in failures.values() if failure is not None]
    if failed:
        raise GateError("\n".join(failed[:3]))


def _check_plot(options: BenchOptions) -> None:
    """Raises:  UsageError for a name that does not end in .svg; OutputError if it is there or cannot be written."""
    if options.plot is None:
        return
    if not options.plot.endswith(".svg"):
        raise UsageError(f"--plot {options.plot}: draws SVG; give a name that ends in .svg")
    if options.report is not None and Path(options.report).resolve() == Path(options.plot).resolve():
        raise UsageError(f"--plot {options.plot}: is the report's file too; give the picture another name")
    refuse_taken(Path(options.plot), options.force, "--plot")


def _write_plot(options: BenchOptions, report: BenchReport, session: Session) -> None:
    if options.plot is None:
        return
    from compressor.atomic import atomic_write
    from compressor.report.plot import bench_svg

    with atomic_write(options.plot, force=options.force) as path:
        path.write_text(bench_svg(report), encoding="utf-8")
    session.note(f"picture: {options.plot}")


def _as_file(options: BenchOptions, model: str, folder: Path, session: Session) -> Path:
    """A path that the bench can open by itself; what needs options to be opened goes into `folder`."""
    from compressor import formats

    path = Path(model)
    if model == STREAM:
        folder.mkdir()
        (folder / "stdin").write_bytes(stdin_bytes())
        return folder / "stdin"
    needs_options = options.arch is not None or options.trust_pickle
    if model != INITIAL and (not needs_options or not path.is_file() or formats.is_onnx(path)):
        return path
    program = read_source(options, model, session).program
    folder.mkdir()
    written = folder / (INITIAL if model == INITIAL else path.name)
    formats.save(program, written)
    return written


def _measure(
    options: BenchOptions, asked: BenchSettings, paths: Sequence[Path], session: Session, progress: Progress
) -> BenchReport:
    from compressor.data import open_data, open_task
    from compressor.program import parse_input
    from compressor.timing import bench as measure

    done = 0

    def on_round(now: RoundProgress) -> None:
        nonlocal done
        reached = int(now.fraction * _PERCENT)
        progress.advance(reached - done, threads=now.threads, batch=now.batch)
        done = reached

    progress.start("bench", _PERCENT, "percent")
    report = measure(
        paths,
        provider=asked.provider,
        threads=asked.threads,
        batches=asked.batches,
        min_runs=asked.plan.min_runs,
        min_seconds=asked.plan.min_seconds,
        max_seconds=asked.plan.max_seconds,
        warmup=asked.plan.warmup,
        seed=options.seed,
        data=open_data(options.data, **session.origin("data", options.data)._asdict())
        if options.data is not None
        else None,
        task=open_task(options.task, **session.origin("task", options.task)._asdict())
        if options.task is not None
        else None,
        with_accuracy=asked.accuracy,
        with_memory=asked.memory,
        with_gzip=asked.gzip,
        with_profile=asked.profile,
        trust_code=options.trust_code,
        inputs=[parse_input(text, position) for position, text in enumerate(options.input or ())],
        on_round=on_round,
    )
    progress.finish("bench", rounds=report.rounds)
    return report


def _with_given_names(report: BenchReport, given: dict[str, str]) -> BenchReport:
    """The report with the models called as the user called them, wherever they were opened from."""

    def named(subject: Subject) -> Subject:
        if subject.path not in given:
            return subject
        return replace(subject, path=given[subject.path], name=_name(subject.name, subject.path, given))

    return replace(
        report,
        timings=tuple(replace(timing, subject=named(timing.subject)) for timing in report.timings),
        profiles=tuple(replace(profile, subject=named(profile.subject)) for profile in report.profiles),
    )


def _name(name: str, path: str, given: dict[str, str]) -> str:
    return given[path] if name == path or given[path] in (STREAM, INITIAL) else name


def _failures(report: BenchReport, texts: Sequence[str]) -> dict[str, str | None]:
    """Every requirement, with what failed about it."""
    from compressor.timing import require

    failures: dict[str, str | None] = {}
    for text in texts:
        try:
            require(report, [text])
            failures[text] = None
        except GateError as error:
            failures[text] = str(error)
    return failures


def _body(report: BenchReport, failures: dict[str, str | None]) -> dict[str, Any]:
    from compressor.report.jsonable import plain

    body = plain(report)
    body["warnings"] = [
        {**written, "hint": warning.hint} for written, warning in zip(body["warnings"], report.warnings, strict=True)
    ]
    requirements = [{"text": text, "passed": failure is None, "message": failure} for text, failure in failures.items()]
    return {**body, "requirements": requirements, "passed": all(r["passed"] for r in requirements)}
