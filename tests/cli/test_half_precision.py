"""Weights in half precision through every command: what a directory is stored in, its smaller one is stored in."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from compressor.cli.main import main
from compressor.formats import load
from compressor.program import Program
from tests.models.tiny_transformers import save_small

TYPES = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}
CUT = ["-r", "1.1x", "-m", "magnitude", "--no-retrain", "--uniform", "--round-to", "1", "--no-latency", "-q"]


@pytest.fixture(scope="module", params=TYPES)
def made(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """A directory, and the checkpoints that prune and compact made of it."""
    pytest.importorskip("transformers", reason="transformers is not installed")
    from compressor.models.huggingface import _transformers

    name, folder = request.param, tmp_path_factory.mktemp(request.param)
    save_small(_transformers(), "llama", folder / "dense")
    halve(folder / "dense", TYPES[name])
    assert main(["prune", str(folder / "dense"), *CUT, "-o", str(folder / "pruned.pt")]) == 0
    assert main(["compact", str(folder / "pruned.pt"), "--masks-only", "-q", "-o", str(folder / "compact.pt")]) == 0
    return folder, name


def halve(directory: Path, dtype: torch.dtype) -> None:
    from safetensors.torch import load_file, save_file

    file = directory / "model.safetensors"
    state = {key: value.to(dtype).clone() for key, value in load_file(file).items()}
    save_file(state, file, metadata={"format": "pt"})


def types_of(program: Program) -> set[torch.dtype]:
    return {parameter.dtype for parameter in program.module.parameters()}


def test_opened_pruned_and_compact_keep_it(made: tuple[Path, str]) -> None:
    folder, name = made
    sizes: list[int] = []
    for step in ("dense", "pruned.pt", "compact.pt"):
        program = load(folder / step)
        assert types_of(program) == {TYPES[name]}, step
        sizes.append(program.n_parameters)
    assert sizes[2] < sizes[1] == sizes[0]
    assert load(folder / "pruned.pt").n_zeroed > 0


def test_analyze_says_it(made: tuple[Path, str], capsys: pytest.CaptureFixture[str]) -> None:
    folder, name = made
    capsys.readouterr()
    assert main(["analyze", str(folder / "dense"), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["stored_as"] == name
    assert found["n_bytes"] == found["n_params"] * TYPES[name].itemsize
    said = f"weights are {name} and stay so; training computes in float32"
    assert (said in found["notes"]) is (name != "float32")


def test_a_directory_is_written_in_it(made: tuple[Path, str], capsys: pytest.CaptureFixture[str]) -> None:
    from safetensors.torch import load_file

    folder, name = made
    assert main(["export", str(folder / "compact.pt"), "-o", f"{folder / 'small'}/", "--force"]) == 0
    state = load_file(folder / "small" / "model.safetensors")
    assert {tensor.dtype for tensor in state.values()} == {TYPES[name]}
    config: dict[str, Any] = json.loads((folder / "small" / "config.json").read_text(encoding="utf-8"))
    assert config["dtype"] == name
    again = load(folder / "small")
    assert types_of(again) == {TYPES[name]} and again.n_parameters == load(folder / "compact.pt").n_parameters


def test_onnx_holds_it_or_says_what_it_holds(made: tuple[Path, str], capsys: pytest.CaptureFixture[str]) -> None:
    import onnx

    folder, name = made
    capsys.readouterr()
    assert main(["export", str(folder / "compact.pt"), "-o", str(folder / "m.onnx"), "--json", "--force"]) == 0
    notes = json.loads(capsys.readouterr().out)["notes"]
    weights = [tensor for tensor in onnx.load(folder / "m.onnx").graph.initializer if len(tensor.dims) == 2]
    held = {onnx.TensorProto.DataType.Name(tensor.data_type).lower() for tensor in weights}
    assert ("float16" if name == "float16" else "float") in held and "bfloat16" not in held
    assert len([note for note in notes if "holds float32" in note]) == (name == "bfloat16")


def test_a_directory_of_two_types_becomes_float32_and_that_is_said(tmp_path: Path) -> None:
    pytest.importorskip("transformers", reason="transformers is not installed")
    from safetensors.torch import load_file, save_file

    from compressor.models.huggingface import _transformers

    save_small(_transformers(), "llama", tmp_path / "mixed")
    file = tmp_path / "mixed" / "model.safetensors"
    state = {key: value.half() if value.dim() > 1 else value for key, value in load_file(file).items()}
    save_file({key: value.clone() for key, value in state.items()}, file, metadata={"format": "pt"})
    program = load(tmp_path / "mixed")
    assert types_of(program) == {torch.float32}
    assert "weights stored as float16, float32 were loaded as float32" in program.record.notes
