"""Numbers that depend on the batch: arithmetic in the graph, plain integers where the batch does not show."""

from __future__ import annotations

import operator

import numpy as np
import pytest
import torch
from torch import fx

from compressor.errors import ModelError
from compressor.formats.onnx_import.values import Const, Size, Sizes, Traced, combined, entries_of, of_entries


@pytest.fixture
def batch() -> Size:
    graph = fx.Graph()
    x = graph.placeholder("x")
    return Size(graph.call_function(torch.ops.aten.sym_size.int, (x, 0)), (2, 3))


def test_arithmetic_writes_nodes_and_knows_the_values(batch: Size) -> None:
    found = combined(operator.floordiv, batch * 4 + 1 - batch, 2)
    assert found.values == (3, 5)
    assert (10 - batch).values == (8, 7) and (-batch).values == (-2, -3)
    assert combined(operator.floordiv, 12, batch).values == (6, 4) and combined(operator.mod, batch, 2).values == (0, 1)
    assert found.node.target is operator.floordiv
    assert found.node.meta["val"] == 3


def test_an_answer_that_depends_on_the_batch_is_a_node_too(batch: Size) -> None:
    found = combined(torch.sym_ite, combined(operator.eq, batch, 2), 7, combined(torch.sym_min, batch, 8))
    assert found.values == (7, 3)
    assert found.node.target is torch.sym_ite
    assert combined(operator.gt, batch, 1) is True


def test_what_does_not_show_the_batch_is_a_plain_integer(batch: Size) -> None:
    assert (batch - batch, combined(operator.floordiv, batch, batch), batch * 0) == (0, 1, 0)
    assert combined(operator.add, np.int64(2), 3) == 5


def test_what_integers_cannot_say_is_an_error(batch: Size) -> None:
    with pytest.raises(ModelError, match="no integer"):
        batch * 0.5
    with pytest.raises(ModelError, match="divides a size by 0"):
        combined(operator.floordiv, batch, 0)


def test_entries_are_sizes_only_where_one_depends_on_the_batch(batch: Size) -> None:
    assert isinstance(of_entries([batch, 4], "s"), Sizes)
    plain = of_entries([1, 4], "s")
    assert isinstance(plain, Const) and plain.tensor.tolist() == [1, 4]
    assert entries_of(Const(torch.tensor([[1, 2]]), "c")).tolist() == [[1, 2]]
    with pytest.raises(ModelError, match="the network's own values"):
        entries_of(Traced(batch.node, (torch.zeros(2), torch.zeros(3))))


def test_a_dimension_is_static_or_an_error(batch: Size) -> None:
    value = Traced(batch.node, (torch.zeros(2, 5), torch.zeros(3, 5)))
    assert (value.static(1), value.at(0)) == (5, (2, 3))
    with pytest.raises(ModelError, match="dimension 0 depends on the batch size"):
        value.static(0)


@pytest.mark.parametrize(("values", "uniform"), [([0, 0, 0], True), ([1], True), ([0, 1, 0], False), ([1, 0], False)])
def test_uniform_tensors_are_recognised(values: list[int], uniform: bool) -> None:
    assert Const(torch.from_numpy(np.array(values)), "c").is_uniform is uniform
