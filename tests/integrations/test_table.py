"""The table of frameworks in docs/training.md: every cell that says yes is a test, and what has none says no."""

from __future__ import annotations

import ast
import os
import re
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn

import compressor
from compressor.asking import PruneSettings, Recipe
from compressor.data.arrays import Arrays, ArraySource
from compressor.pruning import prune
from tests.integrations.processes import run_on_two

ROOT = Path(__file__).resolve().parents[2]
COLUMNS = ("masks", "ADMM", "resume", "AMP", "accumulation", "DDP", "EMA")
LIVE, HF, PL, YOLO = (
    "tests/pruning/test_live.py", "tests/integrations/test_transformers.py", "tests/integrations/test_lightning.py",
    "tests/integrations/test_ultralytics.py",
)  # fmt: skip
HERE = "tests/integrations/test_table.py"
CELLS: dict[str, tuple[str | None, ...]] = {
    "a bare loop": (
        f"{LIVE}::test_the_result_compacts_to_what_was_asked",
        f"{LIVE}::test_a_search_draws_before_it_cuts",
        f"{LIVE}::test_a_run_that_is_broken_off_goes_on_bit_for_bit",
        f"{LIVE}::test_habits_of_loops_keep_working",
        f"{LIVE}::test_habits_of_loops_keep_working",
        f"{LIVE}::test_two_processes_cut_the_same",
        f"{LIVE}::test_an_averaged_copy_comes_out_masked",
    ),
    "the tool's own loop": (
        f"{LIVE}::test_the_tools_loop_and_a_bare_loop_end_with_the_same_weights",
        f"{LIVE}::test_the_tools_loop_and_a_bare_loop_end_with_the_same_weights",
        "tests/pruning/test_resume.py::test_a_resumed_run_ends_bit_for_bit_the_same",
        f"{HERE}::test_the_tools_own_loop_in_mixed_precision",
        None,
        f"{HERE}::test_the_tools_own_loop_in_two_processes",
        None,
    ),
    "transformers": (
        f"{HF}::test_a_trainer_prunes_and_goes_on_after_a_break",
        f"{HF}::test_a_trainer_prunes_and_goes_on_after_a_break",
        f"{HF}::test_a_trainer_prunes_and_goes_on_after_a_break",
        f"{HF}::test_mixed_precision",
        f"{HF}::test_a_trainer_prunes_and_goes_on_after_a_break",
        f"{HF}::test_two_processes_cut_the_same",
        f"{HF}::test_an_average_is_followed",
    ),
    "Lightning": (
        f"{PL}::test_a_trainer_prunes",
        f"{PL}::test_a_trainer_prunes",
        f"{PL}::test_a_broken_training_goes_on",
        f"{PL}::test_a_trainer_prunes",
        f"{PL}::test_a_trainer_prunes",
        f"{PL}::test_two_processes_cut_the_same",
        f"{PL}::test_an_average_is_followed",
    ),
    "Ultralytics": (
        f"{YOLO}::test_its_trainer_prunes_and_its_average_is_masked",
        f"{YOLO}::test_its_trainer_prunes_and_its_average_is_masked",
        f"{YOLO}::test_a_broken_training_goes_on",
        f"{YOLO}::test_its_mixed_precision_on_a_gpu",
        f"{YOLO}::test_its_trainer_prunes_and_its_average_is_masked",
        f"{YOLO}::test_what_cannot_be_is_refused",
        f"{YOLO}::test_its_trainer_prunes_and_its_average_is_masked",
    ),
}
SETTINGS = PruneSettings(
    ratio=1.5, of="macs", round_to=1,
    prune_recipe=Recipe(epochs=2, batch_size=16, optimizer="sgd", lr=0.02),
    retrain_recipe=Recipe(epochs=1, batch_size=16, optimizer="sgd", lr=0.02),
)  # fmt: skip


def told() -> dict[str, list[str]]:
    """Cells of the table by its rows, in the order of the columns."""
    text = (ROOT / "docs" / "training.md").read_text(encoding="utf-8")
    head, rows = re.search(r"^\| *\|( masks .*)\n\|[-|]+\n((?:\|.*\n)+)", text, re.MULTILINE).groups()  # type: ignore[union-attr]
    assert [name.strip().split(",")[0] for name in head.strip("|").split("|")] == list(COLUMNS)
    cells = [[cell.strip() for cell in row.strip("|").split("|")] for row in rows.splitlines()]
    return {name: rest for name, *rest in cells}


def test_every_cell_that_says_yes_is_a_test() -> None:
    table = told()
    assert set(table) == set(CELLS)
    for name, cells in table.items():
        assert len(cells) == len(COLUMNS)
        for cell, test in zip(cells, CELLS[name], strict=True):
            assert cell.startswith("no") is (test is None), f"{name}: {cell}"
            if test is not None:
                path, _, function = test.partition("::")
                assert function in functions(ROOT / path), test


def test_twin_a_test_that_is_not_there_is_seen() -> None:
    assert "test_of_nothing" not in functions(Path(__file__))


def functions(path: Path) -> set[str]:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    return {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}


def network() -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(0)
        return nn.Sequential(nn.Linear(6, 12), nn.ReLU(), nn.Linear(12, 12), nn.ReLU(), nn.Linear(12, 3))


def source() -> ArraySource:
    generator = torch.Generator().manual_seed(0)
    x, y = torch.randn(64, 6, generator=generator), torch.randint(0, 3, (64,), generator=generator)
    return ArraySource("noise", Arrays(x, y), Arrays(x[:16], y[:16]), 3)


def pruned(settings: PruneSettings = SETTINGS) -> compressor.Program:
    program, report = prune(compressor.capture(network(), "6"), settings, data=source())
    assert report.got >= 1.5
    program.check_masks()
    return program


def test_the_tools_own_loop_in_mixed_precision() -> None:
    def halves(recipe: Recipe | None) -> Recipe | None:
        return None if recipe is None else replace(recipe, precision="bf16")

    mixed = replace(
        SETTINGS, prune_recipe=halves(SETTINGS.prune_recipe), retrain_recipe=halves(SETTINGS.retrain_recipe)
    )
    program, plain = pruned(mixed), pruned()
    assert compressor.compact(program)[1].agreement is not None
    weights, other = program.module.tensors(), plain.module.tensors()
    assert any(not torch.equal(weights[name], other[name]) for name in weights), "it did compute in bfloat16"


PARALLEL = """
import os, sys
import torch
from pathlib import Path
sys.path.insert(0, sys.argv[2])
from tests.integrations.test_table import pruned
program = pruned()
assert torch.distributed.get_world_size() == 2
found = {"weights": program.module.state_dict(), "masks": dict(program.masks)}
torch.save(found, Path(sys.argv[1], os.environ["RANK"]))
torch.distributed.barrier()
os._exit(0)
"""


def test_the_tools_own_loop_in_two_processes(tmp_path: Path) -> None:
    pytest.importorskip("accelerate")
    run_on_two(PARALLEL, tmp_path)
    one, two = (torch.load(tmp_path / rank, weights_only=True) for rank in ("0", "1"))
    for part in ("weights", "masks"):
        assert one[part] and all(torch.equal(value, two[part][name]) for name, value in one[part].items())
    alone = pruned().masks
    assert {name: mask.shape for name, mask in alone.items()} == {n: m.shape for n, m in one["masks"].items()}
    assert os.environ.get("WORLD_SIZE") is None
