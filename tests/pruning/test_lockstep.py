"""Two networks side by side: what each layer meets, with the weights there are at that moment, however it is cut."""

from __future__ import annotations

import pytest
import torch

from compressor.program import Program
from compressor.pruning.lockstep import Lockstep


def layers(program: Program) -> list[torch.fx.Node]:
    return [node for node in program.module.graph.nodes if node.name.startswith(("linear", "conv2d"))]


@pytest.mark.parametrize("room", [0, 1 << 40])
def test_values_are_those_of_each_network_and_changes_show_downstream(
    tiny: Program, other_tiny: Program, room: int
) -> None:
    x = tiny.example_inputs(4)
    tiny.module.eval()
    other_tiny.module.eval()
    with torch.no_grad():
        wanted = other_tiny.module(*x)
        changed = tiny.clone()
        changed.parameters["hidden.weight"].mul_(2.0)
        run = Lockstep(tiny, other_tiny, [[part[:3] for part in x], [part[3:] for part in x]], layers(tiny), room)
        answers: list[torch.Tensor] = []
        mine: list[torch.Tensor] = []
        for (node,) in run:  # each waits for the one before
            met = list(run.met([node]))
            assert [one.batch for one in met] == [0, 1] and [len(one.x) for one in met] == [3, 1]
            assert node.name == "conv2d" or all(not torch.equal(one.x, one.dense_x) for one in met)
            weight = str(node.all_input_nodes[1].target)
            if weight == "hidden.weight":
                tiny.parameters[weight].mul_(2.0)
            if weight == "out.weight":
                answers, mine = [one.wanted for one in met], [one.x for one in met]
        assert torch.allclose(torch.cat(answers), wanted, atol=1e-6)
        out = torch.nn.functional.linear(torch.cat(mine), tiny.parameters["out.weight"], tiny.parameters["out.bias"])
        assert torch.allclose(out, changed.module.eval()(*x), atol=1e-6)


def test_between_stretches_only_what_is_read_later_is_held(tiny: Program, other_tiny: Program) -> None:
    """With no room the graph is cut where it is narrow, with room behind every layer."""
    x = tiny.example_inputs(2)
    n_stretches = {}
    for room in (0, 1 << 40):
        run = Lockstep(tiny, other_tiny, [x], layers(tiny), room)
        n_stretches[room] = len(run._stretches)
        with torch.no_grad():
            for group in run:
                assert len(list(run.met(group))) == len(group)
                names = {node.name for node in run._held[0][0] if node.op not in ("get_attr", "placeholder")}
                assert len(names) <= 2, names
    assert n_stretches == {0: 1, 1 << 40: 4}
