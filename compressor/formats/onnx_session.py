"""An ONNX file in onnxruntime on the CPU, as another computation of a program; it must never judge what comes out.

Beside the outputs it tells what the file decides on the way (places of a TopK, comparisons, random numbers): a copy of
the file in memory has those values as further outputs.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property, partial
from pathlib import Path
from typing import Any, Protocol, TypeAlias

import numpy as np
import onnx
import onnxruntime as ort  # pyright: ignore[reportMissingTypeStubs]
import torch
from torch import Tensor

from compressor.errors import VerificationError, innermost_line
from compressor.program.agreement import leaves
from compressor.program.element_types import ELEMENT_TYPES
from compressor.program.replay import Decided, operand_of
from compressor.program.runs import Other

_ort: Any = ort
_onnx: Any = onnx
"""Both say little about the types of what they take."""

_MADE_BY: Mapping[str, frozenset[str]] = {
    "order": frozenset({"TopK"}),
    "extreme": frozenset({"ArgMax", "ArgMin"}),
    "comparison": frozenset({"Greater", "Less", "GreaterOrEqual", "LessOrEqual", "Equal", "Not"}),
    "rounding": frozenset({"Floor", "Ceil", "Round", "Sign", "Cast"}),
    "random": frozenset({"RandomNormal", "RandomUniform", "RandomNormalLike", "RandomUniformLike", "Bernoulli"}),
    "saturation": frozenset({"Sigmoid", "HardSigmoid", "Softmax"}),
}
"""Operators whose result may be a decision of that kind."""

_LEAST_ALIKE = 0.9
"""Share of elements in which two decisions are equal that may be the same operator's: near-ties are few."""

_MIXING = frozenset({"Conv", "ConvTranspose", "Gemm", "MatMul", "Einsum", "LSTM", "GRU", "RNN", "Attention"})
"""Operators that mix all values: a Sigmoid before them is not one that an output is made of."""

_CLOSE = 1e-3
"""Distance of two probabilities that may be the same operator's."""

_LARGEST_IN_MEMORY = 2**31 - 2**24
"""Bytes of a model beyond which protobuf cannot hold it in one piece."""

_HALF, _SINGLE, _DOUBLE = "tensor(float16)", "tensor(float)", "tensor(double)"
_FLOATING = {_HALF: np.float16, _SINGLE: np.float32, _DOUBLE: np.float64}

_NUMPY = {kind.runtime: np.dtype(kind.name) for kind in ELEMENT_TYPES if kind.in_numpy}

Made: TypeAlias = tuple[str, tuple[Tensor, ...]]
"""An operator and the value that may be a decision; the operand behind it where it saturates."""


class Port(Protocol):
    """What a session says of an input or an output."""

    name: str
    type: str
    shape: Sequence[Any]


class Session(Protocol):
    """What is used of onnxruntime's sessions, which come without types."""

    def get_inputs(self) -> Sequence[Port]: ...

    def get_outputs(self) -> Sequence[Port]: ...

    def run(self, output_names: Sequence[str] | None, input_feed: Mapping[str, np.ndarray], /) -> Sequence[Any]: ...


