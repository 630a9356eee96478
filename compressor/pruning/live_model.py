"""A user's live module seen by parameter name, whatever it is wrapped in; it must never change how it trains."""

from __future__ import annotations

import copy
import inspect
from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import torch
import torch.utils._pytree as pytree
from torch import Tensor, nn

from compressor.errors import ModelError, UsageError
from compressor.models import ending_at_heads, exported_form, keep_every_head, takes_by_name, taking_by_name
from compressor.program import InputSpec, Program, capture, parse_input

_WRAPPERS = ("module", "_orig_mod")
"""Where `DistributedDataParallel`, `AveragedModel` and timm's EMA, and where `torch.compile` keep the model."""

_ADAPTED = ".base_layer."
"""Where PEFT puts a layer whose result an adapter adds to."""

_CLOSE = 1e-3
"""Largest difference between model and program, relative to the largest output: another network differs by more, the
rounding of float32 in another order by less."""


def unwrapped(model: nn.Module) -> nn.Module:
    """The model itself, out of what wraps it for training."""
    while True:
        inner = next((m for name in _WRAPPERS if (m := model._modules.get(name)) is not None), None)
        if inner is None or len(model._modules) != 1 or any(True for _ in model.parameters(recurse=False)):
            return model
        model = inner


@contextmanager
def _in_full_precision(model: nn.Module) -> Generator[None]:
    """For the time of the block, the forward without the autocast that accelerate (transformers' Trainer) puts around
    it."""
    own, within = vars(model).get("_original_forward"), vars(model).get("forward")
    if own is None or within is None:
        yield
        return
    model.forward = own
    try:
        yield
    finally:
        model.forward = within


class View:
    """The parameters of a live model that a program reads, under the program's names."""

    def __init__(self, parameters: Mapping[str, nn.Parameter]) -> None:
        self._parameters = dict(parameters)

    def parameters(self) -> Iterator[nn.Parameter]:
        return iter(self._parameters.values())

    def named_parameters(self) -> Iterator[tuple[str, nn.Parameter]]:
        return iter(self._parameters.items())

    @contextmanager
    def gradients_at(self, scale: Tensor | None) -> Generator[None]:
        """Gradients as they are without loss scaling, for the time of the block: a fused optimizer divides by the scale
        inside its step, after the hooks."""
        gradients = [p.grad for p in self._parameters.values() if p.grad is not None] if scale is not None else []
        if scale is None or not gradients:
            yield
            return
        torch._foreach_div_(gradients, scale.to(gradients[0]))
        yield
        torch._foreach_mul_(gradients, scale.to(gradients[0]))


