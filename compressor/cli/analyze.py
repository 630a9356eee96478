"""`compress analyze`; it must never hold how anything is found or how it looks."""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from compressor.asking import ScanSettings
from compressor.asking.panels import SCAN
from compressor.cli.html_report import ReportOptions, check_report, write_report
from compressor.cli.memory import give_freed_memory_back, keep_freed_memory
from compressor.cli.named import check_named
from compressor.cli.options import ModelOptions, option
from compressor.cli.session import Session
from compressor.cli.standard import output
from compressor.cli.streams import STREAM, Source, device_name, known_data, read_source, refuse_taken
from compressor.errors import UsageError

if TYPE_CHECKING:
    from compressor.asking import Sensitivity, WalkOptions
    from compressor.data import DataSource, Task


@dataclass(frozen=True, kw_only=True)
class AnalyzeOptions(ReportOptions, ModelOptions):
    """Options of `compress analyze`."""

    asks = (ScanSettings,)

    explain: Annotated[
        str | None,
        option(
            metavar="LAYER[:N]",
            help="Name every tensor slice that goes with one filter of LAYER, or with filter N.",
        ),
    ] = None
    through_norm: Annotated[
        Literal["pin", "exact", "rescale"] | None,
        option(
            help="Units that pass a mean or a variance: as `prune --through-norm`. Default: as the model was pruned.",
        ),
    ] = None
    heads: Annotated[bool, option("--heads", help="Attention heads as units: as `prune --pattern head`.")] = False
    sensitivity: Annotated[
        bool,
        option("--sensitivity", panel=SCAN, help="The metric when one layer at a time is cut, without retraining."),
    ] = False
    output: Annotated[
        str | None,
        option("--output", "-o", metavar="FILE", panel=SCAN, help="Write the scan, for `prune --sensitivity FILE`."),
    ] = None


def analyze(options: AnalyzeOptions, session: Session) -> None:
    """Layers, parameters, MACs, coupled units, what is pinned.

    \b
    Examples:
      compress analyze model.pt
      compress analyze weights.safetensors --arch torchvision:resnet50 --input 3x224x224
      compress analyze init --arch resnet56
      compress analyze model.pt --explain layer1.0.conv1
      compress analyze model.pt --sensitivity --ratios 0.5,0.8 --data mnist:data -o scan.json
      compress analyze model.pt --report model.html
      compress analyze vit.pt --through-norm exact --heads
      compress analyze model.pt --json | jq .n_params
    """
    asked = _layer_and_index(options.explain) if options.explain is not None else None
    _check(options)
    settings = options.request(ScanSettings) if options.sensitivity else None
    check_named(options, session)
    (give_freed_memory_back if settings is None else keep_freed_memory)()
    source = read_source(options, options.model, session)
    if asked is not None:
        _explain(asked, source, _walk_options(options, source), session)
        return
    from compressor.analysis import analyze as find
    from compressor.report.analysis import BARS_WIDTH, analysis_table
    from compressor.report.html import analysis_page
    from compressor.report.jsonable import plain
    from compressor.report.sensitivity import sensitivity_table

    needed = "a sensitivity scan" if settings is not None else None
    dense = source.program if settings is not None else None
    data, task = known_data(source.program, options, session, needed_for=needed, dense=dense)
    walk = _walk_options(options, source)
    with session.working("analyzing"):
        found = find(source.program, data=data, task=task, device=device_name(options), options=walk)
    scan = None
    if settings is not None and data is not None:
        scan = _scan(source, settings, data, task, walk, options, session)
    write_report(
        options, session, lambda about: analysis_page(found, about, scan),
        model=source.name, sha256=source.sha256, record=source.program.record,
    )  # fmt: skip
    body = {"model": source.name, "sha256": source.sha256, **plain(found)}
    if scan is not None:
        body["sensitivity"] = scan.to_mapping()
    session.show(
        lambda: analysis_table(
            found,
            source.name,
            every_row=options.verbose,
            with_bars=output().isatty() and shutil.get_terminal_size().columns >= BARS_WIDTH,
            scan=sensitivity_table(scan) if scan else None,
        ),
        body,
    )


def _check(options: AnalyzeOptions) -> None:
    """Raises:  UsageError for an option that has no effect here; OutputError for a file that cannot be written."""
    if options.explain is not None and (options.sensitivity or options.report is not None):
        raise UsageError("--explain is about one filter; leave out --sensitivity and --report, or give them without it")
    if options.output is not None and not options.sensitivity:
        raise UsageError("-o writes the scan of --sensitivity; give that too, or --report FILE for the whole analysis")
    if options.output == STREAM:
        raise UsageError("-o -: the scan goes to standard output with --json; name a file, as -o scan.json")
    if options.output is not None:
        refuse_taken(Path(options.output), options.force)
    check_report(options)


def _scan(
    source: Source, settings: ScanSettings, data: DataSource, task: Task, walk: WalkOptions,
    options: AnalyzeOptions, session: Session,
) -> Sensitivity:  # fmt: skip
    """The scan, written to -o."""
    from compressor.analysis import scan_sensitivity
    from compressor.atomic import atomic_write

    with session.progress() as progress:
        scan = scan_sensitivity(
            source.program, data, settings, task=task, device=device_name(options), options=walk, progress=progress
        )
    if scan.unmeasured:
        session.note(
            f"--budget {options.said['budget']} ended before {', '.join(scan.unmeasured[:6])}"
            + (f" and {len(scan.unmeasured) - 6} more layers" if len(scan.unmeasured) > 6 else "")
        )
    elif scan.n_samples < min(settings.n_samples, data.n_val):
        session.note(f"--budget {options.said['budget']} ended after {scan.n_samples} of {settings.n_samples} samples")
    if options.output is not None and session.is_main:
        with atomic_write(options.output, force=options.force) as path:
            path.write_text(json.dumps(scan.to_mapping(), indent=1, allow_nan=False) + "\n", encoding="utf-8")
    return scan


def _walk_options(options: AnalyzeOptions, source: Source) -> WalkOptions:
    """How units are found: as the model was pruned, unless the user says otherwise."""
    from compressor.asking import WalkOptions

    known = WalkOptions.from_mapping(source.program.record.walk)
    through_norm = options.through_norm or known.through_norm
    return replace(known, through_norm=through_norm, keep_heads=options.heads or known.keep_heads)


def _explain(asked: tuple[str, int | None], source: Source, walk: WalkOptions, session: Session) -> None:
    from compressor.analysis import explain
    from compressor.report.analysis import explanation_table
    from compressor.report.jsonable import plain

    found = explain(source.program, *asked, options=walk)
    body = {"model": source.name, "sha256": source.sha256, "explanation": plain(found)}
    session.show(lambda: explanation_table(found, every_row=session.options.verbose), body)


def _layer_and_index(text: str) -> tuple[str, int | None]:
    """Raises:  UsageError if the text is neither LAYER nor LAYER:N."""
    layer, colon, index = text.partition(":")
    if not layer or (colon and not index.isdecimal()):
        raise UsageError(f"--explain {text}: write LAYER or LAYER:N, as conv1 or conv1:3")
    return layer, int(index) if colon else None
