"""The scripts in `examples/` run from end to end, with a step or two of everything; skipped without their library."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest

EXAMPLES = Path(__file__).parents[2] / "examples"
SMALL = {
    "transformers/prune_bert.py": (
        ("transformers", "accelerate"),
        ("--sentences", "128", "--epochs", "1", "--width", "32", "--ratio", "1.3x"),
    ),
    "lightning/prune_classifier.py": (
        ("lightning",),
        ("--images", "128", "--epochs", "1", "--width", "8", "--ratio", "1.5x"),
    ),
    "ultralytics/prune_yolo.py": (
        ("ultralytics",),
        ("--images", "10", "--epochs", "1", "--prune-epochs", "2", "--batch", "4", "--imgsz", "64"),
    ),
}


def script(path: Path) -> ModuleType:
    """The module of a script, which imports what lies beside it."""
    spec = importlib.util.spec_from_file_location(f"example_{path.stem}", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_every_example_is_run() -> None:
    found = {str(path.relative_to(EXAMPLES)) for path in EXAMPLES.rglob("*.py")}
    assert found == {*SMALL, "ultralytics/shapes.py"}


@pytest.mark.filterwarnings("default")
@pytest.mark.parametrize("name", SMALL)
def test_an_example_runs(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    packages, arguments = SMALL[name]
    for package in packages:
        if importlib.util.find_spec(package) is None:
            pytest.skip(f"{package} is not installed")
    monkeypatch.syspath_prepend(str((EXAMPLES / name).parent))
    for variable, value in (
        ("YOLO_CONFIG_DIR", str(tmp_path)),
        ("YOLO_OFFLINE", "true"),
        ("YOLO_AUTOINSTALL", "false"),
    ):
        monkeypatch.setenv(variable, value)
    try:
        found = script(EXAMPLES / name).main([*arguments, "--out", str(tmp_path / "out")])
    finally:
        sys.modules.pop("shapes", None)
    assert all(0.0 <= found[stage] <= 1.0 for stage in ("dense", "pruned", "retrained") if stage in found)
    assert found.get("ratio", found.get("MACs", 0.0)) > 1.1
    assert list((tmp_path / "out").glob("*.onnx"))
