"""`torch.export` of a module, with what stands against it in words; it must never change what torch returns."""

from __future__ import annotations

import contextlib
import inspect
import io
import logging
import traceback
import warnings
from collections.abc import Generator, Mapping, Sequence

import torch
from torch import Tensor, fx, nn
from torch.nn.modules.module import register_module_forward_hook

from compressor.program.known import reading_constants
from compressor.program.normalise import users_line
from compressor.program.refusals import refusal_of
from compressor.typed_torch import named_modules


class NoTraceError(Exception):
    """torch cannot export the module; the message says why and in which of the user's lines, `way_out` what to do."""

    def __init__(self, message: str, way_out: str = "") -> None:
        super().__init__(message)
        self.way_out = way_out


def trace(
    model: nn.Module, examples: Sequence[Tensor], *, open_dims: Sequence[Sequence[int]]
) -> tuple[torch.export.ExportedProgram, fx.GraphModule]:
    """The export at the sizes of the examples, but for the dimensions of each that are to be open, and its module.

    Raises:  NoTraceError if torch cannot export it.
    """
    dynamic = tuple(dict.fromkeys(dims, torch.export.Dim.AUTO) for dims in open_dims)
    shapes = _by_signature(model, dynamic) if any(dynamic) else None
    returned: list[str] = []
    try:
        with _quiet(), reading_constants(model), _told_layers(model, returned):
            exported = torch.export.export(model, tuple(examples), dynamic_shapes=shapes)
            return exported, exported.module()
    except Exception as error:  # torch.export has no common base class for what it raises
        line = users_line(str(error)) or users_line("".join(traceback.format_tb(error.__traceback__)))
        found = refusal_of(error, returned[-1] if returned else "")
        raise NoTraceError(found.what + (f" ({line})" if line else ""), found.way_out) from error


def _by_signature(model: nn.Module, dynamic: tuple[Mapping[int, object], ...]) -> tuple[object, ...]:
    """The same, with several inputs collected where `forward` takes `*args`."""
    parameters = list(inspect.signature(model.forward).parameters.values())
    fixed = [p for p in parameters if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
    if len(fixed) < len(dynamic) and any(p.kind is p.VAR_POSITIONAL for p in parameters):
        return (*dynamic[: len(fixed)], dynamic[len(fixed) :])
    return dynamic


@contextlib.contextmanager
def _told_layers(model: nn.Module, returned: list[str]) -> Generator[None]:
    """Appends the name of every module of the model that returns."""
    names = {id(part): name for name, part in named_modules(model) if name}

    def tell(part: nn.Module, _: object, __: object) -> None:
        if id(part) in names:
            returned.append(names[id(part)])

    handle = register_module_forward_hook(tell)
    try:
        yield
    finally:
        handle.remove()


@contextlib.contextmanager
def _quiet() -> Generator[None]:
    """Without torch's own warnings, log lines and half-made graphs, which speak to its developers."""
    before = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stderr(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)
