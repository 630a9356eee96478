"""What the exporters are given: the same numbers, in a type that the runtime has, and a graph that may be edited."""

from __future__ import annotations

import torch
from torch import nn

from compressor import capture
from compressor.exporting.host import host_module, in_runtime_type
from compressor.program import InputSpec, Program


def small(dtype: torch.dtype = torch.float32) -> Program:
    torch.manual_seed(0)
    name = str(dtype).removeprefix("torch.")
    return capture(nn.Linear(4, 3).to(dtype).eval(), InputSpec("x", (None, 4), name))


def test_tensors_are_shared_and_the_graph_is_not() -> None:
    program = small()
    program.module.train()
    host = host_module(program)
    assert not host.training and program.module.training
    assert all(host.tensors()[name].data_ptr() == t.data_ptr() for name, t in program.module.tensors().items())
    for node in host.graph.nodes:
        node.meta["edited"] = True
    assert not any("edited" in node.meta for node in program.module.graph.nodes)


def test_in_bfloat16_the_file_holds_float32_and_says_so() -> None:
    program = small(torch.bfloat16)
    wide, told = in_runtime_type(program)
    assert len(told) == 1 and "bfloat16" in told[0] and "float32" in told[0]
    for name, parameter in wide.parameters.items():
        assert parameter.dtype == torch.float32 and torch.equal(parameter, program.parameters[name].float())


def test_what_the_runtime_computes_in_stays() -> None:
    program = small()
    assert in_runtime_type(program) == (program, ())
