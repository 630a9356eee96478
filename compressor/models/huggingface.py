"""Networks of the transformers library from a local directory with a config.json; it must never download or run code
that lies beside the weights.
"""

from __future__ import annotations

import contextlib
import json
import tempfile
from collections.abc import Generator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from compressor.errors import CompressError, ModelError, UsageError, named_line
from compressor.models.budget import Budget, counted, tried
from compressor.models.external import imported_beside_any_torch
from compressor.models.hf_configuration import CONFIG, plain_configuration, read_configuration
from compressor.models.hf_inputs import find_inputs
from compressor.models.inputs import InputHint
from compressor.models.task_outputs import return_tensors
from compressor.narrowing import is_list, is_row
from compressor.sealed import sealed

EXPERTS = "_experts_implementation"
"""How the library computes a mixture of experts. Of its ways only the products of chosen weights are plain operators:
another calls an operator of its own, and one loops over the experts that happen to be chosen."""

Found = tuple[nn.Module, None, tuple[InputHint, ...], dict[str, Any]]


def build_transformers(directory: str, arch_args: Mapping[str, object]) -> Found:
    """The module that the directory's config.json describes, with initial weights, and what goes into it.

    It returns plain tensors: all that its task has, or the last hidden state. `arch_args` replace entries of the
    configuration.

    Raises:  UsageError if there is no such directory or entry; ModelError if transformers is missing or fails, or the
             network is larger than this machine; UnsafeFileError if the library would start or fetch something.
    """
    described = _described(directory, arch_args, Budget())
    with described.guarded("building it raised"):
        module = described.make()
        return described.found(module)


def fill_transformers(
    directory: str, arch_args: Mapping[str, object], state: Mapping[str, Tensor], dtype: torch.dtype = torch.float32
) -> tuple[Found, dict[str, list[str]]]:
    """The module with the tensors of `state` in it, and the names that did not fit: kind of trouble -> names.

    The library itself fills it, in `dtype`: between its releases it renames, merges and splits what is stored.

    Raises:  as `build_transformers`.
    """
    described = _described(directory, arch_args, Budget.of_weights(state))
    with described.guarded("the weights cannot be put into the model:"), quiet():
        module, told = described.kind.from_pretrained(
            None, config=described.config, state_dict=dict(state), dtype=dtype, ignore_mismatched_sizes=True,
            output_loading_info=True,
        )  # fmt: skip
        named = {"missing": "missing_keys", "unexpected": "unexpected_keys", "of another shape": "mismatched_keys"}
        trouble = {what: sorted(map(_name, told.get(key) or ())) for what, key in named.items()}
        return described.found(module), {what: names for what, names in trouble.items() if names}


def _name(key: object) -> str:
    return str(key[0] if is_row(key) else key)


@dataclass(frozen=True)
class Description:
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
    def guarded(self, what: str) -> Generator[None]:
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
        return_tensors(module)
        hints = find_inputs(module, self.config, Path(self.directory).expanduser())
        return module, None, hints, self.entries()

    def entries(self) -> dict[str, Any]:
        """The configuration as plain values, with the class that it is for and without what is ours to choose."""
        named = {"model_type": self.config.model_type, "architectures": [self.kind.__name__]}
        is_automatic = self.kind is self.library.AutoModel
        return {**plain_configuration(self.config.to_dict()), **({} if is_automatic else named)}


def _described(directory: str, arch_args: Mapping[str, object], budget: Budget) -> Description:
    folder = Path(directory).expanduser()
    if not (folder / CONFIG).is_file():
        raise UsageError(
            f"--arch transformers:{directory}: there is no {CONFIG} in that directory; nothing is downloaded here,\n"
            f"save the model with model.save_pretrained({directory!r}) or fetch it with hf download first"
        )
    entries = read_configuration(folder / CONFIG, arch_args, budget.largest)
    return _describe(entries, arch_args, directory, str(folder / CONFIG), budget)


def describe(entries: Mapping[str, Any], name: str) -> Description:
    """A configuration that is remembered, not read from a directory; `name` stands for it in messages.

    Raises:  ModelError if transformers is missing or does not know it; UnsafeFileError as `build_transformers`.
    """
    return _describe(entries, {}, name, name, Budget())


def _describe(
    entries: Mapping[str, Any], arch_args: Mapping[str, object], directory: str, where: str, budget: Budget
) -> Description:
    transformers = _transformers()
    try:
        with sealed(where), tempfile.TemporaryDirectory(prefix="compress-") as alone:
            # In a folder of its own, so that the library finds nothing beside it.
            Path(alone, CONFIG).write_text(json.dumps(entries), encoding="utf-8")
            config = transformers.AutoConfig.from_pretrained(alone, local_files_only=True, trust_remote_code=False)
            # Not as arguments of that call: it has some of its own, which choose other folders and files.
            unknown = [name for name in arch_args if name.startswith("_") or callable(getattr(config, name, len))]
            for name, value in () if unknown else arch_args.items():
                setattr(config, name, value)
            kind = _class(transformers, config, where)
            if hasattr(config, EXPERTS):
                setattr(config, EXPERTS, "batched_mm")
    except CompressError:
        raise
    except Exception as cause:  # transformers raises anything on a configuration that it does not know
        raise ModelError(f"{where}: cannot be read: {named_line(cause)}") from cause
    if unknown:
        raise UsageError(f"--arch-arg {', '.join(unknown)}: {where} has no such entry")
    return Description(transformers, config, kind, directory, budget)


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
def quiet() -> Generator[Any]:
    """The library without its report and its bars: what is wrong is said in our words."""
    library = _transformers()
    log = library.utils.logging
    level = log.get_verbosity()
    log.set_verbosity(log.CRITICAL)
    log.disable_progress_bar()
    try:
        yield library
    finally:
        log.set_verbosity(level)
        log.enable_progress_bar()


def _class(transformers: Any, config: Any, where: str) -> Any:
    names: Any = getattr(config, "architectures", None) or []
    if not names:
        return transformers.AutoModel
    if not is_list(names) or not isinstance(names[0], str):
        raise ModelError(f"{where}: its architectures are not a list of names")
    kind = getattr(transformers, names[0], None)
    if not isinstance(kind, type) or not issubclass(kind, transformers.PreTrainedModel):
        raise ModelError(f"{where}: the architecture {names[0][:60]!r} is not one of transformers'")
    return kind
