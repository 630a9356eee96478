"""What the comparison on CIFAR-10 runs: jobs of their own arguments, choices by held-out images, MACs that agree."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from benchmarks import cifar10, packed
from benchmarks.cifar10 import cases, changed, chosen, command_of, found_rows, name_of, parser, swept, table, wanted_row
from benchmarks.cifar10_runs import POWER, Course, allocation_power, n_search, open_images
from benchmarks.peer import cut_to, mac_counter, torch_pruning_at
from compressor import capture, prune
from compressor.asking import PruneSettings
from compressor.cost import count_macs
from compressor.models.resnet_cifar import ResNetCifar
from compressor.program import InputSpec
from compressor.sparsity.allocation import Rules, rank_scores


def asked(*words: str) -> argparse.Namespace:
    return parser().parse_args(["--cifar", "c", "--checkpoints", "k", *words])


@pytest.mark.parametrize(
    "words",
    [
        ["--epochs", "0", "--methods", "l2,peer l1", "--only", "resnet20"],
        ["--seeds", "2", "--distill", "0.5", "--compile", "--precision", "bf16", "--keep", "conv1,layer*.conv2"],
        ["--held-out", "500", "--train", "100", "--lr", "0.03", "--power", "0.5", "--peer", "somewhere"],
    ],
)
def test_a_run_in_a_process_of_its_own_is_the_same_run(words: list[str]) -> None:
    """All arguments travel, zeros too; what only concerns the whole does not."""
    given = asked(*words, "--processes", "4", "--seconds", "60", "--sweep")
    for one in cases(given):
        again = parser().parse_args(command_of(one)[3:])
        assert wanted_row(again) == wanted_row(one) and list(map(wanted_row, cases(again))) == [wanted_row(one)]
        assert (again.processes, again.sweep, again.seconds) == (0, False, None)
        assert (again.compile, again.device, again.peer) == (one.compile, one.device, one.peer)


def test_runs_have_names_of_their_own_that_are_file_names() -> None:
    ones = [*cases(asked("--seeds", "3", "--keep", "layer*.conv2,a/b")), *swept(asked("--sweep"))]
    names = [name_of(wanted_row(one)) for one in ones]
    assert len(set(names)) == len(names) and not any(set(name) & set("/*, ") for name in names)


def test_every_method_gets_the_same_epochs() -> None:
    given = asked("--epochs", "20")
    assert {method: n_search(given, method) for method in ("admm", "peer sparse", "magnitude", "peer group")} == {
        "admm": 8, "peer sparse": 8, "magnitude": 0, "peer group": 0
    }  # fmt: skip
    assert n_search(asked("--epochs", "2"), "admm") == 1


def row(**values: Any) -> dict[str, Any]:
    same = {"arch": "resnet20", "asked": 2.0, "method": "admm", "distill": 0.0, "lr": 0.02, "power": 1.0}
    return {**same, **values}


def test_rate_and_power_are_those_of_the_least_held_out_error() -> None:
    rows = [
        row(lr=0.01, error=9.0), row(lr=0.02, error=8.0), row(lr=0.05, error=12.0), row(power=0.5, error=7.5),
        row(power=1.5, error=9.5), row(distill=0.5, lr=0.05, error=1.0), row(method="magnitude", lr=0.01, error=0.5),
    ]  # fmt: skip
    (one,) = cases(asked("--only", "resnet20", "--methods", "admm"))
    assert chosen(rows, one) == {"lr": 0.02, "power": 0.5}
    assert chosen(rows, changed(one, distill=0.5)) == {"lr": 0.05, "power": 1.0}
    assert chosen(rows, changed(one, methods="taylor")) == {}, "nothing was tried: what was asked for stays"


def test_a_sweep_looks_at_held_out_images_only_and_the_peer_has_no_power() -> None:
    found = swept(asked("--only", "resnet20", "--methods", "magnitude,peer sparse", "--rates", "0.01", "0.02", "0.05"))
    assert all(one.held_out == cifar10.HELD_OUT and one.seeds == 1 for one in found)
    tried = [(one.methods, one.lr, one.power) for one in found if one.distill == 0]
    assert [t for t in tried if t[0] == "peer sparse"] == [("peer sparse", lr, 1.0) for lr in (0.01, 0.02, 0.05)]
    assert {t[1:] for t in tried if t[0] == "magnitude"} == {
        (0.01, 1.0), (0.02, 1.0), (0.05, 1.0), (0.02, 0.5), (0.02, 1.5)
    }  # fmt: skip


def test_held_out_images_are_not_learned_from(tmp_path: Path) -> None:
    draws = np.random.default_rng(0)
    for name in packed.FILES:
        records = draws.integers(0, 256, (20, 3073), dtype=np.uint8)
        records[:, 0] %= 10
        (tmp_path / name).write_bytes(records.tobytes())
    given = changed(asked(), cifar=str(tmp_path))
    whole, held = open_images(given), open_images(changed(given, held_out=30, train=60, val=25))
    assert (whole.n_train, whole.n_val, held.n_train, held.n_val) == (100, 20, 60, 25)
    assert torch.equal(held.val.inputs, whole.train.inputs[70:95]) and torch.equal(
        held.train.inputs, whole.train.inputs[:60]
    )


def test_lines_of_runs_and_their_rows(tmp_path: Path) -> None:
    given = changed(asked(), out=tmp_path)
    course = Course(tmp_path / "rows.jsonl", "one")
    course.start("retrain", 20, "step")
    course.advance(1, loss=9.0)
    course.advance(0, loss=1.0, accuracy=0.5)
    assert found_rows(given) == {}
    course.write({"row": {"error": 50.0}})
    assert found_rows(given) == {"one": {"error": 50.0}}
    assert (tmp_path / "rows.jsonl").read_text().count("\n") == 2, "an epoch and the row, not a step"


def test_the_power_changes_the_widths_and_is_gone_afterwards() -> None:
    program = capture(ResNetCifar(8), InputSpec("image", (None, 3, 32, 32)))
    settings = PruneSettings(ratio=2.0, method="magnitude", pattern="channel", of="macs", round_to=1)

    def widths(power: float) -> list[int]:
        with allocation_power(power):
            return [layer.kept for layer in prune(program, settings)[1].layers]

    assert widths(0.5) != widths(1.0) == [layer.kept for layer in prune(program, settings)[1].layers]


def test_the_power_that_is_taken_away_is_the_one_of_the_product() -> None:
    """The largest LAMP score of a group is 1, so that of its ranking is the group's size to the power."""
    group = np.repeat([0, 1], [2, 8])
    rules = Rules(group=group, free=np.ones(10, dtype=bool), floor=0.0, step=1)
    ranked = rank_scores(np.arange(1.0, 11.0), rules, "global", "macs")
    assert [ranked[group == g].max() for g in (0, 1)] == pytest.approx([2**POWER, 8**POWER])


