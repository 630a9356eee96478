"""`load`: any accepted source becomes a program, chosen by content.

It must never hold the reading of a format itself, nor run what a file holds unless the user trusts it.
"""

from __future__ import annotations

import contextlib
import copy
import inspect
import os
import stat
from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from io import BytesIO
from pathlib import Path
from typing import Any, BinaryIO

import torch
from torch import Tensor, fx, nn

from compressor.architectures import is_code
from compressor.data import first_inputs, open_data
from compressor.errors import ModelError, UsageError
from compressor.formats.archive import open_archive, open_exported, open_safetensors
from compressor.formats.checkpoint import is_checkpoint, read_checkpoint, with_references
from compressor.formats.detect import Kind, detect
from compressor.formats.folder import is_model_folder, read_model_folder
from compressor.formats.names import shown
from compressor.formats.pickled_module import MODULE_KEYS, fit_to_train
from compressor.formats.running import check_running
from compressor.formats.state_dict import check_filled, choice, find_state_dict, load_into, suggest
from compressor.formats.tensors import check_finite
from compressor.formats.where import absolute
from compressor.model_file import open_model_file
from compressor.models import (
    Built,
    InputHint,
    build,
    ending_at,
    exported_form,
    fill,
    image_of,
    keep_every_head,
    left_outside,
    taking_by_name,
)
from compressor.narrowing import is_mapping
from compressor.program import Inputs, InputSpec, Program, Record, as_specs, capture, half_type, taking_float32
from compressor.program.spec import without_values
from compressor.typed_torch import symbol_of
from compressor.units import format_dtype

INITIAL = "init"
"""The source that stands for an architecture's own initial weights."""


@dataclass(frozen=True)
class _Request:
    """What the user said about the source."""

    arch: str | None = None
    arch_args: Mapping[str, object] = field(default_factory=dict[str, object])
    inputs: tuple[InputSpec, ...] = ()
    data: str | None = None
    task: str | None = None
    trust_pickle: bool = False
    seed: int = 0
    weights: str | None = None
    trust_code: bool = True
    base: Path | None = None
    trust_data: bool = True
    on_module: Callable[[nn.Module], None] | None = None
    until: tuple[str, ...] = ()

    def build(self) -> Built:
        """The module of the architecture that was asked for."""
        assert self.arch is not None
        return build(self.arch, self.arch_args, seed=self.seed, trust_code=self.trust_code, base=self.base)

    def record(self, notes: Sequence[str] = (), built: Built | None = None) -> Record:
        arch_args = dict(self.arch_args) if self.arch is not None else {}
        configuration = dict(built.configuration) if built is not None else {}
        arch = self.arch if built is None else built.arch or self.arch
        chosen = [] if arch == self.arch else [f"--arch {self.arch}: {arch} was taken"]
        told = (*notes, *chosen)
        return Record(
            arch, arch_args, self.data, self.task, notes=told, configuration=configuration,
            until=self.until,
        )  # fmt: skip

    def inputs_of_data(self, module: nn.Module) -> tuple[InputSpec, ...]:
        """What goes into the module, by the first sample of the data; empty where there are none."""
        if self.data is None:
            return ()
        found = first_inputs(open_data(self.data, base=self.base, trust_code=self.trust_data))
        taken = [name for name in inspect.signature(module.forward).parameters if name in found]
        specs = as_specs({name: found[name] for name in taken or found})
        return specs if taken else tuple(replace(spec, name=f"input_{i}") for i, spec in enumerate(specs))


@dataclass(frozen=True)
class _Opened:
    file: BinaryIO
    name: str
    folder: Path | None


