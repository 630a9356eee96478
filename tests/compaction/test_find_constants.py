"""What is said to be known is what the network computes, operator by operator and for any number of samples."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.fx.node import map_arg

from compressor.compaction.constants import TRANSFERS, Constants, Pair, Walked, transfer
from compressor.compaction.find_constants import find_constants
from compressor.program import InputSpec, Program, capture

aten = torch.ops.aten


@torch.no_grad()
def values_of(program: Program, batch: int, seed: int) -> dict[str, Any]:
    """Every value of the graph in float64, by node name."""
    module = program.module.clone(torch.float64).eval()
    given = iter(x.double() * 3 for x in program.example_inputs(batch, seed=seed))
    values: dict[str, Any] = {}
    tensors = module.tensors()
    for node in module.graph.nodes:
        if node.op == "placeholder":
            values[node.name] = next(given)
        elif node.op == "get_attr":
            values[node.name] = tensors[str(node.target)]
        elif node.op == "call_function":
            args, kwargs = map_arg((node.args, node.kwargs), lambda n: values[n.name])
            values[node.name] = node.target(*args, **kwargs)  # type: ignore[operator]
    return values


def mistakes(program: Program, constants: Mapping[str, Walked]) -> list[str]:
    """Nodes that compute something else than is known of them, at one of three batch sizes."""
    found: list[str] = []
    for batch in (1, 2, 5):
        values = values_of(program, batch, seed=batch)
        for name, known in constants.items():
            if isinstance(known, Constants) and not _agrees(known, values[name]):
                found.append(f"{name} at batch {batch}")
    return found


def _agrees(known: Constants, value: Tensor) -> bool:
    sizes = [size if known.known.shape[dim] == 1 else known.sizes[dim] for dim, size in enumerate(value.shape)]
    where = known.known.expand(sizes).expand(value.shape)
    expected = known.value.expand(value.shape)
    return torch.allclose(value[where].double(), expected[where].double(), atol=1e-12, rtol=1e-12)


class Operators(nn.Module):
    """Each function on a map whose channels 1 and 3 are constants (2 and 0), all as outputs of one network."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(2, 4, 1)
        self.norm, self.scale = nn.BatchNorm2d(4), nn.Parameter(torch.tensor([1.0, 0, 2, 3]).reshape(4, 1, 1))
        self.layer, self.group, self.slope = nn.LayerNorm(6), nn.GroupNorm(2, 4), nn.PReLU(4)
        self.deep, self.wide, self.up = (
            nn.Conv2d(4, 4, 3, padding=1, groups=4),
            nn.Conv2d(4, 5, 3, padding=1),
            nn.ConvTranspose2d(4, 3, 2, 2),
        )
        self.paired, self.dense, self.words = (
            nn.Conv2d(4, 4, 1, groups=2),
            nn.Linear(4 * 36, 7),
            nn.Embedding(9, 4),
        )
        with torch.no_grad():
            for module in (self.first, self.wide):
                module.weight[[1, 3]] = 0
            assert self.first.bias is not None
            self.first.bias[1], self.first.bias[3] = 2, 0
            self.layer.weight[:2], self.group.weight[1] = 0, 0
            self.words.weight[:, 1] = 5
            self.dense.weight[0, :36], self.dense.weight[0, 72:108] = 0, 0

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        h = self.first(x)
        return {name: function(self, h) for name, function in FUNCTIONS.items()}


def _attended(net: Operators, h: Tensor) -> Tensor:
    tokens = h.flatten(2).transpose(1, 2)  # (N, T, C)
    return F.scaled_dot_product_attention(tokens, tokens, tokens)


def _masked(net: Operators, h: Tensor) -> Tensor:
    tokens = h.flatten(2).transpose(1, 2)
    mask = torch.ones(36, 36, dtype=torch.bool).tril(-1)  # the first query sees nothing
    return F.scaled_dot_product_attention(tokens, tokens, tokens, attn_mask=mask).nan_to_num(7.0)


def _spelled_out(net: Operators, h: Tensor) -> Tensor:
    tokens = h.flatten(2).transpose(1, 2)
    weights = F.dropout((tokens @ tokens.transpose(1, 2)).softmax(-1), 0.1, training=net.training)
    return weights @ tokens


