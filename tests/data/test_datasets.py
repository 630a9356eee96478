"""A user's own data sets: batches, determinism of what they draw, and what is said when they do not fit."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from compressor.data import Wanted, fitted
from compressor.data.datasets import DatasetSource
from compressor.data.of_function import open_function
from compressor.data.streams import StreamSource
from compressor.errors import DataError

SOURCE = """
import torch
from torch.utils.data import TensorDataset

class Noisy(TensorDataset):
    classes = ["a", "b", "c"]
    def __getitem__(self, i):
        x, y = super().__getitem__(i)
        return x + torch.rand(()), y

class Items(list):
    pass

def plain():
    x = torch.arange(20.0).view(10, 2)
    return TensorDataset(x, torch.arange(10)), TensorDataset(x[:3], torch.arange(3))

def noisy():
    x = torch.zeros(10, 2)
    return Noisy(x, torch.arange(10)), Noisy(x[:3], torch.arange(3))

def pairs():
    return tuple([((torch.ones(2), torch.ones(3)), {"box": torch.zeros(4)})] * 4 for _ in range(2))

def text():
    return [("word", 1)] * 2, [("word", 1)]

def single():
    return [1, 2, 3]

def empty():
    return [], [1]

def alone():
    return [torch.ones(2)] * 2, [1]

def untold():
    return [{"x": torch.ones(2), "class": 1}] * 2, [1]

def twice():
    return [{"x": torch.ones(2), "y": 1, "label": 2}] * 2, [1]

def named():
    items = [{"mask": torch.ones(2), "path": "a.png", "ids": torch.arange(3), "labels": i} for i in range(6)]
    return {"train": items, "validation": items[:2]}

def nothing():
    return 1, 2

def dry():
    return iter([]), iter([])

def endless():
    def forever():
        while True:
            yield torch.ones(1), 0
    return forever(), forever()

def ragged():
    return [(torch.ones(2), 1)] * 2, [(torch.ones(n + 1), 1) for n in range(2)]

class Broken(list):
    def __getitem__(self, i):
        if i:
            raise KeyError("lost")
        return super().__getitem__(i)

def broken():
    items = [(torch.ones(2), 1)] * 2
    return items, Broken(items)

def breaks_off():
    def some():
        yield torch.ones(2), 1
        raise KeyError("lost")
    return [(torch.ones(2), 1)] * 2, some()

class Walk(torch.utils.data.IterableDataset):
    def __init__(self, n):
        self.n = n
    def __iter__(self):
        return ((torch.full((2,), float(i)) + torch.rand(()) / 10, i) for i in range(self.n))

def iterable():
    return Walk(10), Walk(4)

def generators():
    return iter(Walk(10)), iter(Walk(4))

def loader_of_iterable():
    return [torch.utils.data.DataLoader(Walk(n), batch_size=3) for n in (10, 4)]

def one_of_each():
    return Walk(10), TensorDataset(torch.arange(8.0).view(4, 2), torch.arange(4))

def weighted():
    train, val = plain()
    sampler = torch.utils.data.WeightedRandomSampler([1.0] * 9 + [0.0], 10)
    load = torch.utils.data.DataLoader
    return load(train, batch_size=4, sampler=sampler), load(val, batch_size=2)

def loaders():
    train, val = plain()
    load = torch.utils.data.DataLoader
    doubled = lambda items: tuple(torch.stack([torch.as_tensor(i[k]) for i in items]) * 2 for k in (0, 1))
    return load(train, batch_size=64, shuffle=True, collate_fn=doubled), load(val, batch_size=64)

def boxes():
    def collate(items):
        return torch.stack([x for x, _ in items]), [box for _, box in items]
    items = Items((torch.ones(2), {"box": torch.zeros(i, 4)}) for i in range(4))
    sampler = torch.utils.data.WeightedRandomSampler([1.0] * 4, 4, replacement=False)
    return [torch.utils.data.DataLoader(items, batch_size=3, collate_fn=collate, sampler=s) for s in (sampler, None)]

def fails():
    raise FileNotFoundError("digits.csv")

VALUE = 3
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "my_data.py"
    path.write_text(SOURCE)
    return path