class OnnxFile:
    """A file that onnxruntime opened, which takes a program's inputs in order; `bound` are numbers for others of it."""

    def __init__(self, path: Path, bound: Mapping[str, float] | None = None) -> None:
        """Raises:  VerificationError if onnxruntime cannot open it."""
        self.path, self._bound = path, dict(bound or {})
        self._session = open_session(str(path))

    def other(self, inputs: Sequence[Tensor], precision: torch.dtype | None = None) -> Other:
        """What the file makes of these inputs, to be compared with a program; `precision` where it computes in less.

        Raises:  VerificationError if the file takes other inputs or cannot run.
        """
        again, deciding = partial(self._run_plainly, inputs), partial(self._deciding, inputs)
        return Other(inputs, _run(self._session, inputs, self._bound), again, deciding, precision)

    def _run_plainly(self, inputs: Sequence[Tensor]) -> list[Tensor]:
        """The outputs, computed node by node as the file says, without onnxruntime's own optimiser."""
        return _run(self._plain_session, inputs, self._bound)

    def _deciding(self, inputs: Sequence[Tensor], own: Mapping[str, Decided]) -> tuple[list[Tensor], dict[str, Tensor]]:
        """Outputs and what was decided on the way, by the names of the program's nodes that decide the same."""
        outputs, made = self._with_candidates(inputs)
        return outputs, _aligned(own, made)

    @cached_property
    def _plain_session(self) -> Session:
        return open_session(str(self.path), optimised=False)

    @cached_property
    def _candidates(self) -> tuple[Session, list[tuple[str, tuple[int, ...]]]]:
        """The file with every value that may be a decision as an output: its operator, and places of what it made."""
        model: onnx.ModelProto = _onnx.load(str(self.path))
        if model.ByteSize() > _LARGEST_IN_MEMORY:
            return self._session, []
        known = [value.name for value in model.graph.output]
        places: list[tuple[str, tuple[int, ...]]] = []
        for operator, names in _candidates_in(model):
            for name in names:
                if name not in known:
                    known.append(name)
                    model.graph.output.append(onnx.ValueInfoProto(name=name))
            places.append((operator, tuple(known.index(name) for name in names)))
        return open_session(model.SerializeToString()), places

    def _with_candidates(self, inputs: Sequence[Tensor]) -> tuple[list[Tensor], list[Made]]:
        session, places = self._candidates
        found = _run(session, inputs, self._bound)
        made = [(operator, tuple(found[place] for place in of_one)) for operator, of_one in places]
        return found[: len(self._session.get_outputs())], made


def open_session(model: str | bytes, *, optimised: bool = True, folder: Path | None = None) -> Session:
    """A session for a file, or for the bytes of one, whose weights may lie in `folder`; it waits without spinning.

    Raises:  VerificationError if onnxruntime cannot open it; its own error is the cause.
    """
    options = _ort.SessionOptions()
    options.log_severity_level = 4
    options.intra_op_num_threads = torch.get_num_threads()
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    if folder is not None and isinstance(model, bytes):
        options.add_session_config_entry("session.model_external_initializers_file_folder_path", str(folder))
    if not optimised:
        options.graph_optimization_level = _ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    try:
        return _ort.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime's exceptions share no base class of their own
        raise VerificationError(f"onnxruntime cannot open the ONNX form: {innermost_line(error)}") from error


def _run(session: Session, inputs: Sequence[Tensor], bound: Mapping[str, float]) -> list[Tensor]:
    given = [spec for spec in session.get_inputs() if spec.name not in bound]
    if len(given) != len(inputs):
        raise VerificationError(f"the file reads {len(given)} inputs, the model {len(inputs)}")
    feeds: dict[str, np.ndarray] = {spec.name: _as_type(x, spec.type) for spec, x in zip(given, inputs, strict=True)}
    for spec in session.get_inputs():
        if spec.name in bound:
            feeds[spec.name] = np.full(spec.shape, bound[spec.name], _NUMPY[spec.type])
    try:
        return leaves(session.run(None, feeds))
    except Exception as error:
        raise VerificationError(
            f"onnxruntime cannot run the ONNX form at batch {len(inputs[0])}: {innermost_line(error)}"
        ) from error


def _as_type(tensor: Tensor, wanted: str) -> np.ndarray:
    """Floating inputs in the precision that the file wants; anything else as it is."""
    array = tensor.detach().cpu().contiguous().numpy()
    return array.astype(_FLOATING[wanted]) if array.dtype.kind == "f" and wanted in _FLOATING else array


