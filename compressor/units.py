"""Typed quantities and their text forms; it must never hold arithmetic on models or anything that needs torch."""

from __future__ import annotations

import math
import re
from typing import NewType

from compressor.errors import UsageError

Macs = NewType("Macs", int)
"""Multiply-adds of one forward pass at batch 1. The word FLOP is not used: tools differ by 2 on it."""

Params = NewType("Params", int)
"""Elements of trainable tensors."""

Seconds = NewType("Seconds", float)

_RATIO = re.compile(r"^\s*(\d+(?:\.\d+)?(?:[eE][+-]?\d+)?)\s*[xX]?\s*$")
_SHARES = ("accuracy", "agreement", "sparsity", "top1", "top5", "top-1", "top-5")
"""Names whose values are shares of 1, shown as percentages."""
_SHARE = re.compile(r"^\s*([+-]?\d*\.?\d+(?:[eE][+-]?\d+)?)\s*(%?)\s*$")
_DURATION = re.compile(r"^\s*(\d+(?:\.\d+)?)\s*([smh]?)\s*$")
_SECONDS = {"": 1, "s": 1, "m": 60, "h": 3600}


def parse_ratio(text: str) -> float:
    """Dense ÷ kept from `13x` or `13`; `92%` is the share that goes.

    Raises:  UsageError if it is no number or not above 1.
    """
    if text.strip().endswith("%"):
        return ratio_from_sparsity(parse_share(text, "--ratio"), "--ratio")
    match = _RATIO.match(text)
    if match is None:
        raise UsageError(f"--ratio {text}: not a ratio; write it as 13x or 13 (dense ÷ kept), or as 92% (what goes)")
    value = float(match.group(1))
    if not math.isfinite(value) or value <= 1:
        raise UsageError(
            f"--ratio {text}: a ratio is dense ÷ kept and must be above 1; to keep half of the model write 2x, "
            "to remove 92 % of it 92%"
        )
    return value


def parse_share(text: str, name: str) -> float:
    """A share from `0.92` or `92%`; `name` is the option that it is for.

    Raises:  UsageError if it is no number.
    """
    match = _SHARE.match(text)
    if match is None:
        raise UsageError(f"{name} {text}: not a share; write it as 0.92 or 92%")
    return float(match.group(1)) / (100 if match.group(2) else 1)


def ratio_from_sparsity(sparsity: float, name: str = "--sparsity") -> float:
    """Dense ÷ kept from the removed share: 0.923 is about 13x.

    Raises:  UsageError unless 0 < sparsity < 1.
    """
    if not 0 < sparsity < 1:
        meant = f"; {sparsity:g} % is {sparsity:g}%" if 1 < sparsity < 100 else ""
        raise UsageError(
            f"{name} {sparsity:g}: must lie between 0 and 1 (0.923 or 92.3% asks for the same as --ratio 13x){meant}"
        )
    return 1 / (1 - sparsity)


def parse_duration(text: str) -> float:
    """Seconds from `90`, `90s`, `5m` or `1.5h`.

    Raises:  UsageError if it is none, or not above 0.
    """
    match = _DURATION.match(text)
    seconds = float(match.group(1)) * _SECONDS[match.group(2)] if match else 0.0
    if not (math.isfinite(seconds) and seconds > 0):
        raise UsageError(f"{text}: not a time; write it as 90s, 5m or 1.5h")
    return seconds


def format_count(n: int) -> str:
    """`431080` -> `431,080`."""
    return f"{n:,}"


def format_dtype(dtype: object) -> str:
    """`torch.float32` -> `float32`."""
    return str(dtype).removeprefix("torch.")


def format_share(share: float, digits: int = 1) -> str:
    """`0.9231` -> `92.3 %`; what is not quite all or nothing says so: `>99.9 %`, `<0.1 %`."""
    if share in (0, 1):
        return f"{share * 100:.0f} %"
    shown, least = f"{share * 100:.{digits}f}", f"{10**-digits:.{digits}f}"
    if 0 < share < 1 and float(shown) == 0:
        return f"<{least} %"
    return f">{100 - 10**-digits:.{digits}f} %" if 0 < share < 1 and float(shown) == 100 else f"{shown} %"


def format_metric(name: str, value: float) -> str:
    """`accuracy 0.98765` -> `98.77 %`, `loss 0.0345678` -> `0.03457`, a count as it is."""
    if math.isnan(value):
        return "nan"
    if name.lower().endswith(_SHARES):
        return f"{value * 100:.2f} %" if value in (0, 1) else format_share(value, 2)
    if float(value).is_integer() and abs(value) < 1e15:
        return f"{int(value):,}"
    return f"{value:.4g}"


def format_ratio(ratio: float) -> str:
    """`13.04` -> `13.0x`; three significant digits below 10."""
    return f"{ratio:.2f}x" if ratio < 10 else f"{ratio:.1f}x"


def format_reachable(ratio: float) -> str:
    """`271.27` -> `271.2x`: what a message says can be reached is not rounded up, for somebody will ask for it."""
    digits = 100 if ratio < 10 else 10
    return format_ratio(math.floor(ratio * digits) / digits)


def format_fewer(before: float | None, after: float | None, none: str = "") -> str:
    """How many times less is left, `none` where nothing is or nothing is known."""
    return format_ratio(before / after) if before and after else none


def format_macs(macs: int) -> str:
    """`2293000` -> `2.29 M`."""
    return _scaled(macs, 1000, ("", " k", " M", " G", " T"))


def format_bytes(size: int) -> str:
    """`1724320` -> `1.64 MiB`."""
    return _scaled(size, 1024, (" B", " KiB", " MiB", " GiB", " TiB"))


def format_seconds(seconds: float) -> str:
    """`0.00123` -> `1.23 ms`."""
    for unit, scale in (("s", 1.0), ("ms", 1e-3), ("µs", 1e-6)):
        if seconds >= scale * _ROUNDS_UP:
            return f"{_three_digits(seconds / scale)} {unit}"
    return f"{_three_digits(seconds / 1e-9)} ns"


_ROUNDS_UP = 0.9995
"""From this share of a unit on three digits round up to it."""


def _scaled(value: float, step: int, suffixes: tuple[str, ...]) -> str:
    for suffix in suffixes[:-1]:
        if abs(value) < (step if isinstance(value, int) else step * _ROUNDS_UP):
            return f"{value:.0f}{suffix}" if suffix == suffixes[0] else f"{_three_digits(value)}{suffix}"
        value /= step
    return f"{_three_digits(value)}{suffixes[-1]}"


def _three_digits(value: float) -> str:
    """Three significant digits, without an exponent for a number too large for them."""
    return f"{value:.3g}" if abs(value) < 999.5 else f"{value:.0f}"
