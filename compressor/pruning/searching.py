"""The hook of a search by its method: what draws weights to the set before they are cut; it must never run a loop."""

from __future__ import annotations

from compressor.asking import PruneSettings, Recipe
from compressor.axes import UnitMap
from compressor.program import Program, find_layers
from compressor.pruning.admm import AdmmHook
from compressor.pruning.drawing import DrawHook
from compressor.pruning.hooks import Parameters
from compressor.pruning.lasso import HARDEST, LassoHook
from compressor.sparsity import Selector, matching_layers


def search_hook(
    module: Parameters,
    program: Program,
    units: UnitMap,
    selector: Selector,
    settings: PruneSettings,
    n_steps: int,
    recipe: Recipe | None,
) -> DrawHook:
    """What pulls the parameters of `module` towards `settings.ratio` in `n_steps`, under the masks of `program`, whose
    parameters have the same names.

    Raises:  UsageError if a --layer-rho glob matches no layer.
    """
    admm = settings.admm
    how = (selector, settings.ratio, admm, n_steps)
    factors = _rho_factors(program, admm.rho, admm.layer_rho)
    if settings.method == "group-lasso":
        course = admm.course(recipe, n_steps, factors, HARDEST)
        return LassoHook(module, units, *how, course, masks=program.masks)
    return AdmmHook(module, *how, admm.course(recipe, n_steps, factors), masks=program.masks)


def _rho_factors(program: Program, common: float, by_layer: tuple[tuple[str, float], ...]) -> dict[str, float]:
    """By tensor, what a layer's own first penalty is to the common one; of two globs the later one counts."""
    layers = find_layers(program)
    factors: dict[str, float] = {}
    for glob, rho in by_layer:
        chosen = matching_layers(layers, (glob,), "--layer-rho")
        owned = (tensor for layer in layers if layer.name in chosen for tensor in layer.tensors)
        factors |= dict.fromkeys(owned, rho / common if rho else 0.0)
    return factors
