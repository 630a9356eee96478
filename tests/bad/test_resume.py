"""Resume points that are damaged, lie, or belong to somebody else: refused, and left where they are."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from compressor.cli.main import main
from tests.bad.forging import saved

KIND = {"kind": "compressor resume point", "version": 1}
POINTS: dict[str, Any] = {
    "nothing": b"",
    "a text": b"resume",
    "a zip's first bytes": b"PK\x03\x04",
    "another dictionary": saved({"a": 1}),
    "a tensor": saved(torch.zeros(3)),
    "no state": saved(KIND),
    "a state that is none": saved({**KIND, "state": 3}),
    "a list for a state": saved({**KIND, "state": [1]}),
    "an empty state": saved({**KIND, "state": {}}),
    "another run's": saved({**KIND, "state": {"identity": "0" * 64, "phase": 0, "fit": None, "module": None}}),
    "a version to come": saved({**KIND, "version": 99, "state": {}}),
    "a version that is none": saved({**KIND, "version": "x", "state": {}}),
    "a pickle of the old layout": saved({**KIND, "state": {}}, _use_new_zipfile_serialization=False),
    "cut off": saved({**KIND, "state": {"w": torch.zeros(99)}})[:-40],
}


@pytest.mark.parametrize("command", ["prune", "retrain"])
@pytest.mark.parametrize("what", POINTS)
def test_a_resume_point_that_is_none(folder: Path, capsys: Any, what: str, command: str) -> None:
    images, labels = np.zeros((8, 1, 6, 6), np.float32), np.arange(8) % 3
    np.savez(folder / "data.npz", x_train=images, y_train=labels, x_test=images, y_test=labels)
    (folder / "out.pt.resume").write_bytes(POINTS[what])
    more = ["-r", "2x", "--retrain-epochs", "1"] if command == "prune" else []
    code = main([command, "good.pt", *more, "-e", "1", "--data", "data.npz", "-o", "out.pt", "--resume", "-q"])
    told = capsys.readouterr().err
    assert code == 1, told
    assert 1 <= told.count("\n") <= 3 and "bug" not in told, told
    assert (folder / "out.pt.resume").read_bytes() == POINTS[what]
    assert not (folder / "out.pt").exists()
