"""What is shipped: wheel and source archive, names that can be installed, the action's script, the notebook."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from pathlib import Path

import pytest

import compressor
from benchmarks.first_ten_minutes import installed

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
SHIPPED = ("compressor", "docs", "tests", "sample_models", "benchmarks", "ci", "examples")
FILES = (
    *(
        "pyproject.toml",
        "README.md",
        "LICENSE",
        "CONTRIBUTING.md",
        "CHANGELOG.md",
        "MANIFEST.in",
        "Makefile",
        "Dockerfile",
        "action.yml",
    ),
    *("mkdocs.yml", "constraints.txt"),
)
MODEL = "sample_models/lenet-300-100.pt"
INSTALLABLE = {
    *("torch", "torchvision", "timm", "pillow", "transformers", "accelerate", "pyarrow", "datasets"),
    *("ultralytics", "opencv-python-headless"),
}
"""What a hint may tell to install: these are on PyPI, and are what they are called."""


def sources(folder: Path) -> set[str]:
    return {
        path.relative_to(ROOT).as_posix()
        for path in folder.rglob("*")
        if path.is_file() and "__pycache__" not in path.parts and "out" not in path.relative_to(ROOT).parts
    }


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with both archives, built from a copy, so that nothing is left in this tree."""
    pytest.importorskip("setuptools", reason="the build backend is not installed")
    tree = tmp_path_factory.mktemp("tree")
    for name in SHIPPED:
        shutil.copytree(ROOT / name, tree / name, ignore=shutil.ignore_patterns("__pycache__", "out"))
    for name in FILES:
        shutil.copy(ROOT / name, tree / name)
    out = tmp_path_factory.mktemp("dist")
    code = f"import setuptools.build_meta as b; b.build_sdist({str(out)!r}); b.build_wheel({str(out)!r})"
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", code], cwd=tree, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    return out


def test_the_source_archive_is_whole(built: Path) -> None:
    with tarfile.open(next(built.glob("*.tar.gz"))) as archive:
        held = {name.partition("/")[2] for name in archive.getnames()}
    wanted = set(FILES).union(*(sources(ROOT / name) for name in SHIPPED))
    assert not wanted - held


def test_the_wheel_holds_the_package_and_both_programs(built: Path) -> None:
    with zipfile.ZipFile(next(built.glob("*.whl"))) as wheel:
        held = set(wheel.namelist())
        (entry,) = [name for name in held if name.endswith("entry_points.txt")]
        programs = wheel.read(entry).decode()
    assert {name for name in held if "dist-info" not in name} == sources(ROOT / "compressor")
    assert "\ncompress = compressor.cli.main:run" in programs
    assert "\nnetwork-compress = compressor.cli.main:run" in programs


def test_the_wheel_runs_where_nothing_else_of_this_tree_is(built: Path, tmp_path: Path) -> None:
    with zipfile.ZipFile(next(built.glob("*.whl"))) as wheel:
        wheel.extractall(tmp_path / "site")
    with tarfile.open(next(built.glob("*.tar.gz"))) as archive:
        archive.extractall(tmp_path, filter="data")
    (model,) = tmp_path.glob("*/sample_models/lenet-300-100.pt")
    code = (
        f"import sys; sys.path.insert(0, {str(tmp_path / 'site')!r})\nimport compressor\n"
        f"assert compressor.__file__.startswith({str(tmp_path)!r}), compressor.__file__\n"
        "from compressor.cli.main import main\nfrom importlib.metadata import version\n"
        "assert version('network-compress') == compressor.__version__\n"
        f"assert main(['--version']) == 0 and main(['prune', '--help']) == 0\n"
        f"sys.exit(main(['analyze', {str(model)!r}, '--json', '-q']))"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout.splitlines()[-1])["n_params"] == 266_610


