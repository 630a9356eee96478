"""Whether two computations of one network agree, judged by what rounding alone can do; it must never run a network.

A fixed limit alone errs: float32 itself moves a deep network by more than 1e-5, and next to nothing may be left of an
output that a sigmoid saturates. So the limit is where the judgment begins. A larger difference is held against measured
noise: the network's own float32 error, what the other side changes from one way of computing to another, and how far
one rounding per operator moves the outputs. What is beyond a small multiple of all three is no rounding.

Use: `Yardstick` (runs.py) runs a program, measures what is needed and hands it to `judge`:

    found = Yardstick(program).agreement([Other(inputs, leaves(outputs)) for inputs, outputs in batches], limit=1e-5)
    if not found.passed:
        raise VerificationError(f"the file and torch differ by {found}")
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Literal, TypeAlias, cast

import numpy as np
import torch
from torch import Tensor

from compressor.narrowing import is_mapping, is_row
from compressor.typed_torch import from_numpy, split

Judgment: TypeAlias = Literal["limit", "own rounding", "runtime noise", "sensitivity"]
"""What an agreement was judged by.

"limit": the difference is below the plain limit; nothing else was looked at. "own rounding": the network's float32
result is as far from its float64 result. "runtime noise": the other side differs from itself as much when it computes
in another way. "sensitivity": one rounding per operator moves the output as much (next to nothing is left of a
saturated sigmoid).
"""

NOISE_FACTOR = 8.0
"""Differences up to this multiple of a measured noise are noise: it is the largest of one run, not a bound.

