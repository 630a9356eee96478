"""The tables of prune and retrain."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from rich.console import RenderableType

from compressor.asking import parse_pattern
from compressor.pruning.pruned import LayerCut, PruneReport, RetrainReport, StageRow
from compressor.report.console import plain_text
from compressor.report.pruning import prune_table, retrain_table
from compressor.units import Macs, Params

Golden = Callable[[str, RenderableType], None]


def stage(name: str, ratio: float, params: int, epochs: int, accuracy: float | None, **extra: float) -> StageRow:
    metrics = None if accuracy is None else {"loss": 0.0512, "accuracy": accuracy, "n": 10000}
    return StageRow(name, ratio, Params(params), epochs, 61.5, metrics, extra)


def report() -> PruneReport:
    return PruneReport(
        method="admm",
        pattern=parse_pattern("channel"),
        of="params",
        asked=13.0,
        got=13.04,
        dense_params=Params(431080),
        kept_params=Params(33058),
        dense_macs=Macs(2293000),
        kept_macs=Macs(310000),
        compact_params=Params(33058),
        compact_macs=Macs(310000),
        zeroed=398022,
        layers=(
            LayerCut("conv1", 7, 20, Params(182), Params(520)),
            LayerCut("features.denseblock1.denselayer6.conv1.with.a.name", 0, 500, Params(0), Params(400500)),
        ),
        stages=(
            stage("dense", 1.0, 431080, 0, 0.9929),
            stage("admm", 1.0, 431080, 12, 0.9921, residual=0.0123, rho=0.0043),
            stage("hard prune", 13.04, 33058, 0, 0.9908),
            stage("retrain", 13.04, 33058, 20, 0.9926),
        ),
        warnings=("asked 13.0x, got 13.0x: whole units come no closer",),
        seconds=123.4,
    )


def test_prune(golden: Golden) -> None:
    golden("prune", prune_table(report(), output="model.pruned.pt", size_bytes=1778384))


def test_dry_run(golden: Golden) -> None:
    tried = replace(report(), method="magnitude", stages=(stage("dense", 1.0, 431080, 0, None),), warnings=())
    golden("dry_run", prune_table(tried, every_row=True, would="admm"))


def test_standard_output_has_no_size() -> None:
    text = plain_text(prune_table(report(), output="-"))
    assert "wrote standard output after 2 min 3 s" in text


def test_many_layers_are_cut_and_verbose_shows_all() -> None:
    many = replace(report(), layers=tuple(LayerCut(f"l{i}", 1, 2, Params(1), Params(2)) for i in range(50)))
    assert "… and 10 more layers; -v shows all" in plain_text(prune_table(many))
    assert "l49" in plain_text(prune_table(many, every_row=True))


def test_retrain(golden: Golden) -> None:
    history = tuple(
        {"epoch": i, "lr": 1e-3 / i, "train_loss": 0.5 / i, "accuracy": 0.98, "n": 10000, "seconds": 3.2}
        for i in (1, 2)
    )
    found = RetrainReport(
        (stage("before", 1.0, 33058, 0, 0.9908), stage("retrain", 1.0, 33058, 2, 0.9926)),
        history,
        398022,
        stopped="no better epoch for 2 epochs",
        seconds=7.0,
    )
    golden("retrain", retrain_table(found, "model.retrained.pt", 1778384, every_row=True))


def test_verbose_shows_what_a_search_did_epoch_by_epoch_and_how_far_each_tensor_was() -> None:
    rows = ({"epoch": 1, "lr": 0.1, "train_loss": 0.0003, "penalty": 83.2, "residual": 0.4, "seconds": 2.0},)
    searched = replace(
        stage("admm", 1.0, 431080, 1, 0.98, residual=0.4), history=rows, residuals={"conv1.weight": 0.0123}
    )
    told = replace(report(), stages=(report().stages[0], searched))
    verbose, brief = plain_text(prune_table(told, every_row=True)), plain_text(prune_table(told))
    assert "conv1.weight" in verbose and "0.0123" in verbose and "83.2" in verbose and "0.0003" in verbose
    assert "conv1.weight" not in brief