def load(
    source: str | Path | BinaryIO | nn.Module,
    inputs: Inputs = (),
    *,
    arch: str | None = None,
    arch_args: Mapping[str, object] | None = None,
    data: str | None = None,
    task: str | None = None,
    trust_pickle: bool = False,
    seed: int = 0,
    weights: str | None = None,
    trust_code: bool = True,
    trust_data: bool | None = None,
    base: Path | None = None,
    on_module: Callable[[nn.Module], None] | None = None,
    until: Sequence[str] = (),
) -> Program:
    """The program of a module, of a checkpoint, an ONNX file, a state dict with its `arch`, `init` with an `arch`, or a
    directory of the transformers library.

    `inputs` are example batches, texts as `"1x28x28"`, or `InputSpec`s; where they are needed and not given, the first
    sample of `data` says what goes in. `arch` and `inputs` are not needed, and not used, for a checkpoint of ours;
    `data` and `task` replace what it remembers. A stream is read whole. `trust_pickle` opens files that can run code.
    `weights` is the key of the state dict in a file that holds several. An `arch` that is code is the caller's own
    word: where it is not, `trust_code` must be False, and `trust_data` for `data`, where that differs. A file or module
    is looked for below `base` first. `on_module` gets the module that the program was captured from, where there is
    one: of an `arch`, which for this a checkpoint of ours may be given too, or out of a pickle. `until` names layers of
    it that the graph ends at: what they return is its output, and what its code does behind them stays outside.

    Raises:  ModelError if the source is no model, is damaged or does not fit; UnsafeFileError if opening it
             could run code; UsageError if `arch` or `inputs` are needed and not given; UntrustedCodeError for an `arch`
             that is code and not trusted.
    """
    data, task = (ref if ref is None else absolute(ref, Path.cwd()) for ref in (data, task))
    request = _Request(
        arch, dict(arch_args or {}), as_specs(inputs), data, task, trust_pickle, seed, weights, trust_code, base,
        trust_code if trust_data is None else trust_data, on_module, tuple(until),
    )  # fmt: skip
    if isinstance(source, nn.Module):
        return _from_module(source, f"this {type(source).__name__}", request)
    if source == INITIAL:
        return _initial(request)
    if isinstance(source, (str, Path)) and is_model_folder(source):
        arch = request.arch or f"transformers:{source}"
        return _from_state_dict(read_model_folder(Path(source)), str(source), replace(request, arch=arch))
    with opened_file(source) as opened:
        return _load(opened, request)


def from_bytes(content: bytes, **options: Any) -> Program:
    """The program in the bytes of a file; options as for `load`."""
    return load(BytesIO(content), **options)


def _initial(request: _Request) -> Program:
    if request.arch is None:
        raise UsageError(f"{INITIAL}: needs --arch, to know which architecture's initial weights are meant")
    built = request.build()
    note = f"initial weights of {request.arch}, seed {request.seed}: not trained"
    return _captured(built.module, _inputs(request, built), request, [note], built)


def _load(opened: _Opened, request: _Request) -> Program:
    kind = detect(opened.file, opened.name)
    if kind is Kind.SAFETENSORS:
        return _from_state_dict(open_safetensors(opened.file, opened.name), opened.name, request)
    if kind is Kind.TORCH:
        content = open_archive(opened.file, opened.name, trust_pickle=request.trust_pickle)
        return _from_content(content, opened, request)
    if kind is Kind.EXPORTED:
        module = open_exported(opened.file, opened.name, trust_pickle=request.trust_pickle)
        return _from_module(module, opened.name, request, _placeholders(module))
    if kind is Kind.ONNX:
        from compressor.formats.onnx_import import import_onnx  # onnx itself is loaded only when it is needed

        if request.until:
            _refuse_until(request, f"{opened.name} is ONNX; onnx.utils.extract_model cuts such a file")

        program = import_onnx(
            opened.file, opened.name, folder=opened.folder, inputs=request.inputs, record=request.record()
        )
        _check_values(program, opened.name)
        return program
    raise ModelError(
        f"{opened.name}: is {kind.value}, which cannot be edited any more\n"
        f"give the state dict of the model that it was made from, with --arch"
    )


