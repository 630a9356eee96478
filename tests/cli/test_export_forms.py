"""`compress export` in every form, and checking what is there."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import onnx
import pytest


def test_a_file_in_8_bits_is_written_and_checked(run: Any, here: Path) -> None:
    done = run("export", "model.pt", "--int8", "static", "--calibration", "32", "-o", "m.onnx", "--json")
    assert done.code == 0, done.err
    body = done.json
    assert (body["precision"], body["on_data"], body["output"]) == ("int8 static", True, "m.onnx")
    assert [check["inputs"] for check in body["checks"]] == ["validation"] * 4
    again = run("export", "model.pt", "-o", "m.onnx", "--check-only", "--json")
    assert again.code == 0 and again.json["max_rel"] == body["max_rel"]


def test_half_precision_at_a_fixed_batch(run: Any, here: Path) -> None:
    done = run("export", "model.pt", "--fp16", "--batch", "2")
    assert done.code == 0, done.err
    assert "form        batch fixed at 2, fp16" in done.out
    given = onnx.load(str(here / "model.onnx")).graph.input[0].type.tensor_type.shape.dim[0]
    assert given.dim_value == 2


@pytest.mark.parametrize("how", [("--format", "pt2"), ("-o", "model.pt2")])
def test_an_archive_of_torch(run: Any, here: Path, how: tuple[str, ...]) -> None:
    done = run("export", "model.pt", *how)
    assert done.code == 0, done.err
    assert "wrote model.pt2" in done.out and (here / "model.pt2").is_file()


def test_another_checkpoint_is_told_apart(run: Any, here: Path) -> None:
    assert run("export", "model.pt", "--check-batch", "1,3").code == 0
    before = (here / "model.onnx").read_bytes()
    assert "checked model.onnx" in run("export", "model.pt", "--check-only").out
    other = run(
        "export", "init", "--arch", "net.py:Net", "--input", "1x8x8", "--seed", "5", "-o", "model.onnx", "--check-only"
    )
    assert other.code == 3
    assert "model.onnx: the file and torch differ by" in other.err
    assert (here / "model.onnx").read_bytes() == before


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("--fp16", "--int8", "dynamic"), "--int8 and --fp16 store the same weights"),
        (("--format", "pt2", "--opset", "18"), "--opset: an archive of torch.export has no such thing"),
        (("--opset", "9"), "--opset 9: must be 15 to 26"),
        (("--check-only", "--fp16"), "--check-only writes nothing, so --fp16 has nothing to change"),
        (("--check-only", "-o", "-"), "--check-only reads the file that -o names"),
        (("--check-batch", "0"), "--check-batch 0: write whole numbers above 0"),
    ],
)
def test_what_cannot_be_meant_is_refused(run: Any, here: Path, arguments: tuple[str, ...], told: str) -> None:
    done = run("export", "model.pt", *arguments)
    assert (done.code, told in done.err) == (2, True), done.err
    assert not (here / "model.onnx").exists()


def test_static_ranges_need_data(run: Any) -> None:
    done = run("export", "init", "--arch", "net.py:Net", "--input", "1x8x8", "--int8", "static", "-o", "m.onnx")
    assert done.code == 2 and "no data: --int8 static needs a data set" in done.err


def test_profiles_and_download_sizes_of_bench(run: Any) -> None:
    assert run("export", "model.pt").code == 0
    quick = ("--min-runs", "1", "--min-seconds", "0", "--max-seconds", "1", "-q")
    done = run("bench", "model.onnx", "--profile", "--gzip", *quick)
    assert done.code == 0, done.err
    assert "Where the time goes: cpu, 1 thread, batch 1" in done.out and "gzip" in done.out
    assert {"conv1", "conv2", "fc"} <= {line.split(" ")[0] for line in done.out.splitlines()}
    gate = run("bench", "model.onnx", "--require", "gzip<=1KiB", *quick)
    assert gate.code == 3 and "gzip<=1KiB: model.onnx has" in gate.err


def test_the_picture_of_bench_is_written_and_protected(run: Any, here: Path) -> None:
    assert run("export", "model.pt").code == 0
    quick = ("--min-runs", "1", "--min-seconds", "0", "--max-seconds", "1")
    done = run("bench", "model.onnx", "--plot", "b.svg", *quick)
    assert done.code == 0 and "note: picture: b.svg" in done.err
    assert (here / "b.svg").read_text().startswith("<svg ")
    again = run("bench", "model.onnx", "--plot", "b.svg", *quick)
    assert again.code == 1 and "b.svg: exists already; overwrite it with --force" in again.err
    assert "draws SVG" in run("bench", "model.onnx", "--plot", "b.png", *quick).err


@pytest.mark.parametrize("how", [("--format", "python"), ("-o", "model.py")])
def test_python_source_with_its_weights_beside_it(run: Any, here: Path, how: tuple[str, ...]) -> None:
    done = run("export", "model.pt", *how)
    assert done.code == 0, done.err
    assert "wrote model.py" in done.out and "Python source for PyTorch" in done.out
    assert (here / "model.py").is_file() and (here / "model.safetensors").is_file()
    again = run("export", "model.pt", *how)
    assert (again.code, "model.py: exists already" in again.err) == (1, True)
    assert run("export", "model.pt", *how, "--force", "--json").json["format"] == "python"


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("-o", "m.py", "--opset", "18"), "--opset: Python source has no such thing"),
        (("-o", "m.py", "--batch", "2"), "--batch: Python source has no such thing"),
        (("-o", "m.py", "--int8", "dynamic"), "--int8: Python source has no such thing"),
        (("--format", "python", "-o", "-"), "writes more than one file"),
        (("--format", "python", "-o", "m.txt"), "Python source goes into a file that ends in .py"),
    ],
)
def test_what_python_source_cannot_be(run: Any, here: Path, arguments: tuple[str, ...], told: str) -> None:
    done = run("export", "model.pt", *arguments)
    assert (done.code, told in done.err) == (2, True), done.err
    assert not list(here.glob("m.*"))
