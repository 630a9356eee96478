"""`--arch` and `--arch-arg`: names, references, seeds and every refusal."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from compressor.errors import ModelError, UsageError
from compressor.models import ALIASES, ARCHITECTURES, build, parse_arch_args

SOURCE = """
from torch import nn
class Net(nn.Module):
    def __init__(self, width=4, depth=1):
        super().__init__()
        if depth < 1:
            raise ValueError(f"depth {depth}")
        self.fc = nn.Linear(3, width)
    def forward(self, x):
        return self.fc(x)
def make(width):
    return Net(width)
ready = Net(5)
def text():
    return "no module"
VALUE = 3
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "net.py"
    path.write_text(SOURCE)
    return path


def weights(module: nn.Module) -> Tensor:
    return torch.cat([parameter.detach().flatten() for parameter in module.parameters()])


def test_aliases_and_capitals_reach_the_same_network() -> None:
    assert set(ALIASES.values()) <= set(ARCHITECTURES)
    assert not set(ALIASES) & set(ARCHITECTURES)
    for name in ("lenet5", "lenet-5", "LeNet5"):
        built = build(name, {})
        assert type(built.module).__name__ == "LeNet5"
        assert built.input_shapes == ((1, 28, 28),)


def test_a_seed_makes_the_weights_and_leaves_the_generator() -> None:
    torch.manual_seed(4)
    expected = torch.rand(3)
    torch.manual_seed(4)
    first = weights(build("lenet5", {}, seed=1).module)
    assert torch.equal(torch.rand(3), expected)
    assert torch.equal(weights(build("lenet5", {}, seed=1).module), first)
    assert not torch.equal(weights(build("lenet5", {}, seed=2).module), first)
    assert not torch.equal(weights(build("lenet5", {}).module), first)


def test_arguments_reach_the_constructor() -> None:
    module = build("caffenet", {"grouped": False, "num_classes": 3, "dropout": 0.0}, seed=None).module
    assert module.get_parameter("conv2.weight").shape == (256, 96, 5, 5)
    assert module.get_parameter("fc8.weight").shape[0] == 3


def test_classes_functions_and_modules_of_the_user(file: Path) -> None:
    for name, arch_args, width in (
        ("Net", {}, 4),
        ("Net", {"width": 7}, 7),
        ("make", {"width": 2}, 2),
        ("ready", {}, 5),
    ):
        built = build(f"{file}:{name}", arch_args)
        assert built.module.get_parameter("fc.weight").shape == (width, 3)
        assert built.input_shapes is None
    linear = build("torch.nn:Linear", {"in_features": 2, "out_features": 3}).module
    assert isinstance(linear, nn.Linear)


@pytest.mark.parametrize(
    ("name", "arch_args", "error", "message"),
    [
        (
            "Net",
            {"widht": 1},
            UsageError,
            "unexpected keyword argument 'widht'; its --arch-arg names: width, depth",
        ),
        ("make", {}, UsageError, "missing a required argument: 'width'"),
        ("ready", {"width": 1}, UsageError, r"is a finished module and takes no --arch-arg \(width\)"),
        ("Net", {"depth": 0}, ModelError, "building it raised ValueError: depth 0"),
        ("text", {}, ModelError, r"returned str, not a torch\.nn\.Module"),
        ("VALUE", {}, ModelError, "neither a module nor a function that returns one, but int"),
        ("Nett", {}, ModelError, "has no `Nett`; it defines Net, make"),
    ],
)
def test_what_does_not_build_is_named(
    file: Path, name: str, arch_args: dict[str, object], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        build(f"{file}:{name}", arch_args)


def test_unknown_names_get_an_offer() -> None:
    with pytest.raises(UsageError, match="--arch lenet6: unknown architecture; did you mean lenet"):
        build("lenet6", {})
    with pytest.raises(UsageError, match="unknown architecture; bundled are lenet-300-100, lenet5"):
        build("zzz", {})
    with pytest.raises(UsageError, match="--arch lenet5: got an unexpected keyword argument 'width'"):
        build("lenet5", {"width": 3})


def test_arch_args_are_typed() -> None:
    pairs = ["a=1", "b=-2.5", "c=true", "d=False", "e=None", "f=text", "g=a=b", "num-classes=1e1", "h="]
    assert parse_arch_args(pairs) == {
        "a": 1,
        "b": -2.5,
        "c": True,
        "d": False,
        "e": None,
        "f": "text",
        "g": "a=b",
        "num_classes": 10.0,
        "h": "",
    }
    assert type(parse_arch_args(["a=1"])["a"]) is int
    assert parse_arch_args([]) == {}


@pytest.mark.parametrize(
    ("pairs", "message"),
    [
        (["width"], "--arch-arg width: write it as name=value"),
        (["=3"], "--arch-arg =3: write it as name=value"),
        (["a b=3"], "write it as name=value"),
        (["a=1", "a=2"], "--arch-arg a=2: a was given before"),
    ],
)
def test_arch_args_that_cannot_be_meant(pairs: list[str], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        parse_arch_args(pairs)
