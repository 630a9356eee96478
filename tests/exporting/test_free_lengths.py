"""One ONNX file for texts of any length and images of any size, after every kind of cut, beside the original."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import onnx
import onnxruntime as ort
import pytest
import torch
from torch import Tensor, nn

from compressor.asking.prune import PruneSettings
from compressor.compaction import compact
from compressor.errors import ModelError, VerificationError
from compressor.exporting import export_onnx, export_python
from compressor.exporting.convert import to_exported
from compressor.formats import load
from compressor.program import Program, capture, parse_input
from compressor.pruning import prune
from tests.models.tiny_transformers import save_small


@pytest.fixture(scope="module")
def transformers() -> Any:
    pytest.importorskip("transformers", reason="transformers is not installed")
    from compressor.models.huggingface import _transformers

    return _transformers()


def dims(path: Path) -> list[list[str | int]]:
    return [
        [dim.dim_param or dim.dim_value for dim in value.type.tensor_type.shape.dim]
        for value in onnx.load(path).graph.input
    ]


def cut(program: Program, **how: Any) -> Program:
    settings = PruneSettings(method="magnitude", retrain_recipe=None, round_to=1, **how)
    return prune(program, settings)[0]


CUTS: dict[str, dict[str, Any]] = {
    "channel": {"ratio": 1.2},
    "exact": {"ratio": 1.3, "through_norm": "exact"},
    "head": {"ratio": 1.05, "pattern": "head"},
}


@pytest.mark.parametrize("how", CUTS)
@pytest.mark.parametrize("name", ["bert", "llama"])
def test_one_file_for_every_length_after_a_cut(transformers: Any, tmp_path: Path, name: str, how: str) -> None:
    more = {"max_position_embeddings": 512}
    model = save_small(transformers, name, tmp_path / "m", **more)
    masked = cut(load(tmp_path / "m"), **CUTS[how])
    smaller, _ = compact(masked)
    assert smaller.n_parameters < masked.n_parameters
    file = tmp_path / "model.onnx"
    export_onnx(smaller, file)
    assert dims(file) == [["batch", "sequence"], ["batch", "sequence"]]
    session = ort.InferenceSession(str(file))
    model.load_state_dict(masked.module.state_dict(), strict=False)
    for length in (7, 64, 300):
        for batch in (1, 3):
            given = {spec.name: spec.example(batch, length, {"sequence": length}) for spec in masked.inputs}
            (got,) = session.run(None, {key: x.numpy() for key, x in given.items()})
            with torch.no_grad():
                wanted = model(**given).logits
            rows = given["attention_mask"].bool() if wanted.dim() == 3 else slice(None)
            assert torch.allclose(torch.from_numpy(got)[rows], wanted[rows], atol=1e-4), (length, batch)


class Any2d(nn.Module):
    """Takes images of any size and a number for each sample."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.more, self.head = nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8, 6, 3, 2, 1), nn.Linear(6, 4)

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        x = torch.relu(self.more(torch.relu(self.conv(x))))
        return self.head(x.mean((2, 3))) * t[:, None]


def test_images_of_any_size_and_a_number_beside_them(tmp_path: Path) -> None:
    inputs = [parse_input("x=3xheight@16xwidth@24"), parse_input("t=float32:()")]
    program, _ = compact(cut(capture(Any2d(), inputs), ratio=1.5))
    assert [spec.free for spec in program.inputs] == [("", "", "height", "width"), ()]
    export_onnx(program, tmp_path / "net.onnx")
    assert dims(tmp_path / "net.onnx") == [["batch", 3, "height", "width"], ["batch"]]
    session = ort.InferenceSession(str(tmp_path / "net.onnx"))
    for batch, height, width in ((1, 9, 40), (4, 33, 5)):
        x, t = torch.randn(batch, 3, height, width), torch.randn(batch)
        (got,) = session.run(None, {"x": x.numpy(), "t": t.numpy()})
        assert torch.allclose(torch.from_numpy(got), program.module(x, t), atol=1e-5)
    export_python(program, tmp_path / "net.py")
    assert load_checkpoint(program, tmp_path).inputs == program.inputs


def load_checkpoint(program: Program, folder: Path) -> Program:
    from compressor.formats import save

    save(program, folder / "net.pt")
    return load(folder / "net.pt")


class Fixed(nn.Module):
    def __init__(self, steps: int = 12) -> None:
        super().__init__()
        self.line, self.steps = nn.Linear(steps, 4), steps

    def forward(self, x: Tensor) -> Tensor:
        return self.line(x)


class Windows(nn.Module):
    """Goes another way for long texts: what was traced holds up to 40."""

    def forward(self, x: Tensor) -> Tensor:
        return x.cumsum(1) if x.shape[1] <= 40 else x.cumsum(1) * 2


def test_a_length_that_the_code_fixes_is_fixed_and_named() -> None:
    program = capture(Fixed(), [parse_input("x=seq@12")])
    assert program.inputs[0].free == () and any("fixes seq at 12" in note for note in program.record.notes)


def test_a_length_at_which_the_code_goes_another_way_is_tried() -> None:
    program = capture(Windows(), [parse_input("x=seq@12")])
    assert program.inputs[0].free == ()
    assert any("exported with seq fixed at 12: it would be wrong with any length" in n for n in program.record.notes)


def test_twin_a_graph_that_holds_the_length_is_refused() -> None:
    program = capture(Fixed(), [parse_input("x=12")])
    free = program.replace(inputs=(parse_input("x=seq@12"),))
    with pytest.raises((ModelError, VerificationError)):
        to_exported(free, program.module)
