"""Opening a torch file runs nothing, and damage of any kind is said in a line."""

from __future__ import annotations

import hashlib
import io
import os
import pickle
import zipfile
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
from torch import nn

from compressor.errors import ModelError, UnsafeFileError
from compressor.formats import archive
from compressor.formats.archive import file_sha256, first_line, open_archive, open_exported, open_safetensors


class Attack:
    def __init__(self, sentinel: Path) -> None:
        self.sentinel = str(sentinel)

    def __reduce__(self) -> Any:
        return os.mkdir, (self.sentinel,)


def saved(value: Any, **options: Any) -> io.BytesIO:
    buffer = io.BytesIO()
    torch.save(value, buffer, **options)
    buffer.seek(0)
    return buffer


@pytest.mark.parametrize("options", [{}, {"_use_new_zipfile_serialization": False}, {"pickle_protocol": 4}])
def test_a_pickle_that_would_run_code_does_not(tmp_path: Path, options: dict[str, Any]) -> None:
    sentinel = tmp_path / "ran"
    file = saved({"state_dict": {"w": torch.zeros(1)}, "epoch": Attack(sentinel)}, **options)
    with pytest.raises(UnsafeFileError, match=r"could run any code(.|\n)*state_dict(.|\n)*--trust-pickle") as caught:
        open_archive(file, "net.pt")
    assert str(caught.value).count("\n") == 2
    assert not sentinel.exists()


def test_the_sentinel_is_made_when_the_pickle_runs(tmp_path: Path) -> None:
    sentinel = tmp_path / "ran"
    open_archive(saved({"epoch": Attack(sentinel)}), "net.pt", trust_pickle=True)
    assert sentinel.exists()


def test_a_module_is_opened_only_when_trusted() -> None:
    with pytest.raises(UnsafeFileError, match=r"pickled Python objects \(torch\.nn\.modules"):
        open_archive(saved(nn.Linear(2, 3)), "net.pt")
    assert isinstance(open_archive(saved(nn.Linear(2, 3)), "net.pt", trust_pickle=True), nn.Linear)


def test_a_trusted_pickle_of_a_missing_class_says_where_to_run() -> None:
    file = saved({"w": torch.zeros(1)})
    renamed = io.BytesIO()
    with zipfile.ZipFile(file) as old, zipfile.ZipFile(renamed, "w") as new:
        for entry in old.infolist():
            content = old.read(entry)
            forged = b"\x80\x02cno_such_module\nNet\n." if entry.filename.endswith("data.pkl") else content
            new.writestr(entry.filename, forged)
    renamed.seek(0)
    with pytest.raises(ModelError, match=r"cannot be imported(.|\n)*PYTHONPATH"):
        open_archive(renamed, "net.pt", trust_pickle=True)


def test_a_plain_dictionary_opens_in_both_layouts() -> None:
    for legacy in (False, True):
        found = open_archive(saved({"w": torch.ones(3)}, _use_new_zipfile_serialization=not legacy), "net.pt")
        assert torch.equal(found["w"], torch.ones(3))


def test_declared_sizes_are_not_believed() -> None:
    file = saved({"w": torch.zeros(10)})
    forged = io.BytesIO()
    with zipfile.ZipFile(file) as old, zipfile.ZipFile(forged, "w") as new:
        for entry in old.infolist():
            content = old.read(entry)
            if entry.filename.endswith("data.pkl"):
                assert content.count(b"K\x0a") == 2
                content = content.replace(b"K\x0a", b"J\xff\xff\xff\x7f")
            new.writestr(entry.filename, content)
    forged.seek(0)
    with pytest.raises(ModelError, match="is damaged or cut off"):
        open_archive(forged, "net.pt")


@pytest.mark.parametrize("length", [20, 100, 400])
def test_a_legacy_file_cut_off(length: int) -> None:
    whole = saved({"w": torch.zeros(100)}, _use_new_zipfile_serialization=False).getvalue()
    with pytest.raises(ModelError, match="is damaged or cut off"):
        open_archive(io.BytesIO(whole[:length]), "net.pt")


