"""What goes into a network of transformers: its inputs by name, with sizes from its configuration.

One rule for each input, whatever the architecture; it must never know an architecture by name.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from torch import nn

from compressor.errors import ModelError
from compressor.models.hf_configuration import read_processor
from compressor.models.inputs import InputHint
from compressor.narrowing import is_dict, is_row

_LONGEST_TEXT = 128
"""Tokens of the example input; any number goes in where the network's code allows it."""
_USUAL_SIDE = 224
_SECOND = 16_000
_LENGTH, _TARGET_LENGTH = "sequence", "target_sequence"

Rule = Callable[["_Sizes"], InputHint | None]


def find_inputs(module: nn.Module, config: Any, folder: Path) -> tuple[InputHint, ...]:
    """What the network needs to be called, in the order of its `forward`; empty where a size is not known."""
    sizes = _Sizes(config, folder)
    parameters = inspect.signature(module.forward).parameters
    main = getattr(module, "main_input_name", None)
    needed = [name for name, p in parameters.items() if p.default is p.empty and p.kind is p.POSITIONAL_OR_KEYWORD]
    wanted = {main, *needed, *_beside(str(main), config, parameters)} & parameters.keys()
    found = [RULES[name](sizes) if name in RULES else None for name in parameters if name in wanted]
    return tuple(hint for hint in found if hint is not None) if found and all(found) else ()


def _beside(main: str, config: Any, parameters: Mapping[str, Any]) -> Iterator[str]:
    """Inputs that are optional in Python only: which tokens are padding, what the decoder is at, the other of two."""
    if getattr(config, "text_config", None) is not None and getattr(config, "vision_config", None) is not None:
        yield from ("input_ids", "attention_mask", "pixel_values")
    if main == "input_ids":
        yield "attention_mask"
    if getattr(config, "is_encoder_decoder", False):
        yield "decoder_input_ids"


class _Sizes:
    """A configuration, asked by the names that any of its parts may have."""

    def __init__(self, config: Any, folder: Path) -> None:
        nested = (getattr(config, name, None) for name in getattr(config, "sub_configs", None) or ())
        self._parts = [config, *(part for part in nested if part is not None)]
        self._folder = folder

    def value(self, *names: str) -> Any:
        """The first entry of one of these names in the configuration or one of its parts."""
        held = (getattr(part, name, None) for name in names for part in self._parts)
        return next((value for value in held if value is not None), None)

    def size(self, *names: str) -> int | None:
        value = self.value(*names)
        return value if type(value) is int and value > 0 else None

    def sides(self) -> tuple[int, int] | None:
        """Height and width of an image: the network's own, or what the processor beside it makes of one."""
        found = _two_sides(self.value("image_size"))
        if found is None and self.value("image_size") is None:
            processor = read_processor(self._folder, ModelError)
            found = _two_sides(processor.get("crop_size")) or _two_sides(processor.get("size"))
            return found or (_USUAL_SIDE, _USUAL_SIDE)
        return found

    def text_length(self, *names: str) -> int:
        """A quarter of the longest at most: then other lengths can be tried, and offsets of positions fit."""
        longest = self.size(*names)
        return _LONGEST_TEXT if longest is None else min(max(longest // 4, 1), _LONGEST_TEXT)


def _two_sides(value: Any) -> tuple[int, int] | None:
    if is_dict(value):
        given = [value.get("height"), value.get("width")] if "height" in value else [value.get("shortest_edge")] * 2
    else:
        given = list(value) if is_row(value) else [value, value]
    both = [side for side in given if type(side) is int and 0 < side < 1 << 14]
    return (both[0], both[1]) if len(given) == len(both) == 2 else None


def _ids(sizes: _Sizes) -> InputHint | None:
    words = sizes.size("vocab_size")
    length = sizes.text_length("max_position_embeddings", "n_positions", "max_source_positions")
    return None if words is None else InputHint("input_ids", (length,), "int64", words, (_LENGTH,))


def _mask(sizes: _Sizes) -> InputHint | None:
    ids = _ids(sizes)
    return None if ids is None else InputHint("attention_mask", ids.shape, "int64", 2, ids.free)


def _target_ids(sizes: _Sizes) -> InputHint | None:
    words = sizes.size("decoder_vocab_size", "vocab_size")
    length = sizes.text_length("max_target_positions", "max_position_embeddings", "n_positions")
    return None if words is None else InputHint("decoder_input_ids", (length,), "int64", words, (_TARGET_LENGTH,))


def _image(sizes: _Sizes) -> InputHint | None:
    sides, frames = sizes.sides(), sizes.size("num_frames")
    if sides is None:
        return None
    return InputHint("pixel_values", (*([frames] if frames else []), sizes.size("num_channels") or 3, *sides))


def _sound(sizes: _Sizes) -> InputHint | None:
    """A second of it; a spectrogram where the network reads one."""
    bins, frames = sizes.size("num_mel_bins"), sizes.size("max_length")
    if bins is not None and frames is not None:
        return InputHint("input_values", (frames, bins))
    channels = sizes.size("audio_channels")
    return InputHint("input_values", (_SECOND,) if channels is None else (channels, _SECOND))


def _spectrogram(sizes: _Sizes) -> InputHint | None:
    bins, positions = sizes.size("num_mel_bins"), sizes.size("max_source_positions")
    if bins is not None and positions is not None:
        return InputHint("input_features", (bins, 2 * positions))
    features = sizes.size("input_feat_per_channel", "feature_projection_input_dim", "num_mel_bins")
    return None if features is None else InputHint("input_features", (_LONGEST_TEXT, features), free=(_LENGTH, ""))


RULES: Mapping[str, Rule] = {
    "input_ids": _ids,
    "attention_mask": _mask,
    "decoder_input_ids": _target_ids,
    "pixel_values": _image,
    "input_values": _sound,
    "input_features": _spectrogram,
}
"""Every input that is known: what it holds, and where its sizes stand."""
