"""Networks of the transformers library from a local directory with a config.json; it must never download or run code
that lies beside the weights.
"""

from __future__ import annotations

import contextlib
import inspect
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from compressor.errors import ModelError, UsageError, named_line
from compressor.models.external import imported_beside_any_torch
from compressor.models.inputs import InputHint

CONFIG = "config.json"
_LONGEST_TEXT = 128
"""Tokens of the default input: what a sentence needs; --input input_ids=int64:512 asks for more."""
_OUTPUTS = (("logits",), ("start_logits", "end_logits"), ("last_hidden_state",))
"""What is taken from the many things that these models return, the first group that is there."""


Found = tuple[nn.Module, None, tuple[InputHint, ...]]


def build_transformers(directory: str, arch_args: Mapping[str, object]) -> Found:
    """The module that the directory's config.json describes, with initial weights, and what goes into it.

    It returns plain tensors: the logits, or the last hidden state. `arch_args` replace entries of the configuration.

    Raises:  UsageError if there is no such directory or entry; ModelError if transformers is missing or fails.
    """
    transformers, config, kind = _described(directory, arch_args)
    try:
        module = kind.from_config(config) if kind is transformers.AutoModel else kind(config)
    except Exception as cause:
        raise ModelError(f"{directory}: building it raised {named_line(cause)}") from cause
    _return_tensors(module)
    return module, None, _hints(module, config)


def fill_transformers(
    directory: str, arch_args: Mapping[str, object], state: Mapping[str, Tensor]
) -> tuple[Found, dict[str, list[str]]]:
    """The module with the tensors of `state` in it, and the names that did not fit: kind of trouble -> names.

    The library itself fills it: between its releases it renames, merges and splits what is stored.

    Raises:  as `build_transformers`.
    """
    transformers, config, kind = _described(directory, arch_args)
    with _quiet(transformers):
        try:
            module, told = kind.from_pretrained(
                None, config=config, state_dict=dict(state), dtype=torch.float32, ignore_mismatched_sizes=True,
                output_loading_info=True,
            )  # fmt: skip
        except Exception as cause:
            raise ModelError(f"{directory}: the weights cannot be put into the model: {named_line(cause)}") from cause
    _return_tensors(module)
    named = {"missing": "missing_keys", "unexpected": "unexpected_keys", "of another shape": "mismatched_keys"}
    trouble = {what: sorted(map(_name, told.get(key) or ())) for what, key in named.items()}
    return (module, None, _hints(module, config)), {what: names for what, names in trouble.items() if names}


def _name(key: object) -> str:
    return str(key[0] if isinstance(key, tuple) else key)


def _described(directory: str, arch_args: Mapping[str, object]) -> tuple[Any, Any, Any]:
    """The library, the configuration, and the class that it names."""
    folder = Path(directory).expanduser()
    if not (folder / CONFIG).is_file():
        raise UsageError(
            f"--arch transformers:{directory}: there is no {CONFIG} in that directory; nothing is downloaded here,\n"
            f"save the model with model.save_pretrained({directory!r}) or fetch it with hf download first"
        )
    transformers = _transformers()
    try:
        config, unknown = transformers.AutoConfig.from_pretrained(
            str(folder), local_files_only=True, trust_remote_code=False, return_unused_kwargs=True, **arch_args
        )
    except Exception as cause:  # transformers raises anything on a configuration that it does not know
        raise ModelError(f"{folder / CONFIG}: cannot be read: {named_line(cause)}") from cause
    if unknown:
        raise UsageError(f"--arch-arg {', '.join(unknown)}: {folder / CONFIG} has no such entry")
    return transformers, config, _class(transformers, config, folder)


def _transformers() -> Any:
    with contextlib.suppress(ImportError, RuntimeError):
        imported_beside_any_torch("torchvision")  # transformers imports it where it is installed
    try:
        return imported_beside_any_torch("transformers")
    except (ImportError, RuntimeError) as cause:
        raise ModelError(
            f"--arch transformers:...: transformers cannot be imported ({cause}); pip install transformers"
        ) from cause


@contextlib.contextmanager
def _quiet(transformers: Any) -> Iterator[None]:
    """Without its report and its bars: what is wrong is said in our words."""
    log = transformers.utils.logging
    level = log.get_verbosity()
    log.set_verbosity(log.CRITICAL)
    log.disable_progress_bar()
    try:
        yield
    finally:
        log.set_verbosity(level)
        log.enable_progress_bar()


def _class(transformers: Any, config: Any, folder: Path) -> Any:
    names = getattr(config, "architectures", None) or []
    if not names:
        return transformers.AutoModel
    kind = getattr(transformers, str(names[0]), None)
    if not isinstance(kind, type) or not issubclass(kind, transformers.PreTrainedModel):
        raise ModelError(f"{folder / CONFIG}: the architecture {str(names[0])[:60]!r} is not one of transformers'")
    return kind


def _return_tensors(module: nn.Module) -> None:
    """A network that can be exported and trained returns tensors; these return an object with a cache and more."""
    forward: Callable[..., Any] = module.forward

    def plain_forward(*arguments: Any, **named: Any) -> Any:
        outputs = forward(*arguments, **named, return_dict=True)
        for group in _OUTPUTS:
            found = tuple(outputs[name] for name in group if name in outputs)
            if len(found) == len(group):
                return found[0] if len(found) == 1 else found
        return next(iter(outputs.values()))

    plain_forward.__signature__ = inspect.signature(forward)  # type: ignore[attr-defined]
    module.forward = plain_forward  # type: ignore[method-assign]


def _hints(module: nn.Module, config: Any) -> tuple[InputHint, ...]:
    name = getattr(module, "main_input_name", None)
    if name == "input_ids" and isinstance(n_words := getattr(config, "vocab_size", None), int):
        longest = min(getattr(config, "max_position_embeddings", _LONGEST_TEXT), _LONGEST_TEXT)
        return (InputHint(name, (longest,), "int64", n_words),)
    side, channels = getattr(config, "image_size", None), getattr(config, "num_channels", 3)
    if name == "pixel_values" and side is not None:
        height, width = (side, side) if isinstance(side, int) else tuple(side)[:2]
        return (InputHint(name, (channels, height, width)),)
    return ()
