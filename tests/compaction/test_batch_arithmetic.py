"""Graphs that calculate with the number of samples: every argument that takes a number may hold one that is computed.

Each network here puts the batch, or arithmetic on it, into one argument of an operator between two convolutions. All of
the way is gone, with few and with one unit left: units, prices, cuts, the comparison, the checkpoint, Python source.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import compressor
from compressor.axes import find_units
from compressor.compaction import compact
from compressor.compaction.slicing import REWRITES
from compressor.cost import USUAL, filled_work
from compressor.errors import ModelError, VerificationError
from compressor.program import InputSpec, Program, capture, families
from compressor.program.arguments import arguments
from compressor.program.normalise import SIZE_ARITHMETIC
from compressor.sparsity import apply_masks, mask_units

Position = Callable[[Any, Tensor, int], Any]


class Between(nn.Module):
    """A convolution, what `position` makes of its maps and of the number of samples, and another convolution."""

    def __init__(self, position: Position) -> None:
        super().__init__()
        self.a, self.b, self.small = nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8, 4, 1), nn.Conv2d(3, 8, 3, padding=1)
        self.full, self.single = nn.Parameter(torch.rand(8, 8, 3, 3)), nn.Parameter(torch.rand(8, 1, 3, 3))
        self.position = position

    def forward(self, x: Tensor) -> Any:
        made = self.position(self, self.a(x), x.shape[0])
        return self.b(made) if isinstance(made, Tensor) and made.dim() == 4 else made


def correlated(m: Any, y: Tensor, b: int) -> Tensor:
    """Depthwise cross-correlation of each sample with a kernel of its own (siamese trackers)."""
    kernel = F.adaptive_avg_pool2d(m.small(y[:, :3]), 3)
    n, c = kernel.shape[:2]
    maps = F.conv2d(y.reshape(1, n * c, *y.shape[2:]), kernel.reshape(n * c, 1, 3, 3), padding=1, groups=n * c)
    return maps.view(n, c, *maps.shape[2:])


def modulated(m: Any, y: Tensor, b: int) -> Tensor:
    """One group of filters per sample, scaled by the sample (StyleGAN2)."""
    scale = y.mean((2, 3)).view(b, 1, 8, 1, 1)
    weight = (m.full.unsqueeze(0) * scale).view(b * 8, 8, 3, 3)
    return F.conv2d(y.reshape(1, b * 8, 6, 6), weight, padding=1, groups=b).view(b, 8, 6, 6)


def column(m: Any) -> Tensor:
    return m.single.view(1, 8, 9)[:, :, :1, None]


POSITIONS: dict[str, Position] = {
    "groups": modulated,
    "groups of a depthwise convolution": correlated,
    "groups of a transposed convolution": lambda m, y, b: F.conv_transpose2d(
        y.reshape(1, b * 8, 6, 6), m.full.repeat(b, 1, 1, 1), padding=1, groups=b
    ).view(b, 8, 6, 6),
    "reshape": lambda m, y, b: y.reshape(b * 8, 6, 6).mul(2).reshape(b, 8, 6, 6),
    "reshape to one": lambda m, y, b: y.reshape(b * 8 * 36).mul(2).reshape(b, 8, 6, 6),
    "unflatten": lambda m, y, b: y.flatten(0, 1).unflatten(0, (b, 8)),
    "expand": lambda m, y, b: y + column(m).expand(b, 8, 6, 6),
    "repeat": lambda m, y, b: y + column(m).repeat(b, 1, 1, 1),
    "repeat_interleave": lambda m, y, b: y + column(m).repeat_interleave(b, 0),
    "zeros": lambda m, y, b: torch.cat([y, torch.zeros(b, 2, 6, 6)], 1)[:, :8],
    "new_full": lambda m, y, b: y * y.new_full((b, 8, 1, 1), 2.0),
    "arange": lambda m, y, b: y[torch.arange(b)],
    "select": lambda m, y, b: y - y[b - 1],
    "narrow": lambda m, y, b: y.narrow(0, b - 1, 1) + y,
    "slice": lambda m, y, b: torch.cat([y[b // 2 :], y[: b // 2]]),
    "split": lambda m, y, b: torch.cat(torch.cat([y, y]).split([b, b])),
    "chunk": lambda m, y, b: torch.cat([y, y * 2]).chunk(2)[1],
    "tensor_split": lambda m, y, b: torch.cat([y, y * 2]).tensor_split((b,))[1],
    "roll": lambda m, y, b: y.roll(b - 1, 0),
    "pad": lambda m, y, b: F.pad(y, (0, 0, 0, 0, 0, 0, 0, b))[:b],
    "divide": lambda m, y, b: y / b,
    "multiply and add": lambda m, y, b: y * b + b,
    "a power of it": lambda m, y, b: y * (1 / b) ** 0.5,
    "alpha": lambda m, y, b: torch.add(y, y, alpha=b),
    "clamp": lambda m, y, b: y.clamp(-b, b),
    "clamp_min": lambda m, y, b: y.clamp_min(-b),
    "hardtanh": lambda m, y, b: F.hardtanh(y, -b, b),
    "masked_fill": lambda m, y, b: y.masked_fill(y > 1, b),
    "where": lambda m, y, b: torch.where(y > 0, y, b),
    "exponent": lambda m, y, b: y.abs() ** b,
    "full": lambda m, y, b: y + torch.full((1,), b),
    "full_like": lambda m, y, b: y + torch.full_like(y, b),
    "scalar_tensor": lambda m, y, b: y * torch.scalar_tensor(b),
    "eye": lambda m, y, b: (torch.eye(b) @ y.flatten(1)).view(y.shape),
    "topk": lambda m, y, b: y.flatten(2).topk(b * 2, 2)[0].mean(2)[..., None, None],
    "adaptive pooling": lambda m, y, b: F.adaptive_avg_pool2d(y, (b, 2)),
    "interpolate": lambda m, y, b: F.interpolate(y, size=(b + 2, 6)),
    "squeeze of what is returned": lambda m, y, b: m.b(F.adaptive_avg_pool2d(y, 1)).squeeze(),
    "squeeze": lambda m, y, b: F.linear(F.adaptive_avg_pool2d(y, 1).squeeze(), m.full[:, :, 0, 0]),
    "squeeze of named dimensions": lambda m, y, b: F.linear(
        F.adaptive_avg_pool2d(y, 1).squeeze((0, 2, 3)), m.full[:, :, 0, 0]
    ),
    "squeeze of channels": lambda m, y, b: F.linear(
        F.adaptive_avg_pool2d(y, 1).squeeze(1).flatten(-3), m.full[:, :, 0, 0]
    ),
    "numbers among the outputs": lambda m, y, b: {"y": m.b(y), "n": 3, "of": [b, b * 2], "none": None},
}


def made(position: Position) -> Program:
    torch.manual_seed(0)
    program = capture(Between(position).eval(), [InputSpec("x", (None, 3, 6, 6))])
    assert program.has_dynamic_batch, program.record.notes
    return program


def cut(program: Program, share: float) -> Program:
    """The program with that share of every width masked, all but one where it is 1."""
    units = find_units(program)
    keep = np.ones(units.n_units, dtype=bool)
    for members in units.groups:
        keep[list(members)[: min(max(1, round(share * len(members))), len(members) - 1)]] = False
    assert not keep.all()
    masked = program.clone().replace(masks=mask_units(program.module, units, keep))
    apply_masks(masked.module, masked.masks)
    return masked


@pytest.mark.parametrize("name", POSITIONS)
def test_a_computed_number_at_any_place(name: str, tmp_path: Path) -> None:
    program = made(POSITIONS[name])
    assert filled_work(program, USUAL) >= 0 and compressor.analyze(program).n_units
    for share in (0.3, 1.0):
        smaller, report = compact(cut(program, share))  # compares the two at several batches
        assert report.agreement is not None and smaller.n_parameters < program.n_parameters
        again, _ = compact(cut(smaller, 1.0)) if share < 1 else (smaller, None)
        assert again.n_parameters <= smaller.n_parameters
        compressor.save(smaller, tmp_path / f"{share}.pt")
        loaded = compressor.load(tmp_path / f"{share}.pt")
        assert loaded.n_parameters == smaller.n_parameters


def test_twin_groups_that_do_not_follow_are_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    program = made(POSITIONS["groups of a depthwise convolution"])
    monkeypatch.delitem(REWRITES, torch.ops.aten.conv2d.default)
    with pytest.raises(ModelError, match=r"measures|does not fit"):
        compact(cut(program, 0.3))


def test_twin_a_dimension_that_is_kept_for_one_sample_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    """The rewrite that named only the dimensions of size 1 at the sampled batch."""

    def named(node: Any, sizes: Any) -> None:
        source = sizes.value(node.args[0])
        node.target = torch.ops.aten.squeeze.dims
        node.args = (node.args[0], [dim for dim, size in enumerate(source.sizes) if size == 1])

    monkeypatch.setitem(REWRITES, torch.ops.aten.squeeze.default, named)
    with pytest.raises(VerificationError, match="shape"):
        compact(cut(made(POSITIONS["squeeze of what is returned"]), 0.3))


def test_every_arithmetic_on_sizes_has_names_for_its_arguments() -> None:
    graph = torch.fx.Graph()
    numbers = [graph.placeholder(name) for name in "abc"]
    for function in SIZE_ARITHMETIC - {torch.sym_ite}:
        n = 1 if function.__name__.startswith(("neg", "pos", "abs", "sym_int", "sym_float", "sym_not")) else 2
        assert list(arguments(graph.call_function(function, tuple(numbers[:n]))).values()) == numbers[:n]
    assert len(arguments(graph.call_function(torch.sym_ite, tuple(numbers)))) == 3


def test_numbers_are_no_outputs_of_a_file_and_the_report_says_so(tmp_path: Path) -> None:
    report = compressor.export(made(POSITIONS["numbers among the outputs"]), tmp_path / "m.onnx")
    assert report.left_out == ("n", "of.0", "of.1")


def test_a_file_of_computed_groups_is_refused_with_the_line_and_the_way_out(tmp_path: Path) -> None:
    program = made(POSITIONS["groups"])
    with pytest.raises(ModelError, match=r"number of samples \(test_batch_arithmetic.py.*--batch 1"):
        compressor.export(program, tmp_path / "m.onnx")
    assert compressor.export(program, tmp_path / "m.onnx", batch=1).batch == 1


def test_a_file_that_would_keep_a_squeezed_batch_is_refused_with_the_line(tmp_path: Path) -> None:
    program = made(POSITIONS["squeeze"])
    with pytest.raises(VerificationError, match=r"squeeze\(\) \(test_batch_arithmetic.py.*name the dimensions"):
        compressor.export(program, tmp_path / "m.onnx")
    assert families.SQUEEZE.overloads
