"""Batch norms in front of an export: folded where that is exact, kept with the reason where not."""

from __future__ import annotations

import importlib
from pathlib import Path

import onnx
import pytest
import torch
from torch import Tensor, nn

from compressor.errors import VerificationError
from compressor.exporting import export_onnx
from compressor.exporting.fold_norms import fold_norms
from compressor.program import InputSpec, Program, capture


class Norms(nn.Module):
    """A norm behind every kind of layer that can take one, and behind some that cannot."""

    def __init__(self) -> None:
        super().__init__()
        self.plain, self.a = nn.Conv2d(3, 4, 3, bias=False), nn.BatchNorm2d(4)
        self.grouped, self.b = nn.Conv2d(4, 4, 3, padding="same", groups=2), nn.BatchNorm2d(4, affine=False)
        self.up, self.c = nn.ConvTranspose2d(4, 5, 2, 2), nn.BatchNorm2d(5)
        self.shared, self.d, self.e = nn.Conv2d(5, 5, 1), nn.BatchNorm2d(5), nn.BatchNorm2d(5)
        self.twice, self.f = nn.Conv2d(5, 5, 1), nn.BatchNorm2d(5)
        self.alone = nn.BatchNorm2d(5)
        self.dense, self.g = nn.Linear(5, 6), nn.BatchNorm1d(6)
        self.tokens, self.h = nn.Linear(6, 6), nn.BatchNorm1d(4)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        x = self.c(self.up(self.b(self.grouped(self.a(self.plain(x)).relu()))))
        x = self.d(self.shared(x)) + self.e(self.shared(x))
        twice = self.twice(x)
        x = self.alone((self.f(twice) + twice).relu()).mean((2, 3))
        x = self.g(self.dense(x))
        return x, self.h(self.tokens(x[:, None].expand(-1, 4, -1)))


@pytest.fixture(scope="module")
def norms() -> Program:
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(0)
        net = Norms().eval()
        for module in net.modules():
            if isinstance(module, (nn.BatchNorm1d, nn.BatchNorm2d)):
                assert module.running_mean is not None and module.running_var is not None
                module.running_mean.normal_()
                module.running_var.uniform_(0.5, 2)
                if module.affine:
                    nn.init.normal_(module.weight)
                    nn.init.normal_(module.bias)
    return capture(net, [InputSpec("x", (None, 3, 8, 8))])


def n_norms(program: Program) -> int:
    return sum(node.target is torch.ops.aten.batch_norm.default for node in program.module.graph.nodes)


@torch.no_grad()
def difference(a: Program, b: Program) -> float:
    """Largest relative difference in float64."""
    x = a.example_inputs(3, seed=1)[0].double()
    left, right = (program.module.clone(torch.float64).eval()(x) for program in (a, b))
    return max(float((p - q).abs().max() / p.abs().max()) for p, q in zip(left, right, strict=True))


def test_norms_are_folded_and_compute_the_same(norms: Program) -> None:
    folded = fold_norms(norms)
    assert folded.n_folded == 4 and n_norms(folded.program) == n_norms(norms) - 4
    assert difference(norms, folded.program) < 1e-6  # the weights are stored in float32
    assert {"plain.bias", "grouped.bias", "up.bias", "dense.bias"} <= set(folded.program.parameters)
    assert not any(name.startswith(("a.", "b.", "c.", "g.")) for name in folded.program.module.tensors())


def test_norms_that_stay_say_why(norms: Program) -> None:
    assert sorted(fold_norms(norms).skipped) == [
        "alone: it is not behind a convolution or a linear layer",
        "d: the weight of conv2d_2 is shared or computed",
        "e: the weight of conv2d_3 is shared or computed",
        "f: conv2d_4 is read elsewhere, too",
        "h: it normalises another dimension than the layer's features",
    ]


def test_the_input_is_left_untouched(norms: Program) -> None:
    code, before = norms.module.code, {name: t.clone() for name, t in norms.module.tensors().items()}
    fold_norms(norms)
    assert norms.module.code == code
    assert all(torch.equal(t, before[name]) for name, t in norms.module.tensors().items())


def test_an_export_with_folded_norms_is_compared_with_the_original(norms: Program, tmp_path: Path) -> None:
    report = export_onnx(norms, tmp_path / "m.onnx", fold_norms=True)
    assert report.n_folded_norms == 4 and len(report.kept_norms) == 5 and report.max_rel < 1e-5
    names = {value.name for value in onnx.load(tmp_path / "m.onnx").graph.initializer}
    assert {"plain.weight", "plain.bias"} <= names
    assert export_onnx(norms, tmp_path / "n.onnx").n_folded_norms == 0


def test_twin_a_wrong_fold_never_leaves(norms: Program, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    module = importlib.import_module("compressor.exporting.fold_norms")
    right = module._fold

    def wrong(norm: torch.fx.Node, tensors: dict[str, Tensor]) -> None:
        right(norm, tensors)
        tensors["plain.weight"] = nn.Parameter(tensors["plain.weight"] * 1.5)

    monkeypatch.setattr(module, "_fold", wrong)
    with pytest.raises(VerificationError, match="nothing was written"):
        export_onnx(norms, tmp_path / "m.onnx", fold_norms=True)
    assert not (tmp_path / "m.onnx").exists()
