"""Units tied so that what is left of a network has one width for each entry of its configuration.

A configuration of transformers has one width for all layers, so a directory can hold a pruned network only where every
layer loses as much. Units that one entry is the width of go together, the least of every layer with the least of all
others; what no entry is a width of stays. It must never know an architecture by name.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from fractions import Fraction
from itertools import combinations

import numpy as np
import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves

from compressor.axes import Ids, Keep, Pin, UnitMap
from compressor.errors import PatternError, UsageError
from compressor.models.hf_directory import answers, drop_weights, fill_network, rebuild, widths_of
from compressor.models.widths import Axis, Key, Widths, name_of
from compressor.program import Program, ProgramModule, computing_in, families, has_halves
from compressor.program.runs import with_short_examples
from compressor.sparsity import mask_units, routed_scores, score_units

_MOST_STEPS = 12
"""Steps of a width that are tried, the finest first."""
_ALIKE = 1e-3
"""Share of the largest output that the trial may be off: its question is about factors such as √C, in float32."""


@dataclass(frozen=True)
class Role:
    """Entries of a configuration that shrink together, and the groups of units that they are the widths of.

    `parts` is how many equal shares there are to lose: of each group a unit, or as many as there are more of them.
    """

    entries: tuple[Key, ...]
    heads: tuple[Key, ...]
    groups: tuple[tuple[int, ...], ...]
    parts: int

    def left(self, n_gone: int) -> dict[Key, Fraction]:
        """What each entry is multiplied by when that many parts go."""
        return dict.fromkeys((*self.entries, *self.heads), Fraction(self.parts - n_gone, self.parts))


def uniform_units(
    program: Program, units: UnitMap, note: Callable[[str], None] = lambda said: None,
    routed: Mapping[str, Sequence[float]] | None = None,
) -> UnitMap:  # fmt: skip
    """The units, tied over all layers by what a configuration can say; `note` gets what stays, and why. Those that
    matter least of every layer go together: by weight, or by what `routed` says of experts.

    Raises:  UsageError if the program does not come from a directory of transformers; PatternError naming every entry
             and why it stays, if none can shrink.
    """
    roles, reasons = find_roles(program, units)
    for name, reason in reasons.items():
        note(f"--uniform: {name} {reason}")
    if not roles:
        why = "; ".join(f"{name} {reason}" for name, reason in reasons.items()) or "no entry is a width"
        raise PatternError(f"--uniform: nothing can be cut that a configuration can say: {why}")
    return _tied(program, units, roles, routed)


def find_roles(program: Program, units: UnitMap) -> tuple[list[Role], dict[str, str]]:
    """The roles that can shrink, and for the names of all other entries why they stay.

    Raises:  UsageError as `uniform_units`.
    """
    if not program.record.configuration:
        raise UsageError(
            "--uniform: is for networks of transformers, which have a configuration; load one from its directory"
        )
    widths = rebuild(widths_of(program.record.configuration), _shapes(program))
    found = _Roles(program, units, widths)
    return found.expressible(), found.reasons


def _shapes(program: Program) -> dict[str, tuple[int, ...]]:
    return {name: tuple(tensor.shape) for name, tensor in program.module.tensors().items()}


class _Roles:
    """Finds the roles of a program, and for every entry that has none the reason."""

    def __init__(self, program: Program, units: UnitMap, widths: Widths) -> None:
        self._program, self._units, self._widths = program, units, widths
        own = program.parameters
        # Names that are tied to another in the program have no axes of their own there.
        self._axes: dict[Key, list[Axis]] = {
            key: sorted(axis for axis in axes if axis[0] in own) for key, axes in widths.removable.items()
        }
        self._said = {axis for axes in self._axes.values() for axis in axes}
        self.reasons: dict[str, str] = {}

    def expressible(self) -> list[Role]:
        """The roles that can shrink, in steps that give a network, each and any two of them."""
        roles = [role for entries in self._components() if (role := self._role(entries)) is not None]
        merged = True
        while merged:
            merged = False
            for one, other in combinations(roles, 2):
                if not self._go_together(one, other):
                    both = self._role((*one.entries, *other.entries))
                    roles = [role for role in roles if role not in (one, other)] + ([] if both is None else [both])
                    merged = True
                    break
        return roles

    def _components(self) -> list[tuple[Key, ...]]:
        """Entries that some unit is on axes of both of."""
        together: dict[Key, set[Key]] = {key: {key} for key, axes in self._axes.items() if axes}
        of_axis: dict[Axis, list[Key]] = {}
        for key, axes in self._axes.items():
            for axis in axes:
                of_axis.setdefault(axis, []).append(key)
        for axes in {self._units.slices[members[0]] for members in self._units.groups if members}:
            keys = [key for axis in axes for key in of_axis.get(axis, ())]
            for key in keys[1:]:
                both = together[keys[0]] | together[key]
                together.update(dict.fromkeys(both, both))
        return [tuple(sorted(keys, key=name_of)) for keys in {id(keys): keys for keys in together.values()}.values()]

    def _role(self, entries: tuple[Key, ...]) -> Role | None:
        """The role of these entries; None, and the reason noted, if they cannot shrink."""
        units = self._units
        axes = {axis for key in entries for axis in self._axes[key]}
        why = next((reason for axis in sorted(axes) if (reason := self._why_stays(axis)) is not None), None)
        members = np.unique(np.concatenate([units.axes[axis] for axis in axes])) if why is None else np.empty(0, int)
        groups = [group for group in units.groups if group and np.isin(group[0], members)]
        if why is None:
            others = {axis for group in groups for axis in units.slices[group[0]]} - self._said
            others = {axis for axis in others if axis[0] in self._program.parameters}
            why = f"is a width of {min(others)[0]} too, which has none" if others else None
        for role in () if why is not None else self._in_steps(entries, tuple(groups)):
            alike = self._answers_alike(role)
            if alike:
                return role
            if alike is not None:
                why = "is more than a width: the library's network of another size computes otherwise"
                break
        self.reasons[", ".join(map(name_of, entries))] = why or "cannot shrink by any step that the library runs"
        return None

    def _answers_alike(self, role: Role) -> bool | None:
        """Whether the library's smaller network answers as the whole one with what goes set to 0; nothing can be said
        where norms are rescaled that have no exact form. None if the library does not run a network of that size: some
        of its kernels take multiples only (grouped products of experts)."""
        gone = np.ones(self._units.n_units, dtype=bool)
        for group in role.groups:
            gone[list(group[: len(group) // role.parts])] = False
        tensors = {name: tensor.detach().cpu() for name, tensor in self._program.module.tensors().items()}
        left = {name: _kept(self._units, gone, name, tensor) for name, tensor in tensors.items()}
        if any(left[name].shape != tensors[name].shape for name in self._centred):
            return True
        shares = {
            name: len(left[name]) / len(tensor)
            for name, tensor in tensors.items()
            if tensor.dim() == 1 and len(left[name]) < len(tensor)
        }
        if has_halves(self._program):
            left |= {name: left[name].float() for name in shares}  # a factor must not be rounded to half precision
        entries = self._widths.scaled(role.left(1))
        assert entries is not None
        names, inputs = (
            [spec.name for spec in self._program.inputs],
            with_short_examples(self._program).example_inputs(2, seed=1),
        )
        aliases = self._program.aliases
        in_float32 = has_halves(self._program)
        trial = fill_network(entries, left, aliases, shares)
        del left  # of a large network there is no room for three
        try:
            with computing_in(torch.float32) if in_float32 else nullcontext(), torch.no_grad():
                small = answers(trial, names, inputs)
        except RuntimeError:  # what kernels raise on sizes that are not theirs
            return None
        finally:
            drop_weights(trial)
        masks = mask_units(self._program.module, self._units, gone)
        masked = ProgramModule(
            {name: tensor * masks[name] if name in masks else tensor for name, tensor in tensors.items()},
            self._program.module.graph,
        )
        with computing_in(torch.float32) if in_float32 else nullcontext(), torch.no_grad():
            leaves = tree_leaves(masked.eval()(*inputs))
        drop_weights(masked)
        whole = [leaf for leaf in leaves if isinstance(leaf, Tensor)]
        return all(
            a.shape == b.shape and float((a - b).abs().max()) <= _ALIKE * float(a.abs().max())
            for a, b in zip(whole, small, strict=True)
        )

    def _why_stays(self, axis: Axis) -> str | None:
        of_index = self._units.axes.get(axis)
        if of_index is None:
            return f"stays: {axis[0]} is not read along dimension {axis[1]}"
        if (of_index < 0).any():
            pin = self._units.pin_at.get(axis)
            return f"stays: {axis[0]} {pin.reason if pin is not None else 'is pinned'}"
        exact = self._units.walk.options.through_norm == "exact"
        if exact and axis[0] in self._centred:
            return f"stays: {axis[0]} centres, and a smaller norm of that kind is not exact (--through-norm rescale)"
        return None

    @property
    def _centred(self) -> set[str]:
        """Weights of norms that subtract a mean: what is removed exactly leaves a graph that no configuration says."""
        nodes = [n for n in self._program.module.graph.nodes if n.target in families.LAYER_NORM | families.GROUP_NORM]
        return {str(read.target) for node in nodes for read in node.all_input_nodes if read.op == "get_attr"}

    def _in_steps(self, entries: tuple[Key, ...], groups: tuple[tuple[int, ...], ...]) -> Iterator[Role]:
        """The role, the finest steps first, of those that the library builds."""
        whole = math.gcd(*map(len, groups))
        has_heads = any(self._units.heads[group[0]] for group in groups)
        tables = {key[:-1] for key in entries}
        silent = tuple(key for key in self._widths.heads if has_heads and key[:-1] in tables)
        for step in [n for n in range(1, whole) if whole % n == 0][:_MOST_STEPS]:
            role = Role(entries, silent, groups, whole // step)
            if all(self._builds(role.left(n)) for n in (1, min(2, role.parts - 1))):
                yield role

    def _go_together(self, one: Role, other: Role) -> bool:
        counts = ((1, 1), (1, min(2, other.parts - 1)), (min(2, one.parts - 1), 1))
        return all(self._builds({**one.left(a), **other.left(b)}) for a, b in counts)

    def _builds(self, factors: Mapping[Key, Fraction]) -> bool:
        return self._widths.expected(factors) is not None


def _kept(units: UnitMap, keep: Keep, name: str, tensor: Tensor) -> Tensor:
    """What is left of a tensor when only these units stay."""
    for dim in range(tensor.dim()):
        if (name, dim) in units.axes:
            kept = torch.from_numpy(np.flatnonzero(units.kept_along(keep, name, dim)))
            tensor = tensor.index_select(dim, kept)
    return tensor


def _tied(program: Program, units: UnitMap, roles: list[Role], routed: Mapping[str, Sequence[float]] | None) -> UnitMap:
    """The map with one unit for each part of a role; all that is in no role is pinned."""
    scores = score_units(units, program.parameters, lambda name, dim: True, program.masks)
    if routed is not None:
        scores = np.where(units.experts, routed_scores(units, routed), scores)
    unit_of = np.full(units.n_units + 1, -1, dtype=np.int64)
    n_units = 0
    for role in roles:
        for group in role.groups:
            best_last = np.asarray(group)[np.argsort(scores[list(group)], kind="stable")]
            for part, members in enumerate(np.split(best_last, role.parts)):
                unit_of[members] = n_units + part
        n_units += role.parts
    axes = {axis: unit_of[of_index] for axis, of_index in units.axes.items()}
    return replace(
        units, n_units=n_units, axes=axes, unit_of_component=unit_of[units.unit_of_component],
        pin_at={**dict(_pins(units, axes)), **units.pin_at},
    )  # fmt: skip


def _pins(units: UnitMap, axes: Mapping[Axis, Ids]) -> Iterator[tuple[Axis, Pin]]:
    for axis, of_index in axes.items():
        if ((of_index < 0) & (units.axes[axis] >= 0)).any():
            yield axis, Pin("is in no width that a configuration can say alone (--uniform)", axis[0])
