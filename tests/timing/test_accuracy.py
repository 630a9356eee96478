"""Accuracy through both runtimes, and where the data come from."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from compressor.data import DataSource
from compressor.data.arrays import Arrays, ArraySource
from compressor.errors import DataError, UsageError
from compressor.program import Program
from compressor.timing.accuracy import accuracy, questions
from compressor.timing.providers import find_provider
from compressor.timing.subjects import Opened, open_subjects

CPU = find_provider("cpu")
Write = Callable[..., Path]


def source(n: int = 7, width: int = 4) -> ArraySource:
    """Labels 0, so that `tiny.onnx`, whose outputs are all equal, is always right."""
    arrays = Arrays(torch.randn(n, width, generator=torch.Generator().manual_seed(0)), torch.zeros(n).long())
    return ArraySource("fake", arrays, arrays, 3)


def accuracies(opened: Sequence[Opened], data: DataSource | None) -> list[float]:
    return [accuracy(question, CPU, threads=1) for question in questions(opened, data, None)]


def test_both_runtimes_are_measured_on_given_data(program: Program, onnx_file: Write) -> None:
    data = source()
    with torch.no_grad():
        expected = float((program.module(data.val.inputs).argmax(1) == 0).float().mean())
    opened = open_subjects([program, onnx_file()], CPU)
    found = accuracies(opened, data)
    assert found == [pytest.approx(expected), 1.0]
    assert 0 < expected < 1


def test_a_fixed_batch_leaves_the_last_short_one_out(onnx_file: Write) -> None:
    opened = open_subjects([onnx_file(dims=[3, 4])], CPU)
    assert accuracies(opened, source(7)) == [1.0]


def test_remembered_data_serve_the_onnx_file_too(program: Program, onnx_file: Write, tmp_path: Path) -> None:
    data = source()
    x, y = data.val.inputs.numpy(), data.val.target.numpy()
    np.savez(tmp_path / "d.npz", x_train=x, y_train=y, x_test=x, y_test=y)
    remembering = program.replace(record=replace(program.record, data=str(tmp_path / "d.npz")))
    opened = open_subjects([remembering, onnx_file()], CPU)
    assert accuracies(opened, None)[1] == 1.0


def test_without_data_there_is_no_accuracy(program: Program, onnx_file: Write) -> None:
    with pytest.raises(UsageError, match="no data: tiny remembers none"):
        accuracies(open_subjects([program], CPU), None)
    with pytest.raises(UsageError, match=r"no data: tiny\.onnx remembers none"):
        accuracies(open_subjects([onnx_file()], CPU), None)


def test_data_of_another_shape_are_refused(program: Program, onnx_file: Write) -> None:
    for model in (program, onnx_file()):
        with pytest.raises(DataError, match=r"samples are \(\(5,\),\), tiny\S* reads \(\(4,\),\)"):
            accuracies(open_subjects([model], CPU), source(width=5))