On 23 networks (ResNets, DenseNet, RegNet, EfficientNet, ConvNeXt, ViT …) onnxruntime was at most 2.1 times as far from
float64 as torch was, and 1.3 times as far as one rounding per operator moves it.
"""

LARGEST_SHARE = 0.02
"""No noise excuses more than this share of the largest output: beyond it the comparison would prove nothing."""

LARGEST_LOSS = 2.0**20
"""... nor more than this many roundings: float32's noise may reach the share above, float64's no more than 1e-10."""

FLOOR_ROUNDINGS = 16.0
"""... unless it is a few roundings of 1, absolute: probabilities are computed around 1/2 and 1, where float32 has steps
of 3e-8 to 6e-8, and all that is left of a probability of 1e-7 is such a step."""

_PART = 1 << 20
"""Elements of outputs that are compared together."""

Outputs: TypeAlias = Sequence[Tensor]


def leaves(value: Any) -> list[Tensor]:
    """Every tensor or array in nested outputs, in order; what is no tensor is left out."""
    return list(_leaves(value))


@dataclass(frozen=True)
class Evidence:
    """What was computed from one batch of inputs; each part holds the flattened outputs in order.

    `own` is the network that is taken for right, in its own precision, `other` what is compared with it. The rest is
    computed only when the plain limit does not decide: `exact` is the network in float64, `shaken` the same with one
    rounding of the own precision after each operator, `again` the other side, computed in another way that should not
    matter (onnxruntime without its optimiser). `names` says what each output is called; `output 0` … if not given.
    `rounding` is the rounding of 1 in the coarser of the two precisions. The last `n_chosen` are no outputs but what a
    decision was chosen from, and what it chose: there the plain limit excuses nothing, and noise only.
    """

    own: Outputs
    other: Outputs
    exact: Callable[[], Outputs] | None = None
    shaken: Callable[[], Outputs] | None = None
    again: Callable[[], Outputs] | None = None
    names: Sequence[str] = ()
    rounding: float = 2.0**-24
    n_chosen: int = 0


@dataclass(frozen=True)
class Agreement:
    """How far apart two computations are, and what that was judged by.

    Of all outputs it is the one that went furthest beyond what was allowed to it, or else differs most.

    Units:  `max_rel`, `limit` and `noise` are shares of the largest |value| of that output over all inputs (of 1 where
            the output is whole numbers or nothing but zeros); `max_abs` is absolute. `noise` is what was measured, None
            for the plain limit. `fault` says why nothing could be measured: another number of outputs, another shape,
            NaN. `decisions` names operators whose near-ties, or random numbers, were taken over from the other side.
    """

    max_abs: float
    max_rel: float
    limit: float
    judgment: Judgment = "limit"
    noise: float | None = None
    where: str = "output 0"
    fault: str | None = None
    decisions: tuple[str, ...] = ()

    @property
    def passed(self) -> bool:
        return self.fault is None and self.max_rel <= self.limit

    @property
    def basis(self) -> str:
        """What the limit follows from, in words; empty for the plain one."""
        return basis(self.judgment, self.noise)

    @property
    def apart(self) -> str:
        """What two sides do that do not agree: `differ by …`, or `differ: ` and the fault."""
        return f"differ: {self.fault}," if self.fault is not None else f"differ by {self}"

    def __str__(self) -> str:
        """`2.5e-05 of the largest output (limit 6.0e-04: 8 times …)`, or the fault."""
        if self.fault is not None:
            return self.fault
        because = f": {self.basis}" if self.basis else ""
        what = "output" if self.where.startswith("output") else f"value at {self.where}"
        return f"{self.max_rel:.2g} of the largest {what} (limit {self.limit:.1e}{because})"


def basis(judgment: Judgment, noise: float | None) -> str:
    """What a limit of that judgment follows from, in words; empty for the plain one."""
    return "" if noise is None else _BASIS[judgment].format(factor=f"{NOISE_FACTOR:g}", noise=f"{noise:.1e}")


_BASIS: Mapping[str, str] = {
    "own rounding": "{factor} times the model's own rounding error, {noise}",
    "runtime noise": "{factor} times what the runtime's own optimiser changes, {noise}",
    "sensitivity": "{factor} times what one rounding per operator changes, {noise}",
}


def judge(evidence: Sequence[Evidence], limit: float, *, least_share: float = 0.0) -> Agreement:
    """The agreement over all batches; the float64 run and the others are made only where the plain limit is passed.

    A floating output counts by its largest |difference| over all inputs, relative to its largest |value|, which counts
    as at least `least_share` of that of all outputs. Whole numbers and truth values must be equal. A NaN or an infinity
    agrees with the same at the same place, or with a finite number that float64 confirms. Outputs without any element
    agree. If no output holds a finite number, nothing was compared, and that is a fault.
    """
    if fault := structure_fault(evidence):
        return Agreement(float("inf"), float("inf"), limit, fault=fault)
    cases = [_Case(part) for part in evidence]
    n_outputs = len(evidence[0].own) if evidence else 0
    scales = _scales(evidence, n_outputs, least_share)
    found = [_judged(cases, k, scales[k], limit) for k in range(n_outputs)]
    if not any(_has_finite(part.own) for part in evidence):
        fault = "no finite number is in the model's own outputs, so there is nothing to compare"
        return Agreement(float("inf"), float("inf"), limit, fault=fault)
    return max(found, key=_severity)


class Tally:
    """What the plain limit says of outputs that are shown one batch after another, so that none has to be kept.

    Larger networks have outputs of a hundred megabytes a batch: all of them at once weigh more than the network.
    """

    def __init__(self) -> None:
        self._largest: list[float] = []
        self._worst: list[float] = []
        self._floating: list[bool] = []
        self._finite = self._faulty = False

    def add(self, own: Outputs, other: Outputs) -> None:
        """Look at one batch of both sides."""
        others = bool(self._worst) and len(own) != len(self._worst)
        self._faulty |= structure_fault([Evidence(own, other)]) is not None or others
        if self._faulty:
            return
        if not self._worst:
            self._largest, self._worst = [0.0] * len(own), [0.0] * len(own)
            self._floating = [x.is_floating_point() for x in own]
        for k, (mine, theirs) in enumerate(zip(own, other, strict=True)):
            self._largest[k] = max(self._largest[k], _largest_finite(mine))
            self._worst[k] = max(self._worst[k], _farthest(mine, theirs))
        self._finite |= _has_finite(own)

    def agreement(self, limit: float, *, least_share: float = 0.0) -> Agreement | None:
        """As `judge` finds it where all is within the plain limit; None where more has to be looked at."""
        if self._faulty or not self._finite:
            return None
        least = least_share * max(self._largest, default=0.0)
        found: list[Agreement] = []
        for k, (worst, largest, floating) in enumerate(zip(self._worst, self._largest, self._floating, strict=True)):
            scale = max(largest, least)
            base = limit if floating and scale else 0.0
            found.append(Agreement(worst, worst / scale if base else worst, base, where=f"output {k}"))
        if not found or not all(one.passed for one in found):
            return None
        return max(found, key=_severity)


class _Case:
    """One batch; what costs a run of the network is run once, when it is first asked for."""

    def __init__(self, evidence: Evidence) -> None:
        self.evidence = evidence

    @cached_property
    def exact(self) -> Outputs | None:
        return None if self.evidence.exact is None else self.evidence.exact()

    @cached_property
    def shaken(self) -> Outputs | None:
        return None if self.evidence.shaken is None else self.evidence.shaken()

    @cached_property
    def again(self) -> Outputs | None:
        return None if self.evidence.again is None else self.evidence.again()

    def distances(self, k: int, *, by_exact: bool) -> Tensor:
        """How far each element of output k is from the network, or from its float64 result if that is nearer."""
        other, own = self.evidence.other[k], self.evidence.own[k]
        apart = _distances(own, other)
        if by_exact and self.exact is not None and own.is_floating_point():
            exact = self.exact[k]
            apart = torch.where(exact.isfinite(), torch.minimum(apart, _distances(exact, other)), apart)
        return apart

    def noise(self, k: int, kind: Judgment) -> float | None:
        """The noise of that kind in output k; None where it was not measured."""
        if kind == "runtime noise":
            pair = (self.evidence.other, self.again)
        else:
            pair = (self.exact, self.evidence.own if kind == "own rounding" else self.shaken)
        if pair[0] is None or pair[1] is None:
            return None
        apart = _distances(pair[0][k], pair[1][k])
        return _largest(apart[apart.isfinite()])


def _judged(cases: Sequence[_Case], k: int, scale: float, limit: float) -> Agreement:
    """Output k by the plain limit, and if that is passed by the first noise that explains it."""
    floating = cases[0].evidence.own[k].is_floating_point()
    unit = (scale or 1.0) if floating else 1.0
    is_chosen = k >= len(cases[0].evidence.own) - cases[0].evidence.n_chosen
    base = limit if floating and scale and not is_chosen else 0.0
    worst = max(_farthest(case.evidence.own[k], case.evidence.other[k]) for case in cases)
    names = cases[0].evidence.names
    where = names[k] if names else f"output {k}"
    plain = Agreement(worst, worst / unit, base, where=where, fault=_misplaced(worst, where))
    if plain.passed or not floating:
        return plain
    worst = max(_largest(case.distances(k, by_exact=True)) for case in cases)
    plain = replace(plain, max_abs=worst, max_rel=worst / unit, fault=_misplaced(worst, where))
    rounding = max(case.evidence.rounding for case in cases)
    most = max(min(LARGEST_SHARE, LARGEST_LOSS * rounding), limit, FLOOR_ROUNDINGS * rounding / unit)
    found = plain
    for kind in ("own rounding", "runtime noise", "sensitivity"):
        measured = [noise for case in cases if (noise := case.noise(k, kind)) is not None]
        noise = max(measured, default=0.0) / unit
        allowed = min(NOISE_FACTOR * noise, most)
        if allowed > found.limit:
            found = replace(plain, limit=allowed, judgment=kind, noise=noise)
        if found.passed:
            break
    return found


def _severity(agreement: Agreement) -> tuple[bool, float, float]:
    """Faults last; before them what failed, by how far it is beyond its limit; then by the size of the difference."""
    beyond = agreement.max_rel / agreement.limit if agreement.limit else float("inf")
    return agreement.fault is not None, 0.0 if agreement.passed else beyond, agreement.max_rel


def _scales(evidence: Sequence[Evidence], n_outputs: int, least_share: float) -> list[float]:
    """The largest finite |value| of each output over all inputs, or the least share of the largest of all.

    Over all inputs: a single number can be next to 0 for one sample by chance.
    """
    largest = [max((_largest_finite(part.own[k]) for part in evidence), default=0.0) for k in range(n_outputs)]
    return [max(own, least_share * max(largest)) for own in largest]


def structure_fault(evidence: Sequence[Evidence]) -> str | None:
    """What keeps the outputs from being compared at all, in words; None if they are as many and of the same shapes."""
    for part in evidence:
        if len(part.own) != len(part.other):
            return f"there are {len(part.other)} outputs where the model has {len(part.own)}"
        for k, (own, other) in enumerate(zip(part.own, part.other, strict=True)):
            if own.shape != other.shape:
                return f"output {k} has the shape {tuple(other.shape)} where the model's has {tuple(own.shape)}"
    return None


def _misplaced(worst: float, where: str) -> str | None:
    if worst != float("inf"):
        return None
    if where.startswith("output"):
        return f"{where} has a NaN or an infinity where the model has none, or the other way round"
    return f"{where} gives what it cannot: a place outside or taken twice, numbers of another distribution, or NaN"


def _distances(reference: Tensor, other: Tensor) -> Tensor:
    """|reference − other| element by element; infinite where only one is finite or two infinities differ."""
    if not reference.is_floating_point() and not other.is_floating_point():
        apart = (reference.to(torch.float64) - other.to(torch.float64)).abs()
        return torch.where(reference == other, 0.0, apart.clamp(min=1.0))
    wanted, got = reference.to(torch.float64), other.to(torch.float64)
    apart = (wanted - got).abs()
    same = (wanted == got) | (wanted.isnan() & got.isnan())
    return torch.where(same, 0.0, torch.where(apart.isfinite(), apart, float("inf")))


def _farthest(reference: Tensor, other: Tensor) -> float:
    """The largest of `_distances`, found by parts: each takes several times its size."""
    parts = zip(_parts(reference), _parts(other), strict=True)
    return max((_largest(_distances(one, two)) for one, two in parts), default=0.0)


def _parts(values: Tensor) -> tuple[Tensor, ...]:
    return split(values.reshape(-1), _PART)


def _largest(values: Tensor) -> float:
    return float(values.max()) if values.numel() else 0.0


def _largest_finite(values: Tensor) -> float:
    found = 0.0
    for part in _parts(values):
        wide = part.to(torch.float64).abs()
        found = max(found, _largest(wide[wide.isfinite()]))
    return found


def _has_finite(outputs: Outputs) -> bool:
    return not any(x.numel() for x in outputs) or any(bool(x.isfinite().any()) for x in outputs)


def _leaves(value: Any) -> Iterator[Tensor]:
    of_numpy = isinstance(value, np.ndarray | np.generic)
    if isinstance(value, Tensor):
        yield value.detach()
    elif of_numpy:
        yield from_numpy(np.array(cast("Any", value)))
    elif is_mapping(value):
        for part in value.values():
            yield from _leaves(part)
    elif is_row(value):
        for part in value:
            yield from _leaves(part)
    elif hasattr(value, "__dataclass_fields__"):
        for name in value.__dataclass_fields__:
            yield from _leaves(getattr(value, name))
