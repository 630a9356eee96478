"""Files that would run code, or fill memory and disk, when somebody opens them trustingly: nothing of it happens."""

from __future__ import annotations

import builtins
import importlib
import io
import os
import pickle
import subprocess
import sys
import zipfile
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from compressor.cli.main import main
from compressor.formats import load
from tests.bad.forging import saved

COMMANDS = ("analyze", "prune", "retrain", "compact", "export", "bench")


class Calls:
    """Pickles as a call of `function`."""

    def __init__(self, function: Callable[..., Any], *arguments: Any) -> None:
        self.called = (function, arguments)

    def __reduce__(self) -> Any:
        return self.called


ATTACKS: dict[str, Callable[[str], Any]] = {
    "mkdir": lambda canary: Calls(os.mkdir, canary),
    "system": lambda canary: Calls(os.system, f"touch {canary}"),
    "popen": lambda canary: Calls(subprocess.Popen, ["touch", canary]),
    "eval": lambda canary: Calls(eval, f"__import__('os').mkdir({canary!r})"),
    "exec": lambda canary: Calls(exec, f"import os; os.mkdir({canary!r})"),
    "open": lambda canary: Calls(open, canary, "w"),
    "import": lambda canary: Calls(importlib.import_module, "antigravity"),
    "getattr": lambda canary: Calls(getattr, os, "mkdir"),
    "torch.load": lambda canary: Calls(torch.load, canary),
    "torch.save": lambda canary: Calls(torch.save, {"w": 1}, canary),
    "torch.hub": lambda canary: Calls(torch.hub.load, "canary/canary", "canary"),
    "tofile": lambda canary: Calls(torch.from_file, canary, True, 8),
    "print": lambda canary: Calls(builtins.print, "canary"),
}  # fmt: skip
PLACES: dict[str, Callable[[Any], Any]] = {
    "alone": lambda attack: attack,
    "beside the weights": lambda attack: {"state_dict": {"w": torch.zeros(1)}, "epoch": attack},
    "in a key": lambda attack: {("a", 1): [attack]},
}
LAYOUTS: dict[str, Callable[[Any], bytes]] = {
    "zip": saved,
    "legacy": lambda value: saved(value, _use_new_zipfile_serialization=False),
    "protocol 4": lambda value: saved(value, pickle_protocol=4),
    "bare pickle": pickle.dumps,
}


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("attack", ATTACKS)
def test_code_in_a_pickle_does_not_run(refused: Any, folder: Path, attack: str, place: str, layout: str) -> None:
    try:
        content = LAYOUTS[layout](PLACES[place](ATTACKS[attack](str(folder / "canary"))))
    except TypeError:  # getattr's own argument, the module os, has no pickled form
        content = LAYOUTS[layout](PLACES[place](Calls(getattr, "os", "mkdir")))
    (folder / "file.pt").write_bytes(content)
    refused(load, "file.pt", arch="lenet5")


def test_twin_the_canary_appears_when_a_pickle_is_trusted(tmp_path: Path) -> None:
    content = saved(ATTACKS["mkdir"](str(tmp_path / "canary")))
    torch.load(io.BytesIO(content), weights_only=False)
    assert (tmp_path / "canary").is_dir()


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize("layout", ["zip", "legacy", "bare pickle"])
def test_no_command_runs_it(folder: Path, capsys: Any, command: str, layout: str) -> None:
    (folder / "file.pt").write_bytes(LAYOUTS[layout](ATTACKS["mkdir"](str(folder / "canary"))))
    more = {"prune": ["--ratio", "2x", "--no-retrain", "-m", "magnitude"], "retrain": ["--data", "good.pt"]}
    assert main([command, "file.pt", "--arch", "lenet5", *more.get(command, [])]) == 1
    assert capsys.readouterr().err.count("\n") <= 3
    assert sorted(path.name for path in folder.iterdir()) == ["file.pt", "good.pt"]


