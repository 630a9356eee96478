"""State dicts of other programs: found in their wrappers, brought to an architecture's names, loaded whole.

It must never load a part of one: every key has its place and every place its key, or nothing is loaded.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from compressor.errors import CompressError, ModelError
from compressor.formats.names import shown
from compressor.formats.tensors import check_dense, check_finite
from compressor.models import ARCHITECTURES, build
from compressor.narrowing import is_mapping
from compressor.units import format_dtype

_WRAPPERS = (
    "state_dict", "model_state_dict", "model", "net", "network", "module", "weights", "params",
    "model_state", "net_state_dict", "teacher", "student", "ema", "model_ema", "ema_state_dict",
    "state_dict_ema", "ema_model", "params_ema",
)  # fmt: skip
"""Keys under which training scripts put their weights; the first that is there counts."""

_PREFIXES = ("module.", "_orig_mod.", "model.", "net.", "network.", "ema.")
_DEEPEST = 4
_SHOWN = 3
_COUNTER = "num_batches_tracked"
"""Batch norm's counter: missing before torch 0.4.1, and without effect on the output."""


def find_state_dict(content: Any) -> tuple[dict[str, Tensor] | None, str | None]:
    """The tensors by name, taken out of a training script's wrapper, and a note where there was a choice."""
    for _ in range(_DEEPEST):
        if not is_mapping(content) or not content:
            return None, None
        if all(isinstance(key, str) and isinstance(value, Tensor) for key, value in content.items()):
            return dict(content), None
        wrapped = [key for key in _WRAPPERS if isinstance(content.get(key), Mapping) and content[key]]
        if not wrapped:
            return None, None
        if len(wrapped) > 1:
            found, _ = find_state_dict(content[wrapped[0]])
            return found, choice(wrapped)
        content = content[wrapped[0]]
    return None, None


def choice(keys: list[str]) -> str:
    """What to say of a file with weights at several keys, of which the first counts."""
    return f"weights taken from {keys[0]}; the file also holds {', '.join(keys[1:])} (--weights {keys[1]})"


def load_into(module: nn.Module, state: Mapping[str, Tensor], name: str, arch: str) -> list[str]:
    """Load the state dict into the module, whole; returns what there is to say about it.

    Raises:  ModelError listing what is missing, unexpected or of another shape; the module is then untouched.
    """
    expected = module.state_dict()
    for key, tensor in state.items():
        check_dense(f"{name}: {shown(key)}", tensor)
    masked = without_masks(state, expected)
    renamed = fitted_names(masked, expected)
    fill_gaps(renamed, expected)
    problems = _problems(renamed, expected)
    if problems:
        raise ModelError(f"{name}: does not fit --arch {arch}: {'; '.join(problems)}\n{_advice(state)}")
    try:
        check_finite(renamed, dict(module.named_parameters(remove_duplicate=False)))
    except ModelError as error:
        raise ModelError(f"{name}: {error}") from error
    module.load_state_dict(renamed, strict=True)
    told = ["masks of torch.nn.utils.prune were multiplied into their weights, as prune.remove does"]
    return [*(told if len(masked) < len(state) else ()), *_notes(renamed, expected)]


def check_filled(
    module: nn.Module, state: Mapping[str, Tensor], trouble: Mapping[str, list[str]], name: str, arch: str
) -> list[str]:
    """What there is to say, when a library put all of the state dict into its module, and every value is a number.

    Raises:  ModelError as `load_into`.
    """
    for key, tensor in state.items():
        check_dense(f"{name}: {shown(key)}", tensor)
    if trouble:
        listed = "; ".join(f"{len(keys)} {what}: {_some(keys)}" for what, keys in trouble.items())
        raise ModelError(f"{name}: does not fit --arch {arch}: {listed}\n{_advice(state)}")
    try:
        check_finite(module.state_dict(), dict(module.named_parameters(remove_duplicate=False)))
    except ModelError as error:
        raise ModelError(f"{name}: {error}") from error
    stored = sorted({format_dtype(tensor.dtype) for tensor in state.values() if tensor.is_floating_point()})
    taken = sorted({format_dtype(p.dtype) for p in module.parameters() if p.is_floating_point()})
    if stored != taken:
        return [f"weights stored as {', '.join(stored)} were loaded as {', '.join(taken)}"]
    return [] if taken == ["float32"] else [f"weights are {', '.join(taken)} and stay so; training computes in float32"]


