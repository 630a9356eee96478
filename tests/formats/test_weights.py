"""Weights that were trained elsewhere come over whole, under the masks, or not at all."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

import compressor
from compressor.errors import ModelError, UnsafeFileError
from compressor.formats import read_weights, take_weights
from compressor.program import InputSpec, Program


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.one, self.norm, self.two = nn.Linear(6, 8), nn.BatchNorm1d(8), nn.Linear(8, 3)
        self.aux = nn.Linear(8, 3)
        self.register_buffer("shift", torch.ones(3))

    def forward(self, x: Tensor) -> Tensor:
        return self.two(self.norm(self.one(x)).relu()) + self.shift


@pytest.fixture
def pruned() -> Program:
    program = compressor.capture(Net(), [InputSpec("x", (None, 6))])
    settings = compressor.PruneSettings(ratio=1.5, method="magnitude", round_to=1)
    return compressor.prune(program, settings)[0]


def trained() -> dict[str, Tensor]:
    torch.manual_seed(1)
    return {n: torch.randn_like(t).abs() if t.is_floating_point() else t for n, t in Net().state_dict().items()}


FORMS: dict[str, Callable[[dict[str, Tensor]], object]] = {
    "as it is": lambda state: state,
    "wrapped": lambda state: {"epoch": 3, "model_state_dict": state},
    "of DataParallel": lambda state: {f"module.{name}": tensor for name, tensor in state.items()},
    "compiled and wrapped": lambda state: {"net": {f"_orig_mod.{name}": tensor for name, tensor in state.items()}},
    "without counters": lambda state: {n: t for n, t in state.items() if "num_batches" not in n},
}


@pytest.mark.parametrize("form", FORMS)
def test_every_usual_form_is_taken_and_masks_are_enforced(form: str, pruned: Program, tmp_path: Path) -> None:
    torch.save(FORMS[form](trained()), tmp_path / "w.pth")
    before = {name: tensor.clone() for name, tensor in pruned.module.tensors().items()}
    program, taken = take_weights(pruned, read_weights(tmp_path / "w.pth"), "w.pth")
    for name, tensor in program.module.tensors().items():
        if tensor.is_floating_point():
            mask = pruned.masks.get(name, torch.ones_like(tensor, dtype=torch.bool))
            assert torch.equal(tensor, trained()[name] * mask), name
    assert all(torch.equal(before[name], tensor) for name, tensor in pruned.module.tensors().items())
    n_cut = sum(int((~mask).sum()) for mask in pruned.masks.values())
    assert (taken.n_revived, taken.largest_revived > 0) == (n_cut, True)
    assert taken.unread == ("aux.weight", "aux.bias")
    assert compressor.compact(program)[1].agreement is not None


def test_weights_that_held_the_masks_lose_nothing(pruned: Program, tmp_path: Path) -> None:
    state = trained()
    for name, mask in pruned.masks.items():
        state[name] = state[name] * mask
    torch.save(state, tmp_path / "w.pth")
    _, taken = take_weights(pruned, read_weights(tmp_path / "w.pth"), "w.pth")
    assert (taken.n_revived, taken.largest_revived) == (0, 0.0)


def test_a_checkpoint_of_ours_is_a_source_too(pruned: Program, tmp_path: Path) -> None:
    compressor.save(pruned, tmp_path / "m.pt")
    program, taken = take_weights(pruned, read_weights(tmp_path / "m.pt"), "m.pt")
    assert taken.unread == () and taken.n_revived == 0
    assert all(torch.equal(t, program.module.tensors()[n]) for n, t in pruned.module.tensors().items())


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda s: s.pop("two.weight"), r"lacks 1 tensors of the network: two\.weight"),
        (lambda s: s.update({"two.weight": torch.zeros(3, 5)}), r"two\.weight \(3x5 in the file, 3x8"),
        (lambda s: s["two.weight"].fill_(float("nan")), "two.weight"),
        (lambda s: s.clear() or s.update({"else": torch.zeros(2)}), "lacks 6 tensors"),
    ],
    ids=["missing", "shape", "nan", "another network"],
)
def test_what_does_not_fit_is_named(change: Callable[[dict[str, Tensor]], object], told: str, pruned: Program) -> None:
    state = trained()
    change(state)
    with pytest.raises(ModelError, match=told):
        take_weights(pruned, state, "w.pth")


def test_a_file_that_can_run_code_is_refused(tmp_path: Path) -> None:
    torch.save(Net(), tmp_path / "m.pth")
    with pytest.raises(UnsafeFileError):
        read_weights(tmp_path / "m.pth")
    assert "one.weight" in read_weights(tmp_path / "m.pth", trust_pickle=True)
