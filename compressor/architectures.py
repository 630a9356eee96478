"""What architectures are called, and the text of --arch and --arch-arg; it must never hold a network."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType

from compressor.errors import UsageError
from compressor.nearest import did_you_mean
from compressor.reference import split_reference

BUNDLED = (
    *("lenet-300-100", "lenet5", "alexnet", "caffenet", "vgg16", "vgg16-bn", "vgg16-cifar"),
    *(f"resnet{depth}" for depth in (20, 32, 44, 56, 110)),
)
"""Every bundled name. ImageNet ResNets are `torchvision:resnet50` and the like."""
ALIASES: Mapping[str, str] = MappingProxyType({"lenet300100": "lenet-300-100", "lenet-5": "lenet5"})
LIBRARIES = ("torchvision", "timm", "transformers", "ultralytics")
"""What may stand in front of a name that the library knows, or of a directory."""


def is_code(arch: str | None) -> bool:
    """Whether it names code of somebody's own: neither a bundled network nor one of a library."""
    if arch is None or ALIASES.get(arch.lower(), arch.lower()) in BUNDLED:
        return False
    prefix, colon, _ = arch.partition(":")
    return not (colon and prefix in LIBRARIES)


def check_architecture(arch: str) -> None:
    """Nothing, when the text has a form that may name one.

    Raises:  UsageError with the names like it.
    """
    prefix, colon, _ = arch.partition(":")
    known = ALIASES.get(arch.lower(), arch.lower()) in BUNDLED or (colon and prefix in LIBRARIES)
    if not known and not arch.endswith(".py") and split_reference(arch) is None:
        hint = did_you_mean(arch, [*BUNDLED, *ALIASES]) or f"bundled are {', '.join(BUNDLED)}"
        libraries = "torchvision:NAME, timm:NAME, transformers:DIR, ultralytics:NAME"
        others = f"{libraries}, package.module:Net, path/to/net.py:Net"
        raise UsageError(f"--arch {arch}: unknown architecture; {hint}\nothers: {others}")


def parse_arch_args(pairs: Sequence[str]) -> dict[str, object]:
    """`["width=2", "fast=false"]` -> `{"width": 2, "fast": False}`; int, float, bool, None, else text.

    Raises:  UsageError if a pair has no `=`, no name before it, or a name comes twice.
    """
    values: dict[str, object] = {}
    for pair in pairs:
        name, equals, text = pair.partition("=")
        name = name.strip().replace("-", "_")
        if not equals or not name.isidentifier():
            raise UsageError(f"--arch-arg {pair}: write it as name=value")
        if name in values:
            raise UsageError(f"--arch-arg {pair}: {name} was given before")
        values[name] = value = _value(text.strip())
        if isinstance(value, int) and not -(2**63) <= value < 2**63:
            raise UsageError(f"--arch-arg {name}: a number beyond 64 bits")
    return values


def _value(text: str) -> object:
    word = {"true": True, "false": False, "none": None}
    if text.lower() in word:
        return word[text.lower()]
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return text
