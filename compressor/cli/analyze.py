"""`compress analyze`; it must never hold how anything is found or how it looks."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Annotated, Literal

from compressor.cli.options import ModelOptions, option
from compressor.cli.session import Session
from compressor.cli.streams import Source, device_name, known_data, read_source
from compressor.errors import UsageError

if TYPE_CHECKING:
    from compressor.axes import WalkOptions


@dataclass(frozen=True, kw_only=True)
class AnalyzeOptions(ModelOptions):
    """Options of `compress analyze`."""

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


def analyze(options: AnalyzeOptions, session: Session) -> None:
    """Layers, parameters, MACs, coupled units, what is pinned.

    \b
    Examples:
      compress analyze model.pt
      compress analyze weights.safetensors --arch torchvision:resnet50 --input 3x224x224
      compress analyze init --arch resnet56
      compress analyze model.pt --explain layer1.0.conv1
      compress analyze vit.pt --through-norm exact --heads
      compress analyze model.pt --json | jq .n_params
    """
    asked = _layer_and_index(options.explain) if options.explain is not None else None
    source = read_source(options, options.model, session)
    if asked is not None:
        _explain(asked, source, _walk_options(options, source), session)
        return
    from compressor.analysis import analyze as find
    from compressor.report.analysis import analysis_table
    from compressor.report.jsonable import plain

    data, task = known_data(source.program, options, session)
    walk = _walk_options(options, source)
    with session.working("analyzing"):
        found = find(source.program, data=data, task=task, device=device_name(options), options=walk)
    body = {"model": source.name, "sha256": source.sha256, **plain(found)}
    session.show(lambda: analysis_table(found, source.name, every_row=options.verbose), body)


def _walk_options(options: AnalyzeOptions, source: Source) -> WalkOptions:
    """How units are found: as the model was pruned, unless the user says otherwise."""
    from compressor.axes import WalkOptions

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