def _passed_on(net: Operators, h: Tensor) -> Tensor:
    """Weights that add up to 1, through everything that leaves them as they are."""
    tokens = h.flatten(2).transpose(1, 2)
    weights = torch.ops.aten._softmax.default(tokens @ tokens.transpose(1, 2), -1, False)
    return F.dropout1d(weights.detach().clone(), 0.1, training=net.training) @ tokens


FUNCTIONS: dict[str, Callable[[Operators, Tensor], Tensor]] = {
    "norm": lambda net, h: net.norm(h),
    "layer": lambda net, h: net.layer(h),
    "group": lambda net, h: net.group(h),
    "gelu": lambda net, h: F.gelu(h),
    "slope": lambda net, h: net.slope(h),
    "dropout": lambda net, h: F.dropout(h, 0.5, training=net.training),
    "like": lambda net, h: torch.ones_like(h) + torch.zeros_like(h),
    "scaled": lambda net, h: h * net.scale,
    "gate": lambda net, h: h * h.mean((2, 3), keepdim=True).sigmoid(),
    "max_pool": lambda net, h: F.max_pool2d(h, 3, 2, 1),
    "max_pool_found": lambda net, h: F.max_pool2d(h, 3, 2, 1, return_indices=True)[0],
    "max_pool_found_padded": lambda net, h: F.max_pool2d(F.pad(h, (1, 0)), 3, 2, return_indices=True)[0],
    "max_pool_at": lambda net, h: F.max_pool2d(h, 3, 2, 1, return_indices=True)[1],
    "avg_pool": lambda net, h: F.avg_pool2d(h, 3, 2, 1),
    "avg_pool_inside": lambda net, h: F.avg_pool2d(h, 3, 2, 1, count_include_pad=False),
    "adaptive": lambda net, h: F.adaptive_avg_pool2d(h, 2),
    "adaptive_max": lambda net, h: F.adaptive_max_pool2d(h, 2),
    "adaptive_max_line": lambda net, h: F.adaptive_max_pool1d(h.flatten(2), 2),
    "adaptive_max_padded": lambda net, h: F.adaptive_max_pool2d(F.pad(h, (1, 0)), 2),
    "adaptive_max_at": lambda net, h: F.adaptive_max_pool2d(h, 2, return_indices=True)[1],
    "upsample": lambda net, h: F.interpolate(h, scale_factor=2, mode="bilinear"),
    "deep": lambda net, h: net.deep(h),
    "wide": lambda net, h: net.wide(h),
    "paired": lambda net, h: net.paired(h),
    "transposed": lambda net, h: net.up(h),
    "dense": lambda net, h: net.dense(h.flatten(1)),
    "flat": lambda net, h: h.flatten(1),
    "cat": lambda net, h: torch.cat((h, h[:, :2] * 0, h.flip(1)), 1),
    "stack": lambda net, h: torch.stack((h, h + 1), 1),
    "padded": lambda net, h: F.pad(h, (1, 1, 0, 0, 1, 0), value=3.0),
    "reflected": lambda net, h: F.pad(h, (1, 1, 1, 1), mode="reflect"),
    "split": lambda net, h: h.split((1, 3), 1)[1],
    "chunk": lambda net, h: h.chunk(2, 1)[0] - h.chunk(2, 1)[1],
    "select": lambda net, h: h[:, 1],
    "strided": lambda net, h: h[:, 1::2],
    "picked": lambda net, h: h[:, torch.tensor([3, 1, 1])],
    "permuted": lambda net, h: h.permute(0, 2, 3, 1).reshape(-1, 4),
    "expanded": lambda net, h: h.mean((2, 3), keepdim=True).expand_as(h),
    "repeated": lambda net, h: h.repeat(1, 2, 1, 1),
    "shuffled": lambda net, h: F.channel_shuffle(h, 2),
    "unshuffled": lambda net, h: F.pixel_shuffle(h, 2),
    "rolled": lambda net, h: h.roll((1, 1), (1, 3)),
    "unfolded": lambda net, h: F.unfold(h, 3, padding=1),
    "summed": lambda net, h: h[:, 1::2].sum((1, 2)),
    "largest": lambda net, h: h[:, 1::2].max(1)[0],
    "largest_at": lambda net, h: h.flatten(2).max(2)[1],
    "middle": lambda net, h: h.flatten(2).median(2)[0],
    "middle_at": lambda net, h: h.flatten(2).median(2)[1],
    "soft": lambda net, h: h[:, 1::2].softmax(1),
    "over_samples": lambda net, h: h.sum(0),
    "in_samples": lambda net, h: h / h.shape[0],
    "counted": lambda net, h: h[:, 1:2] + torch.arange(h.shape[0])[:, None, None, None],
    "product": lambda net, h: h.flatten(2) @ h.flatten(2).transpose(1, 2),
    "einsum": lambda net, h: torch.einsum("nchw,c->nhw", h, net.scale.flatten()),
    "attended": _attended,
    "masked": _masked,
    "spelled_out": _spelled_out,
    "passed_on": _passed_on,
    "alpha": lambda net, h: F.feature_alpha_dropout(h, 0.5, training=net.training),
    "words": lambda net, h: net.words(h[:, 0].clamp(0, 8).long()),
    "compared": lambda net, h: (h > 1).float(),
    "chosen": lambda net, h: torch.where(h > 1, h, -h),
    "strange": lambda net, h: torch.fft.fft(h).real,
    "of_constants": lambda net, h: h * torch.std_mean(net.scale.expand(4, 3, 3), (1, 2))[1][:, None, None],
    "drawn": lambda net, h: h[:, 1:2] + torch.rand_like(net.scale),
    "thrown": lambda net, h: h[:, 1:2] + torch.bernoulli(net.scale.sigmoid()),
}


