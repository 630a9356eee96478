"""Every form of a table by every task that reads one: the same samples, whatever they lie in."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from compressor.data import has_labels, open_data
from compressor.data.digests import digest_of
from compressor.data.folders import FolderSource
from compressor.data.text import TextSource
from compressor.data.tokens import tokenized
from compressor.errors import DataError
from tests.data.table_forms import TABLES, write_tar
from tests.data.test_text import form

TEXTS = [{"text": f"word{i % 7}, is\tword{i % 5}", "label": ["yes", "no"][i % 2]} for i in range(30)]


def pictures(folder: Path, n: int = 30) -> list[dict[str, Any]]:
    image = pytest.importorskip("PIL.Image", reason="images need Pillow, pip install pillow")
    rng = np.random.default_rng(0)
    (folder / "pixels").mkdir()
    rows = []
    for i in range(n):
        name = f"pixels/{i}.png"
        image.fromarray(rng.integers(0, 256, (12, 12, 3), np.uint8)).save(folder / name)
        rows.append({"file_name": name, "label": i % 3})
    return rows


def placed(path: Path, kind: str, folder: Path, rows: list[dict[str, Any]]) -> str:
    """Paths in a saved data set are below it."""
    if path.is_dir() and path != folder and "file_name" in rows[0]:
        for part in (path, *filter(Path.is_dir, path.iterdir())):
            if (part / "state.json").is_file():
                (part / "pixels").symlink_to(folder / "pixels")
    return f"{kind}:{path}"


@pytest.mark.parametrize("kind", TABLES)
@pytest.mark.parametrize("task", ["classification", "masked-lm", "causal-lm"])
def test_texts_of_every_form_by_every_task(tmp_path: Path, kind: str, task: str) -> None:
    source = open_data(f"text:{TABLES[kind](tmp_path, TEXTS)}")
    assert isinstance(source, TextSource)
    expected = [(row["text"], row["label"]) for row in TEXTS]
    assert [(s.text, s.label) for s in source.val] == expected[9::10]
    assert [(s.text, s.label) for s in source.train] == [row for i, row in enumerate(expected) if i % 10 != 9]
    data = tokenized(source, form(task))
    batch = next(iter(data.batches("train", 27, seed=3)))
    assert batch.target.shape == ((27,) if task == "classification" else (27, 6))
    assert digest_of(*batch.inputs, batch.target) == digest_of(*as_lines(tmp_path, task))


def as_lines(folder: Path, task: str) -> tuple[torch.Tensor, ...]:
    (folder / "twin").mkdir()
    source = open_data(f"text:{TABLES['jsonl'](folder / 'twin', TEXTS)}")
    batch = next(iter(tokenized(source, form(task)).batches("train", 27, seed=3)))  # type: ignore[arg-type]
    return (*batch.inputs, batch.target)


@pytest.mark.parametrize("kind", TABLES)
@pytest.mark.parametrize("labels", ["numbers", "names", "none"])
def test_images_of_every_form_with_and_without_labels(tmp_path: Path, kind: str, labels: str) -> None:
    rows, names = pictures(tmp_path), ["c", "a", "b"]
    expected = [row["label"] for row in rows]
    if labels == "names":
        rows = [{**row, "label": names[row["label"]]} for row in rows]
        expected = [sorted(names).index(row["label"]) for row in rows]
    if labels == "none":
        rows = [{"file_name": row["file_name"]} for row in rows]
    data = open_data(placed(TABLES[kind](tmp_path, rows), "images", tmp_path, rows))
    assert isinstance(data, FolderSource) and (data.n_train, data.n_val) == (27, 3)
    assert has_labels(data) is (labels != "none") and data.n_classes == (None if labels == "none" else 3)
    data = data.fitted(((3, 8, 8),))
    (batch,) = data.batches("val", 8)
    assert batch.target is None if labels == "none" else batch.target.tolist() == expected[9::10]
    folders = [(tmp_path / rows[i]["file_name"], 0) for i in (9, 19, 29)]
    alone = FolderSource("alone", tuple(folders), tuple(folders), 1).fitted(((3, 8, 8),))
    assert torch.equal(batch.inputs[0], next(iter(alone.batches("val", 8))).inputs[0])
    assert len(data.content_digest()) == 64


@pytest.mark.parametrize("kind", ["parquet", "datasets", "datasets with splits"])
@pytest.mark.parametrize("column", ["bytes", "as the library writes them"])
def test_images_that_the_table_holds(tmp_path: Path, kind: str, column: str) -> None:
    rows = pictures(tmp_path)
    held: list[Any] = [(tmp_path / row["file_name"]).read_bytes() for row in rows]
    if column != "bytes":
        held = [{"bytes": content, "path": "/somewhere/else.png"} for content in held]
    cells = [{"image": content, "label": row["label"]} for content, row in zip(held, rows, strict=True)]
    path = TABLES[kind](tmp_path, cells)
    for name in (tmp_path / "pixels").iterdir():
        name.unlink()
    data = open_data(f"images:{path}")
    batch = next(iter(data.batches("val", 3)))
    assert batch.inputs[0].shape == (3, 3, 224, 224) and batch.target.tolist() == [0, 1, 2]


def test_a_saved_data_set_of_images_is_one_without_its_kind(tmp_path: Path) -> None:
    datasets = pytest.importorskip("datasets", reason="needs the datasets library")
    datasets.disable_progress_bars()
    rows = pictures(tmp_path, 12)
    kinds = datasets.Features({"image": datasets.Image(), "label": datasets.ClassLabel(names=list("abcd"))})
    cells = [{"image": str(tmp_path / row["file_name"]), "label": row["label"]} for row in rows]
    datasets.Dataset.from_list(cells, features=kinds).save_to_disk(str(tmp_path / "saved"))
    data = open_data(str(tmp_path / "saved"))
    assert data.ref == f"images:{tmp_path / 'saved'}" and data.n_classes == 4, "as many as the column knows"
    assert next(iter(data.batches("train", 4))).inputs[0].shape == (4, 3, 224, 224)
    text = open_data(f"text:{saved_texts(tmp_path, datasets)}")
    assert isinstance(text, TextSource) and [s.label for s in text.train] == [0] * 9
    with pytest.raises(DataError, match=r"no column is called text .*; it has image, label"):
        open_data(f"text:{tmp_path / 'saved'}")


def saved_texts(folder: Path, datasets: Any) -> Path:
    kinds = datasets.Features({"text": datasets.Value("string"), "label": datasets.ClassLabel(names=["no", "yes"])})
    datasets.Dataset.from_list([{"text": "a", "label": 0}] * 10, features=kinds).save_to_disk(str(folder / "texts"))
    return folder / "texts"


def test_samples_of_an_archive_may_have_other_forms_each(tmp_path: Path) -> None:
    rows = pictures(tmp_path, 4)
    image = pytest.importorskip("PIL.Image")
    samples = []
    for i, row in enumerate(rows):
        end = "jpg" if i == 2 else "png"
        with image.open(tmp_path / row["file_name"]) as picture:
            picture.save(tmp_path / f"x.{end}")
        samples.append({end: (tmp_path / f"x.{end}").read_bytes(), "json": b'{"label": "%d"}' % i})
    data = open_data(f"images:{write_tar(tmp_path / 'train.tar', samples)}")
    batch = next(iter(data.batches("train", 8)))
    assert batch.target.tolist() == [0, 1, 2] and batch.inputs[0].shape[0] == 3


def test_a_table_that_changed_is_another_data_set(tmp_path: Path) -> None:
    rows = pictures(tmp_path, 6)
    first = open_data(f"images:{TABLES['csv'](tmp_path, rows)}").content_digest()  # type: ignore[attr-defined]
    again = open_data(f"images:{TABLES['csv'](tmp_path, rows)}").content_digest()  # type: ignore[attr-defined]
    (tmp_path / rows[0]["file_name"]).write_bytes((tmp_path / rows[1]["file_name"]).read_bytes())
    other = open_data(f"images:{TABLES['csv'](tmp_path, rows)}").content_digest()  # type: ignore[attr-defined]
    assert first == again != other
