"""Torch-Pruning's own recipes on a ResNet for CIFAR-10, at a number of MACs.

`cut_once` is its one-shot cut, the ratio bisected. `sparse_cut` is the recipe of its reproduction (DepGraph, CIFAR-10):
epochs of group-sparse learning (`GroupNormPruner.regularize` at every step), scores normalised by the largest of each
group, then 400 small cuts, stopped where the MACs are nearest to what is asked. It takes one coupled group for all
stages of a network with parameter-free shortcuts, and not the offset that their padding makes; with `inner_only` that
group is left alone, so that nothing is cut there but what it understands.

Source:  Fang et al. 2023, "DepGraph"; github.com/VainF/Torch-Pruning, reproduce/main.py, method `group_sl`.
"""

from __future__ import annotations

import copy
import importlib.util
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from torch import nn

from compressor.cost import count_macs
from compressor.data import open_task
from compressor.models import build
from compressor.program import InputSpec, Program, capture
from compressor.training import BaseHook, fit

PACKAGE = "torch-pruning==1.6.1"
INPUT = InputSpec("image", (None, 3, 32, 32))
STEPS = 400
"""Cuts on the way to nothing left, as in its reproduction."""
REG = 5e-4
"""What its reproduction takes for CIFAR-10, on weights that go the most 2⁴ times that."""
_NEAR = 1.05
"""From this far above the wanted MACs on, every state is kept: the nearest one may be the last but one."""


@contextmanager
def torch_pruning_at(folder: Path | None, *, asked: bool) -> Iterator[Path | None]:
    """The block with Torch-Pruning on the path: from `folder`, as installed, or fetched if it is `asked` for; where it
    lies then, None where it is installed or nobody needs it.

    Raises:  SystemExit that says what to do where it is asked for, not there, and cannot be fetched.
    """
    there = folder is not None or importlib.util.find_spec("torch_pruning") is not None
    with TemporaryDirectory() as fetched:
        if asked and not there:
            pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target", fetched, PACKAGE]
            done = subprocess.run(pip, capture_output=True, text=True, check=False)
            if done.returncode:
                raise SystemExit(
                    "Torch-Pruning is asked for (--methods peer …), is not installed, and cannot be fetched from here\n"
                    f"elsewhere: pip install --no-deps --target FOLDER {PACKAGE}; then --peer FOLDER\n"
                    "or leave it out: --methods magnitude,admm"
                )
        found = folder or (Path(fetched) if asked and not there else None)
        sys.path.append(str(found or fetched))
        try:
            yield None if found is None else found.resolve()
        finally:
            sys.path.remove(str(found or fetched))


def cut_once(dense: Program, arch: str, ratio: float, *, group: bool) -> Program:
    """The network that one cut leaves, its ratio bisected until the MACs are as near as channels go."""
    macs, wanted = mac_counter(_module(dense, arch).eval()), count_macs(dense) / ratio
    low, high, tried = 0.0, 0.95, []
    for _ in range(12):
        middle = (low + high) / 2
        tried.append(_cut_at(dense, arch, middle, group))
        low, high = (low, middle) if macs(tried[-1]) <= wanted else (middle, high)
    return capture(min(tried, key=lambda module: abs(macs(module) - wanted)), [INPUT])


def sparse_cut(
    dense: Program, arch: str, ratio: float, data: Any, recipe: Any, *,
    inner_only: bool, seed: int, device: str, on_epoch: Callable[[Any], None],
) -> Program:  # fmt: skip
    """The network after the epochs of sparse learning and the small cuts."""
    module = _module(dense, arch).to(device)
    pruner = _sparse_pruner(module, device, inner_only)
    if recipe.epochs:
        hook = Regularised(pruner, module)
        fit(module, data, open_task(None), recipe, seed=seed, hooks=[hook], device=device, on_epoch=on_epoch)
    return capture(cut_to(pruner, module.to("cpu").eval(), count_macs(dense) / ratio), [INPUT])


class Regularised(BaseHook):
    """Its regulariser, added to the gradients where its own loop adds it."""

    def __init__(self, pruner: Any, module: nn.Module) -> None:
        self._pruner, self._module = pruner, module

    def on_gradients(self) -> None:
        self._pruner.regularize(self._module)


def cut_to(pruner: Any, module: nn.Module, wanted: float) -> nn.Module:
    """The module after as many of the pruner's small cuts as bring it nearest to the wanted MACs."""
    macs = mac_counter(module)
    before: nn.Module | None = None
    for _ in range(pruner.iterative_steps):
        for group in pruner.step(interactive=True):
            if macs(module) <= _NEAR * wanted:
                before = copy.deepcopy(module)
            group.prune()
            if macs(module) <= wanted:
                return module if before is None else min((before, module), key=lambda m: abs(macs(m) - wanted))
    raise RuntimeError(f"Torch-Pruning: {pruner.iterative_steps} steps leave {macs(module):,} of {wanted:,.0f} MACs")


def mac_counter(module: nn.Module) -> Callable[[nn.Module], int]:
    """MACs of the module and of copies of it with other widths: cuts leave the positions of a layer as they are."""
    positions: dict[str, int] = {}
    hooks = [
        layer.register_forward_hook(
            lambda _, __, out, name=name: positions.__setitem__(name, out[0, 0].numel() if out.dim() == 4 else 1)
        )
        for name, layer in module.named_modules()
        if isinstance(layer, nn.Conv2d | nn.Linear)
    ]
    with torch.no_grad():
        module(torch.zeros(1, 3, 32, 32))
    for hook in hooks:
        hook.remove()
    return lambda of: sum(n * of.get_submodule(name).weight.numel() for name, n in positions.items())  # type: ignore[union-attr,operator]


def _sparse_pruner(module: nn.Module, device: str, inner_only: bool) -> Any:
    import torch_pruning  # pyright: ignore[reportMissingImports]

    return torch_pruning.pruner.GroupNormPruner(
        module, torch.randn(1, 3, 32, 32, device=device), reg=REG, global_pruning=True, pruning_ratio=1.0,
        importance=torch_pruning.importance.GroupMagnitudeImportance(p=2, normalizer="max"), iterative_steps=STEPS,
        ignored_layers=[layer for name, layer in module.named_modules() if _is_whole(name, layer, inner_only)],
    )  # fmt: skip


def _is_whole(name: str, layer: nn.Module, inner_only: bool) -> bool:
    """The classes are not cut; with `inner_only` neither is what writes to a residual sum."""
    of_stream = name == "conv1" or (name.startswith("layer") and name.endswith(".conv2"))
    return isinstance(layer, nn.Linear) or (inner_only and of_stream)


def _cut_at(dense: Program, arch: str, pruning_ratio: float, group: bool) -> nn.Module:
    import torch_pruning  # pyright: ignore[reportMissingImports]

    module, importance = _module(dense, arch), torch_pruning.importance
    pruner = torch_pruning.pruner.BasePruner(
        module.eval(), torch.randn(1, 3, 32, 32), pruning_ratio=pruning_ratio, global_pruning=group,
        importance=importance.GroupMagnitudeImportance(p=2) if group else importance.MagnitudeImportance(p=1),
        ignored_layers=[layer for layer in module.modules() if isinstance(layer, nn.Linear)],
    )  # fmt: skip
    pruner.step()
    return module


def _module(dense: Program, arch: str) -> nn.Module:
    """The author's module with the dense weights; what cuts modules cannot cut a graph."""
    module = build(arch, {}, seed=0).module
    module.load_state_dict(copy.deepcopy(dense.module.state_dict()), strict=False)
    return module