def _candidates_in(model: onnx.ModelProto) -> list[tuple[str, tuple[str, ...]]]:
    """Operator and value names of everything that may be a decision, in the order of the file."""
    read = {name for node in model.graph.node for name in node.input} | {value.name for value in model.graph.output}
    saturated = _saturated_in(model)
    found: list[tuple[str, tuple[str, ...]]] = []
    for node in model.graph.node:
        if node.op_type in _MADE_BY["saturation"]:
            if node.output[0] in saturated:
                found.append((node.op_type, (node.output[0], node.input[0])))
            continue
        if not any(node.op_type in operators for operators in _MADE_BY.values()):
            continue
        name = node.output[1] if node.op_type == "TopK" and len(node.output) > 1 else node.output[0]
        if name in read and not (node.op_type == "Cast" and _casts_to_floating(node)):
            found.append((node.op_type, (name,)))
    return found


def _saturated_in(model: onnx.ModelProto) -> set[str]:
    """Results of sigmoids and softmaxes that outputs are made of with nothing that mixes values in between."""
    made_by = {name: node for node in model.graph.node for name in node.output}
    left, seen, found = [value.name for value in model.graph.output], set[str](), set[str]()
    while left:
        name = left.pop()
        node = made_by.get(name)
        if name in seen or node is None:
            continue
        seen.add(name)
        if node.op_type in _MADE_BY["saturation"]:
            found.add(name)
        elif node.op_type not in _MIXING:
            left += node.input
    return found


def _casts_to_floating(node: onnx.NodeProto) -> bool:
    to = next((entry.i for entry in node.attribute if entry.name == "to"), 0)
    return to in (onnx.TensorProto.FLOAT, onnx.TensorProto.FLOAT16, onnx.TensorProto.DOUBLE, onnx.TensorProto.BFLOAT16)


def _aligned(own: Mapping[str, Decided], made: Sequence[Made]) -> dict[str, Tensor]:
    """For each decision of the program the file's, where one can be told.

    Both are in the order in which they are computed. Of one kind and shape they are paired off one by one if there are
    as many; if not (one side folds constants, or writes a comparison as the opposite of another), each gets the next
    that decides nearly the same. A wrong pair does no harm: what it decides would not fit what it is chosen from.
    """
    found: dict[str, Tensor] = {}
    for kind, operators in _MADE_BY.items():
        mine = [(name, part.value) for name, part in own.items() if part.kind == kind]
        theirs = [values for operator, values in made if operator in operators]
        for size in {tuple(value.shape) for _, value in mine}:
            wanted = [(name, value) for name, value in mine if tuple(value.shape) == size]
            offered = [values for values in theirs if _like(values[0], wanted[0][1])]
            if kind == "order" and not offered:  # the first places of what the program sorts whole
                offered = [values for values in theirs if values[0].dim() == len(size)]
            for (name, value), values in _paired(wanted, offered):
                shaped = [x.reshape(value.shape) if x.numel() == value.numel() else x for x in values]
                found |= dict(zip((name, operand_of(name)), shaped, strict=False))
    return found


_Pair: TypeAlias = tuple[tuple[str, Tensor], tuple[Tensor, ...]]


def _paired(wanted: Sequence[tuple[str, Tensor]], offered: Sequence[tuple[Tensor, ...]]) -> list[_Pair]:
    if len(wanted) == len(offered):
        return list(zip(wanted, offered, strict=True))
    found: list[_Pair] = []
    start = 0
    for name, mine in wanted:
        for place in range(start, len(offered)):
            if _nearly_the_same(offered[place][0], mine):
                found.append(((name, mine), offered[place]))
                start = place + 1
                break
    return found


def _nearly_the_same(value: Tensor, own: Tensor) -> bool:
    if value.numel() != own.numel():
        return False
    value = value.reshape(own.shape)
    same = (value == own) if not own.is_floating_point() else (value - own).abs() <= _CLOSE
    return float(same.double().mean()) >= _LEAST_ALIKE


def _like(value: Tensor, own: Tensor) -> bool:
    """Whether it can be the same decision: as many elements, and truth values or numbers alike."""
    return value.numel() == own.numel() and (value.dtype == torch.bool) == (own.dtype == torch.bool)
