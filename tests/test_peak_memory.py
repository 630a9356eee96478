"""What the commands hold at once, as a multiple of the file: counted by the system in a process of its own.

The network is large enough that a copy of it shows beside everything else, and the bound has room for half a copy
more than is needed; the twin holds one copy more than the code does, and is beyond it.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from compressor.formats import save
from compressor.program import InputSpec, capture

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="the largest resident set of Linux")

_WIDTH, _LAYERS = 1024, 24
_ROOM = 3.0
"""Files that a command may hold at once: what it was given, what it makes, and one for everything else, which in a
network of this size are a few layers in float64."""

_SCRIPT = """
import json, sys
from compressor.asking import PruneSettings
from compressor.cli.memory import give_freed_memory_back
from compressor.compaction import compact
from compressor.analysis import analyze
from compressor.formats import load, save
from compressor.pruning import prune

def status(name):
    return next(int(line.split()[1]) * 1024 for line in open("/proc/self/status") if line.startswith(name))

give_freed_memory_back()
what, path, out, twin = sys.argv[1], sys.argv[2], sys.argv[3], sys.argv[4] == "twin"
for source in (sys.argv[5], path):  # the small one brings in all that is imported late
    open("/proc/self/clear_refs", "w").write("5")  # the largest resident set starts anew
    base, held = status("VmRSS"), []
    program = load(source)
    if twin:
        held = [program.module.clone(), program.module.clone()]
    if what == "analyze":
        analyze(program)
    elif what == "prune":
        settings = PruneSettings(method="magnitude", pattern="channel", ratio=1.5, round_to=1)
        save(prune(program, settings)[0], out, force=True)
    else:
        save(compact(program)[0], out, force=True)
    del program, held
print(json.dumps(status("VmHWM") - base))
"""


class Deep(nn.Module):
    """Linear layers in a row, in half precision."""

    def __init__(self, width: int, layers: int) -> None:
        super().__init__()
        self.layers = nn.ModuleList(nn.Linear(width, width) for _ in range(layers))
        self.out = nn.Linear(width, 4)

    def forward(self, x: Tensor) -> Tensor:
        for layer in self.layers:
            x = layer(x).relu()
        return self.out(x)


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A large and a small network, whole, and pruned by `prune` itself."""
    from compressor.asking import PruneSettings
    from compressor.pruning import prune

    folder = tmp_path_factory.mktemp("peak")
    for name, (width, layers) in {"large": (_WIDTH, _LAYERS), "small": (32, 2)}.items():
        torch.manual_seed(0)
        program = capture(Deep(width, layers).to(torch.bfloat16), [InputSpec("x", (None, width))])
        save(program, folder / f"{name}.pt")
        settings = PruneSettings(method="magnitude", pattern="channel", ratio=1.5, round_to=1)
        save(prune(program, settings)[0], folder / f"{name}.pruned.pt")
    return folder


def peak_of(what: str, files: Path, out: Path, *, twin: bool = False) -> float:
    """The peak of one command in a process of its own, in files."""
    end = ".pruned.pt" if what == "compact" else ".pt"
    large, small = files / f"large{end}", files / f"small{end}"
    arguments = [what, str(large), str(out), "twin" if twin else "", str(small)]
    ended = subprocess.run(
        [sys.executable, "-c", _SCRIPT, *arguments], capture_output=True, text=True, check=False, timeout=600
    )
    assert ended.returncode == 0, ended.stderr
    return json.loads(ended.stdout.splitlines()[-1]) / large.stat().st_size


@pytest.mark.parametrize("what", ["analyze", "prune", "compact"])
def test_a_command_holds_what_it_reads_and_what_it_makes(what: str, files: Path, tmp_path: Path) -> None:
    assert peak_of(what, files, tmp_path / "out.pt") <= _ROOM


def test_the_bound_can_be_passed(files: Path, tmp_path: Path) -> None:
    assert peak_of("prune", files, tmp_path / "out.pt", twin=True) > _ROOM


def test_positions_take_no_room_in_a_file(files: Path) -> None:
    assert (files / "large.pruned.pt").stat().st_size < (files / "large.pt").stat().st_size * 1.01
