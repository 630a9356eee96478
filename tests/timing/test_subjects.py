"""Models opened: kind by content, a name each, size and parameters."""

from __future__ import annotations

import gzip
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest

from compressor.errors import CompressError, ModelError, UsageError
from compressor.program import Program
from compressor.timing.onnx_runner import OnnxRunner
from compressor.timing.providers import find_provider
from compressor.timing.subjects import gzip_bytes, open_subjects
from compressor.timing.torch_runner import TorchRunner

CPU = find_provider("cpu")
Write = Callable[..., Path]


def test_each_form_goes_to_its_runtime(program: Program, checkpoint: Path, onnx_file: Write) -> None:
    file = onnx_file()
    opened = open_subjects([program, checkpoint, file], CPU)
    assert [o.subject.kind for o in opened] == ["torch", "torch", "onnx"]
    assert [o.subject.name for o in opened] == ["tiny", "tiny.pt", "tiny.onnx"]
    assert [o.subject.path for o in opened] == [None, str(checkpoint), str(file)]
    assert [o.subject.n_params for o in opened] == [67, 67, 12]
    assert [o.subject.size_bytes for o in opened] == [67 * 4, checkpoint.stat().st_size, file.stat().st_size]
    runners = [o.runner(CPU, 1) for o in opened]
    assert [type(runner) for runner in runners] == [TorchRunner, TorchRunner, OnnxRunner]


def test_the_kind_is_found_by_content(onnx_file: Write) -> None:
    (opened,) = open_subjects([onnx_file("odd.pt")], CPU)
    assert opened.subject.kind == "onnx"


def test_compiled_programs_say_so(program: Program) -> None:
    (opened,) = open_subjects([program], find_provider("torch-compile"))
    assert opened.subject.kind == "torch-compile"


def test_no_two_subjects_have_one_name(program: Program, tmp_path: Path, onnx_file: Write) -> None:
    (tmp_path / "b").mkdir()
    first, second = onnx_file("m.onnx"), onnx_file("b/m.onnx")
    assert [o.subject.name for o in open_subjects([first, second, second], CPU)] == [
        str(first),
        f"{second} #1",
        f"{second} #2",
    ]
    assert [o.subject.name for o in open_subjects([first, first], CPU)] == ["m.onnx #1", "m.onnx #2"]
    assert [o.subject.name for o in open_subjects([program, program], CPU)] == ["tiny #1", "tiny #2"]


def test_parameters_are_counted_however_they_are_stored(onnx_file: Write) -> None:
    path = onnx_file()
    model = onnx.load(str(path))
    (dense,) = model.graph.initializer
    values = onnx.numpy_helper.from_array(np.ones(2, np.float32), "w")
    positions = onnx.numpy_helper.from_array(np.array([3, 7]), "w_positions")
    model.graph.sparse_initializer.append(onnx.helper.make_sparse_tensor(values, positions, list(dense.dims)))
    int8 = onnx.numpy_helper.from_array(np.ones((5, 2), np.int8), "v_quantized")
    scale = onnx.numpy_helper.from_array(np.ones(5, np.float32), "v_scale")
    del model.graph.initializer[:]
    model.graph.initializer.extend([int8, scale])
    onnx.save(model, str(path))
    assert open_subjects([path], CPU)[0].subject.n_params == 12 + 10


def test_size_after_gzip(program: Program, checkpoint: Path, onnx_file: Write, tmp_path: Path) -> None:
    model = onnx.load(str(onnx_file()))
    whole = tmp_path / "e.onnx"
    onnx.save(model, str(whole), save_as_external_data=True, location="e.data", size_threshold=0)
    sizes = [gzip_bytes(opened) for opened in open_subjects([program, checkpoint, whole], CPU)]
    expected = [len(gzip.compress(path.read_bytes(), 6)) for path in (checkpoint, whole, tmp_path / "e.data")]
    assert sizes[0] is None
    assert sizes[1:] == [pytest.approx(expected[0], abs=20), pytest.approx(sum(expected[1:]), abs=40)]


def test_weights_beside_the_file_are_part_of_its_size(onnx_file: Write, tmp_path: Path) -> None:
    model = onnx.load(str(onnx_file()))
    path = tmp_path / "e.onnx"
    onnx.save(model, str(path), save_as_external_data=True, location="e.data", size_threshold=0)
    (opened,) = open_subjects([path], CPU)
    beside = tmp_path / "e.data"
    assert opened.subject.size_bytes == path.stat().st_size + beside.stat().st_size
    assert opened.subject.n_params == 12
    beside.unlink()
    with pytest.raises(ModelError, match=r"its weights are in e\.data, which is not there"):
        open_subjects([path], CPU)


def test_what_is_no_model_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no model given"):
        open_subjects([], CPU)
    with pytest.raises(ModelError, match=r"gone\.pt: no such file"):
        open_subjects([tmp_path / "gone.pt"], CPU)
    with pytest.raises(ModelError, match="not a file"):
        open_subjects([tmp_path], CPU)
    for name, content in (("a.txt", b"just text\n"), ("b.onnx", bytes(range(256))), ("c.pt", b"")):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(CompressError, match=name) as caught:
            open_subjects([tmp_path / name], CPU)
        assert isinstance(caught.value, ModelError)
        assert len(str(caught.value).splitlines()) <= 3
