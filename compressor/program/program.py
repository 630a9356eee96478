"""`Program`: graph, tensors, masks, inputs and history in one value; it must never hold how any of them is computed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.utils._pytree import tree_leaves

from compressor.program.masks import apply_masks, cut, merge_masks, refuse_broken_masks
from compressor.program.module import ProgramModule
from compressor.program.record import Record
from compressor.program.shapes import Shapes, infer_shapes
from compressor.program.spec import InputSpec
from compressor.program.tables import table_rows


@dataclass(frozen=True)
class Program:
    """A network that needs no Python class.

    `masks` maps a parameter's name to a bool tensor of its shape, True = keep; a parameter without an entry is whole.
    `aliases` maps a further name of a tied parameter to the one the graph uses. `traced` are the shapes that a capture
    saw, which spares whoever asks for them a run of the graph; another module makes them void.
    """

    module: ProgramModule
    inputs: tuple[InputSpec, ...]
    masks: Mapping[str, Tensor] = field(default_factory=dict[str, Tensor])
    record: Record = field(default_factory=Record)
    aliases: Mapping[str, str] = field(default_factory=dict[str, str])
    traced: Shapes | None = field(default=None, repr=False, compare=False)

    @property
    def parameters(self) -> dict[str, nn.Parameter]:
        return dict(self.module.named_parameters())

    @property
    def n_parameters(self) -> int:
        """Elements of all parameters, tied ones once; zeroed ones count."""
        return sum(parameter.numel() for parameter in self.module.parameters())

    @property
    def n_zeroed(self) -> int:
        """Elements that the masks cut."""
        return sum(int((~mask).sum()) for mask in self.masks.values())

    @cached_property
    def shapes(self) -> Shapes:
        """Shape and type of every value in the graph at batch `sampled_batch`, by node name."""
        if self.traced is not None:
            return self.traced
        return infer_shapes(self.module, self.inputs, batch=self.sampled_batch)

    @property
    def sampled_batch(self) -> int:
        """The batch size at which `shapes` are given: 2, or what the network fixes."""
        if self.has_dynamic_batch or not self.inputs:
            return 2
        return next((spec.shape[0] or 2 for spec in self.inputs if spec.shape), 1)

    @property
    def n_outputs(self) -> int:
        """How many values the network returns, in whatever containers."""
        (output,) = (node for node in self.module.graph.nodes if node.op == "output")
        return sum(isinstance(leaf, fx.Node) for leaf in tree_leaves(output.args))

    @property
    def fixed_batch(self) -> int | None:
        """The one batch size that the network takes, None if it takes any."""
        return None if self.has_dynamic_batch else self.sampled_batch

    @property
    def has_dynamic_batch(self) -> bool:
        return all(spec.shape and spec.shape[0] is None for spec in self.inputs)

    def example_inputs(
        self, batch: int, *, seed: int = 0, dtype: torch.dtype | None = None, lengths: Mapping[str, int] | None = None
    ) -> tuple[Tensor, ...]:
        """Random inputs, reproducible; floating ones in `dtype` if given, ids inside the tables that read them, free
        dimensions as long as `lengths` says."""
        bounded = [replace(spec, high=high) for spec, high in zip(self.inputs, self._highs, strict=True)]
        examples = [spec.example(batch, seed + i, lengths or {}) for i, spec in enumerate(bounded)]
        return tuple(x.to(dtype) if dtype is not None and x.is_floating_point() else x for x in examples)

    def apply_masks(self) -> Program:
        """This program, with every weight that its masks cut set to 0, in place.

        For a training loop of your own on `module`, after every step of the optimizer: an optimizer gives cut weights
        values again. In place because it holds the very parameters, as training itself changes them.
        """
        apply_masks(self.module, self.masks)
        return self

    def check_masks(self) -> None:
        """Nothing, when every weight that the masks cut is 0: what all that takes a program relies on.

        Raises:  ModelError with how many are not, where, and what to do.
        """
        refuse_broken_masks(self.module, self.masks)

    @cached_property
    def _highs(self) -> tuple[int | None, ...]:
        """The bound of each input's values: what its specification says, and the tables that it is looked up in."""
        if all(spec.torch_dtype.is_floating_point for spec in self.inputs):
            return tuple(spec.high for spec in self.inputs)
        rows = table_rows(self.module.graph, self.shapes)
        names = [node.name for node in self.module.graph.nodes if node.op == "placeholder"]
        found = [(spec.high, rows.get(name)) for spec, name in zip(self.inputs, names, strict=True)]
        return tuple(min((bound for bound in bounds if bound is not None), default=None) for bounds in found)

    def clone(self) -> Program:
        """An independent copy: changing one never shows in the other."""
        return self.replace(module=self.module.clone(), masks=merge_masks(self.masks), traced=self.traced)

    def cut(self, masks: Mapping[str, Tensor]) -> Program:
        """This program under these masks, what they cut at 0; it shares what loses nothing, and is left as it is."""
        return self.replace(module=cut(self.module, masks), masks=masks, traced=self.traced)

    def replace(self, **changes: Any) -> Program:
        """The program with some fields changed; the rest is shared."""
        if "module" in changes or "inputs" in changes:
            changes.setdefault("traced", None)
        return replace(self, **changes)
