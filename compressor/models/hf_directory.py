"""Networks of transformers from a remembered configuration, and directories that the library opens by itself.

It must never know where weights come from, nor an architecture by name.
"""

from __future__ import annotations

import copy
import shutil
from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.module import register_module_parameter_registration_hook
from torch.utils import _pytree as pytree

from compressor.errors import CompressError, DataError, ModelError, named_line
from compressor.models.budget import Budget, counted
from compressor.models.depths import Depth, find_depths
from compressor.models.huggingface import Description, describe, quiet
from compressor.models.inputs import takes_by_name
from compressor.models.task_outputs import return_tensors
from compressor.models.widths import Entries, Shapes, Widths, candidates, find_widths
from compressor.sealed import sealed
from compressor.typed_torch import forked_cpu_rng, named_modules

_NAME = "the configuration"
_EPSILONS = ("rms_norm_eps", "layer_norm_epsilon", "layer_norm_eps", "norm_eps", "norm_epsilon")
"""Entries that hold what norms add to their mean of squares."""
BESIDE = (
    "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json", "vocab.txt",
    "vocab.json", "merges.txt", "spiece.model", "sentencepiece.bpe.model", "tokenizer.model", "chat_template.jinja",
    "preprocessor_config.json", "processor_config.json",
)  # fmt: skip
"""Files of a directory that belong to the network's inputs and do not change with its widths."""


def widths_of(configuration: Mapping[str, Any]) -> Widths:
    """The widths of the network that a configuration describes.

    Raises:  ModelError if transformers is missing or cannot read it.
    """
    _shapes(describe(configuration, _NAME))  # a configuration that cannot be built says why
    return find_widths(configuration, _build)


def depths_of(configuration: Mapping[str, Any]) -> tuple[Depth, ...]:
    """The entries that count layers of the network that a configuration describes.

    Raises:  as `widths_of`.
    """
    _shapes(describe(configuration, _NAME))
    return find_depths(configuration, _build)


def names_of(configuration: Mapping[str, Any]) -> frozenset[str]:
    """Names of the tensors of the network that a configuration describes. Raises: as `widths_of`."""
    return frozenset(_shapes(describe(configuration, _NAME)))


def _build(entries: Entries) -> dict[str, tuple[int, ...]] | None:
    try:
        return _shapes(describe(entries, _NAME))
    except CompressError:
        return None


def rebuild(widths: Widths, shapes: Shapes) -> Widths:
    """The widths of a network of these shapes that was made smaller before; `widths` themselves where it was not.

    Raises:  ModelError if no configuration has these shapes.
    """
    factors = widths.factors_of(shapes)
    if all(factor == 1 for factor in factors.values()):
        return widths
    for entries in candidates(widths, factors):
        found = find_widths(entries, widths.build)
        if all(found.shapes.get(name, shape) == shape for name, shape in shapes.items()):
            return found
    raise ModelError("its layers have widths that no configuration can say; prune the dense network with --uniform")


def new_network(configuration: Mapping[str, Any]) -> nn.Module:
    """The library's own network of that configuration, with initial weights, in evaluation mode.

    Raises:  as `widths_of`.
    """
    with forked_cpu_rng():
        torch.default_generator.manual_seed(0)
        return _made(describe(configuration, _NAME)).eval()


def fill_network(
    entries: Entries, tensors: Mapping[str, Tensor], aliases: Mapping[str, str], shares: Mapping[str, float]
) -> nn.Module:
    """The network of a configuration with these very weights; what they lack stays as the library makes it.

    `aliases` are further names of tied tensors. `shares` tells of vectors what is left of them where norms keep their
    divisor: those of norms without a mean get their plain form, weight · √(C0/C) and eps · C0/C.
    """
    state = {**tensors, **{name: tensors[to] for name, to in aliases.items() if to in tensors}}
    network = _filled(entries, state)
    norms = dict(plain_norms(network, {name: state[name].shape[0] for name in shares if name in state}))
    if not norms:
        return network
    changed = {**entries, **_epsilons(entries, [shares[name] for name in norms])}
    return _filled(changed, state | {name: _plain_scale(state[name], norms[name], shares[name]) for name in norms})


def _filled(entries: Entries, state: Mapping[str, Tensor]) -> nn.Module:
    """The network around the tensors: made without weights of its own, unless it has some that are not there."""
    with _weightless():
        network = new_network(entries)
    network.load_state_dict(state, strict=False, assign=True)
    if any(parameter.is_meta for parameter in network.parameters()):
        network = new_network(entries).to(next(iter(state.values())).dtype)
        network.load_state_dict(state, strict=False)
    tie: Any = getattr(network, "tie_weights", None)  # assigning gave each name a parameter of its own
    if tie is not None:
        tie()
    return network


@contextmanager
def _weightless() -> Generator[None]:
    """Parameters that are made in the block have no memory; buffers do, for no file holds all of them."""

    def replaced(owner: nn.Module, name: str, value: Any) -> nn.Parameter | None:
        return nn.Parameter(value.detach().to("meta"), value.requires_grad) if isinstance(value, nn.Parameter) else None

    register: Any = register_module_parameter_registration_hook  # its stubs leave out that a hook may return one
    handle = register(replaced)
    try:
        yield
    finally:
        handle.remove()


def _plain_scale(scale: Tensor, added: float, share: float) -> Tensor:
    """A norm's weight where it keeps its divisor no longer, rounded once to the type that it is stored in."""
    wide = scale.to(torch.promote_types(scale.dtype, torch.float32))
    return ((wide + added) * share**-0.5 - added).to(scale.dtype)