@pytest.mark.parametrize("option", ["--teacher", "--data", "--resume"])
def test_no_option_runs_it(folder: Path, capsys: Any, option: str, program: Any) -> None:
    import numpy as np

    images, labels = np.zeros((8, 1, 6, 6), np.float32), np.arange(8) % 3
    np.savez(folder / "data.npz", x_train=images, y_train=labels, x_test=images, y_test=labels)
    attack = ATTACKS["mkdir"](str(folder / "canary"))
    (folder / "out.pt.resume").write_bytes(saved({"kind": "compressor resume point", "version": 1, "state": attack}))
    (folder / "file").write_bytes(saved(attack))
    np.savez(
        folder / "pickled.npz", x_train=np.array([attack], dtype=object), y_train=labels, x_test=images, y_test=labels
    )
    given = {"--teacher": ["--teacher", "file", "--force"], "--data": ["--data", "pickled.npz", "--force"]}
    data = [] if option == "--data" else ["--data", "data.npz"]
    code = main(["retrain", "good.pt", *given.get(option, [option]), *data, "-e", "1", "-o", "out.pt"])
    assert code == 1, capsys.readouterr().err
    assert not (folder / "out.pt").exists()


def archive(entries: dict[str, bytes], compression: int = zipfile.ZIP_STORED) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", compression) as file:
        for name, content in entries.items():
            file.writestr(name, content)
    return buffer.getvalue()


def _renamed(old: str, new: str) -> bytes:
    with zipfile.ZipFile(io.BytesIO(saved({"w": torch.ones(3)}))) as file:
        entries = {name.replace(old, new): file.read(name) for name in file.namelist()}
    return archive(entries)


ARCHIVES: dict[str, Callable[[], bytes]] = {
    "nothing": lambda: archive({}),
    "a text": lambda: archive({"readme.txt": b"hello"}),
    "a path upwards": lambda: archive({"../../canary": b"x", "a/data.pkl": pickle.dumps({})}),
    "a path from the root": lambda: archive({"/tmp/canary": b"x", "a/data.pkl": b"\x80\x02}q\x00."}),
    "weights at a path upwards": lambda: _renamed("data/", "../data/"),
    "weights in another place": lambda: _renamed("data/0", "data/1"),
    "no pickle": lambda: _renamed("data.pkl", "data.txt"),
    "an empty pickle": lambda: archive({"a/data.pkl": b"", "a/version": b"3\n"}),
    "a pickle without end": lambda: archive({"a/data.pkl": b"\x80\x02(", "a/version": b"3\n"}),
    "a pickle that pops nothing": lambda: archive({"a/data.pkl": b"\x80\x020000.", "a/version": b"3\n"}),
    "a pickle of unknown codes": lambda: archive({"a/data.pkl": b"\x80\x02\xfe\xfd\xfc.", "a/version": b"3\n"}),
    "a bomb": lambda: archive({"a/data.pkl": b"\x80\x02}.", "a/data/0": bytes(1 << 24)}, zipfile.ZIP_DEFLATED),
    "bombs of npy": lambda: archive({"x_train.npy": bytes(1 << 24)}, zipfile.ZIP_DEFLATED),
    "many entries": lambda: archive({f"a/{i}": b"" for i in range(3000)}),
    "a bytearray of a petabyte": lambda: archive({
        "a/data.pkl": b"\x80\x02c__builtin__\nbytearray\n\x8a\x07\x00\x00\x00\x00\x00\x00\x04\x85R.",
        "a/version": b"3\n",
    }),
    "torchscript": lambda: archive({"a/data.pkl": b"x", "a/code/b.py": b"x", "a/constants.pkl": b"x"}),
    "torch.export": lambda: archive({"a/archive_format": b"pt2", "a/models/model.json": b"{}"}),
    "a zip in a zip": lambda: archive({"a.zip": archive({"a/data.pkl": b"x"})}),
    "only the end": lambda: archive({"a/data.pkl": b"x"})[-22:],
    "an end that lies": lambda: archive({"a/data.pkl": b"x"})[:-6] + b"\xff" * 6,
}  # fmt: skip


@pytest.mark.parametrize("what", ARCHIVES)
def test_an_archive_that_lies_is_refused(refused: Any, folder: Path, what: str) -> None:
    (folder / "file.pt").write_bytes(ARCHIVES[what]())
    refused(load, "file.pt", arch="lenet5")


