"""Writes ATen calls into the graph of an imported network, folding what follows from constants alone.

It must never hold what an ONNX operator means. Every call is run without data at each trial batch size, so that the
sizes of all values, and which of them depend on the batch, are known as the graph grows.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._pytree import tree_leaves, tree_map

from compressor.errors import ModelError, first_line
from compressor.formats.onnx_import.budget import Budget, check_value
from compressor.formats.onnx_import.naming import Names, is_made_up, layer_of
from compressor.formats.onnx_import.node import Op
from compressor.formats.onnx_import.per_sample import derived
from compressor.formats.onnx_import.values import Const, Number, Size, Sizes, Traced, Value, combined, entries_of
from compressor.program import families
from compressor.program.arguments import has_argument

aten = torch.ops.aten
_torch: Any = torch  # its stubs say nothing about sym_ite

_META = torch.device("meta")
_LARGEST_COPY = 2**20
"""Elements up to which every reader of a buffer gets one of its own, as in the modules it was exported from."""

_MASKING = -50.0
_COUNTED_STEP = 1 / 8
_LEARNED = ("weight", "bias")


class Emitter:
    """The graph as far as it is imported, and the tensors it reads."""

    def __init__(self, trials: tuple[int, ...], fixed_batch: int | None = None, budget: Budget | None = None) -> None:
        self.graph = fx.Graph()
        self.tensors: dict[str, Tensor] = {}
        self.trials = trials
        self.budget = budget or Budget()
        self.fixed_batch = fixed_batch
        """The batch that the file fixes, while it is imported with an open one."""
        self.batch_inside: set[int] = set()
        """Sizes n of rows that are (n x batch), in that order: what attention over (tokens, batch, features) makes."""
        self.consumers: Mapping[str, Sequence[Any]] = {}
        self.known: Callable[[str], Value | None] = lambda name: None
        self.absorbed: dict[str, Value] = {}
        """Outputs of nodes that an earlier one took over (a bias that is added to a matrix product)."""
        self.op: Op | None = None
        self.divisions: list[tuple[Value, Value]] = []
        """Dividends and divisors, whole numbers both, where a processor may stop the process."""
        self._names = Names()
        self._attached: dict[tuple[int, str | None], Traced] = {}
        self._transposed: dict[int, Const] = {}
        self._kept: list[Const] = []

    def call(self, target: Any, *args: Any, **kwargs: Any) -> Any:
        """The result of an ATen operator; arguments may be values, numbers that depend on the batch, or plain.

        Raises:  ModelError if the arguments do not fit.
        """
        args, kwargs = tree_map(self._as_argument, (args, kwargs))
        leaves = tree_leaves((args, kwargs))
        if not any(isinstance(leaf, (Traced, Size)) for leaf in leaves):
            return self._folded(target, args, kwargs)

        def attached(value: Any) -> Any:
            return self.attached(value) if isinstance(value, Const) else value

        args, kwargs = tree_map(attached, (args, kwargs))
        trials = [self._tried(target, args, kwargs, 0)]
        check_value(max((part.numel() for part in tree_leaves(trials) if isinstance(part, Tensor)), default=0))
        for trial in range(1, len(self.trials)):
            more = derived(target, (args, kwargs), trials[0], self.trials, trial)
            trials.append(self._tried(target, args, kwargs, trial) if more is None else more)
        nodes = tree_map(_node_of, (args, kwargs))
        node = self._placed(self.graph.call_function(target, *nodes), trials[0])
        if isinstance(trials[0], Tensor):
            return Traced(node, tuple(trials))
        return tuple(
            Traced(self._placed(self.graph.call_function(operator.getitem, (node, i)), trials[0][i]), parts)
            for i, parts in enumerate(zip(*trials, strict=True))
        )

    def transposed(self, value: Const) -> Const:
        """A matrix with its dimensions exchanged, always the same object, and the first again when done twice.

        That is what keeps an embedding and a classifier tied that share one matrix.
        """
        found = self._transposed.get(id(value))
        if found is None:
            found = Const(value.tensor.t(), value.name, value.trained)
            self._transposed[id(value)], self._transposed[id(found)] = found, value
            self._kept += [value, found]
        return found

    def _as_argument(self, value: Any) -> Any:
        return self.tensor_of(value) if isinstance(value, Sizes) else value

    def _tried(self, target: Any, args: Any, kwargs: Any, trial: int) -> Any:
        def given(value: Any) -> Any:
            if isinstance(value, Traced):
                return value.metas[trial]
            return value.values[trial] if isinstance(value, Size) else value

        args, kwargs = tree_map(given, (args, kwargs))
        return _without_data(target, args, kwargs)

    def _folded(self, target: Any, args: Any, kwargs: Any) -> Any:
        constants = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Const)]
        meta = tree_map(_shape_of, (args, kwargs))
        foreseen = [part for part in tree_leaves(_without_data(target, *meta)) if isinstance(part, Tensor)]
        self.budget.take_elements(sum(part.numel() for part in foreseen))
        self.budget.take_products(_n_products(target, meta, foreseen))
        real = tree_map(_tensor_of, (args, kwargs))
        with torch.no_grad():
            result = target(*real[0], **real[1])
        trained = any(constant.trained for constant in constants)
        name = self._name_of_folded([constant for constant in constants if constant.trained])
        if isinstance(result, Tensor):
            return Const(result, name, trained and result.is_floating_point())
        return tuple(Const(part, name, trained and part.is_floating_point()) for part in result)

    def _name_of_folded(self, trained: Sequence[Const]) -> str:
        """A weight that was only moved or scaled keeps its name; what was computed from several has the value's."""
        if len(trained) == 1:
            return trained[0].name
        return self.op.outputs[0] if self.op is not None and self.op.outputs else ""

    def _placed(self, node: fx.Node, value: Any) -> fx.Node:
        """The node with where it comes from, and what it measures at the first trial."""
        node.meta["val"] = value
        if self.op is not None:
            node.meta["where"] = f"{self.op.kind} {self.op.name}"
        return node

    def sizes(self, value: Traced | Const) -> list[Number]:
        """Every size of a value: plain, or a number that depends on the batch."""
        return [self.size(value, dim) for dim in range(value.rank)]

    def size(self, value: Traced | Const, dim: int) -> Number:
        sizes = value.at(dim)
        if len(set(sizes)) == 1 or isinstance(value, Const):
            return sizes[0]
        return Size(self._placed(self.graph.call_function(aten.sym_size.int, (value.node, dim)), sizes[0]), sizes)

    def numbers(self, value: Value) -> list[Number]:
        """A one-dimensional argument: plain numbers, or ones that depend on the batch."""
        return [entry if isinstance(entry, Size) else int(entry) for entry in entries_of(value).reshape(-1)]

    def tensor_of(self, value: Value) -> Traced | Const:
        """The value as a tensor: sizes that depend on the batch are put into one."""
        if not isinstance(value, Sizes):
            return value
        parts = [
            self.call(aten.scalar_tensor.default, _integer(entry), dtype=value.dtype) for entry in value.entries.flat
        ]
        if value.rank == 0:
            return parts[0]
        return self.call(aten.reshape.default, self.call(aten.stack.default, parts), list(value.entries.shape))

    def traced(self, value: Value) -> Traced:
        """The value as part of the graph. Raises: ModelError never; a constant becomes a tensor of the program."""
        tensor = self.tensor_of(value)
        return self.attached(tensor) if isinstance(tensor, Const) else tensor

    def scalar(self, value: Value | None, default: Any = None) -> Any:
        """The single number in a constant. Raises: ModelError if it is computed or has several elements."""
        if value is None:
            return default
        if not isinstance(value, Const) or value.tensor.numel() != 1:
            raise ModelError("an argument that must be one fixed number is computed")
        return value.tensor.reshape(()).item()

    def attached(self, value: Const, role: str | None = None, layer: str | None = None) -> Traced:
        """A constant as a tensor of the program: a parameter when it was trained or plays a learned role.

        A tensor that several nodes read is one tensor only where its elements differ: exporters store equal tensors
        once, and what is equal by accident is uniform (zero biases, ones), while trained weights that are equal are
        tied. Small buffers are copied for every reader, as in the modules they come from.
        """
        is_parameter = value.tensor.is_floating_point() and _is_parameter(value, role)
        shared = not value.is_uniform if is_parameter else value.tensor.numel() > _LARGEST_COPY
        if role in ("running_mean", "running_var"):
            shared = not value.is_uniform
        known = self._attached.get((id(value), _kind(is_parameter)))
        if known is not None and shared:
            return known
        kind, node_name = (self.op.kind, self.op.name) if self.op is not None else ("", "")
        name = self._names.choose(value.name, role, layer or layer_of(node_name, kind, None))
        self.budget.take_elements(value.tensor.numel())
        own = value.tensor.detach().clone(memory_format=torch.contiguous_format)
        self.tensors[name] = nn.Parameter(own) if is_parameter else own
        meta = torch.empty_like(own, device=_META)
        node = self._placed(self.graph.create_node("get_attr", name), meta)
        made = Traced(node, (meta,) * len(self.trials))
        self._attached[id(value), _kind(is_parameter)] = made
        self._kept.append(value)  # an id is only good while its object lives
        return made