def chosen_weights(content: Any, name: str, key: str | None) -> Any:
    """What is at a key with dots of the file's dictionaries; all of it without one.

    Raises:  UsageError naming the keys that there are.
    """
    for part in key.split(".") if key is not None else ():
        if not is_mapping(content) or part not in content:
            held = [shown(k, 30) for k, v in content.items() if is_mapping(v)] if is_mapping(content) else []
            raise UsageError(
                f"--weights {key}: {name} has no {part}; it holds {', '.join(held[:8]) or 'no dictionaries'}"
            )
        content = content[part]
    return content


def _refuse_until(request: _Request, why: str) -> None:
    raise UsageError(f"--until {', '.join(request.until)}: says where a PyTorch network ends, and {why}")


def _check_values(program: Program, name: str) -> None:
    try:
        check_finite(program.module.tensors(), program.parameters)
        check_running(program)
    except ModelError as error:
        raise ModelError(f"{name}: {error}") from error


def _from_content(content: Any, opened: _Opened, request: _Request) -> Program:
    if is_checkpoint(content):
        program = read_checkpoint(content, opened.name, opened.folder)
        if request.on_module is not None and request.arch is not None and request.trust_code:
            request.on_module(_code_of(program, request))
        if request.until and request.until != program.record.until:
            _refuse_until(request, f"{opened.name} is a checkpoint, whose graph was made already")
        return with_references(program, request.data, request.task)
    content = chosen_weights(content, opened.name, request.weights)
    if isinstance(content, nn.Module):
        return _from_pickled(content, opened.name, request)
    state, note = find_state_dict(content)
    if state is None and is_mapping(content):
        held = [key for key in MODULE_KEYS if isinstance(content.get(key), nn.Module)]
        if held:
            return _from_pickled(content[held[0]], opened.name, request, [choice(held)] if held[1:] else [])
    if state is None:
        raise ModelError(f"{opened.name}: holds no weights by name{_found(content)}; give a state dict or a checkpoint")
    return _from_state_dict(state, opened.name, request, [] if note is None else [note])


def _code_of(program: Program, request: _Request) -> nn.Module:
    """The module of an architecture that is named again, with the weights of a checkpoint; what of it the checkpoint
    does not hold (auxiliary heads) is new."""
    arguments = request.arch_args or program.record.arch_args
    module = replace(request, arch_args=arguments).build().module
    state, tensors = module.state_dict(), program.module.tensors()
    known = {name: tensors.get(program.aliases.get(name, name)) for name in state}
    fitting = {name: t.detach() for name, t in known.items() if t is not None and t.shape == state[name].shape}
    module.load_state_dict({**state, **fitting})
    return module


def _from_state_dict(state: Mapping[str, Tensor], name: str, request: _Request, notes: Sequence[str] = ()) -> Program:
    if request.arch is None:
        fitting = suggest(state)
        hint = f"; --arch {fitting[0]} fits" if fitting else ", such as torchvision:resnet50 or path/to/net.py:Net"
        raise ModelError(f"{name}: holds weights but not the network; say which with --arch{hint}")
    kept = half_type(state.values())
    filled = fill(request.arch, request.arch_args, state, kept or torch.float32)
    if filled is not None:
        said = check_filled(filled[0].module, state, filled[1], name, request.arch)
        inputs, told = _inputs(request, filled[0]), [*notes, *said]
        program = _captured(filled[0].module, inputs, request, told, filled[0], owned=True)
        return program if kept is None else taking_float32(program)
    built = request.build()
    inputs = _inputs(request, built)
    said = load_into(built.module, state, name, request.arch)
    return _captured(built.module, inputs, request, [*notes, *said], built, owned=not is_code(request.arch))


def _from_module(
    module: nn.Module, name: str, request: _Request, known: tuple[InputSpec, ...] = (), notes: Sequence[str] = ()
) -> Program:
    inputs = request.inputs or known or request.inputs_of_data(module)
    if not inputs:
        raise UsageError(
            f"{name}: is a module that does not say what goes in; give --input, such as 3x224x224, or --data "
            '(in Python: an example batch, or "3x224x224")'
        )
    if any(tensor.device.type != "cpu" for tensor in (*module.parameters(), *module.buffers())):
        module = copy.deepcopy(module).cpu()
    return _captured(module, inputs, request, notes)


