"""The clock for operators: what it remembers, under which key, and that it measures at all."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from onnx import TensorProto, helper
from torch import nn

from compressor.program import InputSpec, Program, capture
from compressor.timing.operator_clock import OperatorClock, _clock, default_cache, take_times


def linear(n_in: int, n_out: int, fill: float = 0.1) -> Program:
    layer = nn.Linear(n_in, n_out)
    nn.init.constant_(layer.weight, fill)
    return capture(layer, [InputSpec("x", (None, n_in))])


class Taken:
    """Stands in for the measurement: 1 s, 2 s, 3 s … and how often it was asked for how many."""

    def __init__(self) -> None:
        self.calls: list[int] = []
        self._next = 0

    def __call__(self, models: Sequence[bytes], threads: int) -> tuple[float, ...]:
        self.calls.append(len(models))
        self._next += len(models)
        return tuple(float(i) for i in range(self._next - len(models) + 1, self._next + 1))


def test_what_is_known_is_not_measured_again() -> None:
    taken = Taken()
    clock = OperatorClock(take=taken)
    assert clock.seconds([linear(3, 2), linear(4, 2)]) == (1.0, 2.0)
    assert clock.seconds([linear(4, 2), linear(3, 2)]) == (2.0, 1.0)
    assert taken.calls == [2]


def test_one_unknown_program_has_all_of_them_measured_side_by_side() -> None:
    taken = Taken()
    clock = OperatorClock(take=taken)
    clock.seconds([linear(3, 2)])
    assert clock.seconds([linear(3, 2), linear(5, 2)]) == (2.0, 3.0)
    assert taken.calls == [1, 2]


@pytest.mark.parametrize(
    ("n_in", "n_out", "batch", "threads"), [(3, 3, 1, 1), (4, 2, 1, 1), (3, 2, 2, 1), (3, 2, 1, 2)]
)
def test_shapes_batch_and_threads_make_the_key(tmp_path: Path, n_in: int, n_out: int, batch: int, threads: int) -> None:
    cache, taken = tmp_path / "times.json", Taken()
    OperatorClock(1, cache, taken).seconds([linear(3, 2)])
    OperatorClock(threads, cache, taken).seconds([linear(n_in, n_out)], batch)
    assert taken.calls == [1, 1]


def test_values_of_weights_do_not_but_integers_do() -> None:
    class Selecting(nn.Module):
        def __init__(self, index: list[int]) -> None:
            super().__init__()
            self.register_buffer("index", torch.tensor(index))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x.index_select(1, self.index)

    taken = Taken()
    clock = OperatorClock(take=taken)
    clock.seconds([linear(3, 2)])
    clock.seconds([linear(3, 2, fill=0.7)])
    assert taken.calls == [1]
    for index in ([0, 1], [0, 2]):
        clock.seconds([capture(Selecting(index), [InputSpec("x", (None, 3))])])
    assert taken.calls == [1, 1, 1]


def test_the_cache_outlives_the_clock(tmp_path: Path) -> None:
    cache, taken = tmp_path / "deep" / "times.json", Taken()
    assert OperatorClock(1, cache, taken).seconds([linear(3, 2)]) == (1.0,)
    assert OperatorClock(1, cache, taken).seconds([linear(3, 2)]) == (1.0,)
    assert taken.calls == [1] and list(json.loads(cache.read_text()).values()) == [1.0]


@pytest.mark.parametrize("text", ["", "[1, 2]", '{"a": "b"}', '{"a": null}'])
def test_a_damaged_cache_is_as_good_as_none(tmp_path: Path, text: str) -> None:
    cache, taken = tmp_path / "times.json", Taken()
    cache.write_text(text)
    assert OperatorClock(1, cache, taken).seconds([linear(3, 2)]) == (1.0,)
    assert list(json.loads(cache.read_text()).values()) == [1.0]


def test_a_cache_that_cannot_be_written_stops_nothing(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for cache in (tmp_path / "file" / "times.json", tmp_path):
        clock = OperatorClock(1, cache, Taken())
        assert clock.trouble is None
        assert clock.seconds([linear(3, 2)]) == (1.0,) == clock.seconds([linear(3, 2)])
        assert clock.trouble is not None and clock.trouble.startswith("times are not remembered")


def test_the_cache_lies_where_caches_lie(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert default_cache() == tmp_path / "compress" / "operators.json"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    assert default_cache() == tmp_path / "home" / ".cache" / "compress" / "operators.json"


def test_real_times_are_positive_and_a_thousand_times_the_work_takes_longer() -> None:
    from compressor.timing.operator_onnx import operator_model

    small, large = take_times([operator_model(linear(8, 8), 1), operator_model(linear(512, 4096), 1)], 1)
    assert 0 < small < large


def test_one_thread_is_timed_on_the_processor_where_that_is_told_finely(monkeypatch: pytest.MonkeyPatch) -> None:
    resolution = {"thread_time": 1e-9}
    monkeypatch.setattr(time, "get_clock_info", lambda name: SimpleNamespace(resolution=resolution[name]))
    assert _clock(1) is time.thread_time and _clock(2) is time.perf_counter
    resolution["thread_time"] = 0.015
    assert _clock(1) is time.perf_counter


def test_open_dimensions_are_filled_with_the_batch(tmp_path: Path) -> None:
    nodes = [helper.make_node("Relu", ["x"], ["y"])]
    values = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", 3]) for name in ("x", "y")]
    model = helper.make_model(helper.make_graph(nodes, "open", values[:1], values[1:]), ir_version=10)
    model.opset_import[0].version = 20
    (seconds,) = take_times([model.SerializeToString()], 1, batch=4)
    assert seconds > 0
