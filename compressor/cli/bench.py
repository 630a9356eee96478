"""`compress bench`; it must never hold how anything is measured."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from compressor.asking.gates import gates_of
from compressor.cli.html_report import ReportOptions, check_report, write_report
from compressor.cli.lists import read_counts
from compressor.cli.options import MODEL_HELP, SourceOptions, option
from compressor.cli.session import Session
from compressor.cli.streams import INITIAL, STREAM, read_source, refuse_taken, stdin_bytes
from compressor.errors import GateError, UsageError

if TYPE_CHECKING:
    from compressor.progress import Progress
    from compressor.timing import BenchReport, RoundProgress, Subject

_PERCENT = 100


def _providers(incomplete: str) -> list[str]:
    """What the shell may complete; written out, for asking onnxruntime would import it."""
    names = ("cpu", "cuda", "tensorrt", "openvino", "dml", "coreml", "migraphx", "qnn", "torch-compile")
    return [name for name in names if name.startswith(incomplete)]


@dataclass(frozen=True, kw_only=True)
class BenchOptions(ReportOptions, SourceOptions):
    """Options of `compress bench`."""

    models: Annotated[
        list[str],
        typer.Argument(
            metavar="MODELS",
            help=f"Any number; the first is the reference. Each: {MODEL_HELP}",
            show_default=False,
        ),
    ]
    provider: Annotated[
        str,
        option(
            "--provider",
            "-p",
            metavar="NAME",
            autocompletion=_providers,
            help="cpu, cuda, tensorrt, openvino … or torch-compile.",
        ),
    ] = "cpu"
    threads: Annotated[list[str] | None, option("--threads", metavar="1,2", help="Threads. Default: 1.")] = None
    batch: Annotated[list[str] | None, option("--batch", metavar="1,16", help="Batches. Default: 1.")] = None
    min_runs: Annotated[int, option(metavar="N", help="Least number of timed runs.")] = 50
    min_seconds: Annotated[float, option(metavar="S", help="Least measured time of each model.")] = 3.0
    max_seconds: Annotated[float, option(metavar="S", help="Longest time for one configuration.")] = 60.0
    warmup: Annotated[int, option(metavar="N", help="Runs that are not timed.")] = 10
    require: Annotated[
        list[str] | None,
        option(
            "--require",
            metavar="GATE",
            help="speedup>=3, latency<=2ms, accuracy>=0.98, size<=1MiB, ratio>=10 …; repeat. Exit 3 if one is not met.",
        ),
    ] = None
    accuracy: Annotated[bool, option("--accuracy", help="Measure accuracy on the validation data too.")] = False
    memory: Annotated[bool, option("--memory", help="Measure peak memory too, in a process of its own.")] = False
    gzip: Annotated[bool, option("--gzip", help="Size after gzip too: what a download weighs.")] = False
    profile: Annotated[
        bool, option("--profile", help="Where the time of .onnx files goes, layer by layer, side by side.")
    ] = False
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
    gates = gates_of("bench", options.require or ()).gates
    read_counts("--threads", options.threads, (1,))
    read_counts("--batch", options.batch, (1,))
    check_report(options)
    _check_plot(options)
    from compressor.report.html import bench_page
    from compressor.report.timing import bench_table

    measured = {gate.metric for gate in gates}
    with tempfile.TemporaryDirectory(prefix="compress-bench-") as folder:
        paths = [
            _as_file(options, model, Path(folder, str(position)), session)
            for position, model in enumerate(options.models)
        ]
        with session.progress() as progress:
            report = _measure(options, paths, measured, session, progress)
        report = _with_given_names(report, dict(zip(map(str, paths), options.models, strict=True)))
    _write_plot(options, report, session)
    failures = _failures(report, [gate.text for gate in gates])
    met = {text: failure is None for text, failure in failures.items()}
    write_report(options, session, lambda about: bench_page(report, about, met), model=", ".join(options.models))
    session.show(
        lambda: bench_table(report, met, every_row=options.verbose),
        _body(report, failures),
    )
    failed = [failure for failure in failures.values() if failure is not None]
    if failed:
        raise GateError("\n".join(failed[:3]))


def _check_plot(options: BenchOptions) -> None:
    """Raises:  UsageError for a name that is none of an SVG file; OutputError if it is there or cannot be."""
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
    options: BenchOptions, paths: Sequence[Path], gated: set[str], session: Session, progress: Progress
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
        provider=options.provider,
        threads=read_counts("--threads", options.threads, (1,)),
        batches=read_counts("--batch", options.batch, (1,)),
        min_runs=options.min_runs,
        min_seconds=options.min_seconds,
        max_seconds=options.max_seconds,
        warmup=options.warmup,
        seed=options.seed,
        data=open_data(options.data, **session.origin("data", options.data)._asdict())
        if options.data is not None
        else None,
        task=open_task(options.task, **session.origin("task", options.task)._asdict())
        if options.task is not None
        else None,
        with_accuracy=options.accuracy or "accuracy" in gated,
        with_memory=options.memory or "memory" in gated,
        with_gzip=options.gzip or "gzip" in gated,
        with_profile=options.profile,
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
