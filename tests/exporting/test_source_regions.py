"""Which module computes what: what goes with its weights, and nothing that only the module around it has."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from compressor.exporting.source_regions import Regions, _until, _usual, common, divide, owner_of
from compressor.program import InputSpec, capture
from tests.exporting.test_source import Attention, Cells, Detector, Fixed, Heads, Tied, UNet


class Crossing(nn.Module):
    """Two modules that need each other's values, so that neither can run in one piece."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.plain = (nn.ModuleDict({"x": nn.Linear(4, 4), "y": nn.Linear(4, 4)}) for _ in range(3))

    def forward(self, x: Tensor) -> Tensor:
        first = self.a["x"](x).relu()
        second = self.a["y"](self.b["x"](first).relu())
        return self.plain["y"](self.plain["x"](self.b["y"](second)).relu())


class Drawing(nn.Module):
    """Two modules that draw random numbers in turn."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = (nn.Sequential(nn.Linear(4, 4), nn.Dropout(), nn.Linear(4, 4)) for _ in range(2))

    def forward(self, x: Tensor) -> Tensor:
        return self.a(x) + self.b(x)


class Several(nn.Module):
    """A module whose last values are read by two others, and one that gives one more of another one's output."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.ModuleDict({"conv": nn.Conv2d(3, 4, 3, padding=1), "norm": nn.BatchNorm2d(4)})
        self.left, self.right = nn.Conv2d(4, 2, 1), nn.Conv2d(4, 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        y = self.body["norm"](self.body["conv"](x))
        return self.left(y.relu()) * self.right(y.sigmoid()) + self.left(y.relu())


def divided(net: nn.Module, spec: Any, *, flat: bool = False) -> Regions:
    with torch.random.fork_rng(devices=[]):
        program = capture(net.eval(), spec)
    graph = program.module.graph
    nodes = [node for node in graph.nodes if node.op == "call_function"]
    return divide(graph, program.module.tensors(), program.shapes, nodes, flat)


def told(regions: Regions) -> dict[str, str]:
    """What each module computes itself, by its path."""
    found: dict[str, str] = {}
    for node in regions.nodes:
        path = ".".join(regions.home[node])
        found[path] = f"{found.get(path, '')} {node.name}".strip()
    return found


CASES: dict[str, tuple[type[nn.Module], Any, dict[str, str]]] = {
    "siblings": (
        Cells, "3x6x6",
        {"one": "conv2d batch_norm silu", "": "max_pool2d mean linear", "two": "conv2d_1 batch_norm_1 silu_1"},
    ),
    "numbered lists": (
        Heads, "3x6x6",
        {
            "stem.0": "conv2d batch_norm silu", "stem.1.a": "conv2d_1 batch_norm_1 silu_1",
            "stem.1": "max_pool2d cat", "stem.1.b": "conv2d_2 batch_norm_2 silu_2",
            "heads.0.0": "conv2d_3 batch_norm_3 silu_3", "heads.0": "conv2d_4 flatten",
            "heads.1.0": "conv2d_5 batch_norm_4 silu_4", "heads.1": "conv2d_6 flatten_1",
            "": "upsample_nearest2d cat_1 split_with_sizes getitem getitem_1 arange arange_1 meshgrid getitem_2 "
                "getitem_3 mul add sum_1 add_1",
        },
    ),
    "sequences": (
        UNet, "3x16x16",
        {
            "down": "conv2d batch_norm relu", "deep": "conv2d_1 group_norm leaky_relu",
            "": "slice_1 slice_2 upsample_bilinear2d conv_transpose2d cat conv2d_2",
        },
    ),
    "layers of the whole": (
        Tied, InputSpec("ids", (None, 5), "int64", 13),
        {"": "embedding mul add linear tanh dropout linear_1 sub linear_2 mean slice_1 select"},
    ),
    "parts that are fixed": (
        Fixed, "3x4x4", {"": "conv2d mean", "middle": "linear", "rest": "linear_1 relu linear_2"},
    ),
    "across": (Crossing, "4", {"": "linear relu linear_1 relu_1 linear_2 linear_3",
                               "plain": "linear_4 relu_2 linear_5"}),
    "random numbers in turn": (
        Drawing, "4", {"a": "linear dropout linear_1", "b": "linear_2 dropout_1 linear_3", "": "add"},
    ),
    "several readers": (
        Several, "3x6x6", {"body": "conv2d batch_norm", "": "relu conv2d_1 sigmoid conv2d_2 mul relu_1 conv2d_3 add"},
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_operators_are_at_home_with_their_weights_and_the_others_where_they_belong(name: str) -> None:
    make, spec, expected = CASES[name]
    regions = divided(make(), spec)
    assert told(regions) == expected
    for path in ((), *regions.callable):
        items = regions.items(path)
        assert {item for item in items if not isinstance(item, tuple)} <= set(regions.inside(path))


def test_what_a_forward_does_comes_in_an_order_that_computes() -> None:
    """Every operator and every call stands behind what it reads."""
    regions = divided(Detector(), "3x16x16")
    assert {("model", "1", "m", "0", "a"), ("model", "3", "cv1"), ("heads", "0", "0")} <= regions.callable
    done: set[Any] = set()
    for item in regions.items(()):
        inside = set(regions.inside(item)) if isinstance(item, tuple) else {item}
        assert set().union(*(regions.after[node] for node in inside)) - inside <= done
        done |= inside
    assert done == set(regions.nodes)


def test_attention_of_torch_is_one_module() -> None:
    found = told(divided(Attention(), InputSpec("x", (None, 6, 16))))
    assert found[""].split()[-3:] == ["add", "layer_norm", "softmax"] and "transpose" in found[""].split()
    assert found["attention"].startswith("linear unflatten") and found["attention"].endswith("transpose_5")


def test_flat_is_all_in_one_forward() -> None:
    regions = divided(Cells(), "3x6x6", flat=True)
    assert set(told(regions)) == {""} and regions.callable == set() and regions.items(()) == regions.nodes


def test_a_tensor_is_read_where_its_layer_is_called() -> None:
    assert owner_of("a.b.weight", {"a.b"}) == ("a",) and owner_of("a.b.weight", {"a"}) == ("a", "b")
    assert owner_of("weight", set()) == ()


def test_paths_and_tails_in_common() -> None:
    assert common([("a", "b", "c"), ("a", "b", "d")]) == ("a", "b") and common([("a",), ("a", "b")]) == ("a",)
    assert common([("a", "b")]) == ("a", "b") and common([("a",), ("b",)]) == ()
    assert _usual([("x",), ("x",), ("y",)]) == ("x",) and _usual([("x", "y"), ("x", "z")]) == ("x",)
    assert [_until(tail, ("r", "s")) for tail in (("r", "s", "t"), ("q", "r", "s"), ("r", "t"), ())] == [2, 3, 1, 0]
