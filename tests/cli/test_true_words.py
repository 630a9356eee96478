"""What commands say is so: stages that took place, ratios that were got, shares, defaults, whose fault it is."""

from __future__ import annotations

import itertools
import re
from pathlib import Path

import pytest

from compressor.asking import PruneSettings, Recipe
from compressor.asking.pattern import PATTERN_FORMS
from compressor.asking.recipe import DISTILL_WITH_TEACHER
from compressor.cli.pruning import PruneOptions, prune_settings
from compressor.cli.retrain import RetrainOptions, retrain_recipe
from compressor.errors import UsageError
from compressor.report.text import metric, percent
from tests.cli.conftest import Run

SHORT = ("--epochs", "1", "--retrain-epochs", "1", "--no-latency")


def stages(run: Run, *arguments: str) -> list[str]:
    done = run("prune", "model.pt", "-r", "2x", "--no-latency", "--json", "--force", *arguments)
    assert done.code == 0, done.err
    return [row["name"] for row in done.json["stages"]]


@pytest.mark.parametrize("method", ["magnitude", "random", "admm", "group-lasso"])
def test_no_stage_is_named_after_what_did_not_take_place(run: Run, method: str) -> None:
    dry = stages(run, "-m", method, "-n")
    bare = stages(run, "-m", method, "--epochs", "1", "--no-retrain")
    assert not any("retrain" in name for name in (*dry, *bare)), (dry, bare)
    assert any("retrain" in name for name in stages(run, "-m", method, *SHORT))


def test_the_ratio_of_a_stage_is_what_was_got(run: Run) -> None:
    """Whole units of a small network cannot hit 1.7x: the row is to show what they do hit."""
    done = run("prune", "model.pt", "-r", "1.7x", "-m", "magnitude", "--no-retrain", "--round-to", "1", "--json")
    assert done.code == 0 and done.json["got"] != 1.7
    assert done.json["stages"][-1]["ratio"] == pytest.approx(done.json["got"])
    again = run("prune", "model.pruned.pt", "-r", "3x", "-m", "magnitude", "--no-retrain", "--json", "-o", "2.pt")
    ratios = [row["ratio"] for row in again.json["stages"]]
    assert ratios == pytest.approx([done.json["got"], again.json["got"]]), "what was cut before is cut"
    steps = run(
        "prune", "model.pt", "-r", "4x", "-m", "magnitude", "--steps", "3", *SHORT, "--json", "-o", "steps.pt"
    ).json["stages"]
    total = steps[0]["params"]
    assert [row["ratio"] for row in steps] == pytest.approx([total / row["params"] for row in steps])


def test_a_share_that_is_nearly_all_or_nothing_is_no_round_number() -> None:
    for share in (1e-9, 4e-4, 1 - 4e-4, 1 - 1e-9):
        assert percent(share) == ("<0.1 %" if share < 0.5 else ">99.9 %")
    for share in (1e-9, 4e-5, 1 - 4e-5, 1 - 1e-9):
        assert metric("accuracy", share) == ("<0.01 %" if share < 0.5 else ">99.99 %")
    assert [percent(share) for share in (0, 0.001, 0.999, 1)] == ["0 %", "0.1 %", "99.9 %", "100 %"]
    assert [metric("top-1", share) for share in (0, 0.0001, 0.9999, 1)] == [
        "0.00 %", "0.01 %", "99.99 %", "100.00 %"
    ]  # fmt: skip


def test_the_default_of_distillation_in_help_is_the_one_that_is_used(run: Run) -> None:
    told = " ".join(run("retrain", "--help-all").out.split())
    assert f"Default: 0, in retrain with --teacher {DISTILL_WITH_TEACHER}." in told
    taught, alone = (retrain_recipe(RetrainOptions(model="m", teacher=t)) for t in ("t.pt", None))
    assert taught is not None and taught.distill == DISTILL_WITH_TEACHER
    assert alone is not None and alone.distill == 0
    assert Recipe().distill == 0 == prune_settings(PruneOptions(model="m", said={"ratio": "2x"})).retrain_recipe.distill


def test_retraining_that_lowers_accuracy_says_so(run: Run) -> None:
    assert run("retrain", "model.pt", "--epochs", "6", "--lr", "0.01", "-o", "good.pt").code == 0
    harm = ("--optimizer", "sgd", "--lr", "100", "--clip-norm", "1", "--epochs", "1")
    done = run("retrain", "good.pt", *harm, "-o", "bad.pt")
    assert re.search(r"warning: retrain lowered accuracy from \d+\.\d\d % to \d+\.\d\d %; try a smaller --lr", done.out)
    pruned = run(
        "prune", "good.pt", "-r", "1.3x", "-m", "admm", "--search-lr", "0.0001", "--epochs", "1", "--no-latency",
        *harm[:-2], "--retrain-epochs", "1", "--json", "-o", "cut.pt",
    )  # fmt: skip
    assert pruned.code == 0, pruned.err
    rows = {row["name"]: row["metrics"]["accuracy"] for row in pruned.json["stages"]}
    assert rows["retrain"] < rows["hard prune"], "the run is to do harm"
    assert any(text.startswith("retrain lowered accuracy from ") for text in pruned.json["warnings"])
    fine = run("retrain", "model.pt", "--epochs", "6", "--lr", "0.01", "-o", "fine.pt", "--json")
    assert fine.json["warnings"] == []