@pytest.fixture(scope="module")
def program() -> Program:
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(0)
        net = Operators().eval()
    return capture(net, [InputSpec("x", (None, 2, 6, 6))])


@pytest.fixture(scope="module")
def constants(program: Program) -> Mapping[str, Walked]:
    return find_constants(program)


def outputs(program: Program, constants: Mapping[str, Walked]) -> dict[str, Constants]:
    (output,) = (node for node in program.module.graph.nodes if node.op == "output")
    found = {name: constants[node.name] for name, node in output.args[0].items()}
    return {name: known for name, known in found.items() if isinstance(known, Constants)}


def test_what_is_known_is_what_is_computed(program: Program, constants: Mapping[str, Walked]) -> None:
    assert mistakes(program, constants) == []
    assert len(outputs(program, constants)) == len(FUNCTIONS)


KNOWN = {
    "norm": 2 / 4, "gelu": 2 / 4, "slope": 2 / 4, "dropout": 2 / 4, "like": 1, "scaled": 2 / 4, "max_pool": 2 / 4,
    "avg_pool": 2 / 4, "avg_pool_inside": 2 / 4, "adaptive": 2 / 4, "upsample": 2 / 4, "deep": 2 / 4, "wide": 2 / 5,
    "group": 1 / 4, "layer": 2 / 6, "dense": 1 / 7, "flat": 2 / 4, "cat": 5 / 10, "stack": 2 / 4, "split": 2 / 3,
    "select": 1, "strided": 1, "picked": 1, "permuted": 2 / 4, "expanded": 2 / 4, "repeated": 2 / 4, "shuffled": 2 / 4,
    "rolled": 2 / 4, "summed": 1, "largest": 1, "soft": 1, "over_samples": 0, "in_samples": 0, "counted": 0,
    "attended": 2 / 4, "masked": 1 / 4, "spelled_out": 2 / 4, "words": 1 / 4, "compared": 2 / 4, "chosen": 2 / 4,
    "strange": 0, "gate": 2 / 4, "einsum": 0,
    "adaptive_max": 2 / 4, "adaptive_max_line": 2 / 4, "adaptive_max_padded": 2 / 4, "adaptive_max_at": 0,
    "largest_at": 0, "middle": 2 / 4, "middle_at": 0, "max_pool_found": 2 / 4, "max_pool_found_padded": 2 / 4,
    "max_pool_at": 0, "passed_on": 2 / 4, "alpha": 2 / 4, "of_constants": 2 / 4, "drawn": 0, "thrown": 0,
}  # fmt: skip
"""Share of the elements that must be found."""


