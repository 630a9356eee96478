"""An ONNX file ready to run in onnxruntime on one provider; it must never fall back to another one."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import onnxruntime as ort
from torch import Tensor

from compressor.errors import ModelError, ProviderError, UsageError, first_line
from compressor.program import InputSpec
from compressor.program.element_types import ELEMENT_TYPES
from compressor.program.spec import told_by_name
from compressor.timing.providers import Provider, require_onnxruntime

_CPU = "CPUExecutionProvider"
_LONGEST = 1 << 24
_TYPES = {kind.runtime: kind.name for kind in ELEMENT_TYPES if kind.is_input and kind.in_numpy}


class OnnxRunner:
    """A session whose inputs are bound once and stay on the provider's device.

    Copies to and from the device are not part of a block, and neither is the conversion of Python values.
    """

    def __init__(
        self,
        path: Path,
        provider: Provider,
        threads: int,
        *,
        oversubscribed: bool = False,
        inputs: Sequence[InputSpec] = (),
        profile: Path | None = None,
    ) -> None:
        """`profile` is where onnxruntime's profiler writes: the beginning of a file's path."""
        require_onnxruntime(provider)
        self._path, self._provider = path, provider
        self.session = _open(path, provider, _session_options(provider, threads, oversubscribed, profile))
        lengths = _lengths(self.session.get_modelmeta().custom_metadata_map.get("compress.lengths", ""))
        told = _told(path, [given.name for given in self.session.get_inputs()], inputs)
        self.specs = tuple(_spec(path, given, told.get(given.name), lengths) for given in self.session.get_inputs())
        self._binding = self.session.io_binding()
        self._arrays: dict[str, np.ndarray] = {}
        self._binds_anew = False

    def prepare(self, batch: int, seed: int) -> None:
        """Binds random inputs of that batch size and runs once, or twice.

        From the second run on onnxruntime writes into the outputs of the first, and asks whether their sizes are those
        that the file declares. Files that declare others run all the same, with outputs of their own each time.

        Raises:  UsageError if the file has its batch fixed at another size; ModelError if it cannot run.
        """
        self.require_batch(batch)
        self._binding = self.session.io_binding()
        self._arrays = {spec.name: spec.example(batch, seed + i).numpy() for i, spec in enumerate(self.specs)}
        for name, array in self._arrays.items():
            value = ort.OrtValue.ortvalue_from_numpy(array, self._provider.memory, 0)
            self._binding.bind_ortvalue_input(name, value)
        self._binds_anew = False
        self._bind_outputs()
        try:
            self.block(1)
            self._binds_anew = not self._runs_again()
            if self._binds_anew:
                self.block(1)
        except Exception as error:  # onnxruntime's exceptions share no base class of their own
            raise ModelError(
                f"{self._path}: onnxruntime cannot run it at batch {batch}: {first_line(error)}"
            ) from error

    def block(self, n_inner: int) -> float:
        """Seconds of `n_inner` inferences, the device's queue emptied at both ends."""
        session, binding = self.session, self._binding
        binding.synchronize_outputs()
        started = time.perf_counter()
        for _ in range(n_inner):
            if self._binds_anew:
                self._bind_outputs()
            session.run_with_iobinding(binding)
        binding.synchronize_outputs()
        return time.perf_counter() - started

    def _bind_outputs(self) -> None:
        self._binding.clear_binding_outputs()
        for output in self.session.get_outputs():
            self._binding.bind_output(output.name, self._provider.memory)

    def _runs_again(self) -> bool:
        try:
            self.block(1)
        except Exception as error:  # onnxruntime's exceptions share no base class of their own
            if "for output" not in str(error):
                raise
            return False
        return True

    @property
    def has_own_memory(self) -> bool:
        """Whether inputs and outputs of a block are in a memory that the CPU does not have."""
        return self._provider.memory != "cpu"

    def block_with_copies(self, n_inner: int) -> float:
        """The same with the inputs from main memory and the outputs back into it, every time."""
        started = time.perf_counter()
        for _ in range(n_inner):
            self.session.run(None, self._arrays)
        return time.perf_counter() - started

    def elsewhere(self) -> dict[str, int]:
        """How many nodes run on another provider than the one asked for, by its name.

        Empty too where this onnxruntime cannot tell.
        """
        ask = getattr(self.session, "get_provider_graph_assignment_info", None)
        if ask is None or self._provider.ort_name == _CPU:
            return {}
        counts: dict[str, int] = {}
        for part in ask():
            if part.ep_name != self._provider.ort_name:
                counts[part.ep_name] = counts.get(part.ep_name, 0) + len(part.get_nodes())
        return counts

    @property
    def fixed_batch(self) -> int | None:
        """The batch size written into the file, None if it is open."""
        if not self.specs or any(spec.shape and spec.shape[0] is None for spec in self.specs):
            return None
        return self.specs[0].shape[0] if self.specs[0].shape else None

    def require_batch(self, batch: int) -> None:
        """Raises:  UsageError if the file's batch is fixed at another size."""
        if self.fixed_batch is not None and self.fixed_batch != batch:
            raise UsageError(
                f"--batch {batch}: {self._path} has its batch fixed at {self.fixed_batch}; "
                "bench it at that, or export it again with a dynamic batch"
            )

    def outputs(self, inputs: Sequence[Tensor]) -> list[np.ndarray]:
        """The network's outputs for real inputs."""
        feeds = {spec.name: x.cpu().to(spec.torch_dtype).numpy() for spec, x in zip(self.specs, inputs, strict=True)}
        return [np.asarray(output) for output in self.session.run(None, feeds)]


