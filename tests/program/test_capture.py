"""Capture: what a program computes is what the module computed, and what was left out is said."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from compressor.errors import ModelError
from compressor.program import InputSpec, Program, Record, capture

IMAGE = [InputSpec("x", (None, 3, 4, 4))]


class Function(nn.Module):
    """A function over one convolution and one linear layer."""

    def __init__(self, function: Callable[..., object]) -> None:
        super().__init__()
        self.function, self.conv, self.fc = function, nn.Conv2d(3, 4, 3, padding=1), nn.Linear(64, 5)

    def forward(self, *inputs: Tensor) -> object:
        return self.function(self, *inputs)


def assert_same_output(module: nn.Module, program: Program, batch: int = 3) -> None:
    inputs = program.example_inputs(batch)
    with torch.no_grad():
        expected = module(*(x.clone() for x in inputs))
        assert torch.equal(expected, program.module(*(x.clone() for x in inputs)))


def targets(program: Program) -> set[str]:
    return {str(node.target) for node in program.module.graph.nodes if node.op == "call_function"}


def test_a_program_computes_what_the_module_did_at_any_batch() -> None:
    module = Function(lambda net, x: net.fc(net.conv(x).relu().flatten(1)))
    program = capture(module, IMAGE)
    assert program.has_dynamic_batch and program.inputs[0].shape == (None, 3, 4, 4)
    for batch in (1, 2, 7):
        assert_same_output(module, program, batch)
    assert set(program.parameters) == {"conv.weight", "conv.bias", "fc.weight", "fc.bias"}
    assert program.record.notes == ()


def test_the_program_has_its_own_tensors() -> None:
    module = Function(lambda net, x: net.fc(net.conv(x).flatten(1)))
    program = capture(module, IMAGE)
    before = program.parameters["fc.weight"].detach().clone()
    with torch.no_grad():
        module.fc.weight.zero_()
    assert torch.equal(program.parameters["fc.weight"], before)


def test_a_network_that_fixes_its_batch_is_captured_at_1_with_a_note() -> None:
    module = Function(lambda net, x: net.fc(net.conv(x).view(1, 64)))
    program = capture(module, IMAGE)
    assert not program.has_dynamic_batch and program.inputs[0].shape == (1, 3, 4, 4)
    assert program.sampled_batch == 1
    assert len(program.record.notes) == 1 and program.record.notes[0].startswith("exported with the batch fixed at 1: ")
    assert_same_output(module, program, 1)


def test_what_cannot_be_exported_is_an_error_with_the_line_and_what_to_write_instead() -> None:
    module = Function(lambda net, x: net.fc(net.conv(x).flatten(1)) if x.sum() > 0 else x)
    told = r"the model cannot be exported: its code decides by values .*test_capture\.py:\d+.*\n.*torch\.where"
    with pytest.raises(ModelError, match=told):
        capture(module, IMAGE)


def test_several_inputs_and_a_dictionary() -> None:
    def forward(net: Function, image: Tensor, scale: Tensor) -> dict[str, object]:
        features = net.conv(image)
        return {"logits": net.fc(features.flatten(1)) * scale, "parts": (features, None)}

    program = capture(Function(forward), [*IMAGE, InputSpec("scale", (None, 1))])
    inputs = program.example_inputs(3)
    assert len(program.inputs) == 2
    outputs = program.module(*inputs)
    assert set(outputs) == {"logits", "parts"} and outputs["logits"].shape == (3, 5)


IN_PLACE: dict[str, Callable[[Function, Tensor], object]] = {
    "plain": lambda net, x: net.conv(x).relu_(),
    "read before": lambda net, x: (y := net.conv(x)).sum() + y.relu_(),
    "written twice": lambda net, x: net.conv(x).add_(1).mul_(2),
    "read after by its old name": lambda net, x: ((y := net.conv(x)), y.add_(1), y * 2)[-1],
    "a view is read later": lambda net, x: ((y := net.conv(x)), (w := y.view(y.shape[0], -1)), y.mul_(2), w + 1)[-1],
    "the base is read later": lambda net, x: ((y := net.conv(x)), y.view(y.shape[0], -1).mul_(2), y + 1)[-1],
    "through a transpose": lambda net, x: ((y := net.conv(x)), y.transpose(1, 2).mul_(2), y + 1)[-1],
    "one half": lambda net, x: ((y := net.conv(x)), y[:, :2].relu_(), y * 1)[-1],
    "a slice is set": lambda net, x: ((y := net.conv(x)), y[:, 1:3].fill_(5.0), y * 1)[-1],
    "a slice is assigned": lambda net, x: ((z := torch.zeros_like(x)), z[:, 1:].copy_(x[:, :-1]), net.conv(z))[-1],
    "behind dropout": lambda net, x: ((y := net.conv(x)), nn.functional.dropout(y, 0.5, False).add_(1), y * 2)[-1],
    "behind contiguous": lambda net, x: ((y := net.conv(x)), y.contiguous().add_(1), y * 2)[-1],
    "behind reshape": lambda net, x: ((y := net.conv(x)), y.reshape(y.shape[0], -1).add_(1), y * 2)[-1],
    "written under two names": lambda net, x: (
        (y := net.conv(x)), (w := y.view(y.shape[0], -1)), (z := y.mul_(2)), z.add_(1), w + 1,
    )[-1],
    "its input through a view": lambda net, x: ((w := x.view(x.shape[0], -1)), w.mul_(2), net.conv(x))[-1],
    "two names, both read": lambda net, x: (
        (y := net.conv(x)), (a := y.flatten(1)), (b := y.flatten(2)), a.sigmoid_(), a.sum(1) + b.sum((1, 2)),
    )[-1],
}  # fmt: skip


@pytest.mark.parametrize("case", IN_PLACE)
def test_writes_in_place_are_kept(case: str) -> None:
    module = Function(IN_PLACE[case])
    assert_same_output(module, capture(module, IMAGE))


def test_harmless_writes_in_place_become_functional() -> None:
    for case in ("plain", "read before", "written twice", "read after by its old name"):
        program = capture(Function(IN_PLACE[case]), IMAGE)
        assert not [name for name in targets(program) if name.split(".")[1].endswith("_")], case


def test_views_stay_views_where_something_is_written_through_them() -> None:
    """A reshape of a channels-last tensor copies, and the write would be lost."""
    through = capture(Function(IN_PLACE["the base is read later"]), IMAGE)
    if any(name.split(".")[1].endswith("_") for name in targets(through)):
        assert "aten.reshape.default" not in targets(through)
    plain = capture(Function(lambda net, x: net.fc(net.conv(x).view(-1, 64))), IMAGE)
    assert "aten.reshape.default" in targets(plain) and "aten.view.default" not in targets(plain)
    plain.module.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    assert plain.module(*plain.example_inputs(2)).shape == (2, 5)


def test_tied_weights_have_one_name_and_an_alias() -> None:
    class Tied(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b = nn.Linear(4, 4), nn.Linear(4, 4)
            self.b.weight = self.a.weight

        def forward(self, x: Tensor) -> Tensor:
            return self.b(self.a(x))

    program = capture(Tied(), [InputSpec("x", (None, 4))])
    assert dict(program.aliases) == {"b.weight": "a.weight"}
    assert set(program.parameters) == {"a.weight", "a.bias", "b.bias"} and program.n_parameters == 24


def test_unused_parameters_are_left_out_with_a_note() -> None:
    module = Function(lambda net, x: net.conv(x))
    program = capture(module, IMAGE)
    assert set(program.parameters) == {"conv.weight", "conv.bias"}
    assert "2 parameters play no part in evaluation and were left out: fc.weight, fc.bias" in program.record.notes


def test_a_record_is_kept_and_its_notes_go_on() -> None:
    record = Record(arch="mine", notes=("first",))
    program = capture(Function(lambda net, x: net.conv(x)), IMAGE, record=record)
    assert program.record.arch == "mine" and program.record.notes[0] == "first" and len(program.record.notes) == 2


def test_nodes_know_the_users_line() -> None:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(3, 4, 3)

        def forward(self, x: Tensor) -> Tensor:
            return self.conv(x)

    program = capture(Net(), IMAGE)
    where = next(n.meta["where"] for n in program.module.graph.nodes if "conv2d" in n.name)
    assert where.startswith("test_capture.py:") and where.endswith("return self.conv(x)")


def test_attention_keeps_its_scale() -> None:
    def forward(net: Function, x: Tensor) -> Tensor:
        tokens = x.flatten(2)
        return nn.functional.scaled_dot_product_attention(tokens, tokens, tokens)

    program = capture(Function(forward), IMAGE)
    node = next(n for n in program.module.graph.nodes if "scaled_dot_product" in str(n.target))
    assert node.kwargs.get("scale", node.args[-1]) == pytest.approx(16**-0.5)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_a_norm_keeps_the_epsilon_of_its_type(dtype: str) -> None:
    module = nn.RMSNorm(3).to(getattr(torch, dtype))
    program = capture(module, [InputSpec("x", (None, 3), dtype)])
    assert_same_output(module, program)
    (norm,) = (node for node in program.module.graph.nodes if "rms_norm" in str(node.target))
    assert norm.kwargs["eps"] == torch.finfo(getattr(torch, dtype)).eps


def test_arithmetic_on_sizes_and_numbers_made_on_the_way_are_captured() -> None:
    module = Function(
        lambda net, x: (x * torch.tensor([1.0, 2.0, 3.0])).reshape(x.shape[0] * 2 + 1 - 1, -1).sum(1).detach_()
    )
    program = capture(module, [InputSpec("x", (None, 2, 3))])
    assert_same_output(module, program)
    names = " ".join(map(str, targets(program)))
    assert "lift_fresh" not in names and "detach_" not in names and "built-in function mul" in names


def test_what_only_checks_read_goes_with_the_checks() -> None:
    """The number of positive values is compared with limits, which nothing but torch's own assertions read."""

    def checked(net: Function, x: Tensor) -> Tensor:
        places = torch.nonzero(x.flatten() > 0)
        torch._check(places.shape[0] < 1000)
        return net.fc(net.conv(x).relu().flatten(1)) + places.float().sum()

    module = Function(checked)
    program = capture(module, IMAGE)
    assert_same_output(module, program)
    assert not [node for node in program.module.graph.nodes if node.op == "call_function" and not node.users]


def test_double_and_half_networks_get_inputs_of_their_own_type() -> None:
    program = capture(Function(lambda net, x: net.conv(x)).double(), [InputSpec("x", (None, 3, 4, 4))])
    assert program.inputs[0].dtype == "float64"
    assert program.module(*program.example_inputs(2)).dtype == torch.float64
