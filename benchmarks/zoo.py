"""Networks of torchvision and timm made difficult on purpose, and the check that removal of random units is exact.

It must never hold anything the tool itself needs: benchmarks and tests read it, nobody else.
"""

from __future__ import annotations

import copy
import math
import time
from collections import Counter
from dataclasses import asdict, dataclass, field, replace

import numpy as np
import torch
from torch import Tensor, nn

from compressor.asking import WalkOptions
from compressor.axes import Keep, UnitMap, find_units
from compressor.compaction.slicing import slice_program
from compressor.models import build
from compressor.program import InputSpec, Program, ProgramModule, arguments, capture, infer_shapes, set_argument
from compressor.sparsity import apply_masks, mask_units

LIMIT = {torch.float64: 1e-9, torch.float32: 1e-4}
CUT = 0.4
FREED_BELOW = 0.95
"""A network with a smaller share of its parameters in units is checked with --through-norm exact as well."""

WAYS = ("random biases", "zero biases", "through norms")
"""The removals that are tried; the last with --through-norm exact, where norms hold much back otherwise."""

_STATISTICS = ("running_mean", "running_var")
STRUCTURAL = ("kernel window", "the only index")


@dataclass
class Coverage:
    """What the scan found out about one network. Times in seconds; `error` is empty when everything held."""

    name: str
    side: int = 0
    n_params: int = 0
    prunable_share: float = 0.0
    n_units: int = 0
    n_groups: int = 0
    export_s: float = 0.0
    shapes_s: float = 0.0
    analysis_s: float = 0.0
    removed_share: float = 0.0
    difference: dict[str, float] = field(default_factory=dict)
    dtype: str = "float64"
    unknown: dict[str, int] = field(default_factory=dict)
    exact_share: float | None = None
    reasons: list[tuple[str, int]] = field(default_factory=list)
    notes: tuple[str, ...] = ()
    error: str = ""

    def to_mapping(self) -> dict[str, object]:
        return asdict(self)


def check(name: str, side: int, dtype: torch.dtype = torch.float64, *, ways: tuple[str, ...] = WAYS) -> Coverage:
    """Everything the coverage table says about one network; a failure is in `error`, with the stage it came from."""
    found = Coverage(name, side, dtype=str(dtype).removeprefix("torch."))
    stage = "build"
    try:
        model = build(name, {}, seed=0).module.eval()
        stage = "capture"
        began = time.perf_counter()
        program = capture(model, [InputSpec("input", (None, 3, side, side))])
        found.export_s = time.perf_counter() - began
        del model
        stage = "analysis"
        units = analysed(program, found)
        compact = None
        for stage in ways:
            if stage == "through norms":
                if found.prunable_share >= FREED_BELOW:
                    continue
                units = find_units(program, WalkOptions(through_norm="exact"))
                found.exact_share = 1 - sum(pinned_reasons(program, units).values()) / found.n_params
            if not units.n_units:
                continue
            del compact
            make_difficult(program, zero_biases=stage == "zero biases")
            difference, compact = removal_error(program, units, random_keep(units, seed=len(stage)), dtype)
            found.difference[stage] = difference
            found.removed_share = found.removed_share or 1 - compact.n_parameters / program.n_parameters
            if not difference <= LIMIT[dtype]:
                raise ArithmeticError(f"masked and compact differ by {difference:.1e}, allowed {LIMIT[dtype]:.0e}")
        stage = "training step"
        if compact is None:
            raise ArithmeticError("there is nothing to remove")
        train_one_step(compact)
    except Exception as error:  # whatever it is, it belongs into the table
        lines = [line for line in str(error).splitlines() if line.strip()]
        found.error = f"{stage}: {type(error).__name__}: {lines[0][:300] if lines else ''}"
    return found


def analysed(program: Program, found: Coverage) -> UnitMap:
    """The units, with times, shares and reasons noted."""
    began = time.perf_counter()
    inferred = infer_shapes(program.module, program.inputs, program.sampled_batch)
    found.shapes_s = time.perf_counter() - began
    if inferred != program.shapes:
        raise ArithmeticError("the shapes that the export noted are not those of a run")
    began = time.perf_counter()
    units = find_units(program)
    found.analysis_s = time.perf_counter() - began
    found.n_params, found.n_units, found.n_groups = program.n_parameters, units.n_units, len(units.groups)
    found.unknown, found.notes = dict(units.walk.unknown), program.record.notes
    reasons = pinned_reasons(program, units)
    found.prunable_share = 1 - sum(reasons.values()) / max(program.n_parameters, 1)
    found.reasons = reasons.most_common()
    return units


def pinned_reasons(program: Program, units: UnitMap) -> Counter[str]:
    """Parameters in no unit, counted by why: the reasons of their filter and channel axes, or what else there is.

    Raises:  ValueError if a parameter is in no unit and no reason was given.
    """
    counted: Counter[str] = Counter()
    for name, parameter in program.module.named_parameters():
        pinned = math.prod(int((units.axes[name, dim] < 0).sum()) for dim in range(parameter.dim()))
        if not pinned:
            continue
        given = [units.pin_at[name, dim].reason for dim in range(parameter.dim()) if (name, dim) in units.pin_at]
        plain = [reason for reason in given if reason not in STRUCTURAL] or given
        if parameter.dim() and not plain:
            raise ValueError(f"{name}: {pinned} parameters are in no unit and nothing says why")
        counted[" and ".join(dict.fromkeys(plain)) or "a single number"] += pinned
    return counted