def answers(network: nn.Module, names: Sequence[str], inputs: Sequence[Tensor]) -> list[Tensor]:
    """What the network returns for inputs of these names, as plain tensors, computed as the library does by itself."""
    _as_opened(network)
    return_tensors(network)
    takes_by_name(network, names)
    with torch.no_grad():
        return [leaf for leaf in pytree.tree_leaves(network(*inputs)) if isinstance(leaf, Tensor)]


def _as_opened(network: nn.Module) -> None:
    """Lets the library choose how experts are computed, as it does for who opens a directory."""
    asked: Any = network
    can = getattr(asked, "_can_set_experts_implementation", None)
    if can is not None and can():
        asked.set_experts_implementation(asked.get_correct_experts_implementation(None))


def drop_weights(network: nn.Module) -> None:
    """Lets go of the network's weights: its parts hold each other, so that it goes away some time later only.

    Other tensors of the same memory stay as they are.
    """
    for tensor in (*network.parameters(), *network.buffers()):
        tensor.data = torch.empty(0, dtype=tensor.dtype)


def _epsilons(entries: Entries, shares: Sequence[float]) -> dict[str, float]:
    """The entries that norms add to their mean of squares, where this share is left of all of them."""
    share = sorted(shares)[len(shares) // 2]
    return {name: entries[name] / share for name in _EPSILONS if isinstance(entries.get(name), float)}


def save_directory(network: nn.Module, folder: Path, beside: Path | None) -> tuple[str, ...]:
    """Writes the network as `from_pretrained` reads it, with what lies `beside` the original for its inputs.

    Returns the names of those files.
    """
    with sealed(str(folder)), quiet():
        network.save_pretrained(folder)  # type: ignore[operator]
    found = [name for name in BESIDE if beside is not None and (beside / name).is_file()]
    for name in found:
        assert beside is not None
        shutil.copyfile(beside / name, folder / name)
    return tuple(found)


def open_directory(folder: Path, configuration: Mapping[str, Any], dtype: torch.dtype = torch.float32) -> nn.Module:
    """The directory as whoever has transformers only opens it, in that type; returns plain tensors.

    Raises:  ModelError if the library cannot open it, or finds a weight missing or left over.
    """
    kind = describe(configuration, _NAME).kind
    try:
        with sealed(str(folder)), quiet():
            network, told = kind.from_pretrained(folder, local_files_only=True, dtype=dtype, output_loading_info=True)
    except CompressError:
        raise
    except Exception as cause:  # transformers raises anything on what does not fit together
        raise ModelError(f"{folder}: transformers cannot open it: {named_line(cause)}") from cause
    wrong = [
        str(name) for key in ("missing_keys", "unexpected_keys", "mismatched_keys") for name in told.get(key) or ()
    ]
    if wrong:
        raise ModelError(f"{folder}: transformers misses or does not know {', '.join(sorted(wrong)[:3])}")
    return_tensors(network)
    return network.eval()


def open_tokenizer(folder: Path) -> Any:
    """The tokenizer in a directory, with a token for padding.

    Raises:  DataError if there is none that can be opened; UnsafeFileError if it would run or fetch something.
    """
    if not folder.is_dir():
        raise DataError(f"texts need the tokenizer of the model, and {folder}, which had it, is not there")
    try:
        with sealed(str(folder)), quiet() as library:
            tokenizer = library.AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    except CompressError:
        raise
    except Exception as cause:  # transformers raises anything where the files of a tokenizer do not fit together
        raise DataError(f"{folder}: holds no tokenizer that can be opened: {named_line(cause)}") from cause
    if tokenizer.pad_token_id is None:
        if tokenizer.eos_token is None:
            raise DataError(f"{folder}: its tokenizer has no token for padding")
        tokenizer.pad_token = tokenizer.eos_token
    return tokenizer


def plain_norms(network: nn.Module, weights: Mapping[str, int]) -> Iterator[tuple[str, float]]:
    """Of `weights` (name -> width) those that scale a norm without a mean, each with what the norm adds to it (1 where
    it scales by 1 + weight): found by calling the norms."""
    modules = dict(named_modules(network))
    for name, width in weights.items():
        owner, _, own = name.rpartition(".")
        module = modules.get(owner)
        others = [key for key, _ in module.named_parameters()] if module is not None else []
        if module is None or others != [own] or isinstance(module, (nn.LayerNorm, nn.GroupNorm, nn.Linear)):
            continue
        added = _added(module, own, width)
        if added is not None:
            yield name, added


@torch.no_grad()
def _added(module: nn.Module, own: str, width: int) -> float | None:
    """a of y = x / rms(x) · (a + weight); None for a module that does something else."""
    x = torch.linspace(1.0, 2.0, width).reshape(1, 1, width)
    module = copy.deepcopy(module).float()  # the network's own weight stays as it is
    weight = module.get_parameter(own)
    normal = x / x.square().mean(-1, keepdim=True).sqrt()

    def answer(value: float) -> Any:
        weight.fill_(value)
        return module(x)

    try:
        answers = [answer(0.0), answer(1.0)]
    except Exception:  # no norm of one tensor
        return None
    for added in (0.0, 1.0):
        wanted = (normal * added, normal * (added + 1))
        if all(isinstance(y, Tensor) and torch.allclose(y, z, atol=1e-3) for y, z in zip(answers, wanted, strict=True)):
            return added
    return None


def _shapes(description: Description) -> dict[str, tuple[int, ...]]:
    with torch.device("meta"):
        return {name: tuple(tensor.shape) for name, tensor in _made(description).state_dict().items()}


def _made(description: Description) -> nn.Module:
    try:
        with sealed(_NAME), counted(_NAME, Budget()):
            return description.make()
    except CompressError:
        raise
    except Exception as cause:  # transformers raises anything on a configuration that does not fit together
        raise ModelError(f"{_NAME}: building it raised {named_line(cause)}") from cause
