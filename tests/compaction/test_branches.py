"""Operands that never change: residual branches of zeros and of constants, gates, and what has to stay."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from compressor.compaction import branches, compact, removal
from compressor.compaction.removal import Removal, remove_dead
from compressor.errors import VerificationError
from compressor.program import InputSpec, Program, capture

aten = torch.ops.aten


class Residual(nn.Module):
    """stem -> x + norm(branch(x)) -> end; `combine` says how the branch comes in."""

    def __init__(self, combine: Callable[[Tensor, Tensor], Tensor], side: int = 1, padding: int = 0) -> None:
        super().__init__()
        self.combine = combine
        self.stem, self.branch = nn.Conv2d(2, 4, 1), nn.Conv2d(4, 4, side, padding=padding)
        self.middle = nn.Conv2d(4, 4, 3, padding=1)
        self.norm, self.end = nn.BatchNorm2d(4), nn.Conv2d(4, 3, 1)
        self.double().eval()
        with torch.no_grad():
            for parameter in self.parameters():
                parameter.copy_(torch.arange(parameter.numel()).reshape(parameter.shape) % 5 - 1)
            self.branch.weight.zero_()

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x).relu()
        return self.end(self.combine(x, self.norm(self.branch(x))))


def program_of(net: nn.Module) -> Program:
    program = capture(net, [InputSpec("x", (None, 2, 6, 6), "float64")])
    program.module.eval()
    return program


@torch.no_grad()
def checked(program: Program) -> Removal:
    """What was removed; the result computes the same to 1e-12."""
    removed = remove_dead(program)
    x = program.example_inputs(3, seed=1, dtype=torch.float64)[0]
    assert torch.allclose(program.module(x), removed.program.module(x), rtol=1e-12, atol=1e-12)
    return removed


def operators(program: Program) -> set[object]:
    return {node.target for node in program.module.graph.nodes if node.op == "call_function"}


def test_a_branch_of_zeros_vanishes_with_all_its_tensors() -> None:
    net = Residual(torch.add)
    with torch.no_grad():
        net.norm.weight.zero_()
        net.norm.bias.zero_()
    removed = checked(program_of(net))
    assert [(b.layer, b.became) for b in removed.branches] == [("norm", "nothing: it was 0")]
    assert not operators(removed.program) & {aten.add.Tensor, aten.batch_norm.default}
    assert not any(name.startswith(("norm.", "branch.")) for name in removed.program.module.tensors())


@pytest.mark.parametrize(
    ("combine", "operator"),
    [(torch.add, aten.add.Tensor), (torch.sub, aten.sub.Tensor), (torch.mul, aten.mul.Tensor)],
)
def test_a_constant_branch_becomes_one_number_per_channel(
    combine: Callable[[Tensor, Tensor], Tensor], operator: object
) -> None:
    removed = checked(program_of(Residual(combine)))
    assert [b.became for b in removed.branches] == ["its constant is norm.constant"]
    assert operator in operators(removed.program)
    assert aten.batch_norm.default not in operators(removed.program)
    assert isinstance(removed.program.parameters["norm.constant"], nn.Parameter)
    n_units = removed.program.parameters["stem.weight"].shape[0]
    assert removed.program.parameters["norm.constant"].shape == (1, n_units, 1, 1)


def test_a_constant_goes_into_the_bias_of_a_convolution_that_only_it_is_added_to() -> None:
    class Added(Residual):
        def forward(self, x: Tensor) -> Tensor:
            x = self.stem(x).relu()
            return self.end((self.middle(x) + self.norm(self.branch(x))).relu())

    removed = checked(program_of(Added(torch.add)))
    assert [b.became for b in removed.branches] == ["its constant went into middle.bias"]
    assert aten.add.Tensor not in operators(removed.program)


def test_a_map_that_differs_at_the_border_stays_and_says_so() -> None:
    class Bordered(Residual):
        def forward(self, x: Tensor) -> Tensor:
            x = self.stem(x).relu()
            return self.end(x + self.middle(self.norm(self.branch(x))))

    removed = checked(program_of(Bordered(torch.add)))
    assert removed.branches == ()
    assert "middle: it is constant, but differs by position; add stays" in removed.verdict.skipped


def test_a_live_branch_and_a_parameter_that_is_added_are_left_alone() -> None:
    class Shifted(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.stem, self.shift = nn.Conv2d(2, 4, 1), nn.Parameter(torch.ones(4, 1, 1))

        def forward(self, x: Tensor) -> Tensor:
            x = self.stem(x)
            return x.relu() + (x + self.shift * 2)

    assert checked(program_of(Shifted().double().eval())).branches == ()


def test_counters_of_norms_that_stay_stay() -> None:
    class Two(Residual):
        def __init__(self) -> None:
            super().__init__(torch.add)
            self.other = nn.BatchNorm2d(2).double()

        def forward(self, x: Tensor) -> Tensor:
            return super().forward(self.other(x))

    removed = checked(program_of(Two().eval()))
    assert "other.num_batches_tracked" in removed.program.module.tensors()
    assert "norm.num_batches_tracked" not in removed.program.module.tensors()


def test_a_constant_inside_a_constant_branch_goes_with_it() -> None:
    class Nested(Residual):
        def forward(self, x: Tensor) -> Tensor:
            x = self.stem(x).relu()
            constant = self.norm(self.branch(x))
            return self.end(x + (constant + x) * (constant * 0))

    removed = checked(program_of(Nested(torch.add)))
    assert removed.branches[-1].became == "nothing: it was 0"
    assert not any("constant" in name for name in removed.program.parameters)
    assert set(removed.exact) <= set(removed.program.parameters)


def test_masks_only_leaves_a_branch_that_may_learn_again() -> None:
    program = program_of(Residual(torch.add))
    _, report = compact(program, masks_only=True, allow_noop=True)
    assert report.removed == 0 and report.branches == () and report.zeroed >= 16
    small, report = compact(program)
    assert report.branches and report.agreement is not None and small.n_parameters < program.n_parameters
    assert report.layers and {change.name for change in report.layers if not change.after} == {"branch", "norm"}


def test_twin_a_constant_that_is_not_zero_is_not_dropped(monkeypatch: pytest.MonkeyPatch) -> None:
    right = branches._replace

    def careless(edit: branches.Additions, node: torch.fx.Node, key: str, constants: object) -> str:
        rest = node.args[0]
        assert isinstance(rest, torch.fx.Node)
        node.replace_all_uses_with(rest)
        edit.graph.erase_node(node)
        return "nothing: nobody looked"

    monkeypatch.setattr(branches, "_replace", careless)
    with pytest.raises(VerificationError, match="masked and compact model differ"):
        compact(program_of(Residual(torch.add)))
    monkeypatch.setattr(branches, "_replace", right)
    assert compact(program_of(Residual(torch.add)))[1].branches
    assert removal.without_constant_branches is branches.without_constant_branches