BROKEN = {
    "item": "class D(list):\n    def __getitem__(self, i):\n        raise ValueError('bad sample')\n",
    "late item": (
        "class D(list):\n    def __getitem__(self, i):\n"
        "        if i > 40:\n            raise ValueError('bad sample')\n        return list.__getitem__(self, i)\n"
    ),
    "length": "class D(list):\n    def __len__(self):\n        raise ValueError('bad sample')\n",
    "call": "class D(list):\n    def __init__(self, items):\n        raise ValueError('bad sample')\n",
    "import": "raise ValueError('bad sample')\n",
    "walk": (
        "class D:\n    def __init__(self, items):\n        self.items = items\n    def __iter__(self):\n"
        "        yield from self.items\n        raise ValueError('bad sample')\n"
    ),
}
DATA = """
import numpy as np, torch
def make():
    held = np.load("data.npz")
    items = [(torch.tensor(x), int(y)) for x, y in zip(held["x_train"], held["y_train"])]
    return D(items), D(items[:48])
"""


@pytest.mark.parametrize("where", BROKEN)
@pytest.mark.parametrize("command", [("retrain", "--epochs", "1"), ("analyze",)], ids=lambda c: c[0])
def test_an_exception_of_the_users_data_is_his_with_file_and_line(
    run: Run, here: Path, command: tuple[str, ...], where: str
) -> None:
    name = f"data_{command[0]}_{where.replace(' ', '_')}.py"
    (here / name).write_text(BROKEN[where] + DATA)
    line = 1 + (BROKEN[where] + DATA).splitlines().index(
        next(text for text in BROKEN[where].splitlines() if "raise" in text)
    )
    done = run(command[0], "model.pt", *command[1:], "--data", f"{name}:make")
    assert done.code == 1, done.err
    assert "bug in compress" not in done.err
    assert "ValueError: bad sample" in done.err
    assert f"{name}:{line} raise ValueError('bad sample')" in done.err
    assert len(done.err.strip().splitlines()) <= 4, done.err


def test_an_exception_of_the_users_task_in_the_middle_is_his(run: Run, here: Path) -> None:
    (here / "late_task.py").write_text(
        "from compressor.data import Classification\nclass Task(Classification):\n    calls = 0\n"
        "    def loss(self, outputs, batch, *, smoothing=0.0):\n        Task.calls += 1\n"
        "        if Task.calls > 4:\n            raise KeyError('weights')\n"
        "        return super().loss(outputs, batch, smoothing=smoothing)\n"
    )
    done = run("retrain", "model.pt", "--epochs", "2", "--task", "late_task.py:Task")
    assert done.code == 1 and "bug in compress" not in done.err
    assert "KeyError: 'weights'" in done.err and "late_task.py:7 raise KeyError('weights')" in done.err


@pytest.mark.parametrize(
    ("words", "first"),
    [
        (("prune", "--ration", "3x"), "--ratio"),
        (("prune", "--epoch", "3"), "--epochs"),
        (("prune", "--finetune-epochs", "3"), "--retrain-epochs"),
        (("retrain", "--optimiser", "sgd"), "--optimizer"),
        (("bench", "--provder", "cpu"), "--provider"),
        (("export", "--opset-version", "18"), "--opset"),
    ],
)
def test_the_likest_option_is_offered_first(run: Run, words: tuple[str, ...], first: str) -> None:
    done = run(words[0], "model.pt", *words[1:])
    assert done.code == 2
    assert f"no such option: {words[1]}; did you mean {first}" in done.err


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("prune", "-m", "admn"), "did you mean admm?"),
        (("prune", "-m", "magnitud"), "did you mean magnitude?"),
        (("prune", "-p", "chanel", "-r", "2x"), "did you mean channel?"),
        (("prune", "-p", "unstructred", "-r", "2x"), "did you mean unstructured?"),
        (("retrain", "--optimizer", "adamW"), "did you mean adamw?"),
    ],
)
def test_the_likest_value_is_offered(run: Run, words: tuple[str, ...], told: str) -> None:
    done = run(words[0], "model.pt", *words[1:])
    assert (done.code, told in " ".join(done.err.split())) == (2, True), done.err


REFUSABLE = {
    "--round-to": {"round_to": 8},
    "--of": {"of": "latency"},
    "--allocation": {"allocation": "latency"},
    "--layer": {"layers": (("conv1", 0.5),)},
    "--quality": {"quality": (("*", 0.5),), "ratio": None, "method": "magnitude"},
    "--select-inputs": {"select_inputs": True},
    "--score": {"score": "fpgm", "method": "magnitude"},
    "--method": {"method": "group-lasso"},
    "--steps": {"steps": 3, "method": "magnitude"},
}


def test_a_refused_option_names_the_pattern_and_what_to_do() -> None:
    refused = set()
    for (option, values), pattern in itertools.product(REFUSABLE.items(), PATTERN_FORMS):
        ratio = {"ratio": 2.0} if pattern != "2:4" else {}
        try:
            PruneSettings(**{**ratio, "pattern": pattern, **values})  # type: ignore[arg-type]
        except UsageError as error:
            refused.add(option)
            text = str(error)
            assert text.startswith(option), text
            assert f"--pattern {pattern}" in text, text
            assert re.search(r"leave it out|\buse (--\w+ )?\w+", text), text
            assert len(text.splitlines()) <= 3
    assert refused == set(REFUSABLE), "every one of them is refused with some pattern"
