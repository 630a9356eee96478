"""The machine as it is described."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch

from compressor.timing.environment import cpu_name, environment, n_cores


def test_environment_is_filled_in() -> None:
    found = environment()
    assert found.torch == torch.__version__ and found.n_cores >= 1 and found.cpu and found.onnxruntime


def test_cpu_name_is_read_from_the_kernel(tmp_path: Path) -> None:
    info = tmp_path / "cpuinfo"
    info.write_text("processor\t: 0\nmodel name\t: Fast CPU @ 3 GHz\nmodel name\t: other\n")
    assert cpu_name(info) == "Fast CPU @ 3 GHz"
    assert cpu_name(tmp_path / "missing")


@pytest.mark.parametrize(
    ("text", "limit"), [("150000 100000\n", 1), ("50000 100000", 1), ("max 100000", None), ("junk", None)]
)
def test_a_quota_lowers_the_number_of_cores(tmp_path: Path, text: str, limit: int | None) -> None:
    without = n_cores(tmp_path / "missing")
    assert without >= 1 and without <= (os.cpu_count() or 1)
    quota = tmp_path / "cpu.max"
    quota.write_text(text)
    assert n_cores(quota) == (without if limit is None else limit)
