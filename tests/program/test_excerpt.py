"""A region of a network as a program of its own: it computes what the network computes there."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, fx, nn

from compressor.program import Excerpt, InputSpec, Program, TensorShape, between, capture, families


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.norm = nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)
        self.left, self.right = nn.Conv2d(4, 4, 1), nn.Conv2d(4, 4, 1)
        self.register_buffer("order", torch.tensor([3, 0, 1, 2]))

    def forward(self, x: Tensor) -> Tensor:
        x = self.norm(self.first(x)).relu()
        return (self.left(x) + self.right(x)).index_select(1, self.order)


@pytest.fixture(scope="module")
def program() -> Program:
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(0)
        return capture(Net().eval(), [InputSpec("x", (None, 3, 5, 5))])


def node_of(program: Program, family: families.Family) -> fx.Node:
    return next(node for node in program.module.graph.nodes if node.target in family)


def excerpt_of(program: Program, source: fx.Node, last: fx.Node) -> Program:
    shape, tensors = program.shapes[source.name], program.module.tensors()
    assert isinstance(shape, TensorShape)
    cut = Excerpt((None, *shape.sizes[1:]))
    made = {source: cut.input}
    cut.copy(between(made, last), made, lambda node: tensors[str(node.target)])
    return cut.program(made[last])


def values(program: Program, x: Tensor) -> dict[str, Tensor]:
    found: dict[str, Tensor] = {}

    class Noting(fx.Interpreter):
        def run_node(self, n: fx.Node) -> Tensor:
            found[n.name] = super().run_node(n)
            return found[n.name]

    with torch.no_grad():
        Noting(program.module).run(x)
    return found


def test_a_region_computes_what_the_network_computes_there(program: Program) -> None:
    source, last = node_of(program, families.RELU), node_of(program, families.INDEX_SELECT)
    cut = excerpt_of(program, source, last)
    whole = values(program, program.example_inputs(3, seed=1)[0])
    with torch.no_grad():
        (out,) = cut.module(whole[source.name])
    assert torch.equal(out, whole[last.name])
    assert cut.inputs == (InputSpec("x", (None, 4, 3, 3)),)


def test_only_what_the_region_reads_comes_along_and_is_not_trained(program: Program) -> None:
    cut = excerpt_of(program, node_of(program, families.RELU), node_of(program, families.INDEX_SELECT))
    assert sorted(map(tuple, (t.shape for t in cut.module.tensors().values()))) == [
        (4,), (4,), (4,), (4, 4, 1, 1), (4, 4, 1, 1),
    ]  # fmt: skip
    assert set(cut.module.tensors()) == {f"layer.{i}" for i in range(5)}
    assert not any(parameter.requires_grad for parameter in cut.module.parameters())
    assert len(dict(cut.module.named_buffers())) == 1, "positions are no parameter"


def test_a_program_can_be_made_from_nothing() -> None:
    made = Excerpt((None, 6))
    weight = made.tensor("layer.weight", torch.ones(2, 6))
    small = made.program(made.call(torch.ops.aten.linear.default, made.input, weight))
    assert small.module(torch.ones(3, 6))[0].tolist() == [[6.0, 6.0]] * 3
    assert small.n_parameters == 12 and small.has_dynamic_batch


def test_equal_excerpts_are_equal(program: Program) -> None:
    left, right = (n for n in program.module.graph.nodes if n.target in families.CONV2D and "first" not in str(n.args))
    source = node_of(program, families.RELU)
    one, other = (excerpt_of(program, source, layer) for layer in (left, right))
    assert one.module.code == other.module.code and set(one.module.tensors()) == set(other.module.tensors())


def test_a_region_that_reads_something_else_is_an_error(program: Program) -> None:
    with pytest.raises(ValueError, match="the excerpt needs x, which is outside of it"):
        excerpt_of(program, node_of(program, families.RELU), node_of(program, families.BATCH_NORM))
