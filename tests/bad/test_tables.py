"""Tables, archives and saved data sets that lie, are damaged or lead elsewhere; each refusal has its twin."""

from __future__ import annotations

import io
import json
import os
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from compressor.data import bounded, open_data
from compressor.errors import CompressError, DataError
from tests.data.table_forms import TABLES, write_tar
from tests.data.test_tables import TEXTS, pictures


def lines(folder: Path, rows: list[dict[str, Any]]) -> str:
    return f"images:{TABLES['jsonl'](folder, rows)}"


def first_image(ref: str) -> Any:
    return next(iter(open_data(ref).batches("train", 2)))


@pytest.mark.parametrize("form", ["jsonl", "csv", "parquet"])
@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("../secret.png", "leads out of"),
        ("pixels/../../secret.png", "leads out of"),
        ("{outside}/secret.png", "leads out of"),
        ("https://example.org/a.png", "is an address; nothing is fetched"),
        ("file:///etc/passwd", "is an address; nothing is fetched"),
        ("pixels/none.png", "cannot be read"),
        ("pixels", "is a directory"),
        ("pixels/pipe.png", "a pipe or a device, not a file"),
    ],
)
def test_a_path_leads_nowhere_but_below_its_table(tmp_path: Path, form: str, path: str, message: str) -> None:
    inside = tmp_path / "inside"
    inside.mkdir()
    rows = pictures(inside, 4)
    os.mkfifo(inside / "pixels" / "pipe.png")
    (tmp_path / "secret.png").write_bytes((inside / rows[0]["file_name"]).read_bytes())
    ref = f"images:{TABLES[form](inside, rows)}"
    assert first_image(ref).inputs[0].shape[0] == 2, "twin: paths below the table are read"
    rows[0]["file_name"] = path.format(outside=tmp_path)
    TABLES[form](inside, rows)
    with pytest.raises(DataError, match=message) as refused:
        first_image(ref)
    assert len(str(refused.value).splitlines()) <= 3


def test_twin_a_whole_path_below_the_table_is_read(tmp_path: Path) -> None:
    rows = pictures(tmp_path, 4)
    whole = [{**row, "file_name": str(tmp_path / row["file_name"])} for row in rows]
    assert first_image(lines(tmp_path, whole)).target.tolist() == [0, 1]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"file_name": 3}, "image 1: is missing|not a path"),
        ({"file_name": None}, "is missing"),
        ({"file_name": "a\0b"}, "not a path"),
        ({"label": 0.5}, "sample 1: its label is float, not a number or a name"),
        ({"label": True}, "its label is bool"),
        ({"label": -1}, "a class is -1; class numbers start at 0"),
        ({"label": None}, "some samples have a class and others have none"),
    ],
)
def test_cells_that_cannot_be_meant(tmp_path: Path, change: dict[str, Any], message: str) -> None:
    rows = pictures(tmp_path, 4)
    rows[0] = {**rows[0], **change}
    with pytest.raises(DataError, match=message):
        first_image(lines(tmp_path, rows))


def test_columns_and_classes_that_are_not_there(tmp_path: Path) -> None:
    rows = pictures(tmp_path, 12)
    with pytest.raises(DataError, match="no column is called image, img or file_name; it has label"):
        open_data(lines(tmp_path, [{"label": 1}] * 4))
    named = [{**row, "label": "new" if i == 9 else "old"} for i, row in enumerate(rows)]
    with pytest.raises(DataError, match="validation has classes that training has not: new"):
        open_data(lines(tmp_path, named))
    with pytest.raises(DataError, match=r"not an \.npz file .*; a table is given as text:.* or images:"):
        open_data(lines(tmp_path, rows).removeprefix("images:"))


def test_an_image_in_a_table_is_held_to_the_bounds_of_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = pictures(tmp_path, 4)
    path = write_tar(tmp_path / "a.tar", [{"png": (tmp_path / row["file_name"]).read_bytes()} for row in rows])
    assert first_image(f"images:{path}").inputs[0].shape[0] == 2, "twin: within the bounds it is read"
    monkeypatch.setattr(bounded, "_ALWAYS_PIXELS", 10)
    monkeypatch.setattr(bounded, "_MOST_GROWTH", 0)
    with pytest.raises(DataError, match=r"a\.tar: image 1: .* bytes that unpack to 12 by 12 pixels"):
        first_image(f"images:{path}")


