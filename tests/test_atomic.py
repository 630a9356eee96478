from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from compressor.atomic import atomic_write
from compressor.errors import OutputError


def _names(directory: Path) -> list[str]:
    return sorted(path.name for path in directory.iterdir())


def test_file_appears_whole_at_the_end_only(tmp_path: Path) -> None:
    target = tmp_path / "model.onnx"
    with atomic_write(target) as temporary:
        assert temporary.parent == tmp_path and temporary.suffix == ".onnx" and temporary.exists()
        temporary.write_bytes(b"whole")
        assert not target.exists()
    assert target.read_bytes() == b"whole"
    assert _names(tmp_path) == ["model.onnx"]


@pytest.mark.parametrize("error", [ValueError("half"), KeyboardInterrupt("half")])
def test_nothing_is_left_when_the_block_fails(tmp_path: Path, error: BaseException) -> None:
    with pytest.raises(type(error), match="half"), atomic_write(tmp_path / "a.pt") as temporary:
        temporary.write_bytes(b"ha")
        raise error
    assert _names(tmp_path) == []


def test_failure_keeps_what_was_there(tmp_path: Path) -> None:
    target = tmp_path / "a.pt"
    target.write_bytes(b"old")
    with pytest.raises(ValueError, match="half"), atomic_write(target, force=True) as temporary:
        temporary.write_bytes(b"new")
        raise ValueError("half")
    assert target.read_bytes() == b"old"
    assert _names(tmp_path) == ["a.pt"]


def test_existing_file_needs_force(tmp_path: Path) -> None:
    target = tmp_path / "a.pt"
    target.write_bytes(b"old")
    with (
        pytest.raises(OutputError, match=r"a\.pt: exists already; overwrite it with --force"),
        atomic_write(target),
    ):
        pytest.fail("the block must not run")
    with atomic_write(target, force=True) as temporary:
        temporary.write_bytes(b"new")
    assert target.read_bytes() == b"new"


def _no_links(*_: object) -> None:
    raise OSError(95, "Operation not supported")


@pytest.mark.parametrize("links", [True, False], ids=["hard links", "no hard links"])
def test_file_that_came_meanwhile_is_kept(tmp_path: Path, links: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    if not links:
        monkeypatch.setattr(os, "link", _no_links)
    target = tmp_path / "a.pt"
    with pytest.raises(OutputError, match="exists already"), atomic_write(target) as temporary:
        temporary.write_bytes(b"mine")
        target.write_bytes(b"theirs")
    assert target.read_bytes() == b"theirs"
    assert _names(tmp_path) == ["a.pt"]


def test_file_system_without_hard_links_works(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "link", _no_links)
    with atomic_write(tmp_path / "a.pt") as temporary:
        temporary.write_bytes(b"x")
    assert (tmp_path / "a.pt").read_bytes() == b"x"


def test_two_writers_of_one_file_do_not_collide(tmp_path: Path) -> None:
    target = tmp_path / "a.pt"
    with atomic_write(target, force=True) as first, atomic_write(target, force=True) as second:
        assert first != second
        first.write_bytes(b"first")
        second.write_bytes(b"second")
    assert target.read_bytes() == b"first"
    assert _names(tmp_path) == ["a.pt"]


@pytest.mark.skipif(os.name == "nt", reason="Windows has no file modes")
@pytest.mark.parametrize(("umask", "mode"), [(0o022, 0o644), (0o077, 0o600)])
def test_mode_honours_the_umask(tmp_path: Path, umask: int, mode: int) -> None:
    before = os.umask(umask)
    try:
        with atomic_write(tmp_path / "a.pt") as temporary:
            temporary.write_bytes(b"x")
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "a.pt").stat().st_mode) == mode


def test_missing_directory_is_named(tmp_path: Path) -> None:
    with (
        pytest.raises(OutputError, match=r"there is no directory .*nowhere"),
        atomic_write(tmp_path / "nowhere" / "a"),
    ):
        pytest.fail("the block must not run")


@pytest.mark.parametrize("target", [".", os.devnull])
def test_directory_or_device_is_refused_even_with_force(tmp_path: Path, target: str) -> None:
    with (
        pytest.raises(OutputError, match=r"is a (directory|pipe or a device)"),
        atomic_write(tmp_path / target, force=True),
    ):
        pytest.fail("the block must not run")
    assert Path(os.devnull).exists()


def test_directory_that_cannot_be_written_is_an_output_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> int:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(os, "open", refuse)  # file modes do not stop root, as which tests may run
    with (
        pytest.raises(OutputError, match=r"cannot write into .*: Permission denied"),
        atomic_write(tmp_path / "a"),
    ):
        pytest.fail("the block must not run")


def test_symbolic_link_is_written_through(tmp_path: Path) -> None:
    real, link = tmp_path / "real.pt", tmp_path / "link.pt"
    real.write_bytes(b"old")
    link.symlink_to(real)
    with atomic_write(link, force=True) as temporary:
        temporary.write_bytes(b"new")
    assert link.is_symlink() and real.read_bytes() == b"new"


def test_long_name_fits(tmp_path: Path) -> None:
    target = tmp_path / ("x" * 250 + ".pt")
    with atomic_write(target) as temporary:
        temporary.write_bytes(b"x")
    assert target.read_bytes() == b"x"


@contextmanager
def _largest_file(n_bytes: int) -> Iterator[None]:
    resource = pytest.importorskip("resource", reason="needs POSIX limits to play a full disk")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (n_bytes, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_full_disk_is_an_output_error_and_leaves_nothing(tmp_path: Path) -> None:
    with (
        pytest.raises(OutputError, match=r"a\.pt: File too large; free some space"),
        _largest_file(1 << 20),
        atomic_write(tmp_path / "a.pt") as temporary,
    ):
        temporary.write_bytes(bytes(1 << 21))
    assert _names(tmp_path) == []


def test_other_errors_of_the_block_pass_unchanged(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="input"), atomic_write(tmp_path / "a.pt"):
        raise FileNotFoundError(2, "the input is missing")


def test_vanished_temporary_file_is_an_error(tmp_path: Path) -> None:
    with (
        pytest.raises(OutputError, match="went away while it was written"),
        atomic_write(tmp_path / "a") as temporary,
    ):
        temporary.unlink()
    assert _names(tmp_path) == []