class Pruner:
    """Takes one filter at a time, as Torch-Pruning's small steps do."""

    iterative_steps = 400

    def __init__(self, net: nn.Sequential) -> None:
        self.net = net

    def step(self, interactive: bool) -> Any:
        yield SimpleNamespace(prune=self.cut)

    def cut(self) -> None:
        first, second = self.net[0], self.net[2]
        assert isinstance(first, nn.Conv2d) and isinstance(second, nn.Conv2d)
        first.weight = nn.Parameter(first.weight[1:].detach())
        second.weight = nn.Parameter(second.weight[:, 1:].detach())


@pytest.mark.parametrize(("wanted", "kept"), [(0.50, 20), (0.513, 21), (0.487, 19)])
def test_small_cuts_stop_where_the_macs_are_nearest(wanted: float, kept: int) -> None:
    net = nn.Sequential(nn.Conv2d(3, 40, 3, padding=1, bias=False), nn.ReLU(), nn.Conv2d(40, 8, 3, bias=False))
    dense = mac_counter(net)(net)
    assert dense == count_macs(capture(net, InputSpec("x", (None, 3, 32, 32))))
    found = cut_to(Pruner(net), net, wanted * dense)
    assert found[0].weight.shape[0] == kept  # type: ignore[index]


def test_torch_pruning_that_cannot_be_fetched_is_a_clear_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    monkeypatch.setattr("subprocess.run", lambda *words, **how: SimpleNamespace(returncode=1))
    with (
        pytest.raises(SystemExit, match=r"cannot be fetched from here\nelsewhere: pip install .* then --peer FOLDER\n"),
        torch_pruning_at(None, asked=True),
    ):
        pass


def test_nothing_is_fetched_that_nobody_asked_for(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def refuses(*words: Any, **how: Any) -> Any:
        raise AssertionError("nothing is to be installed")

    monkeypatch.setattr("subprocess.run", refuses)
    before = list(sys.path)
    with torch_pruning_at(None, asked=False) as found:
        assert found is None
    with torch_pruning_at(tmp_path, asked=True) as found:
        assert found == tmp_path.resolve() and str(tmp_path) in sys.path
    assert sys.path == before


def test_the_table_has_a_line_for_each_case_and_method() -> None:
    told = {"dense_error": 8.0, "cut": 80.0, "mac_ratio": 2.0, "param_ratio": 1.8, "epochs": 20, "train": 50000}
    told |= {"val": 10000, "held_out": 0, "keep": ""}
    rows = [row(**told, seed=1, error=8.5), row(**told, seed=2, error=8.7), row(**told, method="peer inner", error=9.0)]
    lines = table(rows).splitlines()
    assert len(lines) == 4 and "91.40 ± 0.14 | -0.60 | 2 |" in lines[2] and "peer inner" in lines[3]
