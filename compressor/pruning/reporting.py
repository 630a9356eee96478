"""What pruning came to: asked and got, counted on what compaction will leave; it must never prune."""

from __future__ import annotations

from compressor.asking.pattern import Pattern
from compressor.asking.prune import Cut, PruneSettings
from compressor.axes import Keep, UnitMap, find_units
from compressor.cost import count_macs, uncounted_operators, weight_prices
from compressor.program import Program, find_layers
from compressor.pruning.closing import NEAR
from compressor.pruning.pruned import LayerCut, PruneReport, StageRow
from compressor.sparsity import Budget, Choice, Selector, kept_units, make_selector, without_cut_blocks
from compressor.units import Macs, Params, format_ratio

_TOLERANCE = 0.02
"""Asked = got: how far above the asked ratio a result may lie before the user is told."""
_SETTLED = 0.1


def report_of(
    dense: Program, pruned: Program, units: UnitMap, selector: Selector, settings: PruneSettings,
    stages: tuple[StageRow, ...], seconds: float, measured: float | None = None,
) -> PruneReport:  # fmt: skip
    """Asked and got, counted on what compaction will leave, or measured on it where a ratio of time was asked for."""
    pattern, left = settings.pattern, without_cut_blocks(pruned)
    left_units = units if left is pruned else find_units(left, settings.walk)
    keep = kept_units(left_units, left.masks, left.parameters)
    compact_params, compact_macs = _compacted(left, left_units, keep, settings)
    kept_params, kept_macs = compact_params, compact_macs
    if not pattern.is_physical:
        kept_params, kept_macs = left.n_parameters - left.n_zeroed, _masked_macs(left)
    got = reached(pruned, units, selector)
    liked = settings.likes_widths and pattern.weights is None
    warnings = [*selector.notes, *_unsettled(stages)]
    before = reached(dense, units, selector)
    asked = None if settings.decides_alone and settings.ratio == 1 else settings.ratio
    if asked is None:
        warnings += [] if got > 1 else ["nothing was cut: every layer keeps all it has"]
    elif before > settings.ratio * (1 + _TOLERANCE):
        warnings.append(
            f"asked {format_ratio(settings.ratio)}, but {format_ratio(before)} was cut before: nothing to cut"
        )
    elif measured is not None and abs(measured / settings.ratio - 1) > NEAR:
        warnings.append(
            f"asked {format_ratio(settings.ratio)}, got {format_ratio(measured)} by measurement: no cut came nearer"
        )
    elif measured is not None:
        pass
    elif got > settings.ratio * (1 + _TOLERANCE) and pattern.implied_ratio is not None:
        warnings.append(f"{pattern.text} and what was cut before make {format_ratio(got)} together")
    elif got > settings.ratio * (1 + _TOLERANCE):
        warnings.append(
            f"asked {format_ratio(settings.ratio)}, got {format_ratio(got)}: whole {_thing(pattern)}"
            + (f" in multiples of {settings.round_to}" if settings.round_to > 1 else "")
            + (" in widths that kernels like come no closer; --round-to 1 does" if liked else " come no closer")
        )
    return PruneReport(
        method=settings.method,
        pattern=settings.pattern,
        of=settings.of,
        asked=asked,
        got=got if measured is None else measured,
        dense_params=Params(dense.n_parameters),
        kept_params=Params(round(kept_params)),
        dense_macs=count_macs(dense),
        kept_macs=Macs(round(kept_macs)),
        compact_params=Params(round(compact_params)),
        compact_macs=Macs(round(compact_macs)),
        zeroed=left.n_zeroed - (left.n_parameters - round(compact_params)),
        layers=_layer_cuts(pruned, pattern, gone=_layers_of(pruned) - _layers_of(left)),
        stages=stages,
        warnings=tuple(warnings),
        seconds=seconds,
        uncounted_operators=uncounted_operators(pruned),
    )


def reached(program: Program, units: UnitMap, selector: Selector) -> float:
    """Dense ÷ kept of what the masks cut now, in what the budget counts."""
    return selector.dense / selector.kept_cost(program.masks, kept_units(units, program.masks, program.parameters))


def _thing(pattern: Pattern) -> str:
    if pattern.blocks and pattern.units is None:
        return "residual blocks"
    return {"shape": "columns", "block": "blocks", "unstructured": "weights"}.get(pattern.weights or "", "units")


def _unsettled(stages: tuple[StageRow, ...]) -> list[str]:
    """A hint where the last ADMM stage left the weights far from what the hard prune made of them."""
    residual = next((row.extra["residual"] for row in reversed(stages) if "residual" in row.extra), 0.0)
    if residual <= _SETTLED:
        return []
    return [
        f"residual {residual:.2g} before the hard prune: the weights had not settled; more --epochs, or a larger"
        " --rho-max, draws them closer"
    ]


def _compacted(program: Program, units: UnitMap, keep: Keep, settings: PruneSettings) -> tuple[float, float]:
    """Parameters and MACs once units are removed and, with `shape`, cut columns are left out of every layer."""
    if settings.pattern.weights != "shape":
        return Budget.of_params(program, units).cost(keep), Budget.of_macs(program, units).cost(keep)
    counts = (
        make_selector(program, units, Choice(Cut(pattern=settings.pattern, of=of, round_to=1)))
        for of in ("params", "macs")
    )
    params, macs = (count.kept_cost(program.masks, keep) for count in counts)
    return params, macs


def _masked_macs(program: Program) -> float:
    """MACs without those of masked weights."""
    prices, cut = weight_prices(program), 0.0
    for layer in find_layers(program):
        if layer.weight in program.masks:
            cut += float((~program.masks[layer.weight]).sum()) * prices.get(layer.node, 0.0)
    return count_macs(program) - cut


def _layers_of(program: Program) -> set[str]:
    return {layer.name for layer in find_layers(program)}


def _layer_cuts(program: Program, pattern: Pattern, gone: set[str]) -> tuple[LayerCut, ...]:
    """Kept and dense filters (or single weights) of each layer with weights to contract, and columns with `shape`;
    nothing is kept of layers that are `gone` with their block."""
    parameters, by_weight = program.parameters, not pattern.is_physical
    cuts: list[LayerCut] = []
    for layer in find_layers(program):
        weight = parameters.get(layer.weight)
        if weight is None or not layer.multiplies:
            continue
        mask = program.masks.get(layer.weight)
        others = [d for d in range(weight.dim()) if d != layer.out_dim]
        n_dense = weight.numel() if by_weight else weight.shape[layer.out_dim]
        n_kept = n_dense if mask is None else int((mask if by_weight else mask.any(dim=others)).sum())
        owned = [name for name in layer.tensors if name in parameters]
        dense = sum(parameters[name].numel() for name in owned)
        cut = sum(int((~program.masks[name]).sum()) for name in owned if name in program.masks)
        columns = None
        if pattern.weights == "shape":
            n_columns = weight.numel() // weight.shape[layer.out_dim]
            columns = (n_columns if mask is None else int(mask.any(dim=layer.out_dim).sum()), n_columns)
        kept = 0 if layer.name in gone else dense - cut
        n_kept = 0 if layer.name in gone else n_kept
        cuts.append(LayerCut(layer.name, n_kept, n_dense, Params(kept), Params(dense), columns))
    return tuple(cuts)