def said(programs: Path, *words: str) -> str:
    variables = {"PATH": f"{programs}:/usr/bin:/bin", "HOME": str(programs.parent), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(words, capture_output=True, text=True, timeout=300, cwd=programs.parent, env=variables)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize("archive", ["*.whl", "*.tar.gz"])
def test_pip_installs_both_archives_into_an_empty_environment(archive: str, built: Path, tmp_path: Path) -> None:
    pytest.importorskip("pip", reason="pip is not installed")
    programs = installed(next(built.glob(archive)), tmp_path / "empty")
    told = said(programs, "compress", "env")
    assert re.search(rf"^compress +{re.escape(compressor.__version__)}$", told, re.MULTILINE)
    assert re.search(rf"^installed +{re.escape(str(tmp_path))}", told, re.MULTILINE), "and no other copy is run"
    told = said(programs, "network-compress", "analyze", str(ROOT / MODEL), "--json", "-q")
    assert json.loads(told)["n_params"] == 266_610


def dockerfile() -> list[tuple[str, str]]:
    """Its instructions, a continued one as one line."""
    text = (ROOT / "Dockerfile").read_text(encoding="utf-8").replace("\\\n", " ")
    lines = [line for line in text.splitlines() if line and not line.startswith("#")]
    return [(word, rest.strip()) for word, _, rest in (line.partition(" ") for line in lines)]


def test_the_image_can_be_built_from_what_it_copies(tmp_path: Path) -> None:
    """All but the base image: COPY into an empty folder, then the RUN that installs it, without its index and needs."""
    source = tmp_path / "src"
    for word, rest in dockerfile():
        if word == "COPY":
            *names, target = rest.split()
            place = tmp_path / target.lstrip("/")
            for name in names:
                folder = (ROOT / name).is_dir()
                where = place if folder else place / name
                where.parent.mkdir(parents=True, exist_ok=True)
                (shutil.copytree if folder else shutil.copy)(ROOT / name, where)
    (install,) = [rest for word, rest in dockerfile() if word == "RUN" and "/src[" in rest]
    asked = re.search(r'pip install "/src\[([\w,]+)\]"', install)
    assert asked is not None and set(asked[1].split(",")) <= set(PROJECT["optional-dependencies"])
    pytest.importorskip("pip", reason="pip is not installed")
    programs = installed(source, tmp_path / "image")
    told = dict(dockerfile())
    entry, default = json.loads(told["ENTRYPOINT"]), json.loads(told["CMD"])
    assert "prune" in said(programs, *entry, *default)


def test_the_image_runs_as_nobody_in_particular() -> None:
    words = [word for word, _ in dockerfile()]
    assert words[0] == "FROM" and words.index("USER") > max(i for i, w in enumerate(words) if w == "RUN")
    assert set(words) <= {"FROM", "ENV", "RUN", "COPY", "USER", "WORKDIR", "ENTRYPOINT", "CMD"}
    assert "download.pytorch.org/whl/cpu" in next(rest for word, rest in dockerfile() if word == "RUN")


def advised(text: str) -> list[str]:
    """What `pip install` is told to take, word by word, without its options."""
    found: list[str] = []
    for line in re.findall(r"pip install ([^`\n#)&]*)", text):
        words = re.sub(r"--index-url\s+\S+|-\w\b|--[\w-]+", "", line).replace("'", " ").replace('"', " ").split()
        found += words[: next((i for i, word in enumerate(words) if not re.match(r"^[\w./$\[{]", word)), len(words))]
    return found


def refused(texts: dict[str, str]) -> list[str]:
    extras = PROJECT["optional-dependencies"]
    wrong: list[str] = []
    for name, text in texts.items():
        for word in advised(text):
            extra = re.fullmatch(r"\.\[([\w,]+)\]", word)
            own = word in (".", "./.compress") or (extra and all(part in extras for part in extra[1].split(",")))
            if not own and re.sub(r"[{(].*", "", word) and word.strip(".,;") not in INSTALLABLE:
                wrong.append(f"{name}: pip install {word}")
    return wrong


def hints() -> dict[str, str]:
    pages = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
    code = [
        path
        for path in sorted((ROOT / "compressor").rglob("*.py"))
        if "pip install" in path.read_text(encoding="utf-8")
    ]
    return {path.name: path.read_text(encoding="utf-8") for path in (*pages, *code)}


def test_no_hint_advises_what_cannot_be_installed() -> None:
    assert any("pip install" in text for text in hints().values())
    assert refused({name: text for name, text in hints().items() if name not in ("design.md",)}) == []


def test_twin_a_hint_for_somebody_elses_package_is_found() -> None:
    assert refused({"x": "install it with pip install 'compressor[vision]'"}) == ["x: pip install compressor[vision]"]
    assert refused({"x": 'pip install ".[nothing]"'}) == ["x: pip install .[nothing]"]


def test_accelerate_is_no_need_of_a_single_process() -> None:
    assert not any(need.startswith("accelerate") for need in PROJECT["dependencies"])
    assert any(need.startswith("accelerate") for need in PROJECT["optional-dependencies"]["multi"])


def on_path(folder: Path) -> str:
    """A PATH on which `compress` is this tree's."""
    bin_folder = folder / "bin"
    bin_folder.mkdir(exist_ok=True)
    (bin_folder / "compress").write_text(f'#!/bin/sh\nexec "{sys.executable}" -W ignore -m compressor "$@"\n')
    (bin_folder / "compress").chmod(0o755)
    return f"{bin_folder}:/usr/bin:/bin"


def action(folder: Path, **inputs: str) -> subprocess.CompletedProcess[str]:
    variables = {"PATH": on_path(folder), "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "HOME": str(folder)}
    pinned = {"COMPRESS_ROUND_TO": "1", "COMPRESS_NO_LATENCY": "1", "GITHUB_OUTPUT": str(folder / "outputs")}
    pinned["GITHUB_ACTION_PATH"] = str(ROOT)
    (run,) = re.findall(r"^      run: (bash .*)$", (ROOT / "action.yml").read_text(encoding="utf-8"), re.MULTILINE)
    return subprocess.run(
        ["bash", "-eo", "pipefail", "-c", run], cwd=ROOT, capture_output=True, text=True, timeout=300,
        env={**variables, **pinned, "OUT": str(folder / "a folder"), "MODEL": MODEL, **inputs},
    )  # fmt: skip


def test_the_actions_script_makes_a_smaller_model_and_says_where(tmp_path: Path) -> None:
    done = action(
        tmp_path, RATIO="4x", OPTIONS="--method magnitude --no-retrain --scope '*'",
        REQUIRE="ratio>=4 accuracy>=10%", BENCH="ratio>=3.5",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    out = tmp_path / "a folder"
    assert json.loads((out / "bench.json").read_text())["passed"] is True
    assert (tmp_path / "outputs").read_text() == f"model={out}/small.onnx\ncheckpoint={out}/small.pt\n"
    assert (out / "prune.html").is_file()


def test_data_and_task_that_are_code_are_named_to_every_step(tmp_path: Path) -> None:
    code = "sample_models/tasks/segmentation.py"
    options = f"--arch {code}:Net --input 1x16x16 --data {code}:data --task={code}:Task --method magnitude --no-retrain"
    done = action(tmp_path, MODEL="init", RATIO="2x", OPTIONS=options, REQUIRE="ratio>=2")
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "a folder" / "small.onnx").is_file()


def test_twin_a_gate_fails_the_job_and_no_input_is_run_as_shell(tmp_path: Path) -> None:
    canary = tmp_path / "ran"
    options = f"--method magnitude --no-retrain --keep '$(touch {canary})' --keep '`touch {canary}`'"
    done = action(tmp_path, RATIO="4x", OPTIONS=options, REQUIRE="accuracy>=100.5%")
    assert done.returncode in (2, 3), done.stderr  # 2: --keep names no layer
    assert not canary.exists() and not (tmp_path / "a folder" / "small.onnx").exists()
    gate = action(tmp_path, RATIO="4x", OPTIONS="--method magnitude --no-retrain", REQUIRE="accuracy>=100.5%")
    assert gate.returncode == 3, gate.stderr


def test_the_action_hands_the_script_what_it_reads() -> None:
    text = (ROOT / "action.yml").read_text(encoding="utf-8")
    given = set(re.findall(r"^        ([A-Z]+): \$\{\{ inputs\.(?:\w+) \}\}$", text, re.MULTILINE))
    script = (ROOT / "ci" / "compress.sh").read_text(encoding="utf-8")
    read = set(re.findall(r"\$\{?([A-Z_]+)", script)) - {"GITHUB_OUTPUT"}
    assert given == read == {"MODEL", "RATIO", "OPTIONS", "REQUIRE", "BENCH", "OUT"}
    named = set(re.findall(r"^  (\w+):\n    description", text.partition("outputs:")[0], re.MULTILINE))
    assert named == {name.lower() for name in given} | {"install"}


def test_the_notebook_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT / "docs")
    book = json.loads((ROOT / "docs" / "first_network.ipynb").read_text(encoding="utf-8"))
    held: dict[str, object] = {}
    cells = [cell for cell in book["cells"] if cell["cell_type"] == "code"]
    assert len(cells) >= 5 and all(not cell["outputs"] for cell in cells)
    for cell in cells:
        exec(compile("".join(cell["source"]), cell["id"], "exec"), held)
    program, small = held["program"], held["small"]
    assert small.n_parameters * 4 <= program.n_parameters  # type: ignore[attr-defined]


def test_the_site_has_every_page_and_no_other() -> None:
    text = (ROOT / "mkdocs.yml").read_text(encoding="utf-8")
    named = set(re.findall(r"^      - ([\w-]+\.md)$", text, re.MULTILINE))
    assert named == {path.name for path in (ROOT / "docs").glob("*.md")}