def test_as_much_is_known_as_can_be(program: Program, constants: Mapping[str, Walked]) -> None:
    found = {
        name: float(known.known.expand(known.sizes).double().mean())
        for name, known in outputs(program, constants).items()
    }
    assert {name: round(found[name], 6) for name in KNOWN} == {name: round(share, 6) for name, share in KNOWN.items()}


def test_what_is_the_same_everywhere_has_no_map(program: Program, constants: Mapping[str, Walked]) -> None:
    known = outputs(program, constants)
    assert known["gelu"].value.shape == known["max_pool"].value.shape == (1, 4, 1, 1)
    assert known["deep"].value.shape == (1, 4, 6, 6)  # zeros are read around the border


@pytest.mark.parametrize(
    ("operator", "node"),
    [
        (aten.batch_norm.default, "batch_norm"),
        (aten.reshape.default, "reshape"),
        (aten.cat.default, "cat"),
        (aten.adaptive_max_pool2d.default, "getitem"),
        (aten.max_pool2d_with_indices.default, "getitem"),
        (aten.median.dim, "getitem"),
    ],
)
def test_twin_a_wrong_transfer_is_seen(
    program: Program, operator: Any, node: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    right = TRANSFERS[operator]

    def wrong(node: torch.fx.Node, a: dict[str, Any], out: Any) -> Any:
        found = right(node, a, out)
        first, *rest = found if isinstance(found, list) else [found]
        moved = Pair(first.value + 0.5, first.known) if isinstance(first, Pair) else first
        return [moved, *rest] if isinstance(found, list) else moved

    monkeypatch.setitem(TRANSFERS, operator, wrong)
    assert any(text.startswith(node) for text in mistakes(program, find_constants(program)))


def test_maps_beyond_the_budget_count_as_unknown(program: Program, monkeypatch: pytest.MonkeyPatch) -> None:
    module = importlib.import_module("compressor.compaction.find_constants")
    monkeypatch.setattr(module, "_FREE_BYTES", 0)
    monkeypatch.setattr(module, "_LEAST_BUDGET_BYTES", 0)
    poor = find_constants(program)
    assert mistakes(program, poor) == []
    n_bytes = sum(p.numel() * p.element_size() for p in program.module.parameters())
    computed = [poor[node.name] for node in program.module.graph.nodes if node.op == "call_function"]
    spent = sum(v.value.numel() * 8 for v in computed if isinstance(v, Constants) and v.any_known)
    assert 0 < spent <= n_bytes


class Table(nn.Module):
    """Two maps that are made of a table, beside a layer with some weights."""

    def __init__(self, n: int, n_weights: int) -> None:
        super().__init__()
        self.register_buffer("table", torch.arange(float(n)))
        self.weight = nn.Parameter(torch.ones(n_weights))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        return x + self.table.sin(), x + self.table.cos(), x * self.weight.sum()


def kept_maps(n: int, n_weights: int) -> list[bool]:
    """Which of the two maps are known."""
    program = capture(Table(n, n_weights), [InputSpec("x", (None, 1))])
    found = find_constants(program)
    maps = [found[name] for name in ("sin", "cos")]
    return [isinstance(known, Constants) and known.all_known for known in maps]


def test_maps_of_64_mib_are_kept_however_small_the_network_is() -> None:
    assert kept_maps(5 * 2**20, 1) == [True, False], "40 MiB each, in float64"


def test_as_many_bytes_are_kept_as_the_parameters_have(monkeypatch: pytest.MonkeyPatch) -> None:
    module = importlib.import_module("compressor.compaction.find_constants")
    monkeypatch.setattr(module, "_FREE_BYTES", 0)
    monkeypatch.setattr(module, "_LEAST_BUDGET_BYTES", 0)
    assert [kept_maps(32, n) for n in (63, 64, 127, 128)] == [
        [False, False], [True, False], [True, False], [True, True],
    ]  # fmt: skip


def test_a_second_transfer_for_an_operator_is_an_error() -> None:
    with pytest.raises(ValueError, match=r"aten\.cat\.default already has a transfer: concatenate"):
        transfer(aten.cat.default)(lambda node, a, out: None)
