"""Paths that no model can be opened from, each with what it is and what to do."""

from __future__ import annotations

from pathlib import Path

import pytest

from compressor.errors import ModelError
from compressor.model_file import open_model_file

DIRECTORIES: dict[str, tuple[list[str], str]] = {
    "nothing": ([], "is a directory without a model file in it"),
    "other things": (["notes.txt", "data/x.csv"], "is a directory without a model file in it"),
    "one model": (["a.onnx", "notes.txt"], r"is a directory; name the model file in it, such as .*a\.onnx$"),
    "several": (["b.pt", "a.ckpt", "c.th"], r"such as .*a\.ckpt or one of 2 more$"),
    "an adapter": (
        ["adapter_config.json", "adapter_model.safetensors", "config.json"],
        "merge it into its model first",
    ),
    "a pipeline": (["model_index.json", "unet/config.json"], "is a pipeline of several networks"),
    "diffusers": (["config.json", "diffusion_pytorch_model.fp16.safetensors"], "is a network of diffusers"),
    "TensorFlow": (["saved_model.pb", "variables/variables.index"], "is a SavedModel of TensorFlow"),
    "Core ML": (["Manifest.json", "Data/com.apple.CoreML/model.mlmodel"], "is a package of Core ML"),
    "a cache": (["refs/main", "snapshots/0f1e/config.json"], "is a folder of the hub's cache"),
    "no weights": (["config.json", "tokenizer.json", "tf_model.h5"], "without model.safetensors or pytorch_model.bin"),
}


@pytest.mark.parametrize("what", DIRECTORIES)
def test_a_directory_is_told_for_what_it_is(tmp_path: Path, what: str) -> None:
    files, told = DIRECTORIES[what]
    for name in files:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"")
    with pytest.raises(ModelError, match=told) as caught:
        open_model_file(tmp_path)
    assert str(caught.value).startswith(f"{tmp_path}: ") and str(caught.value).count("\n") <= 2


def test_twin_a_file_is_opened_and_a_name_like_it_is_found(tmp_path: Path) -> None:
    (tmp_path / "model.pt").write_bytes(b"x")
    with open_model_file(tmp_path / "model.pt") as file:
        assert file.read() == b"x"
    with pytest.raises(ModelError, match=r"no such file; did you mean .*model\.pt\?"):
        open_model_file(tmp_path / "modle.pt")


def test_a_directory_that_may_not_be_listed_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def closed(path: Path) -> None:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(Path, "iterdir", closed)
    with pytest.raises(ModelError, match=r"is a directory that cannot be read: Permission denied$"):
        open_model_file(tmp_path)
