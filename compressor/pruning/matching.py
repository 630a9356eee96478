"""Graphs that train beside the one that is measured, on its tensors; it must never look at a label.

To learn from a dense network's features too; compiled, to stay in training mode between measurements.
"""

from __future__ import annotations

from compressor.asking import Recipe
from compressor.data import DataSource
from compressor.program import Program, ProgramModule, is_same_graph, landmarks, tapped
from compressor.training import FeatureOutputs, GuidedOutputs, TaughtSource, TrainedAs, TrainingOutputs


def matched(program: Program, data: DataSource) -> tuple[DataSource, TrainedAs] | None:
    """The data with the features of their teacher as targets too, and the module as it learns from them.

    None where labels are learned from, or where the teacher is no network of the same graph: compact already.
    """
    if not (isinstance(data, TaughtSource) and data.learns_answers and isinstance(data.teacher, ProgramModule)):
        return None
    both = _tapped(program, data.teacher)
    if both is None:
        return None
    return data.teaching(both[1]), TrainedAs(both[0], FeatureOutputs())  # type: ignore[return-value]


def guided(program: Program, teacher: Program | None, recipe: Recipe) -> tuple[ProgramModule, TrainedAs] | None:
    """The teacher with its features beside its answers, and the module as it learns from both, labels aside.

    None without distillation, or where the teacher is no network of the same graph.
    """
    both = None if teacher is None or recipe.distill == 0 else _tapped(program, teacher.module)
    return None if both is None else (both[1], TrainedAs(both[0], GuidedOutputs()))


def _tapped(program: Program, teacher: ProgramModule) -> tuple[ProgramModule, ProgramModule] | None:
    """Both networks with what they compute at the landmarks, where they have the same ones."""
    names = landmarks(program)
    if not names or not is_same_graph(program.module, teacher):
        return None
    return tapped(program.module, names), tapped(teacher, names)


def of_its_own(program: Program) -> TrainedAs:
    """The program's graph once more: switching modes changes a graph, and what is compiled would be compiled again."""
    return TrainedAs(tapped(program.module, ()), TrainingOutputs(main=0))
