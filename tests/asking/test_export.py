"""Wishes about a file, and those that contradict each other."""

from __future__ import annotations

from typing import Any

import pytest

from compressor.asking.export import HIGHEST_OPSET, LOWEST_OPSET, ExportForm
from compressor.errors import UsageError


@pytest.mark.parametrize(
    ("wishes", "precision", "is_converted"),
    [
        ({}, "unchanged", False),
        ({"batch": 2, "opset": 18}, "unchanged", False),
        ({"sparse": True}, "unchanged", True),
        ({"fp16": True}, "fp16", True),
        ({"int8": "static"}, "int8 static", True),
    ],
)
def test_a_form_knows_its_precision(wishes: dict[str, Any], precision: str, is_converted: bool) -> None:
    form = ExportForm(**wishes)
    assert (form.precision, form.is_converted) == (precision, is_converted)


@pytest.mark.parametrize(
    ("wishes", "told"),
    [
        ({"opset": LOWEST_OPSET - 1}, "--opset 14: must be 15 to 26"),
        ({"opset": HIGHEST_OPSET + 1}, "--opset 27: must be 15 to 26"),
        ({"batch": 0}, "--batch 0: must be at least 1"),
        ({"n_calibration": 0}, "--calibration 0: must be at least 1"),
        ({"int8": "dynamic", "fp16": True}, "--int8 and --fp16 store the same weights"),
    ],
)
def test_wishes_that_cannot_be_met_are_refused(wishes: dict[str, Any], told: str) -> None:
    with pytest.raises(UsageError, match=told):
        ExportForm(**wishes)


def test_a_program_with_a_fixed_batch_has_no_other() -> None:
    ExportForm(batch=3).check_batch(has_dynamic_batch=True)
    ExportForm(batch=1).check_batch(has_dynamic_batch=False)
    with pytest.raises(UsageError, match=r"--batch 3: .* fixes the batch at 1"):
        ExportForm(batch=3).check_batch(has_dynamic_batch=False)