def test_memory_is_not_taken_by_what_a_file_declares(folder: Path) -> None:
    """In a process of its own, with 4 GiB of address space: every bomb is an error message, none ends the process."""
    bombs = {
        "bytearray": ARCHIVES["a bytearray of a petabyte"](),
        "deflated": archive({"a/data.pkl": b"\x80\x02}.", "a/data/0": bytes(1 << 27)}, zipfile.ZIP_DEFLATED),
        "arrays": archive({"x_train.npy": _npy("(9999999999, 9999)") + bytes(999)}, zipfile.ZIP_DEFLATED),
        "safetensors": b"\x60\x00\x00\x00\x00\x00\x00\x00" + b'{"w":{"dtype":"F32","shape":[99999999999],'
        b'"data_offsets":[0,399999999996]}}'.ljust(0x60),
    }  # fmt: skip
    for name, content in bombs.items():
        (folder / name).write_bytes(content)
    script = """
import resource, sys
resource.setrlimit(resource.RLIMIT_AS, (4 << 30, 4 << 30))
from compressor.data import open_data
from compressor.errors import CompressError
from compressor.formats import load
for name in sys.argv[1:]:
    try:
        (open_data if name == "arrays" else load)(name)
    except CompressError as error:
        print(name, "refused", len(str(error).splitlines()))
"""
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", script, *bombs],
        capture_output=True, text=True, check=False, timeout=120, env={**os.environ, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert [line.split()[:2] for line in done.stdout.splitlines()] == [[name, "refused"] for name in bombs]


def _npy(shape: str) -> bytes:
    header = f"{{'descr': '<f4', 'fortran_order': False, 'shape': {shape}, }}".encode().ljust(117) + b"\n"
    return b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header


def keyed(steps: bytes) -> bytes:
    """A pickle of a dictionary whose one key is made by these instructions."""
    return b"\x80\x02}" + steps + b"Ns."


def twice(n: int) -> bytes:
    """A tuple of twice a tuple of twice …, n times: n instructions, and 2^n parts to hash."""
    return b")q\x00" + b"".join(b"h" + bytes([i]) + b"h" + bytes([i]) + b"\x86q" + bytes([i + 1]) for i in range(n))


ENDLESS = {
    "a key of 2^40 parts": keyed(twice(40)),
    "a key of 2^140 parts": keyed(twice(140)),
    "a key that lies deep": keyed(b")" + b"\x85" * 200_000),
    "many keys of 2^20 parts": b"\x80\x02}(" + twice(20) + b"N" + b"h\x14N" * 1000 + b"u.",
    "a set of such": b"\x80\x02cbuiltins\nset\n]" + twice(40) + b"a\x85R.",
    "a counter of such": b"\x80\x02ccollections\nCounter\n]" + twice(40) + b"a\x85R.",
    "an ordered one": b"\x80\x02ccollections\nOrderedDict\n)R" + twice(40) + b"Ns.",
    "a state of such": b"\x80\x02ccollections\nOrderedDict\n)R}" + twice(40) + b"Nsb.",
}


@pytest.mark.parametrize("layout", ["zip", "legacy"])
@pytest.mark.parametrize("what", ENDLESS)
def test_a_pickle_without_end_is_not_opened(refused: Any, folder: Path, what: str, layout: str) -> None:
    if layout == "zip":
        content = archive({"a/data.pkl": ENDLESS[what], "a/version": b"3\n"})
    else:
        whole = saved({}, _use_new_zipfile_serialization=False)
        stream = io.BytesIO(whole)
        for _ in range(3):  # magic number, version, system
            pickle.load(stream)
        content = whole[: stream.tell()] + ENDLESS[what]
    (folder / "file.pt").write_bytes(content)
    assert "has no end" in refused(load, "file.pt", arch="lenet5")


def test_twin_what_is_shared_without_being_hashed_is_read() -> None:
    from compressor.formats.pickle_work import check_pickles

    shared: Any = [1, 2]
    for _ in range(60):
        shared = [shared, shared]
    key = ((1, 2), ("a", (3, 4)))
    state = {f"layer{i}.weight": torch.zeros(2) for i in range(500)}
    for new in (True, False):
        content = saved({"x": shared, key: 1, "w": state}, _use_new_zipfile_serialization=new)
        assert check_pickles(io.BytesIO(content)) is None


@pytest.mark.parametrize("name", ["keys", "values", "get", "copy"])
def test_an_ordered_dictionary_does_not_bring_methods_of_its_own(folder: Path, name: str, refused: Any) -> None:
    state = OrderedDict({"w": torch.zeros(3)})
    vars(state)[name] = 3
    (folder / "file.pt").write_bytes(saved({"state_dict": state}))
    assert "does not fit" in refused(load, "file.pt", arch="lenet5")


def test_nor_the_method_that_pickle_itself_needs(folder: Path, refused: Any) -> None:
    made = b"\x80\x02ccollections\nOrderedDict\n)R}X\x05\x00\x00\x00itemsK\x03sb."
    (folder / "file.pt").write_bytes(archive({"a/data.pkl": made, "a/version": b"3\n"}))
    assert "holds no weights" in refused(load, "file.pt", arch="lenet5")
