"""The text of --data: which reader it reaches, what is said when none fits, and that it survives a move."""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np
import pytest

from compressor.data import open_data, relocate
from compressor.errors import DataError, UntrustedCodeError


def write_mnist(folder: Path) -> None:
    folder.mkdir(parents=True)
    for prefix in ("train", "t10k"):
        (folder / f"{prefix}-images-idx3-ubyte").write_bytes(
            bytes((0, 0, 8, 3)) + struct.pack(">3I", 2, 28, 28) + bytes(2 * 784)
        )
        (folder / f"{prefix}-labels-idx1-ubyte").write_bytes(bytes((0, 0, 8, 1)) + struct.pack(">I", 2) + b"\x01\x02")


def write_npz(path: Path) -> None:
    x, y = np.zeros((3, 4, 4), np.uint8), np.zeros(3, np.uint8)
    with path.open("wb") as file:
        np.savez(file, x_train=x, y_train=y, x_test=x, y_test=y)


def test_a_kind_with_a_relative_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    write_mnist(tmp_path / "here" / "digits")
    for ref, base in (("mnist:here/digits", None), ("mnist:digits", Path("here").absolute())):
        data = open_data(ref, base=base)
        assert data.ref == f"mnist:{tmp_path}/here/digits"
        assert open_data(data.ref).n_train == 2
    assert open_data("fashion-mnist:here/digits").ref.startswith("fashion-mnist:/")


def test_an_npz_is_known_by_its_content(tmp_path: Path) -> None:
    write_npz(tmp_path / "digits.data")
    data = open_data("digits.data", base=tmp_path)
    assert data.ref == str(tmp_path / "digits.data")
    (tmp_path / "false.npz").write_bytes(b"\x93NUMPY plain array")
    with pytest.raises(DataError, match=r"not an \.npz file"):
        open_data(str(tmp_path / "false.npz"))


def test_a_function_of_a_file(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(
        "import torch\n"
        "from torch.utils.data import TensorDataset\n"
        "def both():\n"
        "    part = TensorDataset(torch.zeros(4, 2), torch.zeros(4).long())\n"
        "    return part, part\n"
    )
    data = open_data("mine.py:both", base=tmp_path, trust_code=True)
    assert data.ref == f"{tmp_path}/mine.py:both"
    assert open_data(data.ref, trust_code=True).n_val == 4
    assert open_data(f"{tmp_path}/mine.py", trust_code=True).n_val == 4
    with pytest.raises(UntrustedCodeError, match=r"mine\.py to run that code, or give --trust-code"):
        open_data(f"{tmp_path}/mine.py")


def test_a_folder_is_an_image_folder(tmp_path: Path) -> None:
    pytest.importorskip("PIL", reason="image folders need Pillow, pip install pillow")
    with pytest.raises(DataError, match="no images: looked for train/CLASS/"):
        open_data(str(tmp_path))


@pytest.mark.parametrize(
    ("ref", "message"),
    [
        ("mnst:data/digits", "unknown kind of data `mnst`; did you mean mnist"),
        ("mnst:digits", "unknown kind of data `mnst`; did you mean mnist"),
        ("cifar-10:dir", "unknown kind of data `cifar-10`; did you mean cifar10"),
        ("laion:/data", "unknown kind of data `laion`; known: mnist, fashion-mnist, cifar10"),
        ("no_such_module:load", "no module `no_such_module`"),
        ("no/such/file.npz", "no such file or directory"),
        ("mnist", "no directory; write mnist:DIR"),
        ("mnist:", "no directory; write mnist:DIR"),
    ],
)
def test_what_is_unknown_gets_an_offer(ref: str, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(DataError, match=message):
        open_data(ref, trust_code=True)


@pytest.mark.parametrize(
    ("ref", "moved"),
    [
        ("mnist:{root}/data/digits", "mnist:data/digits"),
        ("mnist:/elsewhere/digits", "mnist:/elsewhere/digits"),
        ("mnist:{root}-other/digits", "mnist:{root}-other/digits"),
        ("{root}/a.npz", "a.npz"),
        ("{root}/mine.py:both", "mine.py:both"),
        ("/elsewhere/mine.py:both", "/elsewhere/mine.py:both"),
        ("package.module:both", "package.module:both"),
    ],
)
def test_relocate(ref: str, moved: str, tmp_path: Path) -> None:
    root = str(tmp_path)
    assert relocate(ref.format(root=root), start=tmp_path) == moved.format(root=root)


def test_a_relocated_ref_opens_at_its_new_place(tmp_path: Path) -> None:
    write_mnist(tmp_path / "old" / "digits")
    ref = relocate(open_data(f"mnist:{tmp_path}/old/digits").ref, start=tmp_path / "old")
    (tmp_path / "old").rename(tmp_path / "new")
    assert open_data(ref, base=tmp_path / "new").ref == f"mnist:{tmp_path}/new/digits"
    with pytest.raises(DataError, match="no such directory"):
        open_data(ref, base=tmp_path / "old")
