from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from compressor.errors import ModelError, OutputError, TrainingError
from compressor.training import load_state, save_state
from compressor.training.resume import plain_copy

STATE: dict[str, Any] = {
    "module": {"w": torch.arange(4000.0)},
    "seed": 3,
    "history": [{"lr": 0.1}],
    "stopped": None,
}


def test_round_trip_and_overwriting(tmp_path: Path) -> None:
    path = tmp_path / "resume.pt"
    save_state(path, {"seed": 1})
    save_state(path, STATE)
    loaded = load_state(path)
    assert torch.equal(loaded["module"]["w"], STATE["module"]["w"])
    assert {k: loaded[k] for k in ("seed", "history", "stopped")} == {
        "seed": 3,
        "history": [{"lr": 0.1}],
        "stopped": None,
    }
    assert os.listdir(tmp_path) == ["resume.pt"]


def test_failed_writing_keeps_the_last_point(tmp_path: Path) -> None:
    path = tmp_path / "resume.pt"
    save_state(path, STATE)
    with pytest.raises((AttributeError, TypeError), match=r"(?i)pickle"):
        save_state(path, {"seed": lambda: None})
    assert load_state(path)["seed"] == 3
    assert os.listdir(tmp_path) == ["resume.pt"]


def test_full_disk_is_an_output_error_that_keeps_the_last_point(tmp_path: Path) -> None:
    resource = pytest.importorskip("resource", reason="needs POSIX limits to play a full disk")
    path = tmp_path / "resume.pt"
    save_state(path, STATE)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, hard))
    try:
        with pytest.raises(OutputError, match=r"resume\.pt"):
            save_state(path, {"module": torch.zeros(1 << 20)})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert load_state(path)["seed"] == 3
    assert os.listdir(tmp_path) == ["resume.pt"]


def test_missing_file_is_a_model_error(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"nowhere\.pt: cannot be read as a resume point"):
        load_state(tmp_path / "nowhere.pt")


@pytest.mark.parametrize("n_kept", [0, 10, 0.5, 0.99])
def test_truncated_file_is_a_model_error(tmp_path: Path, n_kept: float) -> None:
    path = tmp_path / "resume.pt"
    save_state(path, STATE)
    content = path.read_bytes()
    path.write_bytes(content[: n_kept if isinstance(n_kept, int) else int(n_kept * len(content))])
    with pytest.raises(ModelError, match=r"resume\.pt: cannot be read as a resume point"):
        load_state(path)


def test_one_flipped_bit_in_a_tensor_is_a_model_error(tmp_path: Path) -> None:
    path = tmp_path / "resume.pt"
    save_state(path, STATE)
    content = bytearray(path.read_bytes())
    content[content.index(STATE["module"]["w"].numpy().tobytes()) + 77] ^= 1
    path.write_bytes(content)
    with pytest.raises(ModelError, match=r"resume\.pt: damaged at"):
        load_state(path)
    assert torch.load(path, weights_only=True)["kind"] == "compressor resume point"  # torch alone does not notice


def test_other_files_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "weights.pt"
    torch.save({"w": torch.zeros(2)}, path)
    with pytest.raises(ModelError, match="is no resume point"):
        load_state(path)
    for content in ([1, 2], {"kind": "another", "version": 1, "state": {}}, {"kind": torch.zeros(2), "version": 1}):
        torch.save(content, path)
        with pytest.raises(ModelError, match="is no resume point"):
            load_state(path)
    torch.save({"kind": "compressor resume point", "version": 99, "state": {}}, path)
    with pytest.raises(ModelError, match=r"resume point of version 99, this program reads 1"):
        load_state(path)


def test_file_that_could_run_code_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "evil.pt"
    torch.save({"kind": "compressor resume point", "state": os.getcwd}, path)
    with pytest.raises(ModelError, match=r"evil\.pt: cannot be read as a resume point"):
        load_state(path)


def test_plain_copy_shares_no_memory() -> None:
    tensor = torch.zeros(2)
    copied = plain_copy({"a": [tensor, (1, 2.0, "x", None, True)]}, "state")
    tensor += 1
    assert copied["a"][0].tolist() == [0, 0]
    assert copied["a"][1] == (1, 2.0, "x", None, True)


@pytest.mark.parametrize("value", [np.float64(1.0), np.zeros(2), {1, 2}, object()])
def test_plain_copy_names_what_it_cannot_hold(value: object) -> None:
    with pytest.raises(TrainingError, match=rf"state.hooks\[1\]: .* got {type(value).__name__}"):
        plain_copy({"hooks": [1, value]}, "state")
