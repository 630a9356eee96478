"""A checkpoint gives back the very program that was written, or says why not."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from compressor.errors import ModelError, OutputError
from compressor.formats import from_bytes, load, save, to_bytes
from compressor.formats.checkpoint import SCHEMA
from compressor.models import build
from compressor.program import InputSpec, Program, Step, capture

Forge = Callable[[dict[str, Any]], io.BytesIO]


class Residual(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a = nn.Conv2d(3, 8, 3, padding=1)
        self.b = nn.Conv2d(8, 8, 3, padding=1, groups=2)
        self.register_buffer("shift", torch.randn(8, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        y = self.a(x)
        return (y + self.b(torch.relu(y)) * self.shift).mean((2, 3))


class TwoInTwoOut(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.left = nn.Linear(4, 6)
        self.right = nn.Linear(5, 6)

    def forward(self, a: Tensor, b: Tensor) -> dict[str, Any]:
        x, y = self.left(a), self.right(b)
        return {"sum": x + y, "parts": (x.view(x.shape[0], 2, 3), y[:, 1:4])}


class Tied(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(11, 6)
        self.mix = nn.Linear(6, 6)
        self.head = nn.Linear(6, 11, bias=False)
        self.head.weight = self.embed.weight
        self.register_buffer("causal", torch.full((4, 4), float("-inf")).triu(1))

    def forward(self, ids: Tensor) -> Tensor:
        x = self.mix(self.embed(ids))
        return self.head(torch.softmax(x @ x.transpose(1, 2) + self.causal, -1) @ x)


NETS: dict[str, Callable[[], tuple[nn.Module, list[InputSpec]]]] = {
    "residual": lambda: (Residual(), [InputSpec("x", (None, 3, 8, 8))]),
    "two-in-two-out": lambda: (TwoInTwoOut(), [InputSpec("a", (None, 4)), InputSpec("b", (None, 5))]),
    "tied": lambda: (Tied(), [InputSpec("ids", (None, 4), "int64", 11)]),
    "resnet20": lambda: (build("resnet20", {}).module, [InputSpec("input", (None, 3, 32, 32))]),
}


def flat(output: Any) -> list[Tensor]:
    return torch.utils._pytree.tree_leaves(output)


def assert_same(first: Program, second: Program) -> None:
    examples = first.example_inputs(3, seed=7)
    left, right = first.module(*examples), second.module(*examples)
    assert torch.utils._pytree.tree_structure(left) == torch.utils._pytree.tree_structure(right)
    assert all(torch.equal(a, b) for a, b in zip(flat(left), flat(right), strict=True))
    assert first.inputs == second.inputs
    assert first.record == second.record
    assert first.aliases == second.aliases
    assert first.masks.keys() == second.masks.keys()
    assert all(torch.equal(mask, second.masks[name]) for name, mask in first.masks.items())
    assert {n: p.requires_grad for n, p in first.parameters.items()} == {
        n: p.requires_grad for n, p in second.parameters.items()
    }
    assert first.module.state_dict().keys() == second.module.state_dict().keys()


@pytest.mark.parametrize("net", NETS)
def test_round_trip_is_bit_for_bit(net: str, tmp_path: Path) -> None:
    module, inputs = NETS[net]()
    program = capture(module, inputs)
    save(program, tmp_path / "net.pt")
    assert_same(program, load(tmp_path / "net.pt"))
    assert_same(program, from_bytes(to_bytes(program)))


def test_assert_same_can_fail(small: Program) -> None:
    other = small.clone()
    with torch.no_grad():
        other.module.tensors()["fc.bias"][0] += 1e-3
    with pytest.raises(AssertionError, match="all"):
        assert_same(small, other)


def test_masks_record_and_frozen_parameters_come_back(small: Program) -> None:
    masks = {"conv.weight": torch.rand(4, 1, 3, 3) > 0.5, "fc.bias": torch.tensor([True, False, True])}
    step = Step("prune", {"ratio": 13.0, "scope": ["a", None]}, {"accuracy": 0.5}, 3, "ab" * 32, {"torch": "2"})
    record = small.record.after(step, dense_params=99, kept={"fc.weight": {"0": [0, 2]}})
    small.parameters["fc.weight"].requires_grad_(False)
    program = small.replace(masks=masks, record=record).clone().apply_masks()
    back = from_bytes(to_bytes(program))
    assert_same(program, back)
    assert back.n_zeroed == program.n_zeroed > 0
    assert not back.parameters["fc.weight"].requires_grad


def test_a_program_in_training_is_written_as_for_evaluation_and_left_in_training(small: Program) -> None:
    before = to_bytes(small)
    small.module.train()
    assert to_bytes(small) == before
    assert small.module.training
    assert "True" in small.module.code
    back = from_bytes(before)
    assert not back.module.training
    x = back.example_inputs(2)[0]
    assert torch.equal(back.module(x), back.module(x))


def test_batch_norm_still_switches_modes_after_loading(small: Program) -> None:
    back = from_bytes(to_bytes(small))
    mean = back.module.tensors()["bn.running_mean"].clone()
    back.module.train()
    back.module(back.example_inputs(8)[0]).sum().backward()
    assert not torch.equal(mean, back.module.tensors()["bn.running_mean"])
    assert all(parameter.grad is not None for parameter in back.parameters.values())


def test_tied_weights_stay_tied() -> None:
    module, inputs = NETS["tied"]()
    program = capture(module, inputs)
    content = torch.load(io.BytesIO(to_bytes(program)), weights_only=True)
    assert content["state_dict"].keys() == {"embed.weight", "head.weight", "mix.weight", "mix.bias", "causal"}
    back = from_bytes(to_bytes(program))
    assert len(back.aliases) == 1
    assert back.n_parameters == 11 * 6 + 6 * 6 + 6


def test_opens_anywhere_memory_mapped(small: Program, tmp_path: Path) -> None:
    save(small, tmp_path / "net.pt")
    content = torch.load(tmp_path / "net.pt", weights_only=True, mmap=True)
    assert torch.equal(content["state_dict"]["fc.weight"], small.module.tensors()["fc.weight"])
    first = json.loads(content["graph"].splitlines()[0])
    assert {"name", "op", "target", "args", "kwargs"} <= first.keys()


def test_original_module_loads_the_state_dict(small: Program, small_module: nn.Module) -> None:
    content = torch.load(io.BytesIO(to_bytes(small)), weights_only=True)
    small_module.load_state_dict(content["state_dict"], strict=True)
    x = small.example_inputs(2)[0]
    assert torch.equal(small_module.eval()(x), small.module(x))


def test_a_view_does_not_bring_its_whole_storage(small: Program) -> None:
    whole = torch.randn(100_000)
    small.parameters["fc.bias"].data = whole[:3]
    assert len(to_bytes(small)) < 40_000


def test_bytes_are_the_same_after_a_round_trip(small: Program) -> None:
    assert to_bytes(from_bytes(to_bytes(small))) == to_bytes(small)


def test_no_overwriting_without_force(small: Program, tmp_path: Path) -> None:
    save(small, tmp_path / "net.pt")
    with pytest.raises(OutputError, match="exists already"):
        save(small, tmp_path / "net.pt")
    save(small, tmp_path / "net.pt", force=True)
    assert [path.name for path in tmp_path.iterdir()] == ["net.pt"]


def test_a_stream_that_cannot_seek_is_enough(small: Program) -> None:
    class Pipe(io.RawIOBase):
        def __init__(self, content: bytes = b"") -> None:
            self.inner = io.BytesIO(content)

        def write(self, part: Any) -> int:
            return self.inner.write(part)

        def read(self, size: int = -1) -> bytes:
            return self.inner.read(size)

        def seekable(self) -> bool:
            return False

    out = Pipe()
    save(small, out)  # type: ignore[arg-type]
    assert_same(small, load(Pipe(out.inner.getvalue())))  # type: ignore[arg-type]


def test_data_and_task_are_relative_in_the_file(small: Program, tmp_path: Path) -> None:
    home, moved = tmp_path / "home", tmp_path / "moved"
    (home / "digits").mkdir(parents=True)
    (home / "task.py").write_text("")
    record = replace(small.record, data=f"mnist:{home}/digits", task=f"{home}/task.py:Task")
    save(small.replace(record=record), home / "net.pt")
    inside = torch.load(home / "net.pt", weights_only=True)["compressor"]["record"]
    assert (inside["data"], inside["task"]) == ("mnist:digits", "task.py:Task")
    home.rename(moved)
    back = load(moved / "net.pt").record
    assert (back.data, back.task) == (f"mnist:{moved}/digits", f"{moved}/task.py:Task")
    (moved / "digits").rmdir()
    assert load(moved / "net.pt").record.data == "mnist:digits"


def test_given_data_and_task_replace_the_remembered(small: Program) -> None:
    program = small.replace(record=replace(small.record, data="gone.npz", task="classification"))
    back = from_bytes(to_bytes(program), data="other.npz", arch="lenet5")
    assert (back.record.data, back.record.task, back.record.arch) == ("other.npz", "classification", "small")


def test_a_diverged_program_is_not_written(small: Program, tmp_path: Path) -> None:
    with torch.no_grad():
        small.parameters["conv.weight"][0] = float("nan")
    with pytest.raises(ModelError, match=r"conv\.weight: 9 of 36 values are NaN or infinite"):
        save(small, tmp_path / "net.pt")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("masks", "message"),
    [
        ({"conv.wait": torch.ones(3, dtype=torch.bool)}, "conv.wait, which is no parameter"),
        ({"bn.running_mean": torch.ones(4, dtype=torch.bool)}, "bn.running_mean, which is no parameter"),
        ({"fc.bias": torch.ones(4, dtype=torch.bool)}, r"fc.bias is torch.bool \[4\]"),
        ({"fc.bias": torch.ones(3)}, r"fc.bias is torch.float32 \[3\]"),
    ],
)
def test_masks_must_fit(
    small: Program, content: dict[str, Any], forged: Forge, masks: dict[str, Tensor], message: str
) -> None:
    with pytest.raises(ModelError, match=message):
        to_bytes(small.replace(masks=masks))
    with pytest.raises(ModelError, match=message):
        load(forged({**content, "masks": masks}))


def test_forging_alone_changes_nothing(small: Program, content: dict[str, Any], forged: Forge) -> None:
    assert_same(small, load(forged(content)))


def _stored(content: dict[str, Any]) -> io.BytesIO:
    buffer = io.BytesIO()
    torch.save(content, buffer)
    buffer.seek(0)
    return buffer


@pytest.mark.parametrize("what", ["tensor", "graph", "mask", "record", "input"])
def test_an_edit_is_found(content: dict[str, Any], what: str) -> None:
    if what == "tensor":
        content["state_dict"]["fc.weight"].view(torch.uint8)[0, 0] ^= 1
    elif what == "graph":
        content["graph"] = content["graph"].replace("0.5", "0.6")
    elif what == "mask":
        content["masks"]["fc.bias"] = torch.ones(3, dtype=torch.bool)
    elif what == "record":
        content["compressor"]["record"]["notes"].append("accuracy 100 %")
    else:
        content["compressor"]["inputs"][0]["shape"][1] = 2
    with pytest.raises(ModelError, match="does not match its digest: it was damaged or edited"):
        load(_stored(content))


def test_a_newer_schema_asks_for_an_update(content: dict[str, Any]) -> None:
    content["compressor"]["schema"] = SCHEMA + 1
    with pytest.raises(ModelError, match=rf"written by a newer compress \(schema {SCHEMA + 1}.*update"):
        load(_stored(content))


def _edit(path: str, value: Any) -> Callable[[dict[str, Any]], None]:
    def apply(content: dict[str, Any]) -> None:
        *way, last = path.split("/")
        for part in way:
            content = content[int(part) if part.isdigit() else part]
        content[last] = value

    return apply


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (_edit("compressor/schema", "1"), "no schema number"),
        (_edit("compressor/schema", True), "no schema number"),
        (_edit("compressor/schema", 0), "no schema number"),
        (_edit("compressor/inputs", []), "specified as"),
        (_edit("compressor/inputs", None), "its list of inputs cannot be read"),
        (_edit("compressor/inputs/0/name", "y"), "specified as"),
        (_edit("compressor/inputs/0/shape", [None, 1, 2**62, 2**62]), "impossible shape"),
        (_edit("compressor/inputs/0/shape", [None, 1, -6, 6]), "impossible shape"),
        (_edit("compressor/inputs/0/shape", [None, 2, 6, 6]), "does not fit its inputs"),
        (_edit("compressor/inputs/0/dtype", "int64"), "does not fit its inputs"),
        (_edit("compressor/inputs/0/dtype", "__class__"), "element type"),
        (_edit("compressor/record", 3), "history cannot be read"),
        (_edit("compressor/record/steps", [3]), "history cannot be read"),
        (_edit("compressor/record/data", 3), "data: Input should be a valid string"),
        (_edit("compressor/buffers", [3]), "list of buffers"),
        (_edit("compressor/aliases", {"head": "fc.bias"}), "should be tied"),
        (_edit("compressor/aliases", {"fc.bias": "conv.bias"}), "should be tied"),
        (_edit("state_dict/extra", torch.zeros(1)), "read by no node"),
        (_edit("state_dict/fc.bias", torch.zeros(4)), "does not fit its inputs"),
        (_edit("state_dict/fc.bias", torch.full((3,), float("inf"))), r"fc\.bias: 3 of 3 values"),
        (_edit("state_dict/bn.running_var", torch.full((4,), float("nan"))), r"bn\.running_var: 4 of 4"),
        (_edit("state_dict/fc.bias", torch.zeros(3).to_sparse()), "only ordinary dense tensors"),
        (_edit("state_dict/fc.bias", torch.zeros(3, dtype=torch.complex64)), "only ordinary dense tensors"),
        (_edit("state_dict/fc.bias", torch.zeros(1).expand(3)), "has not that much data"),
        (_edit("graph", ""), "no output"),
    ],
)
def test_a_forged_checkpoint_is_refused(
    content: dict[str, Any], forged: Forge, edit: Callable[[dict[str, Any]], None], message: str
) -> None:
    edit(content)
    try:
        file = forged(content)
    except RuntimeError:  # a sparse tensor has no bytes to digest: the reader must not get that far either
        file = _stored(content)
    with pytest.raises(ModelError, match=message) as caught:
        load(file)
    assert str(caught.value).count("\n") <= 2


@pytest.mark.parametrize("key", ["state_dict", "masks"])
@pytest.mark.parametrize("value", [None, [], {3: torch.zeros(1)}, {"a": 1}])
def test_wrong_types_are_refused(content: dict[str, Any], key: str, value: Any) -> None:
    content[key] = value
    with pytest.raises(ModelError, match=r"has no |where a tensor should be|digest"):
        load(_stored(content))


def test_unserialisable_metadata_is_refused(content: dict[str, Any]) -> None:
    content["compressor"]["record"]["notes"] = [torch.zeros(1)]
    with pytest.raises(ModelError, match="its metadata holds a Tensor, which is no plain value"):
        load(_stored(content))
