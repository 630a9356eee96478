"""A user's own data sets: batches, determinism of what they draw, and what is said when they do not fit."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from compressor.data.datasets import DatasetSource, open_function
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

def dicts():
    return [{"x": torch.ones(2), "y": 1}] * 2, [1]

def single():
    return [1, 2, 3]

def empty():
    return [], [1]

def stream():
    return iter([1]), [1]

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
        ("dicts", r"an item must be a tuple \(input, ..., target\)"),
        ("single", r"must return two data sets \(train, val\), got list"),
        ("empty", "the train data set is empty"),
        ("stream", "needs __len__ and __getitem__"),
        ("fails", r"calling it raised FileNotFoundError: digits\.csv"),
        ("VALUE", "not a function but a int"),
        ("absent", "has no `absent`"),
    ],
)
def test_what_does_not_fit_is_named(file: Path, name: str, message: str) -> None:
    with pytest.raises(DataError, match=message):
        open_function(f"{file}:{name}", None, trust_code=True)