def _n_products(target: Any, meta: Any, results: Sequence[Tensor]) -> int:
    """Multiplications that an operator on constants takes, at most: of each result with as many as an operand has."""
    given = [part for part in tree_leaves(meta) if isinstance(part, Tensor) and part.numel()]
    if target not in families.SUMS or len(given) < 2:
        return 0
    summed = (part.numel() // min(part.shape) if part.dim() else 1 for part in given)
    return sum(part.numel() for part in results) * max(summed)


def _integer(entry: Any) -> Any:
    """A truth value as 0 or 1: an operator's number is no condition."""
    is_truth = isinstance(entry, Size) and isinstance(entry.values[0], bool)
    return combined(_torch.sym_ite, entry, 1, 0) if is_truth else entry


def _is_parameter(value: Const, role: str | None) -> bool:
    """Whether a float tensor is one that training gave: where it stands, or what it holds, says so."""
    if role is None:
        return _is_learned(value)
    if not role.startswith(_LEARNED):
        return False
    # What is added may be a mask, of answers that never count; a matrix with -inf in it gives NaN.
    return role == "weight" or not bool(value.tensor.isneginf().any())


def _kind(is_parameter: bool) -> str:
    return "parameter" if is_parameter else "buffer"


def _is_learned(value: Const) -> bool:
    """Whether a float tensor outside any layer was trained: no attention mask, no positions or strides that are
    counted, and no lone number without a name."""
    flat = value.tensor.reshape(-1)
    has_name = "." in value.name and not is_made_up(value.name)
    if not value.trained or flat.numel() < (1 if has_name else 2) or not value.tensor.is_floating_point():
        return False
    low = flat.min()
    is_mask = bool(low <= _MASKING) and bool(((flat == 0) | (flat == low)).all())
    return bool(flat.isfinite().all()) and not is_mask and (value.is_uniform or not _is_counted(flat))


def _is_counted(flat: Tensor) -> bool:
    """Whether all values are multiples of a coarse step, as centres of grid cells are; training leaves none such."""
    steps = flat / _COUNTED_STEP
    return bool((steps == steps.round()).all())


def _without_data(target: Any, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
    """The operator on tensors without data; a constant that it makes has none either."""
    args = tuple(_META if isinstance(arg, torch.device) else arg for arg in args)
    on_meta = {**kwargs, "device": _META} if has_argument(target, "device", beyond=len(args)) else kwargs
    try:
        with torch.no_grad():
            return target(*args, **on_meta)
    except NotImplementedError:
        return _on_fakes(target, args, kwargs)
    except Exception as error:  # torch raises anything from IndexError to its own C++ errors here
        raise ModelError(f"does not fit its inputs: {first_line(error)}") from error


def _on_fakes(target: Any, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
    """The same for an operator without a meta form."""
    with FakeTensorMode(), torch.no_grad():

        def faked(value: Any) -> Any:
            return torch.empty(value.shape, dtype=value.dtype, device="cpu") if isinstance(value, Tensor) else value

        def emptied(value: Any) -> Any:
            return torch.empty(value.shape, dtype=value.dtype, device=_META) if isinstance(value, Tensor) else value

        try:
            args, kwargs = tree_map(faked, (tuple(args), dict(kwargs)))
            result = target(*args, **kwargs)
        except Exception as error:
            raise ModelError(f"{target} cannot be run without data: {type(error).__name__}") from error
    return tree_map(emptied, result)


def _node_of(value: Any) -> Any:
    return value.node if isinstance(value, (Traced, Size)) else value


def _tensor_of(value: Any) -> Any:
    return value.tensor if isinstance(value, Const) else value


def _shape_of(value: Any) -> Any:
    return value.tensor.to(_META) if isinstance(value, Const) else value
