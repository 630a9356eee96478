"""`load` and `capture` of a module that is there already, with what goes in said in any usual way."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import compressor
from compressor.errors import ModelError, UsageError
from compressor.program import InputSpec, as_specs


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv, self.fc = nn.Conv2d(1, 4, 3), nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.conv(x).relu().mean((2, 3)))


class Words(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.table, self.fc = nn.Embedding(30, 4), nn.Linear(4, 3)

    def forward(self, ids: Tensor, weight: Tensor | None = None, mask: Tensor | None = None) -> Tensor:
        found = self.table(ids)
        return self.fc((found if mask is None else found * mask[..., None]).mean(1))


@pytest.mark.parametrize(
    "inputs",
    [
        torch.randn(2, 1, 8, 8), (torch.randn(5, 1, 8, 8),), "1x8x8", ["1x8x8"], {"x": torch.randn(1, 1, 8, 8)},
        {"x": "1x8x8"}, InputSpec("x", (None, 1, 8, 8)), [InputSpec("x", (None, 1, 8, 8))],
    ],
    ids=lambda given: type(given).__name__,
)  # fmt: skip
@pytest.mark.parametrize("way", [compressor.load, compressor.capture])
def test_what_goes_in_is_said_in_any_way(way: object, inputs: object) -> None:
    module = Net()
    program = way(module, inputs)  # type: ignore[operator]
    assert program.inputs[0].shape == (None, 1, 8, 8) and program.has_dynamic_batch
    x = torch.randn(4, 1, 8, 8)
    assert torch.equal(program.module.eval()(x), module.eval()(x))


def test_whole_numbers_stay_below_the_largest_in_the_example() -> None:
    program = compressor.load(Words(), torch.tensor([[3, 29, 7]]))
    assert (program.inputs[0].dtype, program.inputs[0].high) == ("int64", 30)


def test_inputs_by_name_skip_what_is_left_out() -> None:
    ids, mask = torch.tensor([[3, 29, 7]]), torch.tensor([[1.0, 0.0, 1.0]])
    module = Words()
    program = compressor.load(module, {"ids": ids, "mask": mask})
    assert [spec.name for spec in program.inputs] == ["ids", "mask"]
    assert torch.allclose(program.module.eval()(ids, mask), module.eval()(ids, mask=mask))


def test_a_module_takes_the_shape_of_its_data(tmp_path: Path) -> None:
    x, y = np.zeros((6, 1, 8, 8), np.float32), np.arange(6) % 3
    np.savez(tmp_path / "d.npz", x_train=x, y_train=y, x_test=x, y_test=y)
    assert compressor.load(Net(), data=str(tmp_path / "d.npz")).inputs[0].shape == (None, 1, 8, 8)
    with pytest.raises(UsageError, match=r"this Net: is a module that does not say what goes in; .* an example batch"):
        compressor.load(Net())


def test_what_is_no_input_is_refused() -> None:
    for wrong, told in ((torch.tensor(3.0), "a single number"), (3.5, "got float"), ([None], "got NoneType")):
        with pytest.raises(UsageError, match=told):
            as_specs([wrong] if not isinstance(wrong, list) else wrong)  # type: ignore[list-item]
    with pytest.raises(ModelError, match=r"--input 3x8x8: the model does not run on that: .*\ndid you mean --input 1x"):
        compressor.load(Net(), torch.randn(2, 3, 8, 8))
