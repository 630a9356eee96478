"""Two runs that work for one output."""

from __future__ import annotations

from pathlib import Path

import pytest

from compressor.cli.reservation import reserved
from compressor.errors import UsageError

pytest.importorskip("fcntl", reason="this system has no locks of files")


def test_a_second_run_is_kept_away_until_the_first_is_done(tmp_path: Path) -> None:
    point = tmp_path / "m.pt.resume"
    with reserved(point):
        with pytest.raises(UsageError, match=r"m\.pt: another run is working for this file"), reserved(point):
            pass
        with reserved(point, is_main=False):
            pass
    with reserved(point):
        pass
    assert list(tmp_path.iterdir()) == []
