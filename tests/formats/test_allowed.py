"""Only what computes gets through, and what exported networks hold does get through."""

from __future__ import annotations

import operator

import pytest
import torch

from compressor.errors import ModelError
from compressor.formats.allowed import PYTHON_TARGETS, refusal, resolve_target, target_text

aten = torch.ops.aten


@pytest.mark.parametrize(
    ("target", "text"),
    [
        (aten.conv2d.default, "aten.conv2d.default"),
        (aten.add.Tensor, "aten.add.Tensor"),
        (aten.add_.Tensor, "aten.add_.Tensor"),
        (aten.copy_.default, "aten.copy_.default"),
        (aten.__and__.Tensor, "aten.__and__.Tensor"),
        (aten.scaled_dot_product_attention.default, "aten.scaled_dot_product_attention.default"),
        (operator.getitem, "operator.getitem"),
        (operator.and_, "operator.and_"),
        (torch.sym_max, "torch.sym_max"),
    ],
)
def test_text_and_back(target: object, text: str) -> None:
    assert target_text(target) == text
    assert resolve_target(text) is target


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("aten.from_file.default", "is not one that compress knows"),
        ("aten.set_.source_Tensor", "is not one that compress knows"),
        ("aten.set_.source_Storage", "takes a storage"),
        ("aten.resize_.default", "is not one that compress knows"),
        ("aten.set_data.default", "computes nothing"),
        ("aten._print.default", "computes nothing"),
        ("aten.record_stream.default", "computes nothing"),
        ("aten._assert_async.msg", "computes nothing"),
        ("aten.add.out", "writes into its arguments"),
        ("aten.from_file.out", "writes into its arguments"),
        ("aten.fbgemm_linear_fp16_weight.default", "is not one that compress knows"),
        ("aten._reshape_alias.default", "is not one that compress knows"),
        ("aten.quantized_lstm.input", "takes a storage, a stream or a packed object"),
        ("aten._nested_view_from_buffer.default", "is not one that compress knows"),
        ("aten.batch_norm_update_stats.default", "is not one that compress knows"),
        ("aten.ctc_loss.IntList", "is not one that compress knows"),
        ("aten.range.step", "is not one that compress knows"),
        ("aten.logspace.default", "is not one that compress knows"),
        ("aten.mvlgamma.default", "is not one that compress knows"),
        ("aten.special_hermite_polynomial_h.default", "is not one that compress knows"),
        ("aten.hann_window.default", "is not one that compress knows"),
        ("aten.combinations.default", "is not one that compress knows"),
        ("aten.as_strided.default", "is not one that compress knows"),
    ],
)
def test_what_does_more_than_compute_is_refused(text: str, message: str) -> None:
    with pytest.raises(ModelError, match=rf"{text} is refused: it {message}"):
        resolve_target(text)


@pytest.mark.parametrize(
    "text", ["aten.conv2d.deafult", "aten.conv9d.default", "aten.__class__.mro", "aten.name.default"]
)
def test_an_unknown_overload_names_this_torch(text: str) -> None:
    with pytest.raises(ModelError, match=r"is unknown to torch \d"):
        resolve_target(text)


@pytest.mark.parametrize(
    "text",
    [
        "", "os.system", "operator.attrgetter", "operator.setitem", "builtins.eval", "torch.load",
        "torch.sym_sqrt", "prim.device.default", "aten.conv2d", "aten.conv2d.default.__call__",
        "aten.conv2d.default\n", "torch.ops.aten.conv2d.default", "aten.conv2d.default()",
        "quantized.conv2d.new",
    ],
)  # fmt: skip
def test_what_is_not_aten_is_refused(text: str) -> None:
    with pytest.raises(ModelError, match="is not an ATen operator"):
        resolve_target(text)


@pytest.mark.parametrize(
    "target", [torch.relu, operator.setitem, aten.from_file.default, torch.ops.prim.device.default]
)
def test_what_could_not_be_read_is_not_written(target: object) -> None:
    with pytest.raises(ModelError, match="cannot be kept in a checkpoint"):
        target_text(target)


def test_no_allowed_overload_returns_nothing_or_writes_an_output() -> None:
    allowed = []
    for name in torch._C._dispatch_get_all_op_names():
        packet, _, overload = name.removeprefix("aten::").partition(".")
        if name.startswith("aten::"):
            found = getattr(getattr(aten, packet), overload or "default")
            allowed += [found] if refusal(found) is None else []
    assert 500 < len(allowed) < 1000
    assert all(op._schema.returns for op in allowed)
    assert not [op for op in allowed if any(a.is_out for a in op._schema.arguments)]
    assert not [op for op in allowed if any("Storage" in str(a.type) for a in op._schema.arguments)]


def test_python_targets_are_named_by_module() -> None:
    assert {text.split(".")[0] for text in PYTHON_TARGETS} == {"operator", "torch"}
    assert len(PYTHON_TARGETS) == 25
