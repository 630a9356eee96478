"""Numbers and names as they stand in tables; it must never hold a table."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from compressor.units import format_bytes
from compressor.units import format_metric as metric
from compressor.units import format_share as percent

__all__ = [
    "cut", "decided", "duration", "few", "metric", "metrics", "percent", "plural", "shape", "shorten",
    "without_counts", "written",
]  # fmt: skip


def shorten(text: str, width: int) -> str:
    """`features.denseblock1.denselayer6.conv1` -> `features.den…er6.conv1`: both ends tell names apart."""
    if len(text) <= width:
        return text
    head = (width - 1) // 2
    return f"{text[:head]}…{text[len(text) - (width - 1 - head) :]}"


def shorten_all(names: Iterable[str], width: int) -> dict[str, str]:
    """Each name shortened, and no two to the same text: `encoder.layer.10.attention.query` -> `…10.attent…on.query`.

    Where both ends are alike, the parts in front of what differs go; a name that is still not told apart stays whole.
    """
    found = {name: shorten(name, width) for name in names}
    for alike in _alike(found):
        parts = [name.split(".") for name in alike]
        first = next((i for i, column in enumerate(zip(*parts, strict=False)) if len(set(column)) > 1), 0)
        for name, own in zip(alike, parts, strict=True):
            rest = ".".join(own[first + 1 :])
            found[name] = f"…{own[first]}." + shorten(rest, max(width - len(own[first]) - 2, 2))
    return found | {name: name for alike in _alike(found) for name in alike}


def _alike(found: Mapping[str, str]) -> list[list[str]]:
    """Names with the same text, where there are several."""
    by_text: dict[str, list[str]] = {}
    for name, text in found.items():
        by_text.setdefault(text, []).append(name)
    return [names for names in by_text.values() if len(names) > 1]


def cut(text: str, width: int) -> str:
    """`net.py:12 x = self.conv(x)` -> `net.py:12 x = s…`: the front is what one looks for."""
    return text if len(text) <= width else text[: width - 1] + "…"


def few(names: Sequence[str], most: int = 6) -> str:
    """`conv1, conv2 and 7 more`."""
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")


def written(output: str | None, size_bytes: int | None, seconds: float) -> str | None:
    """`wrote net.pt (132 KiB) after 3.1 s`; None where nothing was."""
    if output is None:
        return None
    where = "standard output" if output == "-" else output
    size = f" ({format_bytes(size_bytes)})" if size_bytes is not None else ""
    return f"wrote {where}{size} after {duration(seconds)}"


def shape(sizes: Sequence[int | None]) -> str:
    """`(None, 20, 24, 24)` -> `N×20×24×24`; a scalar is `1`."""
    return "×".join("N" if size is None else str(size) for size in sizes) or "1"


def metrics(values: Mapping[str, float] | None) -> str:
    """`accuracy 98.77 %, loss 0.03457`: the loss behind what it stands for, without the number of samples."""
    given = values or {}
    names = sorted((name for name in given if name != "n"), key=lambda name: name == "loss")
    return ", ".join(f"{name} {metric(name, given[name])}" for name in names)


def duration(seconds: float) -> str:
    """`75.3` -> `1 min 15 s`; below a minute three digits."""
    if seconds < 60:
        return f"{seconds:.1f} s" if seconds >= 10 else f"{seconds:.2f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {rest} s"


def without_counts(operators: Sequence[str]) -> str | None:
    """What to say about operators that no count of MACs contains; None if there are none."""
    if not operators:
        return None
    told = "what that multiplies is not known; compressor.register_mac_rule says it"
    return f"MACs are without {', '.join(operators)}: {told}"


def plural(n: int, noun: str) -> str:
    """`1 unit`, `3 units`, `1,234 units`."""
    return f"{n:,} {noun}" if n == 1 else f"{n:,} {noun}s"


def decided(names: Sequence[str]) -> str:
    """`near-ties or chance in topk, randn: …`: what a comparison took over from the other side."""
    known = list(dict.fromkeys(names))
    if not known:
        return ""
    shown = ", ".join(known[:3]) + (f" and {len(known) - 3} more" if len(known) > 3 else "")
    return f"near-ties or chance in {shown}: taken over, and compared by what they are decided from"
