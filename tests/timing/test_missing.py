"""Why a network is not as many times faster as it has fewer MACs."""

from __future__ import annotations

import pytest

from compressor.timing import why_missing


@pytest.mark.parametrize(
    ("values", "told"),
    [
        ({"speedup": 1.9, "macs_ratio": 2.0}, []),
        ({"speedup": 2.4, "macs_ratio": 2.0}, []),
        ({"speedup": 1.0, "macs_ratio": None}, []),
        ({"speedup": 1.0, "macs_ratio": 2.0, "filled_ratio": 1.1}, ["widths between"]),
        ({"speedup": 1.0, "macs_ratio": 2.0, "filled_ratio": 1.9, "read_once": 0.9}, ["90% of its weights are read"]),
        (
            {"speedup": 1.0, "macs_ratio": 2.0, "read_once": 0.9, "batch": 16, "after_s": 1e-5},
            ["an inference this short"],
        ),
        ({"speedup": 1.0, "macs_ratio": 2.0, "after_s": 1e-2}, ["what is left is not in products"]),
        (
            {"speedup": 1.0, "macs_ratio": 2.0, "filled_ratio": 1.1, "read_once": 0.9, "after_s": 1e-5},
            ["widths between", "90% of its weights are read", "an inference this short"],
        ),
    ],
)
def test_reasons(values: dict[str, float], told: list[str]) -> None:
    found = why_missing(**values)  # type: ignore[arg-type]
    assert len(found) == len(told)
    assert all(text.startswith(start) for text, start in zip(found, told, strict=True)), found
