"""Resume points that are damaged, lie, or belong to somebody else: refused, and left where they are."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from compressor.cli.main import main
from compressor.pruning import run as run_module
from tests.bad.forging import no_hang, saved

KIND = {"kind": "compressor resume point", "version": 1}


def endless(value: Any) -> bytes:
    """A file whose pickle is one of a dictionary, its key a tuple of twice a tuple of twice …, forty times."""
    steps = b"".join(b"h" + bytes([i]) + b"h" + bytes([i]) + b"\x86q" + bytes([i + 1]) for i in range(40))
    with zipfile.ZipFile(io.BytesIO(saved(value))) as file:
        entries = {name: file.read(name) for name in file.namelist()}
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as file:
        for name, content in entries.items():
            file.writestr(name, b"\x80\x02})q\x00" + steps + b"Ns." if name.endswith("data.pkl") else content)
    return buffer.getvalue()


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
    "a version that is a tensor": saved({**KIND, "version": torch.zeros(3), "state": {}}),
    "a kind that is a tensor": saved({**KIND, "kind": torch.zeros(3), "state": {}}),
    "an identity that is a tensor": saved({**KIND, "state": {"identity": torch.zeros(3)}}),
    "a value without end": endless({**KIND, "state": {}}),
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


PRUNE = ["-r", "1.5x", "-e", "2", "--retrain-epochs", "2", "--batch-size", "4"]
RUNS = {
    "admm": ["prune", "good.pt", *PRUNE],
    "masked": ["prune", "good.pt", *PRUNE[:2], "-m", "magnitude", *PRUNE[4:], "--optimizer", "sgd"],
    "retrain": ["retrain", "good.pt", "-e", "2", "--batch-size", "4", "--keep-best"],
}
VALUES: dict[str, Any] = {
    "nothing": None, "true": True, "minus one": -1, "a million": 10**6, "a half": 0.5, "nan": float("nan"),
    "a text": "x",
    "an empty list": [], "a list": [1], "an empty table": {}, "a table": {"a": 1}, "a number as key": {7: {}},
    "a tensor": torch.zeros(3), "a whole tensor": torch.zeros(3, dtype=torch.int64), "a tuple": (1, 2),
}  # fmt: skip


def places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    if path:
        yield path
    parts = value.items() if isinstance(value, dict) else enumerate(value[:1]) if isinstance(value, list) else ()
    for key, part in list(parts)[: 99 if len(path) < 2 else 3]:
        yield from places(part, (*path, key))


def broken_off(folder: Path, run: str, capsys: Any) -> bytes:
    """The resume point that a run leaves after an epoch."""
    images = np.random.default_rng(0).normal(size=(12, 1, 6, 6)).astype(np.float32)
    labels = np.arange(12) % 3
    np.savez(folder / "data.npz", x_train=images, y_train=labels, x_test=images, y_test=labels)

    def stop(path: Any, state: Any) -> None:
        kept(path, state)
        if state["fit"] is not None:
            raise KeyboardInterrupt

    kept = run_module.save_state
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(run_module, "save_state", stop)
        assert main([*RUNS[run], "--data", "data.npz", "-o", "out.pt", "-q"]) == 130
    capsys.readouterr()
    return (folder / "out.pt.resume").read_bytes()


@pytest.mark.parametrize("run", RUNS)
def test_every_field_of_a_resume_point_with_every_wrong_value(folder: Path, capsys: Any, run: str) -> None:
    point = broken_off(folder, run, capsys)
    arguments = [*RUNS[run], "--data", "data.npz", "-o", "out.pt", "-q", "--resume"]
    whole = torch.load(io.BytesIO(point), weights_only=True)
    fields = list(places(whole["state"]))
    assert len(fields) > 40 and any(path[:2] == ("fit", "optimizer") for path in fields)
    refused = 0
    for path in fields:
        for name, value in VALUES.items():
            forged = torch.load(io.BytesIO(point), weights_only=True)
            at = forged["state"]
            for key in path[:-1]:
                at = at[key]
            at[path[-1]] = value
            content = saved(forged)
            (folder / "out.pt.resume").write_bytes(content)
            with no_hang():
                code = main(arguments)
            told = capsys.readouterr().err
            assert "bug" not in told and 0 <= told.count("\n") <= 3, (path, name, told)
            assert code in (0, 1), (path, name, told)
            if code:
                refused += 1
                assert (folder / "out.pt.resume").read_bytes() == content and not (folder / "out.pt").exists()
            else:
                (folder / "out.pt").unlink()
    assert refused > 0.9 * len(fields) * len(VALUES)


def test_twin_the_point_itself_is_resumed(folder: Path, capsys: Any) -> None:
    broken_off(folder, "admm", capsys)
    assert main([*RUNS["admm"], "--data", "data.npz", "-o", "out.pt", "-q", "--resume"]) == 0


CHANGES: dict[str, Callable[[Path], Any]] = {
    "another pixel": lambda folder: rewrite(folder, "x_train"),
    "another label": lambda folder: rewrite(folder, "y_train"),
    "another pixel to validate on": lambda folder: rewrite(folder, "x_test"),
    "another mean": lambda folder: rewrite(folder, "mean"),
}


def rewrite(folder: Path, name: str) -> None:
    with np.load(folder / "data.npz") as file:
        arrays = dict(file)
    arrays[name] = arrays.get(name, np.zeros(1)).copy()
    arrays[name].flat[0] += 1
    np.savez(folder / "data.npz", **arrays)


@pytest.mark.parametrize("what", CHANGES)
def test_data_that_changed_meanwhile_are_other_data(folder: Path, capsys: Any, what: str) -> None:
    point = broken_off(folder, "retrain", capsys)
    CHANGES[what](folder)
    assert main([*RUNS["retrain"], "--data", "data.npz", "-o", "out.pt", "-q", "--resume"]) == 1
    assert "belongs to a run with another model, other data or other options" in capsys.readouterr().err
    assert (folder / "out.pt.resume").read_bytes() == point


def test_twin_the_same_data_elsewhere_are_the_same(folder: Path, capsys: Any) -> None:
    broken_off(folder, "retrain", capsys)
    (folder / "elsewhere").mkdir()
    (folder / "data.npz").rename(folder / "elsewhere" / "moved.npz")
    done = main([*RUNS["retrain"], "--data", "elsewhere/moved.npz", "-o", "out.pt", "-q", "--resume"])
    assert done == 0, capsys.readouterr().err