def drawn(data: DatasetSource, batch_size: int, epoch: int = 0, shard: tuple[int, int] = (0, 1)) -> torch.Tensor:
    parts = data.batches("train", batch_size, seed=1, epoch=epoch, shard=shard)
    return torch.cat([batch.inputs[0] for batch in parts])


def test_batches_of_a_function_in_a_file(file: Path) -> None:
    data = open_function("my_data.py:plain", file.parent, trust_code=True)
    assert (data.n_train, data.n_val, data.n_classes, data.input_shapes) == (10, 3, None, ((2,),))
    assert data.ref == f"{file}:plain"
    assert [b.target.tolist() for b in data.batches("val", 2)] == [[0, 1], [2]]
    targets = [number for b in data.batches("train", 5, seed=0) for number in b.target.tolist()]
    assert sorted(targets) == list(range(10)) != targets
    for batch in data.batches("train", 5, seed=0):
        assert batch.inputs[0][:, 0].tolist() == [2.0 * i for i in batch.target.tolist()]


def test_what_a_data_set_draws_depends_on_seed_epoch_and_position(file: Path) -> None:
    data = open_function(f"{file}:noisy", None, trust_code=True)
    assert data.n_classes == 3
    torch.manual_seed(9)
    expected = torch.rand(2)
    torch.manual_seed(9)
    whole = drawn(data, 10)
    assert torch.equal(torch.rand(2), expected)
    assert torch.equal(drawn(data, 2), whole)
    assert torch.equal(drawn(data, 5, shard=(1, 2)), whole[1::2])
    assert not torch.equal(drawn(data, 10, epoch=1), whole)
    assert len(whole[:, 0].unique()) == 10
    # Without a seed: the order of the file, the draws of seed 0. The position counts, not the sample.
    in_order, shuffled = (next(data.batches("train", 10, seed=seed)) for seed in (None, 0))
    assert in_order.target.tolist() != shuffled.target.tolist()
    assert torch.equal(in_order.inputs[0], shuffled.inputs[0])


def test_several_inputs_and_structured_targets(file: Path) -> None:
    data = open_function(f"{file}:pairs", None, trust_code=True)
    assert data.input_shapes == ((2,), (3,))
    batch = next(data.batches("train", 4))
    assert [tuple(x.shape) for x in batch.inputs] == [(4, 2), (4, 3)]
    assert batch.target["box"].shape == (4, 4)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("text", "inputs must be tensors or numbers, got tuple|inputs must be tensors"),
        ("alone", r"an item must be a tuple \(input, ..., target\) or a dictionary"),
        ("untold", r"an item that is a dictionary \(x, class\) has no target; call one of it target, "),
        ("twice", "has two targets, y and label"),
        ("single", r"must return two data sets or loaders \(train, val\), got list"),
        ("empty", "the train data set is empty"),
        ("dry", "the train data is empty"),
        ("nothing", "the train data needs __len__ and __getitem__, or __iter__; got int"),
        ("fails", r"calling it raised FileNotFoundError: digits\.csv\nin my_data\.py:\d+ raise FileNotFoundError"),
        ("VALUE", "not a function but a int"),
        ("absent", "has no `absent`"),
    ],
)
def test_what_does_not_fit_is_named(file: Path, name: str, message: str) -> None:
    with pytest.raises(DataError, match=message):
        open_function(f"{file}:{name}", None, trust_code=True)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("ragged", r"val samples 0, 1 have different sizes, .*\nlet the data set return tensors of one size"),
        ("broken", r"sample 1 of the val data set raised KeyError: 'lost'\nin my_data.py:\d+ raise KeyError"),
    ],
)
def test_what_breaks_later_is_named_with_its_sample(file: Path, name: str, message: str) -> None:
    data = open_function(f"{file}:{name}", None, trust_code=True)
    with pytest.raises(DataError, match=message):
        list(data.batches("val", 2))


def test_a_stream_that_breaks_off_is_the_users(file: Path) -> None:
    with pytest.raises(DataError, match=r"the val data raised KeyError: 'lost'\nin my_data.py:\d+ raise KeyError"):
        open_function(f"{file}:breaks_off", None, trust_code=True)


