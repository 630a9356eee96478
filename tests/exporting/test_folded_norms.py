"""Batch norms in an exported file: the exporter folds what can be folded, and the report says what stays."""

from __future__ import annotations

from pathlib import Path

import onnx
import pytest
import torch
from torch import Tensor, nn

from compressor.exporting import export_onnx
from compressor.exporting.contents import kept_norms
from compressor.program import InputSpec, Program, capture, families


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


def test_the_exporter_folds_and_the_report_says_what_stays(norms: Program, tmp_path: Path) -> None:
    report = export_onnx(norms, tmp_path / "m.onnx")
    n_norms = sum(node.target in families.BATCH_NORM for node in norms.module.graph.nodes)
    assert n_norms == 9 and report.n_folded_norms == 4
    assert sorted(report.kept_norms) == ["alone", "d", "e", "f", "h"]
    assert kept_norms(onnx.load(tmp_path / "m.onnx")) == report.kept_norms and report.max_rel < 1e-5


def test_twin_a_file_whose_norms_were_not_folded_names_them_all(
    norms: Program, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without the optimiser of torch's exporter every norm is an operator of its own."""
    export = torch.onnx.export
    monkeypatch.setattr(torch.onnx, "export", lambda model, **more: export(model, **{**more, "optimize": False}))
    report = export_onnx(norms, tmp_path / "m.onnx")
    assert report.n_folded_norms == 0 and sorted(report.kept_norms) == ["a", "alone", *"bcdefgh"]


def test_the_option_says_that_it_has_no_effect(norms: Program, tmp_path: Path) -> None:
    with pytest.warns(DeprecationWarning, match="fold_norms has no effect"):
        asked = export_onnx(norms, tmp_path / "asked.onnx", fold_norms=True)
    plain = export_onnx(norms, tmp_path / "plain.onnx")
    assert (asked.n_nodes, asked.n_params, asked.kept_norms) == (plain.n_nodes, plain.n_params, plain.kept_norms)
