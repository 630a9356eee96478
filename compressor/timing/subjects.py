"""Models to be measured, opened: which runtime they belong to, how large they are; it must never time
them."""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import onnx

from compressor.cost import count_macs
from compressor.errors import ModelError, UsageError, first_line
from compressor.formats import is_onnx, load
from compressor.formats.onnx_weights import count_onnx_parameters
from compressor.program import InputSpec, Program
from compressor.timing.measured import Kind, Subject
from compressor.timing.onnx_runner import OnnxRunner
from compressor.timing.providers import Provider
from compressor.timing.torch_runner import TorchRunner

_CHUNK_BYTES = 1 << 20


@dataclass(frozen=True)
class Opened:
    """A subject and what runs it: a program, or the path of an ONNX file."""

    subject: Subject
    program: Program | None
    path: Path | None

    def runner(
        self,
        provider: Provider,
        threads: int,
        *,
        oversubscribed: bool = False,
        inputs: Sequence[InputSpec] = (),
    ) -> OnnxRunner | TorchRunner:
        """Ready to be prepared for a batch size.

        Raises:  ProviderError if the provider is not there for this kind; ModelError if the model cannot be
                 opened.
        """
        if self.program is not None:
            return TorchRunner(self.program, provider, self.subject.name)
        return self.onnx_runner(provider, threads, oversubscribed=oversubscribed, inputs=inputs)

    def onnx_runner(
        self,
        provider: Provider,
        threads: int,
        *,
        oversubscribed: bool = False,
        inputs: Sequence[InputSpec] = (),
        profile: Path | None = None,
    ) -> OnnxRunner:
        """The same where it is known to be an ONNX file."""
        if self.path is None:
            raise ModelError(f"{self.subject.name}: not an ONNX file")
        return OnnxRunner(self.path, provider, threads, oversubscribed=oversubscribed, inputs=inputs, profile=profile)


def open_subjects(models: Sequence[str | Path | Program], provider: Provider) -> tuple[Opened, ...]:
    """All models, each with a name of its own.

    Raises:  UsageError if there is none; ModelError if a file is no model, or weights that masks cut are not 0.
    """
    if not models:
        raise UsageError("bench: no model given; name at least one .pt or .onnx file")
    names = _names(models)
    return tuple(_open(model, name, provider) for model, name in zip(models, names, strict=True))


def _open(model: str | Path | Program, name: str, provider: Provider) -> Opened:
    if isinstance(model, Program):
        return Opened(_program_subject(model, name, provider, None), model, None)
    path = Path(model)
    if not path.is_file():
        raise ModelError(f"{path}: no such file" if not path.exists() else f"{path}: not a file")
    if is_onnx(path):
        return Opened(_onnx_subject(path, name), None, path)
    program = load(path)
    return Opened(_program_subject(program, name, provider, path), program, path)


def _program_subject(program: Program, name: str, provider: Provider, path: Path | None) -> Subject:
    program.check_masks()
    kind: Kind = "torch-compile" if provider.torch_compile else "torch"
    if path is not None:
        return Subject(name, str(path), kind, path.stat().st_size, program.n_parameters, macs=count_macs(program))
    size = sum(tensor.nbytes for tensor in program.module.tensors().values())
    return Subject(name, None, kind, size, program.n_parameters, macs=count_macs(program))


def _onnx_subject(path: Path, name: str) -> Subject:
    """The file's size with its external data, and its parameters as `export` counts them."""
    try:
        model = onnx.load(str(path), load_external_data=False)
    except Exception as error:  # protobuf has its own classes, by implementation
        raise ModelError(f"{path}: not a readable ONNX file: {first_line(error)}") from error
    size = path.stat().st_size
    for location in external_files(model):
        beside = path.parent / location
        if not beside.is_file():
            raise ModelError(f"{path}: its weights are in {location}, which is not there; keep the two files together")
        size += beside.stat().st_size
    noted = next((entry.value for entry in model.metadata_props if entry.key == "compress.macs"), "")
    macs = int(noted) if noted.isdecimal() else None
    return Subject(name, str(path), "onnx", size, count_onnx_parameters(model), macs=macs)


def gzip_bytes(entry: Opened) -> int | None:
    """Size of a subject's files after gzip -6, what a web server sends; None where there is no file."""
    if entry.path is None and entry.subject.path is None:
        return None
    main = Path(entry.subject.path or "")
    beside = external_files(onnx.load(str(main), load_external_data=False)) if entry.program is None else []
    return sum(_gzipped(path) for path in (main, *(main.parent / name for name in beside)))


def _gzipped(path: Path) -> int:
    squeeze, size = zlib.compressobj(6, zlib.DEFLATED, 31), 0
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK_BYTES):
            size += len(squeeze.compress(chunk))
    return size + len(squeeze.flush())


def external_files(model: onnx.ModelProto) -> list[str]:
    """Names of the files that hold weights of an ONNX model, each once."""
    entries = (entry for tensor in model.graph.initializer for entry in tensor.external_data)
    return sorted({entry.value for entry in entries if entry.key == "location"})


def _names(models: Sequence[str | Path | Program]) -> list[str]:
    """File names; whole paths where different files have one; numbered where even those are alike."""
    paths: dict[str, set[str]] = {}
    short = [_short(model, i) for i, model in enumerate(models)]
    for name, model in zip(short, models, strict=True):
        paths.setdefault(name, set()).add("" if isinstance(model, Program) else str(model))
    longer = [
        name if len(paths[name]) == 1 or isinstance(model, Program) else str(model)
        for name, model in zip(short, models, strict=True)
    ]
    return [
        name if longer.count(name) == 1 else f"{name} #{longer[:i].count(name) + 1}" for i, name in enumerate(longer)
    ]


def _short(model: str | Path | Program, position: int) -> str:
    if isinstance(model, Program):
        return model.record.arch or f"program {position + 1}"
    return Path(model).name