@torch.no_grad()
def make_difficult(program: Program, *, zero_biases: bool, seed: int = 0) -> None:
    """No parameter that is constant or next to nothing: zero-initialised scales would hide errors."""
    generator = torch.Generator().manual_seed(seed)

    def noise(tensor: Tensor) -> Tensor:
        return torch.randn(tensor.shape, generator=generator).to(tensor.dtype)

    for name, tensor in program.module.tensors().items():
        last = name.rsplit(".", 1)[-1]
        if not isinstance(tensor, nn.Parameter):
            continue
        if last.endswith("bias") and tensor.dim() == 1:
            tensor.copy_(torch.zeros_like(tensor) if zero_biases else noise(tensor) * 0.2)
        elif tensor.numel() > 1 and float(tensor.std()) < 1e-3:
            tensor.copy_(noise(tensor) * 0.2 + (1.0 if float(tensor.mean()) > 0.5 else 0.1))


@torch.no_grad()
def set_statistics(program: Program, inputs: tuple[Tensor, ...], *, seed: int = 0) -> None:
    """Running statistics near those of a batch (or signals would die out in deep networks), but not equal to them.

    A removed channel has no variance; it gets statistics at random, which its zeroed scale has to render harmless.
    """
    graph = copy.deepcopy(program.module.graph)
    norms = [node for node in graph.nodes if node.target is torch.ops.aten.batch_norm.default]
    statistics = {arguments(node)[key].target for node in norms for key in _STATISTICS if arguments(node)[key]}
    if not statistics:
        return
    for node in norms:
        set_argument(node, "momentum", 1.0)
    tensors = program.module.tensors()
    ProgramModule(tensors, graph).train()(*inputs)
    generator = torch.Generator().manual_seed(seed)
    for node in norms:
        mean, variance = (tensors[arguments(node)[key].target] for key in _STATISTICS)
        noise, spread = (torch.randn(mean.shape, generator=generator).to(mean.dtype) for _ in range(2))
        dead = variance < 1e-12
        mean.add_(noise * torch.where(dead, 1.0, 0.1 * variance.sqrt()))
        variance.mul_(0.3 * spread.sigmoid() + 0.9).masked_fill_(dead, 0.7)


def random_keep(units: UnitMap, *, share: float = CUT, seed: int = 0) -> Keep:
    """Units to keep: of each group `share` goes at random, and at least one stays. Shapes: -> (n_units,)"""
    random = np.random.default_rng(seed)
    keep = np.ones(units.n_units, dtype=bool)
    for members in units.groups:
        n_cut = min(max(1, round(share * len(members))), len(members) - 1)
        keep[random.choice(np.asarray(members), n_cut, replace=False)] = False
    return keep


@torch.no_grad()
def removal_error(program: Program, units: UnitMap, keep: Keep, dtype: torch.dtype) -> tuple[float, Program]:
    """Largest |masked - compact| over how much the output varies between samples, batch 1 and 3; and the compact one.

    Not over the largest output: a bias of the last layer could be most of that, and hide that all else is wrong.
    """
    cast = tuple(replace(x, dtype=str(dtype)[6:]) if x.torch_dtype.is_floating_point else x for x in program.inputs)
    masked = program.replace(module=program.module.clone(dtype).eval(), inputs=cast)
    batches = (1, 3) if program.has_dynamic_batch else (1, 1)
    inputs = [masked.example_inputs(batch, seed=seed, dtype=dtype) for seed, batch in enumerate(batches)]
    apply_masks(masked.module, mask_units(masked.module, units, keep))
    set_statistics(masked, inputs[1])
    expected = [_flat(masked.module(*x)) for x in inputs]
    compact = slice_program(masked, units, keep)
    del masked
    got = [_flat(compact.module.eval()(*x)) for x in inputs]
    scale = float((expected[1] - expected[0][:1]).abs().max())
    if compact.n_parameters == program.n_parameters:
        raise ArithmeticError("nothing could be removed, so nothing was shown")
    if not scale > 1e-10 * float(expected[1].abs().max()):
        raise ArithmeticError("the output does not depend on the input, so nothing was shown")
    return max(float((a - b).abs().max()) for a, b in zip(expected, got, strict=True)) / scale, compact


def _flat(output: object) -> Tensor:
    """All outputs of a network side by side. Shapes: -> (batch, features)"""
    if isinstance(output, Tensor):
        return output.flatten(1) if output.dim() > 1 else output[:, None]
    parts = output.values() if isinstance(output, dict) else output
    told = [part for part in parts if isinstance(part, (Tensor, dict, tuple, list))]  # type: ignore[union-attr]
    return torch.cat([_flat(part) for part in told], dim=1)


def train_one_step(program: Program) -> None:
    """One step of SGD in training mode. Raises: ArithmeticError if a gradient or the output is not finite."""
    module = program.module.train()
    batch = 2 if program.has_dynamic_batch else 1
    dtype = next(p.dtype for p in module.parameters() if p.is_floating_point())
    x = program.example_inputs(batch, dtype=dtype)
    optimizer = torch.optim.SGD(module.parameters(), lr=1e-4)
    before = _flat(module(*x))
    before.square().mean().backward()
    optimizer.step()
    gradients = [p.grad for p in module.parameters() if p.grad is not None]
    if not gradients or not all(bool(g.isfinite().all()) for g in gradients) or not bool(before.isfinite().all()):
        raise ArithmeticError("a gradient or an output is not finite")
    with torch.no_grad():
        if torch.equal(_flat(module.eval()(*x)), before):
            raise ArithmeticError("the step changed nothing")
