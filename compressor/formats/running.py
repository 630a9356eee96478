"""Whether the graph of a program may be run, wherever it came from: asked when one is read, and before one is written.

It must never run it. The same question at both ends means that a checkpoint that was written can be read.
"""

from __future__ import annotations

from compressor.errors import ModelError
from compressor.formats.budget import check_budget
from compressor.formats.calls import check_call
from compressor.formats.contracts import check_contracts
from compressor.program import Program, TensorShape
from compressor.program.shapes import Shapes


def check_running(program: Program) -> None:
    """Nothing, when every call fits its operator, its values fit each other, and all of it fits a machine.

    Raises:  ModelError naming the node.
    """
    module = program.module
    for node in module.graph.nodes:
        if node.op == "call_function":
            try:
                check_call(node.target, node.args, node.kwargs)
            except ModelError as error:
                raise ModelError(f"{node.meta.get('where') or node.name}: {error}") from error
    shapes = program.shapes
    _check_sizes_known(shapes)
    check_contracts(module.graph, shapes, module.tensors())
    check_budget(module.graph, module.tensors(), shapes)


def _check_sizes_known(shapes: Shapes) -> None:
    """Nothing, when every size follows from those of the inputs; a capture holds others too, a file cannot."""
    for name, shape in shapes.items():
        sizes: list[object] = [*shape.sizes] if isinstance(shape, TensorShape) else []
        if None in sizes:
            raise ModelError(
                f"{name}: its size depends on values, which no checkpoint can hold\n"
                f"select with a mask of fixed size instead"
            )
