"""Two networks side by side: each computes its own values, with the weights it has at that moment, and frees them."""

from __future__ import annotations

import torch

from compressor.program import Program
from compressor.pruning.lockstep import Lockstep


def test_values_are_those_of_each_network_and_changes_show_downstream(tiny: Program, other_tiny: Program) -> None:
    x = tiny.example_inputs(4)
    tiny.module.eval()
    other_tiny.module.eval()
    with torch.no_grad():
        wanted = other_tiny.module(*x)
        run = Lockstep(tiny, other_tiny, x)
        changed = tiny.clone()
        changed.parameters["hidden.weight"].mul_(2.0)
        outputs: list[tuple[torch.Tensor, torch.Tensor]] = []
        for node in run:
            if node.name.startswith("linear"):
                mine, dense = run.inputs(node)
                assert mine.shape == dense.shape and not torch.equal(mine, dense)
                if node.all_input_nodes[1].target == "hidden.weight":
                    tiny.parameters["hidden.weight"].mul_(2.0)
            elif node.op == "output":
                mine, dense = run.inputs(node)
                outputs.append((mine, dense))
        assert torch.allclose(outputs[0][1], wanted, atol=1e-6)
        assert torch.allclose(outputs[0][0], changed.module.eval()(*x), atol=1e-6)


def test_what_nobody_needs_any_more_is_freed(tiny: Program, other_tiny: Program) -> None:
    run = Lockstep(tiny, other_tiny, tiny.example_inputs(2))
    held = []
    with torch.no_grad():
        for _ in run:
            held.append(sum(v.numel() for v in run._dense.env.values() if isinstance(v, torch.Tensor) and v.dim() == 4))
    assert max(held) > 0 and held[-1] == 0