def test_a_stream_without_an_end_is_refused(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("compressor.data.streams._MOST_SAMPLES", 50)
    with pytest.raises(DataError, match="the train data does not end; give it a __len__"):
        open_function(f"{file}:endless", None, trust_code=True)


@pytest.mark.parametrize("name", ["iterable", "generators", "loader_of_iterable", "one_of_each"])
def test_what_can_only_be_gone_through_comes_in_the_batches_that_are_asked_for(file: Path, name: str) -> None:
    data = open_function(f"{file}:{name}", None, trust_code=True)
    assert isinstance(data, StreamSource)
    assert (data.n_train, data.n_val, data.input_shapes) == (10, 4, ((2,),))
    for split, n in (("train", 10), ("val", 4)):
        for size in (1, 2, 4, 16):
            batches = list(data.batches(split, size, seed=1))
            sizes = [len(batch.target) for batch in batches]
            assert sum(sizes) == n - (split == "train" and n % size == 1 < size)
            assert all(found == size for found in sizes[:-1])
            assert [int(i) for batch in batches for i in batch.target] == list(range(sum(sizes)))
    whole, again = (torch.cat([b.inputs[0] for b in data.batches("train", size, seed=1)]) for size in (10, 5))
    assert torch.equal(whole, again), "the batch size changes nothing that is drawn"
    other = torch.cat([b.inputs[0] for b in data.batches("train", 10, seed=1, epoch=1)])
    assert not torch.equal(whole, other)
    shares = [[int(i) for b in data.batches("train", 3, shard=(rank, 3)) for i in b.target] for rank in range(3)]
    assert shares == [[0, 3, 6], [1, 4, 7], [2, 5, 8]]
    assert [int(i) for b in data.batches("train", 4, limit=6) for i in b.target] == list(range(6))


def test_streams_leave_the_callers_random_numbers_alone(file: Path) -> None:
    data = open_function(f"{file}:iterable", None, trust_code=True)
    torch.manual_seed(9)
    expected = torch.rand(3)
    torch.manual_seed(9)
    got = [torch.rand(()) for _ in data.batches("train", 4, seed=1)]
    assert torch.equal(torch.stack(got), expected)


def test_a_loader_in_ordinary_order_is_its_data_set_with_its_collate(file: Path) -> None:
    data = open_function(f"{file}:loaders", None, trust_code=True)
    assert isinstance(data, DatasetSource) and (data.n_train, data.n_val) == (10, 3)
    assert sorted(int(i) for b in data.batches("train", 5, seed=3) for i in b.target) == [2 * i for i in range(10)]
    assert [b.target.tolist() for b in data.batches("val", 2)] == [[0, 1], [2]]


def test_a_loader_with_a_sampler_of_its_own_keeps_it(file: Path) -> None:
    data = open_function(f"{file}:weighted", None, trust_code=True)
    assert isinstance(data, StreamSource) and (data.n_train, data.n_val) == (10, 3)
    seen = [[int(i) for b in data.batches("train", 5, seed=1, epoch=e) for i in b.target] for e in range(5)]
    assert all(len(epoch) == 10 and 9 not in epoch for epoch in seen) and seen[0] != seen[1]


def test_items_by_name(file: Path) -> None:
    data = open_function(f"{file}:named", None, trust_code=True)
    batch = next(data.batches("val", 2))
    assert [tuple(x.shape) for x in batch.inputs] == [(2, 2), (2, 3)] and batch.target.tolist() == [0, 1]
    turned = fitted(data, [Wanted("ids", (3,), False), Wanted("mask", (2,), True)])
    assert turned.input_shapes == ((3,), (2,))
    assert [tuple(x.shape) for x in next(turned.batches("val", 2)).inputs] == [(2, 3), (2, 2)]
    one = fitted(data, [Wanted("x", (2,), True)])
    assert [tuple(x.shape) for x in next(one.batches("val", 2)).inputs] == [(2, 2)]
    with pytest.raises(DataError, match="an item has the inputs mask, ids, but the model takes x;\ngive them"):
        fitted(data, [Wanted("x", (7,), True)])


def test_lists_of_boxes_are_cut_by_sample(file: Path) -> None:
    data = open_function(f"{file}:boxes", None, trust_code=True)
    found = [[len(box["box"]) for box in batch.target] for batch in data.batches("val", 2)]
    assert found == [[0, 1], [2, 3]]