def test_a_pickle_without_torch_is_damage() -> None:
    with pytest.raises(ModelError, match="is damaged or cut off"):
        open_archive(io.BytesIO(pickle.dumps({"w": [1, 2]}, protocol=2)), "net.pt")


def test_safetensors_whole_and_damaged() -> None:
    whole = safetensors.torch.save({"w": torch.ones(3)})
    assert torch.equal(open_safetensors(io.BytesIO(whole), "net")["w"], torch.ones(3))
    for damaged in (whole[:-1], whole[:20], whole.replace(b'"F32"', b'"F99"'), whole.replace(b"[3]", b"[9]")):
        with pytest.raises(ModelError, match="is a damaged safetensors file"):
            open_safetensors(io.BytesIO(damaged), "net")


def test_an_exported_archive_is_opened_only_when_trusted() -> None:
    buffer = io.BytesIO()
    torch.export.save(torch.export.export(nn.Linear(2, 3), (torch.zeros(2, 2),)), buffer)
    buffer.seek(0)
    with pytest.raises(UnsafeFileError, match=r"can run code(.|\n)*--arch(.|\n)*--trust-pickle"):
        open_exported(buffer, "net.pt2", trust_pickle=False)
    module = open_exported(buffer, "net.pt2", trust_pickle=True)
    assert not module.eval().training
    assert module.train().training
    with pytest.raises(ModelError, match="cannot be opened"):
        open_exported(io.BytesIO(buffer.getvalue()[:50]), "net.pt2", trust_pickle=True)


@pytest.mark.parametrize(
    ("raised", "told"),
    [
        (ValueError("bad\nworse"), "ValueError: bad"),
        (ValueError("\n  \n\x07bell\n \x1b[31mred\x1b[0m \n"), "ValueError: red"),
        (RuntimeError("advice\nWeightsUnpickler error: why\nmore"), "RuntimeError: why"),
        (KeyError(), "KeyError"),
        (OSError("\x00"), "OSError"),
        (ValueError("x" * 500), f"ValueError: {'x' * 160}"),
    ],
)
def test_errors_of_libraries_are_told_in_one_printable_line(raised: Exception, told: str) -> None:
    assert first_line(raised) == told


@pytest.mark.parametrize(
    ("raised", "expected"),
    [
        (pickle.UnpicklingError("GLOBAL os.mkdir was not an allowed global by default"), "os.mkdir"),
        (pickle.UnpicklingError("Can only build Tensor, got x"), "of a kind that torch's safe reader refuses"),
        (pickle.UnpicklingError("pickle data was truncated"), None),
        (ValueError("GLOBAL os.mkdir was not an allowed global by default"), None),
    ],
)
def test_what_is_damaged_is_told_from_what_would_import(raised: Exception, expected: str | None) -> None:
    assert archive._unsafe_name(raised) == expected


@pytest.mark.parametrize(
    ("said", "error", "told"),
    [
        (
            "GLOBAL omegaconf.dictconfig.DictConfig was not an allowed",
            UnsafeFileError,
            r"\(omegaconf\.dictconfig\.Dict",
        ),
        ("pickle data was truncated", ModelError, "is damaged or cut off: UnpicklingError: pickle data was truncated"),
    ],
)
def test_what_is_refused_twice_is_given_up(
    said: str, error: type[Exception], told: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Settings that torch goes on to refuse, whatever stands in for them."""
    asked: list[bool] = []

    def refuse(file: Any, *, weights_only: bool) -> Any:
        asked.append(weights_only)
        assert len(asked) < 100, "asked for ever"
        raise pickle.UnpicklingError(said)

    monkeypatch.setattr(archive, "_torch_load", refuse)
    with pytest.raises(error, match=told):
        open_archive(saved({"w": torch.zeros(1)}), "net.pt")
    assert len(asked) <= 2 and all(asked)


def test_sha256_of_a_file(tmp_path: Path) -> None:
    content = os.urandom(5_000_000)
    (tmp_path / "file").write_bytes(content)
    assert file_sha256(tmp_path / "file") == hashlib.sha256(content).hexdigest()
    with pytest.raises(ModelError, match="cannot be read"):
        file_sha256(tmp_path / "missing")
