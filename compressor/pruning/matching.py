"""Graphs that train beside the one that is measured, on its tensors; it must never look at a label.

Without labels, to learn from a dense network's features; compiled, to stay in training mode between measurements.
"""

from __future__ import annotations

from compressor.data import DataSource
from compressor.program import Program, ProgramModule, is_same_graph, landmarks, tapped
from compressor.training import FeatureOutputs, TaughtSource, TrainedAs, TrainingOutputs


def matched(program: Program, data: DataSource) -> tuple[DataSource, TrainedAs] | None:
    """The data with the features of their teacher as targets too, and the module as it learns from them.

    None where labels are learned from, or where the teacher is no network of the same graph: compact already.
    """
    if not (isinstance(data, TaughtSource) and data.learns_answers and isinstance(data.teacher, ProgramModule)):
        return None
    names = landmarks(program)
    if not names or not is_same_graph(program.module, data.teacher):
        return None
    trained = TrainedAs(tapped(program.module, names), FeatureOutputs())
    return data.teaching(tapped(data.teacher, names)), trained  # type: ignore[return-value]


def of_its_own(program: Program) -> TrainedAs:
    """The program's graph once more: switching modes changes a graph, and what is compiled would be compiled again."""
    return TrainedAs(tapped(program.module, ()), TrainingOutputs(main=0))
