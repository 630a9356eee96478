"""What the values of a call must be to each other: what kernels take is let pass, what crashes them is refused."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, fx

from compressor.errors import ModelError
from compressor.formats import contracts
from compressor.formats.contracts import check_contracts
from compressor.program.shapes import TensorShape

aten = torch.ops.aten


def checked(target: Any, *args: Any, **kwargs: Any) -> None:
    """Checks one call; tensors among the arguments are nodes of those shapes."""
    graph, shapes = fx.Graph(), {}

    def node_of(value: Any) -> Any:
        if not isinstance(value, Tensor):
            return value
        node = graph.placeholder(f"t{len(shapes)}")
        shapes[node.name] = TensorShape(tuple(value.shape), value.dtype)
        return node

    given = [node_of(value) for value in args]
    graph.output(graph.call_function(target, tuple(given), {key: node_of(value) for key, value in kwargs.items()}))
    check_contracts(graph, shapes)


def of(*sizes: int, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.empty(sizes, dtype=dtype)


LONG, INT, SHORT = (of(4, dtype=dtype) for dtype in (torch.int64, torch.int32, torch.int16))
IMAGE, FOUR, THREE = of(2, 3, 6, 6), of(4), of(3)

FITS = {
    "a norm for each row": (aten._weight_norm.default, of(8, 4), of(8, 1), 0),
    "one for each column": (aten._weight_norm.default, of(8, 4), of(1, 4), 1),
    "one for all": (aten._weight_norm.default, of(8, 4), of(), -1),
    "three dimensions": (aten._weight_norm_interface.default, of(8, 4, 3), of(8, 1, 1), 0),
    "whole numbers by a number": (aten.div.Tensor_mode, LONG, 2, "trunc"),
    "by a tensor, rounded down": (aten.div.Tensor_mode, LONG, LONG, "floor"),
    "by a tensor, not rounded": (aten.div.Tensor_mode, LONG, LONG, None),
    "numbers of 16 bits by minus one": (aten.div.Scalar_mode, SHORT, -1, "trunc"),
    "numbers of 16 bits": (aten.div.Tensor_mode, SHORT, SHORT, "trunc"),
    "floating ones": (aten.div.Tensor_mode, FOUR, LONG, "trunc"),
    "by a half": (aten.div.Scalar_mode, LONG, -1.0, "trunc"),
    "a plain quotient": (aten.div.Tensor, LONG, LONG),
    "a batch norm": (aten.batch_norm.default, IMAGE, THREE, THREE, THREE, THREE, False, 0.1, 1e-5, False),
    "one without weights": (aten.batch_norm.default, IMAGE, None, None, THREE, THREE, False, 0.1, 1e-5, False),
    "a group norm": (aten.group_norm.default, of(2, 6, 5), 3, of(6), None),
    "another": (aten.native_group_norm.default, IMAGE, THREE, None, 2, 3, 36, 3, 1e-5),
    "some differences": (aten.diff.default, FOUR, 64),
}
DOES_NOT = {
    "a norm too few": (aten._weight_norm.default, of(8, 4), of(7, 1), 0),
    "norms of the other dimension": (aten._weight_norm.default, of(8, 4), of(1, 4), 0),
    "many for all": (aten._weight_norm.default, of(8, 4), of(2), -1),
    "a flat row of norms": (aten._weight_norm.default, of(8, 4), of(8), 0),
    "no such dimension": (aten._weight_norm.default, of(8, 4), of(8, 1), 2),
    "another type": (aten._weight_norm.default, of(8, 4), of(8, 1, dtype=torch.float64), 0),
    "whole norms": (aten._weight_norm.default, of(8, 4, dtype=torch.int64), of(8, 1, dtype=torch.int64), 0),
    "by minus one": (aten.div.Scalar_mode, LONG, -1, "trunc"),
    "by a tensor": (aten.div.Tensor_mode, LONG, LONG, "trunc"),
    "by one of 32 bits": (aten.div.Tensor_mode, INT, LONG, "trunc"),
    "by one of 16 bits": (aten.div.Tensor_mode, LONG, SHORT, "trunc"),
    "of 16 bits, by one of 64": (aten.div.Tensor_mode, SHORT, LONG, "trunc"),
    "in place": (aten.div_.Tensor_mode, INT, INT, "trunc"),
    "under its other name": (aten.divide.Tensor_mode, LONG, LONG, "trunc"),
    "a weight too few": (aten.batch_norm.default, IMAGE, of(2), THREE, THREE, THREE, False, 0.1, 1e-5, False),
    "a bias too few": (aten.batch_norm.default, IMAGE, THREE, of(2), THREE, THREE, False, 0.1, 1e-5, False),
    "a mean too few": (aten.batch_norm.default, IMAGE, THREE, THREE, of(1), THREE, False, 0.1, 1e-5, False),
    "a variance too few": (aten.batch_norm.default, IMAGE, None, None, THREE, of(1), False, 0.1, 1e-5, False),
    "no channels": (aten.batch_norm.default, of(3), None, None, THREE, THREE, False, 0.1, 1e-5, False),
    "of an instance norm": (aten.instance_norm.default, IMAGE, FOUR, THREE, None, None, True, 0.1, 1e-5, False),
    "groups that do not fit": (aten.group_norm.default, of(2, 6, 5), 4, of(6), None),
    "no groups": (aten.group_norm.default, of(2, 6, 5), 0, of(6), None),
    "a group norm's weight": (aten.group_norm.default, of(2, 6, 5), 3, of(5), None),
    "a group norm's bias": (aten.group_norm.default, of(2, 6, 5), 3, None, of(7)),
    "other channels": (aten.native_group_norm.default, IMAGE, None, None, 2, 6, 36, 3, 1e-5),
    "another batch": (aten.native_group_norm.default, IMAGE, None, None, 4, 3, 36, 3, 1e-5),
    "another area": (aten.native_group_norm.default, IMAGE, None, None, 2, 3, 35, 3, 1e-5),
    "differences without end": (aten.diff.default, FOUR, 65),
    "powers without end": (aten.linalg_matrix_power.default, of(4, 4), -65),
}  # fmt: skip


@pytest.mark.parametrize("what", FITS)
def test_what_fits_passes(what: str) -> None:
    assert checked(*FITS[what]) is None


@pytest.mark.parametrize("what", DOES_NOT)
def test_what_does_not_fit_is_refused_by_name(what: str) -> None:
    target, *args = DOES_NOT[what]
    name = target._schema.name.removeprefix("aten::")
    with pytest.raises(ModelError, match=rf"^{name}\w*: aten\.{name}\."):
        checked(target, *args)


def test_an_operator_has_one_contract() -> None:
    with pytest.raises(ValueError, match="diff has two contracts"):
        contracts._contract("diff")(lambda given: None)