class LiveModel:
    """A module that somebody trains, and where its parameters are."""

    def __init__(self, model: nn.Module) -> None:
        self._module, self._by_name = unwrapped(model), False
        self._homes = _homes_of(self._module)
        if not self._homes:
            raise UsageError("Pruner: the model has no parameters")

    def captured(self, inputs: Any) -> Program:
        """The evaluation graph of a copy; the model keeps its mode, its device and its hooks."""
        specs = specs_of(inputs)
        try:
            copied = copy.deepcopy(self._module)
        except Exception as error:  # a module may hold anything
            raise ModelError(f"Pruner: the model cannot be copied: {type(error).__name__}: {error}") from error
        copied = copied.cpu()
        self._by_name = isinstance(inputs, Mapping)
        with _in_full_precision(copied), exported_form(copied):
            if self._by_name:
                takes_by_name(copied, [spec.name for spec in specs])
            return capture(copied, specs)

    def call_as(self, program: Program) -> None:
        """Calls it with inputs by the names that the program gives them, where `forward` knows these."""
        known = inspect.signature(self._module.forward).parameters
        self._by_name = all(spec.name in known for spec in program.inputs)

    def view(self, program: Program) -> View:
        """The live parameters by the program's names."""
        return View({name: self._homes[name][2] for name in program.parameters})

    def unread(self, program: Program) -> tuple[str, ...]:
        """Parameters that the program does not read."""
        return tuple(name for name in self._homes if name not in program.parameters and name not in program.aliases)

    def check_fits(self, program: Program) -> None:
        """Nothing, when it has the program's parameters: it, or a part of it, such as the network in a module that
        holds its losses and metrics too; what is seen is then that part.

        Raises:  ModelError if a parameter of the program is not there, or has another shape.
        """
        wanted = program.parameters.keys()
        fitting = (part for part in self._module.modules() if wanted <= _homes_of(part).keys())
        self._module = next(fitting, self._module)
        self._homes = _homes_of(self._module)
        for name, parameter in program.parameters.items():
            if name not in self._homes:
                is_adapted = any(_ADAPTED in own for own in self._homes)
                merge, other = (
                    "merge its adapters, which would add to what is cut",
                    "is it the network that was pruned?",
                )
                raise ModelError(f"{name}: the model has no such parameter; {merge if is_adapted else other}")
            found = tuple(self._homes[name][2].shape)
            if found != tuple(parameter.shape):
                raise ModelError(f"{name}: is {found} in the model, {tuple(parameter.shape)} in what was pruned")

    def check_unchanged(self) -> None:
        """Raises:  ModelError naming a parameter that is another one than when this was made: optimizers and masks
        would go on with the old one."""
        for name, (module, own, parameter) in self._homes.items():
            if module._parameters.get(own) is not parameter:
                raise ModelError(
                    f"{name}: was replaced while the model was pruned\n"
                    "make the Pruner after the model has its final form"
                )

    @torch.no_grad()
    def mask(self, masks: Mapping[str, Tensor]) -> None:
        """Sets what is cut to 0, in place."""
        for name, mask in masks.items():
            parameter = self._homes[name][2]
            parameter.masked_fill_(~mask.to(parameter.device), 0.0)

    @torch.no_grad()
    def program(self, dense: Program, masks: Mapping[str, Tensor], *, check: bool = True) -> Program:
        """The program with the model's tensors and these masks; the model itself is only read.

        Raises:  ModelError if the two compute different things: the model was changed since it was captured.
        """
        now = dense.clone()
        there = self.tensors
        for name, tensor in now.module.tensors().items():
            if name in there:
                tensor.data.copy_(there[name].detach())
        now = now.replace(masks={name: mask.cpu() for name, mask in masks.items()}, traced=dense.traced)
        if check:
            self._check_same(now)
        return now

    @contextmanager
    def taking_inputs_of(self, program: Program) -> Generator[nn.Module]:
        """The module, which for the block takes inputs in the program's order, and by name where it takes them so; a
        detector of torchvision ends at its heads."""
        names = [spec.name for spec in program.inputs]
        with _in_full_precision(self._module), ending_at_heads(self._module):
            keep_every_head(self._module, names, [x.to(self.device) for x in program.example_inputs(1)])
            with taking_by_name(self._module, names if self._by_name else ()):
                yield self._module

    def adopt(self, program: Program) -> None:
        """From now on the module holds the program's own parameters and buffers: the very tensors."""
        given = program.module.tensors()
        owners = {id(home[2]): name for name, home in self._homes.items() if name in given}
        names = {
            name: program.aliases.get(name) or owners.get(id(tensor), name) for name, tensor in self.tensors.items()
        }
        self.hold({name: given[known] for name, known in names.items() if known in given})
        self._module.to(self.device)

    def hold(self, tensors: Mapping[str, Tensor]) -> None:
        """Puts these tensors in place of the module's own; what has no entry stays."""
        for name, (module, own, _) in self._homes.items():
            if isinstance(given := tensors.get(name), nn.Parameter):
                module._parameters[own] = given
                self._homes[name] = (module, own, given)
        for prefix, module in self._module.named_modules(remove_duplicate=False):
            for own in module._buffers:
                if (given := tensors.get(f"{prefix}.{own}" if prefix else own)) is not None:
                    module._buffers[own] = given

    @property
    def device(self) -> torch.device:
        """Where its first parameter is."""
        return next(iter(self._homes.values()))[2].device

    @property
    def tensors(self) -> dict[str, Tensor]:
        """Parameters and buffers, each tied one under all of its names."""
        return {**dict(self._module.named_buffers(remove_duplicate=False)), **{n: h[2] for n, h in self._homes.items()}}

    def _check_same(self, program: Program) -> None:
        modes = {module: module.training for module in self._module.modules()}
        inputs = program.example_inputs(1 if not program.has_dynamic_batch else 2)
        self._module.eval()
        try:
            with self.taking_inputs_of(program) as model:
                given = _tensors(model(*[x.to(self.device) for x in inputs]))
            made = _tensors(program.module.eval()(*inputs))
        finally:
            for module, mode in modes.items():
                module.training = mode
        for mine, theirs in zip(made, given, strict=False):
            if mine.shape == theirs.shape and torch.is_floating_point(mine):
                largest = float(theirs.abs().max()) if theirs.numel() else 0.0
                off = float((mine.double() - theirs.cpu().double()).abs().max()) if theirs.numel() else 0.0
                if off > _CLOSE * max(largest, 1e-6):
                    raise ModelError(
                        f"the model computes something else than when it was captured: off by {off:.2g} of"
                        f" {largest:.2g}\nmake the Pruner after the model has its final form"
                    )


def _homes_of(module: nn.Module) -> dict[str, tuple[nn.Module, str, nn.Parameter]]:
    """Where each parameter is, under all of its names: the module that holds it, its name there."""
    return {
        f"{prefix}.{name}" if prefix else name: (part, name, parameter)
        for prefix, part in module.named_modules(remove_duplicate=False)
        for name, parameter in part._parameters.items()
        if parameter is not None
    }


def specs_of(inputs: Any) -> list[InputSpec]:
    """Specifications from example tensors with a batch, from texts without one, or as they are; a dictionary says which
    parameter of `forward` each one is.

    Raises:  UsageError for anything else.
    """
    if isinstance(inputs, Mapping):
        return [replace(specs_of(one)[0], name=str(name)) for name, one in inputs.items()]
    given: Sequence[Any] = inputs if isinstance(inputs, (tuple, list)) else [inputs]
    found: list[InputSpec] = []
    for position, one in enumerate(given):
        name = "input" if position == 0 else f"input_{position}"
        if isinstance(one, InputSpec):
            found.append(one)
        elif isinstance(one, str):
            found.append(parse_input(one, position))
        elif isinstance(one, Tensor) and one.dim():
            high = (
                int(one.max()) + 1 if one.numel() and not one.is_floating_point() and one.dtype != torch.bool else None
            )
            dtype = str(one.dtype).removeprefix("torch.")
            found.append(InputSpec(name, (None, *one.shape[1:]), dtype, high))
        else:
            raise UsageError(
                f"Pruner: input {position} is a {type(one).__name__}; give an example tensor with its batch, or a text"
                " such as 3x224x224"
            )
    return found


def _tensors(outputs: Any) -> list[Tensor]:
    leaves = pytree.tree_leaves(outputs)
    return [leaf for leaf in leaves if isinstance(leaf, Tensor)]
