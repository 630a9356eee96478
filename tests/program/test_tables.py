"""Random ids lie inside the tables that read them, and reach all of their rows."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from compressor.program import InputSpec, Program, capture

IDS = InputSpec("ids", (None, 300), "int64")


class Lookup(nn.Module):
    """Looks ids up in the way of that name; every table has 11 rows."""

    def __init__(self, way: str) -> None:
        super().__init__()
        self.way, self.table = way, nn.Embedding(11, 4)
        self.register_buffer("rows", torch.arange(44.0).reshape(11, 4))

    def forward(self, ids: Tensor) -> Tensor:
        match self.way:
            case "embedding":
                return self.table(ids)
            case "moved":
                first, second = ids.to(torch.int64).reshape(-1, 2, 150).transpose(0, 1).unbind(0)
                return self.table(torch.cat([first, second], 1).flip(1))
            case "index_select":
                return self.rows.index_select(0, ids.flatten()).reshape(-1, 300, 4)
            case "index":
                return self.rows[ids]
            case "gather":
                return self.rows[:, 0].expand(ids.shape[0], 11).gather(1, ids)
            case "one_hot":
                return F.one_hot(ids, 11).float()
        raise KeyError(self.way)


def captured(way: str, spec: InputSpec = IDS) -> Program:
    return capture(Lookup(way), [spec])


@pytest.mark.parametrize("way", ["embedding", "moved", "index_select", "index", "gather", "one_hot"])
def test_ids_reach_the_whole_table_and_no_further(way: str) -> None:
    program = captured(way)
    (ids,) = program.example_inputs(2)
    assert int(ids.min()) == 0 and int(ids.max()) == 10
    program.module(ids)


def test_a_bound_that_was_given_holds_where_it_is_lower() -> None:
    assert int(captured("embedding", InputSpec("ids", (None, 300), "int64", 5)).example_inputs(2)[0].max()) == 4
    program = captured("embedding", InputSpec("ids", (None, 300), "int64"))
    beyond = program.replace(inputs=(InputSpec("ids", (None, 300), "int64", 99),))
    assert int(beyond.example_inputs(2)[0].max()) == 10


def test_the_smallest_of_several_tables_counts_and_each_input_has_its_own() -> None:
    class Bert(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.words, self.more, self.kinds = nn.Embedding(50, 4), nn.Embedding(40, 4), nn.Embedding(3, 4)

        def forward(self, ids: Tensor, kinds: Tensor, mask: Tensor) -> Tensor:
            return (self.words(ids) + self.more(ids) + self.kinds(kinds)) * mask.unsqueeze(-1)

    specs = [IDS, InputSpec("kinds", (None, 300), "int64"), InputSpec("mask", (None, 300), "int64")]
    ids, kinds, mask = capture(Bert(), specs).example_inputs(4, seed=3)
    assert (int(ids.max()), int(kinds.max()), int(mask.max())) == (39, 2, 1)


def test_ids_that_something_is_computed_with_are_left_small() -> None:
    class Shifted(Lookup):
        def forward(self, ids: Tensor) -> Tensor:
            return self.table(ids + 2)

    program = capture(Shifted(""), [IDS])
    assert int(program.example_inputs(2)[0].max()) == 1
    program.module(*program.example_inputs(2))
