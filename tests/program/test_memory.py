"""Which values of a graph share memory, and which operators write to it."""

from __future__ import annotations

import operator

import torch
from torch import Tensor, fx, nn

from compressor.program.memory import may_alias, owner_of, views_of, writes_of


class Net(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        rows = torch.ops.aten.view.default(x, [4, 3])
        part = torch.ops.aten.select.int(rows, 0, 1)
        torch.ops.aten.add_.Tensor(part, 1.0)
        copied = torch.ops.aten.clone.default(rows)
        return torch.ops.aten.mul.Tensor(copied, 2.0)


def nodes() -> tuple[fx.Graph, dict[str, fx.Node]]:
    """The graph, and its nodes by the first word of their names."""
    graph = fx.symbolic_trace(Net()).graph
    return graph, {node.name.split("_")[0]: node for node in graph.nodes}


def test_a_view_has_the_memory_of_what_it_looks_at() -> None:
    _, named = nodes()
    assert owner_of(named["select"]) is named["x"] is owner_of(named["view"])
    assert owner_of(named["clone"]) is named["clone"] and not may_alias(named["mul"])


def test_a_write_into_a_part_is_one_into_the_whole() -> None:
    graph, named = nodes()
    assert [(write.target, owner) for write, owner in writes_of(graph)] == [(torch.ops.aten.add_.Tensor, named["x"])]
    assert {node.name for node in views_of(named["select"], named["clone"])} >= {
        named["x"].name, named["view"].name, named["select"].name
    }  # fmt: skip


def test_names_that_come_later_are_not_among_the_views() -> None:
    _, named = nodes()
    assert named["select"] not in views_of(named["x"], named["select"])


def test_results_that_are_made_anew_share_no_memory_and_parts_of_a_split_do() -> None:
    graph = fx.Graph()
    x = graph.placeholder("x")
    taken = graph.call_function(torch.ops.aten.topk.default, (x, 2))
    halves = graph.call_function(torch.ops.aten.split.Tensor, (x, 2))
    of_topk = [graph.call_function(operator.getitem, (taken, i)) for i in range(2)]
    of_split = [graph.call_function(operator.getitem, (halves, i)) for i in range(2)]
    last = graph.output((*of_topk, *of_split))
    assert [owner_of(part) for part in of_topk] == of_topk and views_of(of_topk[0], last) == {of_topk[0]}
    assert [owner_of(part) for part in of_split] == [x, x]
    again = graph.call_function(operator.getitem, (taken, 0))
    assert owner_of(again) is owner_of(of_topk[0]) is taken
