"""Tests stand where one looks for them: `tests/PACKAGE/test_MODULE.py` for `compressor/PACKAGE/MODULE.py`.

Modules that only make sense together are tested by one file; `TOGETHER` says by which. A new module belongs into a file
of its own unless it is a part of one of these.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

ROOT = Path(__file__).parent.parent
SOURCES, TESTS = ROOT / "compressor", ROOT / "tests"

TOGETHER: Mapping[str, str] = {
    # networks cut at random and compared with their masked selves: every rule, transfer and rewrite runs there
    "axes/test_rules_more.py": "axes/rules_distance axes/rules_place program/weight_norm",
    "compaction/test_oracle.py": "compaction/slicing",
    "compaction/test_dead_oracle.py": "compaction/dead",
    "compaction/test_kinds_of_constants.py": (
        "compaction/constants compaction/transfer_contract compaction/transfer_move compaction/transfer_pointwise "
        "compaction/transfer_reduce"
    ),
    "compaction/test_lowering.py": "compaction/lowering_plan compaction/lowering_result",
    # plain values, by what shows them
    "report/test_jsonable.py": "analysis/findings compaction/removed timing/measured",
    "cli/test_options.py": "asking/panels",
    # commands, by running them
    "cli/test_commands.py": (
        "cli/analyze cli/bench cli/compact cli/foreseen cli/prune cli/pruning cli/retrain cli/session"
    ),
    "cli/test_export_forms.py": "cli/export",
    "cli/test_gates.py": "cli/closing",
    "cli/test_train.py": "cli/your_training",
    "cli/test_config.py": "cli/config_file",
    "cli/test_found_config.py": "cli/allowed cli/origins",
    "formats/test_contracts.py": "formats/divisors",
    "cli/test_faults.py": "cli/signals cli/standard exporting/publish",
    # what people have and write: names and texts checked before anything is loaded, data in any form, whose fault it is
    "cli/test_named.py": "architectures data_reference input_text nearest",
    "cli/test_help.py": "asking/presets",
    "cli/test_terminal.py": "terminal",
    "cli/test_true_words.py": "users_code",
    "data/test_datasets.py": "data/fitting data/items data/of_function data/streams",
    "formats/test_load_module.py": "program/likely_inputs",
    # one file or page, written by many modules
    "exporting/test_source.py": (
        "exporting/source_check exporting/source_classes exporting/source_forward exporting/source_graph "
        "exporting/source_layers exporting/source_text"
    ),
    "exporting/test_export.py": "exporting/translations",
    "report/html/test_pages.py": (
        "report/html/analysis_page report/html/compaction_page report/html/couplings report/html/labels "
        "report/html/latencies report/html/markup report/html/page report/html/parts report/html/pruning_page "
        "report/html/style report/html/timing_page"
    ),
    "report/html/test_drawing.py": "report/html/charts report/html/scale report/html/timing_charts",
    # one ONNX file, read by many modules
    "formats/onnx_import/test_importers.py": (
        "formats/onnx_import/contract formats/onnx_import/move formats/onnx_import/norm formats/onnx_import/pointwise "
        "formats/onnx_import/pool formats/onnx_import/reduce formats/onnx_import/resize formats/onnx_import/shape "
        "formats/onnx_import/window"
    ),
    "formats/onnx_import/test_semantics.py": "formats/onnx_import/size_arithmetic",
    "formats/onnx_import/test_batches.py": "formats/onnx_import/attempts formats/onnx_import/per_sample",
    "formats/onnx_import/test_graphs.py": (
        "formats/onnx_import/build formats/onnx_import/emitter formats/onnx_import/inputs formats/onnx_import/locate "
        "formats/onnx_import/lookup formats/onnx_import/node formats/onnx_import/plan formats/onnx_import/source"
    ),
    "formats/onnx_import/test_read.py": "formats/onnx_import/opening",
    "bad/test_onnx.py": "formats/onnx_import/budget formats/onnx_import/written_out",
    "bad/test_pickles.py": "formats/pickle_work",
    "models/test_huggingface.py": "formats/folder models/hf_configuration",
    # networks of transformers: from a directory and back into one
    "models/test_transformers_families.py": "models/hf_inputs models/task_outputs",
    "exporting/test_huggingface.py": "models/hf_directory pruning/uniform",
    "cli/test_transformers_walk.py": "cli/directory formats/text_form",
    "data/test_text.py": "data/tokens",
    "data/test_tables.py": "data/held data/image_tables data/saved data/splits data/tarred",
    "models/test_architectures.py": "models/alexnet models/lenet models/resnet_cifar models/vgg",
    "exporting/test_verify.py": "formats/onnx_session",
    "data/test_order.py": "data/passes data/source",
    # how a network becomes a program, and what a program is
    "program/test_capture.py": (
        "program/batches program/modes program/normalise program/original program/purity program/trace"
    ),
    "program/test_replay.py": "program/calls program/decisions",
    "program/test_known.py": "program/items",
    "program/test_module.py": "program/program",
    "program/test_families.py": "program/family",
    # runs, and the selectors of one pattern beside those of another
    "pruning/test_prune.py": "pruning/rating pruning/recovery pruning/reporting pruning/run pruning/searching",
    "pruning/test_admm.py": "pruning/drawing",
    "pruning/test_reconstruct.py": "pruning/equations",
    "pruning/test_live.py": "pruning/live_model",
    "sparsity/test_select.py": ("sparsity/budget sparsity/select_units sparsity/select_weights"),
    "sparsity/test_criteria.py": "asking/score",
    "sparsity/test_select_shape.py": "sparsity/columns",
    "sparsity/test_select_blocks.py": "sparsity/cut_blocks",
    "axes/test_blocks.py": "program/unread",
    "cost/test_preferences.py": "cost/probes",
    "cost/test_products.py": "program/letters",
    "timing/test_memory.py": "timing/footprint",
}
"""Test file -> the modules that it tests together, besides its own."""


def modules() -> set[str]:
    """Every module that has code, below the package and without its ending."""
    found = (path.relative_to(SOURCES).with_suffix("").as_posix() for path in SOURCES.rglob("*.py"))
    return {name for name in found if not name.endswith(("__init__", "__main__"))}


def has_mirror(module: str) -> bool:
    path = Path(module)
    return (TESTS / path.parent / f"test_{path.name}.py").is_file()


def shared(together: Mapping[str, str]) -> list[str]:
    return [name for names in together.values() for name in names.split()]


def without_tests(names: set[str], together: Mapping[str, str]) -> list[str]:
    """Modules with neither a file of their own nor one that tests them together with others."""
    return sorted(name for name in names - set(shared(together)) if not has_mirror(name))


def test_every_module_has_its_tests_where_one_looks_for_them() -> None:
    assert without_tests(modules(), TOGETHER) == []


def test_what_is_tested_together_is_there_once_and_has_no_file_of_its_own() -> None:
    names = shared(TOGETHER)
    assert len(names) == len(set(names)) and set(names) <= modules()
    assert [name for name in names if has_mirror(name)] == []
    assert [file for file in TOGETHER if not (TESTS / file).is_file()] == []


def test_twin_a_module_without_tests_is_noticed() -> None:
    assert without_tests({"report/text", "training/nothing"}, TOGETHER) == ["training/nothing"]
    assert without_tests({"sparsity/select_units"}, {}) == ["sparsity/select_units"]
