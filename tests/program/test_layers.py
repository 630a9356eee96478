"""Layers under the names of their parameters."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from compressor.program import InputSpec, Record, Step, capture, find_layers, layer_name


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4))
        self.up, self.scale = nn.ConvTranspose2d(4, 6, 2, 2), nn.Parameter(torch.ones(1))
        self.fc = nn.Linear(6, 2)

    def forward(self, x: Tensor) -> Tensor:
        y = self.up(self.stem(x)) * self.scale
        return self.fc(self.fc.weight.new_ones(1) * y.mean((2, 3)))


def test_every_layer_in_graph_order() -> None:
    layers = find_layers(capture(Net(), [InputSpec("x", (None, 3, 4, 4))]))
    kinds = ["conv2d", "batch_norm", "conv_transpose2d", "linear", "parameter"]
    assert [(x.name, x.kind) for x in layers] == list(
        zip(("stem.0", "stem.1", "up", "fc", "scale"), kinds, strict=True)
    )
    dims = {x.name: (x.out_dim, x.in_dim) for x in layers}
    assert dims["stem.0"] == (0, 1) and dims["up"] == (1, 0) and dims["stem.1"] == (0, None)
    norm = next(x for x in layers if x.kind == "batch_norm")
    assert set(norm.tensors) == {f"stem.1.{n}" for n in ("weight", "bias", "running_mean", "running_var")}


def test_a_shared_weight_makes_several_layers() -> None:
    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.fc = nn.Linear(4, 4)

        def forward(self, x: Tensor) -> Tensor:
            return self.fc(self.fc(x))

    layers = find_layers(capture(Twice(), [InputSpec("x", (None, 4))]))
    assert [x.name for x in layers] == ["fc", "fc"] and layers[0].node != layers[1].node


def test_names() -> None:
    assert layer_name("layer1.0.conv1.weight") == "layer1.0.conv1"
    assert layer_name("encoder.position") == "encoder.position" and layer_name("weight") == "weight"


def test_records_go_through_plain_values() -> None:
    record = Record(arch="a", notes=("n",)).after(Step("prune", {"ratio": 2.0}, seed=3), dense_params=7)
    again = Record.from_mapping({**record.to_mapping(), "of a newer version": 1})
    assert again == record and again.steps[0].options == {"ratio": 2.0}


def test_a_product_with_a_matrix_of_parameters_is_a_linear_layer() -> None:
    """As GPT-2 has it: the weight's filters lie behind. One of two values, of a vector, or from the left is not."""

    class Products(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.added, self.bias = nn.Parameter(torch.randn(6, 4)), nn.Parameter(torch.randn(4))
            self.plain, self.left = nn.Parameter(torch.randn(4, 5)), nn.Parameter(torch.randn(3, 3))
            self.vector = nn.Parameter(torch.randn(5))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            y = torch.addmm(self.bias, x.reshape(-1, 6), self.added).reshape(-1, 3, 4)
            y = self.left @ (y @ self.plain)
            return (y @ y.mT) @ (y @ self.vector).unsqueeze(-1)

    program = capture(Products(), [InputSpec("x", (None, 3, 6))])
    found = {layer.name: layer for layer in find_layers(program) if layer.kind != "parameter"}
    assert {name: (layer.kind, layer.out_dim, layer.in_dim) for name, layer in found.items()} == {
        "added": ("addmm", 1, 0), "plain": ("matmul", 1, 0),
    }  # fmt: skip
    assert found["added"].tensors == ("added", "bias")
