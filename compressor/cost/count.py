"""Costs of a program as it stands: the terms with its own sizes; it must never hold formulas of operators."""

from __future__ import annotations

from compressor.cost.terms import dense_cost, mac_terms
from compressor.program import Program, TensorShape
from compressor.units import Macs


def count_macs(program: Program) -> Macs:
    """Multiply-adds of one sample, over all operators that multiply and sum (`uncounted_operators` names the rest)."""
    return Macs(round(sum(dense_cost(program, term) for term in mac_terms(program))))


def count_activations(program: Program) -> int:
    """Elements that all operators together write for one sample (views counted as if they wrote)."""
    total = 0
    for node in program.module.graph.nodes:
        shape = program.shapes.get(node.name)
        if node.op == "call_function" and isinstance(shape, TensorShape):
            total += shape.numel
    return total // program.sampled_batch