def _from_pickled(module: nn.Module, name: str, request: _Request, notes: Sequence[str] = ()) -> Program:
    """The program of a module as its author's code saved it, in full precision and as something to train."""
    module, said = fit_to_train(module)
    image = image_of(module)
    known = () if image is None else (InputSpec("input", (None, *image)),)
    return _from_module(module, name, request, known, (*notes, *said))


def _captured(
    module: nn.Module, inputs: tuple[InputSpec, ...], request: _Request, notes: Sequence[str],
    built: Built | None = None, *, owned: bool = False,
) -> Program:  # fmt: skip
    """The program of a module; of an `owned` one nobody else has the weights, unless somebody asked for the module."""
    inputs = without_values(inputs)
    if isinstance(module, fx.GraphModule):
        if request.until:
            _refuse_until(request, "an exported archive is a graph already")
        return capture(module, inputs, record=request.record(notes, built))
    names = [spec.name for spec in inputs]
    with exported_form(module):
        examples = [spec.example(1, i) for i, spec in enumerate(inputs)]
        keep_every_head(module.eval(), names, examples)
        told = [*notes, *left_outside(module, request.until)]
        with taking_by_name(module, names), ending_at(module, request.until, examples):
            program = capture(
                module, inputs, record=request.record(told, built), owned=owned and request.on_module is None
            )
    if request.on_module is not None:
        request.on_module(module)
    return program


def _inputs(request: _Request, built: Built) -> tuple[InputSpec, ...]:
    if request.inputs:
        return request.inputs
    if built.inputs:
        return tuple(_spec_of(hint) for hint in built.inputs)
    if not built.input_shapes and (found := request.inputs_of_data(built.module)):
        return found
    if not built.input_shapes:
        raise UsageError(
            f"--arch {request.arch}: does not say what goes in; give --input, such as 3x224x224, or --data"
        )
    names = ["input", *(f"input_{i}" for i in range(1, len(built.input_shapes)))]
    return tuple(InputSpec(name, (None, *shape)) for name, shape in zip(names, built.input_shapes, strict=True))


def _spec_of(hint: InputHint) -> InputSpec:
    return InputSpec(hint.name, (None, *hint.shape), hint.dtype, hint.high, ("", *hint.free) if hint.free else ())


def _placeholders(module: nn.Module) -> tuple[InputSpec, ...]:
    """The inputs that an exported module was made for."""
    specs: list[InputSpec] = []
    graph: Any = module.graph
    for node in graph.nodes:
        value = node.meta.get("val") if node.op == "placeholder" else None
        if isinstance(value, Tensor) and value.dim():
            sizes = [2 if symbol_of(size) is not None else size for size in value.shape[1:]]
            specs.append(InputSpec(node.name, (None, *sizes), format_dtype(value.dtype)))
    return tuple(specs)


@contextlib.contextmanager
def opened_file(source: str | Path | BinaryIO) -> Generator[_Opened]:
    """An open file that can seek; a stream or a pipe is read whole: torch's readers go back and forth."""
    if not isinstance(source, (str, Path)):
        yield _Opened(BytesIO(source.read()), _stream_name(source), None)
        return
    with open_model_file(Path(source)) as file:
        if stat.S_ISREG(os.fstat(file.fileno()).st_mode):
            yield _Opened(file, str(source), Path(os.path.realpath(source)).parent)
        else:
            yield _Opened(BytesIO(file.read()), str(source), None)


def _stream_name(stream: BinaryIO) -> str:
    name = getattr(stream, "name", None)
    return name if isinstance(name, str) and name != "<stdin>" else "standard input"


def _found(content: Any) -> str:
    if is_mapping(content):
        keys = ", ".join(shown(key, 30) for key in list(content)[:5])
        return f" (its keys are {keys})" if content else " (it is an empty dictionary)"
    return f" (it is a {'tensor' if isinstance(content, torch.Tensor) else type(content).__name__})"
