"""Loading by reference: what is found, and that every failure names its cause."""

from __future__ import annotations

import functools
import sys
from pathlib import Path

import pytest

from compressor.errors import DataError, ModelError, UntrustedCodeError, UsageError
from compressor.reference import load_module, resolve_path, split_reference
from compressor.reference import load_reference as load

load_reference = functools.partial(load, field="arch", trust_code=True)


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("net.py:Net", ("net.py", "Net")),
        ("a/b c/net.py:Outer.Inner", ("a/b c/net.py", "Outer.Inner")),
        ("package.module:make", ("package.module", "make")),
        ("mnist:some/dir", None),
        ("lenet5", None),
        ("net.py:", None),
        ("a-b:c", None),
        ("C:/x/net.py", None),
    ],
)
def test_split_reference_tells_references_from_other_text(text: str, parts: tuple[str, str] | None) -> None:
    assert split_reference(text) == parts


def test_a_file_and_its_neighbours_are_loaded_and_sys_path_is_restored(tmp_path: Path) -> None:
    (tmp_path / "neighbour_of_net.py").write_text("WIDTH = 7\n")
    (tmp_path / "net.py").write_text(
        "from __future__ import annotations\n"
        "from dataclasses import dataclass\n"
        "from neighbour_of_net import WIDTH\n"
        "@dataclass\n"
        "class Net:\n"
        "    width: int = WIDTH\n"
        "    class Inner:\n"
        "        depth = 3\n"
    )
    before = list(sys.path)
    found = load_reference(f"{tmp_path}/net.py:Net")
    assert isinstance(found, type)
    assert found().width == 7
    assert load_reference(f"{tmp_path}/net.py:Net.Inner.depth") == 3
    assert sys.path == before


def test_two_files_of_one_name_do_not_meet(tmp_path: Path) -> None:
    for name, value in (("a", 1), ("b", 2)):
        (tmp_path / name).mkdir()
        (tmp_path / name / "net.py").write_text(f"VALUE = {value}\n")
    values = [load_reference(f"{tmp_path}/{name}/net.py:VALUE") for name in ("a", "b")]
    assert values == [1, 2]


def test_base_comes_before_the_working_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    base, here = tmp_path / "base", tmp_path / "here"
    for folder, value in ((base, "base"), (here, "here")):
        folder.mkdir()
        (folder / "net.py").write_text(f"WHERE = '{value}'\n")
    monkeypatch.chdir(here)
    assert load_reference("net.py:WHERE", base=base) == "base"
    assert load_reference("net.py:WHERE") == "here"
    (base / "net.py").unlink()
    assert load_reference("net.py:WHERE", base=base) == "here"
    assert resolve_path("net.py", None) == here / "net.py"


def test_a_module_of_the_working_directory_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "module_only_here.py").write_text("VALUE = 5\n")
    monkeypatch.chdir(tmp_path)
    assert load_reference("module_only_here:VALUE") == 5


def test_failures_name_their_cause(tmp_path: Path) -> None:
    (tmp_path / "net.py").write_text("class Net: ...\n")
    (tmp_path / "raises.py").write_text("1 / 0\n")
    (tmp_path / "exits.py").write_text("import sys\nsys.exit(4)\n")
    (tmp_path / "needs.py").write_text("import a_package_that_is_missing\n")
    with pytest.raises(UsageError, match=r"not a reference; write package\.module:name"):
        load_reference("lenet5")
    with pytest.raises(DataError, match=r"absent\.py: no such file"):
        load_reference(f"{tmp_path}/absent.py:Net", error=DataError)
    with pytest.raises(ModelError, match=r"has no `Nat`; it defines Net"):
        load_reference(f"{tmp_path}/net.py:Nat", error=ModelError)
    with pytest.raises(UsageError, match=r"importing raises\.py raised ZeroDivisionError: division by zero"):
        load_reference(f"{tmp_path}/raises.py:Net")
    with pytest.raises(UsageError, match=r"importing exits\.py raised SystemExit: 4"):
        load_reference(f"{tmp_path}/exits.py:Net")
    with pytest.raises(UsageError, match="ModuleNotFoundError: No module named 'a_package_that_is_missing'"):
        load_reference(f"{tmp_path}/needs.py:Net")
    with pytest.raises(UsageError, match="no module `a_package_that_is_missing` here or among"):
        load_reference("a_package_that_is_missing.sub:Net")


def test_a_module_that_fails_leaves_nothing_behind(tmp_path: Path) -> None:
    (tmp_path / "fails_once.py").write_text("raise RuntimeError('not yet')\n")
    with pytest.raises(UsageError, match="not yet"):
        load_reference(f"{tmp_path}/fails_once.py:VALUE")
    assert not [name for name in sys.modules if "fails_once" in name]
    (tmp_path / "fails_once.py").write_text("VALUE = 1  # now it works\n")
    assert load_reference(f"{tmp_path}/fails_once.py:VALUE") == 1


@pytest.mark.parametrize("name", ["net.py", "net"])
def test_nothing_is_imported_without_the_callers_word(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "net.py").write_text("from pathlib import Path\nPath(__file__).with_name('ran').touch()\nVALUE = 1\n")
    monkeypatch.chdir(tmp_path)
    for refused in (
        lambda: load(f"{name}:VALUE", field="data", trust_code=False),
        lambda: load_module(name, field="plugin", trust_code=False),
    ):
        with pytest.raises(UntrustedCodeError, match="a file must not choose which code runs"):
            refused()
    assert not (tmp_path / "ran").exists() and "net" not in sys.modules
    assert load(f"{tmp_path / 'net.py'}:VALUE", field="data", trust_code=True) == 1
    assert (tmp_path / "ran").exists()


def test_a_module_is_looked_for_below_the_base_and_not_where_one_stands(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for folder in ("base", "here"):
        (tmp_path / folder).mkdir()
    (tmp_path / "here" / "module_of_the_base.py").write_text("VALUE = 'here'\n")
    monkeypatch.chdir(tmp_path / "here")
    with pytest.raises(UsageError, match="no module"):
        load_reference("module_of_the_base:VALUE", base=tmp_path / "base")
    (tmp_path / "base" / "module_of_the_base.py").write_text("VALUE = 'base'\n")
    assert load_reference("module_of_the_base:VALUE", base=tmp_path / "base") == "base"