def test_postscript_in_a_table_is_not_interpreted(tmp_path: Path) -> None:
    pytest.importorskip("PIL.Image", reason="images need Pillow")
    path = write_tar(tmp_path / "a.tar", [{"png": b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n"}] * 3)
    with pytest.raises(DataError, match=r"a\.tar: image 1: cannot be decoded as an image"):
        first_image(f"images:{path}")


def test_a_parquet_file_that_grows_beyond_measure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = TABLES["parquet"](tmp_path, TEXTS)
    assert open_data(f"text:{path}").n_train == 27, "twin: within the bounds it is read"
    monkeypatch.setattr(bounded, "_ALWAYS_BYTES", 10)
    monkeypatch.setattr(bounded, "_MOST_GROWTH", 0)
    with pytest.raises(DataError, match="bytes that unpack to"):
        open_data(f"text:{path}")


def test_parquet_without_its_library(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "train.parquet").write_bytes(b"PAR1")
    monkeypatch.setattr("compressor.data.tables.find_spec", lambda name: None)
    with pytest.raises(DataError, match=r"pip install pyarrow \(or give CSV\)"):
        open_data(f"text:{tmp_path / 'train.parquet'}")


def test_damaged_parquet(tmp_path: Path) -> None:
    pytest.importorskip("pyarrow", reason="Parquet needs pyarrow")
    (tmp_path / "train.parquet").write_bytes(b"PAR1 and nothing else PAR1")
    with pytest.raises(DataError, match=r"train\.parquet: cannot be read"):
        open_data(f"text:{tmp_path / 'train.parquet'}")


def _link(archive: tarfile.TarFile, target: str) -> None:
    member = tarfile.TarInfo("00000.txt")
    member.type, member.linkname = tarfile.SYMTYPE, target
    archive.addfile(member)


def _longer(archive: tarfile.TarFile, target: str) -> None:
    member = tarfile.TarInfo("00000.txt")
    member.size = 1 << 30
    archive.fileobj.write(member.tobuf())  # type: ignore[union-attr]


@pytest.mark.parametrize("add", [_link, _longer])
def test_what_an_archive_only_names_is_no_sample(tmp_path: Path, add: Callable[[tarfile.TarFile, str], None]) -> None:
    (tmp_path / "secret").write_text("a secret")
    with tarfile.open(tmp_path / "a.tar", "w") as archive:
        add(archive, str(tmp_path / "secret"))
    with pytest.raises(DataError, match=r"holds no samples|is no tar archive"):
        open_data(f"text:{tmp_path / 'a.tar'}")


@pytest.mark.parametrize(
    ("sample", "message"),
    [
        ({"txt": b"\xff\xfe"}, r"a \.txt is not written in UTF-8"),
        ({"json": b"{"}, r"a \.json: is no JSON"),
        ({"json": b"[" * 100_000}, r"a \.json: is no JSON"),
        ({"json": b"[1]"}, "no column is called text"),
        ({"mp3": b"x"}, "no column is called text .*; it has mp3"),
    ],
)
def test_samples_of_an_archive_that_are_none(tmp_path: Path, sample: dict[str, bytes], message: str) -> None:
    with pytest.raises(DataError, match=message):
        open_data(f"text:{write_tar(tmp_path / 'a.tar', [sample] * 3)}")


def test_an_archive_is_not_unpacked(tmp_path: Path) -> None:
    write_tar(tmp_path / "a.tar", [{"txt": b"a"}] * 3, "w:gz")
    with pytest.raises(DataError, match=r"is no tar archive that is read here: .*; do not compress it"):
        open_data(f"text:{tmp_path / 'a.tar'}")


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    return TABLES["datasets with splits"](tmp_path, TEXTS)


def test_the_extra_is_named_where_the_library_is_not(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "state.json").write_text('{"_data_files": [{"filename": "a.arrow"}]}')
    (tmp_path / "a.arrow").write_bytes(b"")
    monkeypatch.setattr("compressor.data.saved.find_spec", lambda name: None)
    for ref in (f"text:{tmp_path}", f"images:{tmp_path}", str(tmp_path)):
        with pytest.raises(DataError, match=r'which is not installed;\npip install datasets \(the extra "datasets"'):
            open_data(ref)


ELSEWHERE = ["..", ".", "", "a/b", "../train", "/etc", "a::file", "s3:x", "a\\b", "a\0b", 3, None, {}]


@pytest.mark.parametrize("name", ELSEWHERE, ids=repr)
def test_a_directory_names_only_what_lies_in_it(tmp_path: Path, name: Any) -> None:
    """Looked at before the library is asked, so that it need not be installed."""
    (tmp_path / "dataset_dict.json").write_text(json.dumps({"splits": ["train", name]}))
    with pytest.raises(DataError, match="is no name of what lies beside it; nothing else is opened"):
        open_data(f"text:{tmp_path}")
    (tmp_path / "dataset_dict.json").unlink()
    (tmp_path / "state.json").write_text(json.dumps({"_data_files": [{"filename": name}]}))
    with pytest.raises(DataError, match="is no name of what lies beside it; nothing else is opened"):
        open_data(f"text:{tmp_path}")


@pytest.mark.parametrize("content", ["{", "[]", "{}", '{"_data_files": 3}', '{"_data_files": []}', "[" * 100_000])
@pytest.mark.parametrize("name", ["dataset_dict.json", "state.json"])
def test_a_directory_that_says_nothing(tmp_path: Path, name: str, content: str) -> None:
    (tmp_path / name).write_text(content)
    with pytest.raises(DataError, match=r"is no JSON|holds a|lists nothing"):
        open_data(f"text:{tmp_path}")


def _emptied(folder: Path) -> None:
    next(folder.glob("train/*.arrow")).write_bytes(b"")


def _without_shard(folder: Path) -> None:
    next(folder.glob("train/*.arrow")).unlink()


def _other_features(folder: Path) -> None:
    (folder / "train" / "dataset_info.json").write_text(json.dumps({"features": {"text": {"_type": "Path"}}}))


def _without_validation(folder: Path) -> None:
    (folder / "dataset_dict.json").write_text('{"splits": ["train", "train"]}')
    (folder / "other").symlink_to(folder / "train")
    (folder / "dataset_dict.json").write_text('{"splits": ["train", "other"]}')


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (_emptied, "train: cannot be read"),
        (_without_shard, "no such file, which state.json lists"),
        (_other_features, "train: cannot be read"),
        (_without_validation, "needs a split called train and one called validation or test; it has train, other"),
    ],
)
def test_a_saved_data_set_that_is_damaged(saved: Path, damage: Callable[[Path], None], message: str) -> None:
    assert open_data(f"text:{saved}").n_train == 27, "twin: undamaged it is read"
    damage(saved)
    with pytest.raises(CompressError, match=message):
        open_data(f"text:{saved}")


def test_a_saved_path_to_an_image_elsewhere_is_not_followed(tmp_path: Path) -> None:
    datasets = pytest.importorskip("datasets", reason="needs the datasets library")
    rows = pictures(tmp_path, 4)
    for path in (
        str(tmp_path / rows[0]["file_name"]),
        "https://example.org/a.png",
        "zip://a.png::https://example.org/a",
    ):
        folder = tmp_path / f"saved{len(path)}"
        cells = [{"image": {"bytes": None, "path": path}}] * 4  # as a column of images lies in the file
        datasets.Dataset.from_list(cells).save_to_disk(str(folder))
        with pytest.raises(DataError, match=r"leads out of|is an address"):
            first_image(f"images:{folder}")


def test_pixels_are_those_of_the_file(tmp_path: Path) -> None:
    """The twin of all: what is read here is the image, not only something of its size."""
    image = pytest.importorskip("PIL.Image", reason="images need Pillow")
    pictures(tmp_path, 2)
    flat = io.BytesIO()
    image.fromarray(np.full((224, 224, 3), 124, np.uint8)).save(flat, "PNG")
    path = write_tar(tmp_path / "a.tar", [{"png": flat.getvalue()}] * 4)
    red = first_image(f"images:{path}").inputs[0][0, 0]
    assert np.allclose(red.numpy(), (124 / 255 - 0.485) / 0.229, atol=1e-6)