def _session_options(
    provider: Provider, threads: int, oversubscribed: bool, profile: Path | None
) -> ort.SessionOptions:
    options = ort.SessionOptions()
    options.log_severity_level = 4
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.execution_mode = ort.ExecutionMode.ORT_SEQUENTIAL
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_ALL
    # Waiting threads spin. Within one model that is what makes it fast; after its last inference they would
    # take the cores from the next subject, and with more threads than cores from the very thread that they
    # wait for.
    options.add_session_config_entry("session.force_spinning_stop", "1")
    if oversubscribed:
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    if provider.ort_name != _CPU:
        options.add_session_config_entry("session.record_ep_graph_assignment_info", "1")
    if profile is not None:
        options.enable_profiling = True
        options.profile_file_prefix = str(profile)
    return options


def _open(path: Path, provider: Provider, options: ort.SessionOptions) -> ort.InferenceSession:
    try:
        session = ort.InferenceSession(str(path), options, providers=[provider.ort_name, *provider.before_cpu])
    except Exception as error:
        raise ModelError(f"{path}: onnxruntime cannot open it: {first_line(error)}") from error
    used = session.get_providers()[0]
    if used != provider.ort_name:
        raise ProviderError(
            f"--provider {provider.name}: onnxruntime has it but could not start it and fell back to {used}\n"
            f"its libraries or its device are missing: check {provider.package} and the driver"
        )
    return session


def _lengths(text: str) -> Mapping[str, int]:
    """Sizes of open dimensions by name, as a file of ours says them; empty for any other text."""
    try:
        found = json.loads(text)
    except ValueError:
        return {}
    entries = found.items() if isinstance(found, dict) else ()
    return {name: size for name, size in entries if type(size) is int and 0 < size < _LONGEST}


def _told(path: Path, names: Sequence[str], inputs: Sequence[InputSpec]) -> dict[str, InputSpec]:
    """What the user said of this file's inputs: what is said by name may be for another file beside it.

    Raises:  UsageError for as many shapes without names as it has no inputs.
    """
    own = [spec for spec in inputs if spec.name in names]
    return told_by_name(names, own or inputs, str(path)) if inputs else {}


def _spec(path: Path, given: ort.NodeArg, wanted: InputSpec | None, lengths: Mapping[str, int]) -> InputSpec:
    """Name, shape and type of an input; open dimensions behind the batch come from the user's
    specification, which may not contradict the file, or are as long as the file says that they were counted at."""
    dtype = _TYPES.get(given.type)
    if dtype is None:
        raise ModelError(f"{path}: input {given.name} is a {given.type}; bench can make {', '.join(_TYPES)}")
    told = None if wanted is None or len(wanted.shape) != len(given.shape) else wanted.shape
    shape: list[int | None] = []
    for axis, size in enumerate(given.shape):
        if isinstance(size, int) and size >= 0:
            if axis and told is not None and told[axis] != size:
                raise UsageError(
                    f"{path}: input {given.name} has the size {size} along dimension {axis}, --input gives {told[axis]}"
                )
            shape.append(size)
        elif axis == 0:
            shape.append(None)
        elif told is not None:
            shape.append(told[axis])
        elif isinstance(size, str) and size in lengths:
            shape.append(lengths[size])
        else:
            raise ModelError(
                f"{path}: input {given.name} leaves dimension {axis} ({size}) open; "
                f"say how large it is, as in --input {given.name}:{dtype}:128"
            )
    high, value = (None, None) if wanted is None else (wanted.high, wanted.value)
    return InputSpec(given.name, tuple(shape), dtype, high, value=value)
