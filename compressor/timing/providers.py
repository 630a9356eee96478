"""Execution providers by the names that users write, and whether they are there; it must never open a
model."""

from __future__ import annotations

from dataclasses import dataclass

import onnxruntime as ort
import torch

from compressor.errors import ProviderError, UsageError
from compressor.nearest import did_you_mean


@dataclass(frozen=True)
class Provider:
    """One name for `--provider`.

    `ort_name` is onnxruntime's; `package` what to install for it; `memory` where onnxruntime keeps its
    tensors; `torch_device` the device on which a .pt runs beside it, None where torch has none;
    `before_cpu` who takes the operators that it cannot run.
    """

    name: str
    ort_name: str
    package: str
    memory: str = "cpu"
    torch_device: str | None = None
    torch_compile: bool = False
    before_cpu: tuple[str, ...] = ()

    @property
    def is_device(self) -> bool:
        """Whether it is anything but this machine's processor."""
        return self.ort_name != "CPUExecutionProvider"


_TABLE = {
    provider.name: provider
    for provider in (
        Provider("cpu", "CPUExecutionProvider", "onnxruntime", torch_device="cpu"),
        Provider("cuda", "CUDAExecutionProvider", "onnxruntime-gpu", memory="cuda", torch_device="cuda"),
        Provider(
            "tensorrt",
            "TensorrtExecutionProvider",
            "onnxruntime-gpu and tensorrt",
            memory="cuda",
            before_cpu=("CUDAExecutionProvider",),
        ),
        Provider("openvino", "OpenVINOExecutionProvider", "onnxruntime-openvino"),
        Provider("dml", "DmlExecutionProvider", "onnxruntime-directml (Windows)"),
        Provider("coreml", "CoreMLExecutionProvider", "onnxruntime (macOS)"),
        Provider("migraphx", "MIGraphXExecutionProvider", "onnxruntime-migraphx"),
        Provider("qnn", "QNNExecutionProvider", "onnxruntime-qnn"),
        Provider("torch-compile", "CPUExecutionProvider", "onnxruntime", torch_device="cpu", torch_compile=True),
    )
}
_ALIASES = {"torch": "cpu", "gpu": "cuda", "trt": "tensorrt", "directml": "dml"}


_SUFFIX = "ExecutionProvider"


def available_providers() -> dict[str, bool]:
    """Each provider's name and whether the installed onnxruntime has it; what only that has is there too."""
    there = set(ort.get_available_providers())
    named = {name: entry.ort_name in there for name, entry in _TABLE.items() if not entry.torch_compile}
    return named | {provider.name: True for provider in _unnamed()}


def _unnamed() -> list[Provider]:
    """Providers of this onnxruntime that the table does not name, called by what they call themselves."""
    named = {entry.ort_name for entry in _TABLE.values()}
    # The Azure one sends inputs to a server and computes nothing here.
    others = [name for name in ort.get_available_providers() if name not in (*named, "AzureExecutionProvider")]
    return [Provider(name.removesuffix(_SUFFIX).lower(), name, "onnxruntime") for name in others]


def find_provider(name: str) -> Provider:
    """The provider of that name, there or not.

    Raises:  UsageError if there is no such name.
    """
    wanted = name.strip().lower()
    wanted = _ALIASES.get(wanted, wanted)
    known = _TABLE | {provider.name: provider for provider in _unnamed()}
    if wanted in known:
        return known[wanted]
    advice = did_you_mean(wanted, [*known, *_ALIASES], most=1, cutoff=0.6) or f"use one of {', '.join(known)}"
    raise UsageError(f"--provider {name}: no such provider; {advice}")


def require_onnxruntime(provider: Provider) -> None:
    """Raises:  ProviderError if the installed onnxruntime lacks it."""
    if provider.ort_name in ort.get_available_providers():
        return
    there = ", ".join(name for name, found in available_providers().items() if found)
    raise ProviderError(
        f"--provider {provider.name}: onnxruntime {ort.__version__} here has no {provider.ort_name}\n"
        f"install {provider.package} (in place of onnxruntime), or use one that is there: {there}"
    )


def require_torch(provider: Provider) -> torch.device:
    """The torch device that goes with the provider.

    Raises:  ProviderError if torch has none or it is not there.
    """
    if provider.torch_device is None:
        raise ProviderError(
            f"--provider {provider.name}: torch cannot run a .pt there; make it ONNX first: compress export"
        )
    if provider.torch_device == "cuda" and not torch.cuda.is_available():
        raise ProviderError(
            f"--provider cuda: torch {torch.__version__} finds no CUDA device here\n"
            "install a CUDA build of torch on a machine with an NVIDIA GPU, or use --provider cpu"
        )
    return torch.device(provider.torch_device)
