"""A model to be timed computes what the program computes, by whichever exporter there is."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import onnxruntime as ort
import pytest
import torch
from torch import nn

from compressor.errors import ModelError
from compressor.exporting import feeds_of, to_runnable
from compressor.exporting import runnable as module
from compressor.program import InputSpec, Program, capture
from tests.exporting.conftest import Normalised, Plain, Several


def plain() -> Program:
    return capture(Plain().eval(), [InputSpec("x", (None, 1, 8, 8))])


def normalised() -> Program:
    return capture(Normalised().eval(), [InputSpec("x", (None, 1, 8, 8))])


def several() -> Program:
    return capture(Several().eval(), [InputSpec("ids", (None, 3), "int64", 11), InputSpec("x", (None, 4))])


def check(program: Program) -> None:
    feeds = feeds_of(program)
    session = ort.InferenceSession(to_runnable(program), providers=["CPUExecutionProvider"])
    names = [given.name for given in session.get_inputs()]
    got = session.run(None, dict(zip(names, feeds, strict=True)))
    with torch.no_grad():
        wanted: Any = program.module.eval()(*map(torch.from_numpy, feeds))
    flat = torch.utils._pytree.tree_leaves(wanted)
    assert len(got) == len(flat)
    for mine, its in zip(got, flat, strict=True):
        np.testing.assert_allclose(mine, its.numpy(), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("build", [plain, normalised, several])
def test_it_computes_what_the_program_computes(build: Callable[[], Program]) -> None:
    check(build())


def test_where_there_is_no_older_exporter_the_present_one_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    export = torch.onnx.export

    def modern(*args: Any, dynamo: bool = True, **more: Any) -> Any:
        if not dynamo:
            raise RuntimeError("removed")
        return export(*args, dynamo=True, **more)

    monkeypatch.setattr(torch.onnx, "export", modern)
    check(plain())


def test_what_has_no_form_at_all_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    def none(*args: Any, **more: Any) -> None:
        raise RuntimeError("no such operator")

    monkeypatch.setattr(torch.onnx, "export", none)
    with pytest.raises(ModelError, match="no such operator"):
        to_runnable(plain())


def test_what_would_need_a_file_of_its_own_is_not_made(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MOST_BYTES", 100)
    with pytest.raises(ModelError, match="its weights take"):
        to_runnable(capture(nn.Linear(8, 8), [InputSpec("x", (None, 8))]))
