"""Whole networks, written by this tool's exporter and by torch's older one at several opsets, and back."""

from __future__ import annotations

import io
import warnings
from collections.abc import Callable

import numpy as np
import onnx
import pytest
import torch
from torch import Tensor, nn

from compressor.axes import find_units
from compressor.compaction import compact
from compressor.exporting import export_onnx
from compressor.formats import from_bytes, load, to_bytes
from compressor.models import build
from compressor.program import InputSpec, Program, capture, find_layers
from compressor.sparsity import apply_masks, mask_units
from tests.formats.onnx_import.building import agrees, imported

OPSETS = (13, 17, 18, 20)


class Attention(nn.Module):
    """Self-attention as ViTs write it, with a class token, a layer norm, gelu and a residual."""

    def __init__(self) -> None:
        super().__init__()
        self.patch = nn.Conv2d(3, 16, 4, 4)
        self.token = nn.Parameter(torch.randn(1, 1, 16))
        self.position = nn.Parameter(torch.randn(1, 5, 16))
        self.norm = nn.LayerNorm(16)
        self.qkv, self.proj = nn.Linear(16, 48), nn.Linear(16, 16)
        self.mlp = nn.Sequential(nn.Linear(16, 32), nn.GELU(), nn.Linear(32, 16))
        self.head = nn.Linear(16, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.patch(x).flatten(2).transpose(1, 2)
        x = torch.cat([self.token.expand(x.shape[0], -1, -1), x], 1) + self.position
        n, t, d = x.shape
        q, k, v = self.qkv(self.norm(x)).reshape(n, t, 3, 2, d // 2).permute(2, 0, 3, 1, 4).unbind(0)
        mixed = ((q * 8**-0.5) @ k.transpose(-2, -1)).softmax(-1) @ v
        x = x + self.proj(mixed.transpose(1, 2).reshape(n, t, d))
        x = x + self.mlp(x)
        return self.head(x[:, 0])


class Blocks(nn.Module):
    """A residual block, a depthwise one with squeeze and excitation, a channel shuffle and upsampling."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 8, 3, bias=False), nn.BatchNorm2d(8), nn.ReLU())
        self.block = nn.Sequential(nn.Conv2d(8, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8), nn.Hardswish())
        self.depth = nn.Conv2d(8, 8, 3, groups=8, padding=1)
        self.gate = nn.Sequential(
            nn.AdaptiveAvgPool2d(1), nn.Conv2d(8, 4, 1), nn.ReLU(), nn.Conv2d(4, 8, 1), nn.Sigmoid()
        )
        self.norm = nn.GroupNorm(2, 8)
        self.last = nn.Linear(8 * 7 * 7, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        x = nn.functional.relu6(x + self.block(x))
        y = self.depth(x)
        x = x * self.gate(y)
        n, c, h, w = x.shape
        x = x.view(n, 2, c // 2, h, w).transpose(1, 2).reshape(n, c, h, w)
        x = self.norm(nn.functional.interpolate(nn.functional.max_pool2d(x, 2, ceil_mode=True), scale_factor=2.0))
        x = nn.functional.avg_pool2d(x, 2, padding=1)
        return self.last(torch.flatten(nn.functional.pad(x, (0, 1, 1, 0))[:, :, :7, :7], 1))


class TokensFirst(nn.Module):
    """torch's own attention works on (tokens, batch, features), and folds tokens and batch into rows."""

    def __init__(self) -> None:
        super().__init__()
        self.attention = nn.MultiheadAttention(8, 2, batch_first=True)
        self.last = nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = x.flatten(2).transpose(1, 2)
        return self.last(x + self.attention(x, x, x, need_weights=False)[0]).mean(1)


def lenet() -> nn.Module:
    return build("lenet5", {}, seed=0).module


NETWORKS: list[tuple[str, Callable[[], nn.Module], tuple[int, ...]]] = [
    ("lenet5", lenet, (1, 28, 28)),
    ("resnet20", lambda: build("resnet20", {}, seed=0).module, (3, 32, 32)),
    ("attention", Attention, (3, 8, 8)),
    ("blocks", Blocks, (3, 14, 14)),
]


def trained(make: Callable[[], nn.Module]) -> nn.Module:
    """The module in evaluation mode with nothing uniform in it, as training leaves it."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        module = make().eval()
        with torch.no_grad():
            for name, tensor in module.state_dict().items():
                if tensor.is_floating_point() and tensor.dim() == 1:
                    tensor.add_(torch.rand_like(tensor) * (0.5 if "var" in name else 0.2))
    return module


def torchscript(module: nn.Module, shape: tuple[int, ...], opset: int, *, dynamic: bool = True) -> onnx.ModelProto:
    """The file that torch's older exporter writes."""
    buffer, axes = io.BytesIO(), {"x": {0: "batch"}} if dynamic else None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            module, (torch.zeros(2 if dynamic else 1, *shape),), buffer, dynamo=False, opset_version=opset,
            input_names=["x"], output_names=["y"], dynamic_axes=axes,
        )  # fmt: skip
    return onnx.load_from_string(buffer.getvalue())


def exported(program: Program) -> onnx.ModelProto:
    buffer = io.BytesIO()
    export_onnx(program, buffer, batch_sizes=(2,))
    return onnx.load_from_string(buffer.getvalue())


def n_units(program: Program) -> int:
    return find_units(program).n_units


@pytest.mark.parametrize("opset", OPSETS)
@pytest.mark.parametrize(("make", "shape"), [n[1:] for n in NETWORKS], ids=[n[0] for n in NETWORKS])
def test_what_the_older_exporter_writes(make: Callable[[], nn.Module], shape: tuple[int, ...], opset: int) -> None:
    module = trained(make)
    program = agrees(torchscript(module, shape, opset), tolerance=1e-4)
    assert program.has_dynamic_batch
    assert n_units(program) == n_units(capture(module, [InputSpec("x", (None, *shape))]))


@pytest.mark.parametrize(
    ("make", "shape"),
    [*(n[1:] for n in NETWORKS), (TokensFirst, (8, 3, 2))],
    ids=[*(n[0] for n in NETWORKS), "tokens first"],
)
def test_a_fixed_batch_is_opened(make: Callable[[], nn.Module], shape: tuple[int, ...]) -> None:
    module = trained(make)
    program = imported(torchscript(module, shape, 17, dynamic=False))
    assert program.has_dynamic_batch
    x = torch.randn(3, *shape)
    torch.testing.assert_close(program.module(x), module(x), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(("make", "shape"), [n[1:] for n in NETWORKS], ids=[n[0] for n in NETWORKS])
def test_what_this_tool_writes_comes_back_and_is_compacted(
    make: Callable[[], nn.Module], shape: tuple[int, ...]
) -> None:
    """ONNX in, ONNX out: cut by random units, compacted with its own check, written and read once more."""
    first = capture(trained(make), [InputSpec("x", (None, *shape))])
    program = agrees(exported(first), tolerance=1e-4)
    units = find_units(program)
    assert units.n_units >= n_units(first), "sizes that the module computes are numbers in a file"
    keep = np.random.default_rng(0).random(units.n_units) < 0.7
    keep[0] = False
    masks = mask_units(program.module, units, keep)
    apply_masks(program.module, masks)
    small, _ = compact(program.replace(masks=masks))
    assert small.n_parameters < program.n_parameters
    again = agrees(exported(small), tolerance=1e-4)
    assert again.n_parameters == small.n_parameters
    x = torch.randn(3, *shape)
    torch.testing.assert_close(again.module(x), program.module(x), rtol=1e-4, atol=1e-4)


def test_layers_have_the_names_that_they_had_in_torch() -> None:
    module = trained(lenet)
    wanted = {layer.name for layer in find_layers(capture(module, [InputSpec("x", (None, 1, 28, 28))]))}
    for model in (torchscript(module, (1, 28, 28), 17), exported(capture(module, [InputSpec("x", (None, 1, 28, 28))]))):
        assert {layer.name for layer in find_layers(imported(model))} == wanted


def test_folded_batch_norms_leave_their_convolutions_the_names() -> None:
    program = imported(torchscript(trained(Blocks), (3, 14, 14), 17))
    assert {"stem.0.weight", "stem.0.bias", "block.0.weight", "last.weight"} <= set(program.parameters)


def test_a_checkpoint_of_an_imported_network_is_self_contained() -> None:
    program = imported(torchscript(trained(Attention), (3, 8, 8), 17))
    again = from_bytes(to_bytes(program))
    x = torch.randn(2, 3, 8, 8)
    torch.testing.assert_close(again.module(x), program.module(x), rtol=0, atol=0)
    assert again.record.notes == program.record.notes
    assert "imported from ONNX: opset 17, pytorch" in again.record.notes[0]


def test_an_imported_network_trains() -> None:
    program = imported(torchscript(trained(Attention), (3, 8, 8), 14))
    module = program.module.train()
    before = {name: parameter.detach().clone() for name, parameter in module.named_parameters()}
    module(torch.randn(4, 3, 8, 8)).square().sum().backward()
    torch.optim.SGD(module.parameters(), lr=0.01).step()
    assert all(not torch.equal(before[name], parameter) for name, parameter in module.named_parameters())


def test_load_opens_onnx_by_content() -> None:
    content = torchscript(trained(lenet), (1, 28, 28), 17).SerializeToString()
    assert load(io.BytesIO(content)).n_parameters == 431_080
