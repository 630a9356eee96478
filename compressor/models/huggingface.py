"""Networks of the transformers library from a local directory with a config.json; it must never download or run code
that lies beside the weights.
"""

from __future__ import annotations

import contextlib
import inspect
import json
import tempfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from compressor.errors import CompressError, ModelError, UsageError, named_line
from compressor.models.budget import Budget, counted, tried
from compressor.models.external import imported_beside_any_torch
from compressor.models.hf_configuration import CONFIG, read_configuration
from compressor.models.inputs import InputHint
from compressor.sealed import sealed

_LONGEST_TEXT = 128
"""Tokens of the default input: what a sentence needs; --input input_ids=int64:512 asks for more."""
_OUTPUTS = (("logits",), ("start_logits", "end_logits"), ("last_hidden_state",))
"""What is taken from the many things that these models return, the first group that is there."""


Found = tuple[nn.Module, None, tuple[InputHint, ...]]


def build_transformers(directory: str, arch_args: Mapping[str, object]) -> Found:
    """The module that the directory's config.json describes, with initial weights, and what goes into it.

    It returns plain tensors: the logits, or the last hidden state. `arch_args` replace entries of the configuration.

    Raises:  UsageError if there is no such directory or entry; ModelError if transformers is missing or fails, or the
             network is larger than this machine; UnsafeFileError if the library would start or fetch something.
    """
    described = _described(directory, arch_args, Budget())
    with described.guarded("building it raised"):
        module = described.make()
        return described.found(module)


def fill_transformers(
    directory: str, arch_args: Mapping[str, object], state: Mapping[str, Tensor]
) -> tuple[Found, dict[str, list[str]]]:
    """The module with the tensors of `state` in it, and the names that did not fit: kind of trouble -> names.

    The library itself fills it: between its releases it renames, merges and splits what is stored.

    Raises:  as `build_transformers`.
    """
    described = _described(directory, arch_args, Budget.of_weights(state))
    with described.guarded("the weights cannot be put into the model:"), _quiet(described.library):
        module, told = described.kind.from_pretrained(
            None, config=described.config, state_dict=dict(state), dtype=torch.float32, ignore_mismatched_sizes=True,
            output_loading_info=True,
        )  # fmt: skip
        named = {"missing": "missing_keys", "unexpected": "unexpected_keys", "of another shape": "mismatched_keys"}
        trouble = {what: sorted(map(_name, told.get(key) or ())) for what, key in named.items()}
        return described.found(module), {what: names for what, names in trouble.items() if names}


def _name(key: object) -> str:
    return str(key[0] if isinstance(key, tuple) else key)


@dataclass(frozen=True)
class _Description:
    """The library, a configuration that it has read, the class of its own that the configuration names."""

    library: Any
    config: Any
    kind: Any
    directory: str
    budget: Budget

    def make(self) -> nn.Module:
        is_automatic = self.kind is self.library.AutoModel
        return self.kind.from_config(self.config) if is_automatic else self.kind(self.config)

    @contextlib.contextmanager
    def guarded(self, what: str) -> Iterator[None]:
        """The library may build what the configuration describes: nothing larger than it should be, and no more."""
        try:
            with sealed(self.directory):
                tried(self.directory, self.budget, self.make)
                with counted(self.directory, self.budget):
                    yield
        except CompressError:
            raise
        except Exception as cause:  # transformers raises anything on a configuration that does not fit together
            raise ModelError(f"{self.directory}: {what} {named_line(cause)}") from cause

    def found(self, module: nn.Module) -> Found:
        _return_tensors(module)
        return module, None, _hints(module, self.config)


def _described(directory: str, arch_args: Mapping[str, object], budget: Budget) -> _Description:
    folder = Path(directory).expanduser()
    if not (folder / CONFIG).is_file():
        raise UsageError(
            f"--arch transformers:{directory}: there is no {CONFIG} in that directory; nothing is downloaded here,\n"
            f"save the model with model.save_pretrained({directory!r}) or fetch it with hf download first"
        )
    transformers = _transformers()
    entries = read_configuration(folder / CONFIG, arch_args, budget.largest)
    try:
        with sealed(str(folder / CONFIG)), tempfile.TemporaryDirectory(prefix="compress-") as alone:
            # In a folder of its own, so that the library finds nothing beside it.
            Path(alone, CONFIG).write_text(json.dumps(entries), encoding="utf-8")
            config = transformers.AutoConfig.from_pretrained(alone, local_files_only=True, trust_remote_code=False)
            # Not as arguments of that call: it has some of its own, which choose other folders and files.
            unknown = [name for name in arch_args if name.startswith("_") or callable(getattr(config, name, len))]
            for name, value in () if unknown else arch_args.items():
                setattr(config, name, value)
            kind = _class(transformers, config, folder)
    except CompressError:
        raise
    except Exception as cause:  # transformers raises anything on a configuration that it does not know
        raise ModelError(f"{folder / CONFIG}: cannot be read: {named_line(cause)}") from cause
    if unknown:
        raise UsageError(f"--arch-arg {', '.join(unknown)}: {folder / CONFIG} has no such entry")
    return _Description(transformers, config, kind, directory, budget)


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
    if not isinstance(names, list) or not isinstance(names[0], str):
        raise ModelError(f"{folder / CONFIG}: its architectures are not a list of names")
    kind = getattr(transformers, names[0], None)
    if not isinstance(kind, type) or not issubclass(kind, transformers.PreTrainedModel):
        raise ModelError(f"{folder / CONFIG}: the architecture {names[0][:60]!r} is not one of transformers'")
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
    """What goes in, where the configuration says it in numbers."""
    name = getattr(module, "main_input_name", None)
    if name == "input_ids" and (n_words := _size(config, "vocab_size")):
        longest = min(_size(config, "max_position_embeddings") or _LONGEST_TEXT, _LONGEST_TEXT)
        return (InputHint(name, (longest,), "int64", n_words),)
    sides = getattr(config, "image_size", None)
    given: list[Any] = list(sides) if isinstance(sides, (list, tuple)) else [sides, sides]
    both: list[int] = [side for side in given if _is_size(side)]
    if name == "pixel_values" and len(both) == 2:
        return (InputHint(name, (_size(config, "num_channels") or 3, *both)),)
    return ()


def _size(config: Any, name: str) -> int | None:
    value = getattr(config, name, None)
    return value if _is_size(value) else None


def _is_size(value: Any) -> bool:
    return type(value) is int and value > 0
