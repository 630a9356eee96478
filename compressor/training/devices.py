"""Devices by name, their random numbers and precision; it must never know of models or other processes."""

from __future__ import annotations

import random
from collections.abc import Generator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import numpy as np
import torch
from torch import Tensor

from compressor.asking.recipe import Precision
from compressor.errors import ProviderError
from compressor.typed_torch import forked_cpu_rng

_DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16}


def resolve_device(text: str) -> torch.device:
    """`auto` (the best there is), `cpu`, `cuda`, `cuda:1` or `mps` as a device that is there.

    Raises:  ProviderError if it is no such name or not there.
    """
    if text == "auto":
        text = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    try:
        device = torch.device(text)
    except RuntimeError as error:
        raise ProviderError(f"--device {text}: no such device; use auto, cpu, cuda, cuda:N or mps") from error
    n_there = {
        "cpu": 1,
        "cuda": torch.cuda.device_count() if torch.cuda.is_available() else 0,
        "mps": int(torch.backends.mps.is_available()),
    }.get(device.type, 0)
    if (device.index or 0) >= n_there:
        raise ProviderError(
            f"--device {text}: torch {torch.__version__} finds {n_there} device(s) of that kind here; "
            "use --device cpu, or install a torch build for it"
        )
    return device


@contextmanager
def forked_rng(device: torch.device) -> Generator[None]:
    """Gives the caller's random numbers (CPU, `device`, Python's and NumPy's own) back as they were, whatever the block
    draws."""
    python, numpy = random.getstate(), np.random.get_state()
    try:
        with forked_cpu_rng(), _forked_on(device):
            yield
    finally:
        random.setstate(python)
        np.random.set_state(numpy)


@contextmanager
def _forked_on(device: torch.device) -> Generator[None]:
    if device.type == "cpu":
        yield
        return
    with _selected(device):
        before = torch.get_device_module(device).get_rng_state()
    try:
        yield
    finally:
        with _selected(device):
            torch.get_device_module(device).set_rng_state(before)


def random_state() -> tuple[object, ...]:
    """Where the random numbers of the CPU, of Python and of NumPy stand, fit to be compared."""
    legacy: Any = np.random.get_state()
    kind, keys, *rest = legacy
    return torch.get_rng_state().numpy().tobytes(), random.getstate(), kind, keys.tobytes(), *rest


@contextmanager
def flushed_denormals() -> Generator[None]:
    """The block with denormal numbers taken as 0 on the CPU, the caller's setting restored afterwards.

    Weights that a mask holds at 0 get no gradient, and Adam's moments for them decay into denormals, on which CPU
    arithmetic is many times slower: a masked LeNet-300-100 epoch took 6.6 s with them and 2.1 s without, with the same
    losses and accuracies.
    """
    # torch cannot be asked for the setting, so it is observed: the product is 0 only where denormals are flushed.
    was_flushed = torch.tensor(2.0**-1070, dtype=torch.float64).mul(1.0).item() == 0.0
    torch.set_flush_denormal(True)
    try:
        yield
    finally:
        torch.set_flush_denormal(was_flushed)


def seed_epoch(device: torch.device, seed: int, epoch: int, rank: int) -> None:
    """Seeds CPU, `device`, Python and NumPy from (seed, epoch, rank): an epoch then needs no state of the one before.

    Authors draw stochastic depth with `random.random()` too.
    """
    mixed = int(np.random.SeedSequence([seed % 2**64, epoch, rank]).generate_state(1, np.uint64)[0])
    torch.default_generator.manual_seed(mixed)
    random.seed(mixed)
    np.random.seed(mixed % 2**32)
    if device.type != "cpu":
        with _selected(device):
            torch.get_device_module(device).manual_seed(mixed)


def _selected(device: torch.device) -> AbstractContextManager[object]:
    return torch.cuda.device(device) if device.type == "cuda" else nullcontext()


@contextmanager
def tried_kernels(asked: bool) -> Generator[None]:
    """The block with cuDNN trying its algorithms on every new shape to keep the fastest, where that is asked for."""
    before = torch.backends.cudnn.benchmark
    torch.backends.cudnn.benchmark = before or asked
    try:
        yield
    finally:
        torch.backends.cudnn.benchmark = before


def autocast(device: torch.device, precision: Precision) -> AbstractContextManager[object]:
    """The context in which a forward pass runs at that precision."""
    return torch.autocast(device.type, dtype=_DTYPES.get(precision), enabled=precision != "fp32")


def autocast_type(precision: Precision) -> torch.dtype | None:
    """The type that `autocast` takes weights to, None where it takes them as they are."""
    return _DTYPES.get(precision)


def gradient_scaler(device: torch.device, precision: Precision) -> torch.amp.GradScaler:
    """Loss scaling for fp16, whose gradients underflow without it; passes everything through otherwise."""
    return torch.amp.GradScaler(device.type, enabled=precision == "fp16")


class LossReading:
    """The loss as a number, read while the backward pass already runs, so that a GPU need not wait for it."""

    def __init__(self, loss: Tensor) -> None:
        self._loss = loss.detach()
        self._arrived: torch.cuda.Event | None = None
        if loss.device.type == "cuda":
            host = torch.empty((), dtype=loss.dtype, pin_memory=True)
            self._loss = host.copy_(self._loss, non_blocking=True)
            self._arrived = torch.cuda.Event()
            self._arrived.record()

    def arrived(self) -> bool:
        """Whether `value` would not wait."""
        return self._arrived is None or self._arrived.query()

    def value(self) -> float:
        """Waits for the forward pass only."""
        if self._arrived is not None:
            self._arrived.synchronize()
        return float(self._loss)