def suggest(state: Mapping[str, Tensor]) -> list[str]:
    """The bundled architectures that the state dict fits exactly, by names and shapes."""
    found: list[str] = []
    for arch in ARCHITECTURES:
        with torch.device("meta"):
            expected = build(arch, {}).module.state_dict()
        renamed = fitted_names(state, expected)
        fill_gaps(renamed, expected)
        if not _problems(renamed, expected):
            found.append(arch)
    return found


def without_masks(state: Mapping[str, Tensor], expected: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
    """`conv.weight` in place of the `conv.weight_orig` and `conv.weight_mask` that torch.nn.utils.prune keeps.

    As it is where the architecture has such names itself, or where one of a pair is missing.
    """
    found = dict(state)
    for key in state:
        name = key.removesuffix("_orig")
        mask = state.get(f"{name}_mask")
        if name == key or mask is None or name in state or mask.shape != state[key].shape:
            continue
        if not any(known.endswith(key.rpartition(".")[2]) for known in expected):
            found[name] = found.pop(key) * found.pop(f"{name}_mask").to(state[key].dtype)
    return found


def fitted_names(state: Mapping[str, Tensor], expected: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Without the prefixes that wrappers of modules put before every key."""
    best = dict(state)
    current = {key.replace("_orig_mod.", ""): value for key, value in state.items()}
    while True:
        if _n_common(current, expected) > _n_common(best, expected):
            best = current
        counter_free = {key: value for key, value in current.items() if key != "n_averaged"}
        prefix = next((p for p in _PREFIXES if counter_free and all(k.startswith(p) for k in counter_free)), None)
        if prefix is None:
            return best
        current = {key.removeprefix(prefix): value for key, value in counter_free.items()}


def _n_common(state: Iterable[str], expected: Mapping[str, Tensor]) -> int:
    return sum(key in expected for key in state)


def fill_gaps(state: dict[str, Tensor], expected: Mapping[str, Tensor]) -> None:
    """Adds what a file may leave out: further names of a tied tensor, and counters of batch norm."""
    given = {_identity(expected[key]): key for key in state if key in expected}
    for key, tensor in expected.items():
        if key in state:
            continue
        if key.rpartition(".")[2] == _COUNTER:
            state[key] = torch.zeros_like(tensor)
        elif tensor.device.type != "meta" and _identity(tensor) in given:
            state[key] = state[given[_identity(tensor)]]


def _identity(tensor: Tensor) -> tuple[int, tuple[int, ...], tuple[int, ...]]:
    return tensor.data_ptr(), tuple(tensor.shape), tensor.stride()


def _problems(state: Mapping[str, Tensor], expected: Mapping[str, Tensor]) -> list[str]:
    missing = [key for key in expected if key not in state]
    unexpected = [key for key in state if key not in expected]
    other = of_other_shape(state, expected)
    named = (("missing", missing), ("unexpected", unexpected), ("of another shape", other))
    return [f"{len(keys)} {what}: {_some(keys)}" for what, keys in named if keys]


def of_other_shape(state: Mapping[str, Tensor], expected: Mapping[str, Tensor]) -> list[str]:
    """What has its place but does not fit it, with both sizes."""
    return [
        f"{shown(key)} ({_size(state[key])} in the file, {_size(expected[key])} in the architecture)"
        for key in expected
        if key in state and not _alike(state[key], expected[key])
    ]


def _alike(given: Tensor, expected: Tensor) -> bool:
    return given.shape == expected.shape and given.is_floating_point() == expected.is_floating_point()


def _size(tensor: Tensor) -> str:
    size = "x".join(map(str, tensor.shape)) or "scalar"
    return size if tensor.is_floating_point() else f"{size} {str(tensor.dtype).removeprefix('torch.')}"


def _some(keys: list[str]) -> str:
    return ", ".join(shown(key) for key in keys[:_SHOWN]) + (" …" if len(keys) > _SHOWN else "")


def _advice(state: Mapping[str, Tensor]) -> str:
    try:
        fitting = suggest(state)
    except CompressError:
        fitting = []
    if fitting:
        return f"it fits --arch {' or '.join(fitting)}"
    return "give the --arch (and --arch-arg) that it was trained with"


def _notes(state: Mapping[str, Tensor], expected: Mapping[str, Tensor]) -> list[str]:
    changed = {
        f"weights stored as {str(state[key].dtype).removeprefix('torch.')} "
        f"were loaded as {str(tensor.dtype).removeprefix('torch.')}"
        for key, tensor in expected.items()
        if tensor.is_floating_point() and state[key].dtype is not tensor.dtype
    }
    return sorted(changed)
