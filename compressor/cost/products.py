"""What every operator multiplies and sums, as products of axes; it must never hold sizes or what is kept along an axis.

One rule per operator, read at two places: with the sizes of a program it counts MACs, with kept counts it prices a
choice of units. The result of most operators has one sum per element, so a product is the axes of the result and those
that are summed over. Work that is no sum of products (element by element, pooling, interpolation) has no rule.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

from torch.fx import Node

from compressor.program import Program, TensorShape, arguments, families
from compressor.program.families import operator_name
from compressor.program.family import OperatorTable
from compressor.program.letters import einsum_letters
from compressor.program.shapes import Shape, Shapes
from compressor.typed_torch import is_overload


@dataclass(frozen=True)
class Factor:
    """The length of one dimension of a node's value, or (`is_tensor`) of a parameter."""

    name: str
    dim: int
    is_tensor: bool = False


Axes: TypeAlias = "tuple[Factor, ...]"


@dataclass(frozen=True)
class Product:
    """As many multiply-adds as the lengths of `axes` multiplied; `operands` are what all of it comes from."""

    operands: tuple[Node, ...]
    axes: Axes


@dataclass(frozen=True)
class Operator:
    """One node as its rule sees it: arguments by schema name, and the axes of its result and operands."""

    node: Node
    shapes: Shapes
    arguments: Mapping[str, Any]

    def __getitem__(self, name: str) -> Any:
        return self.arguments[name]

    @property
    def out(self) -> Axes:
        """The axes of the result."""
        return self.axes(self.node)

    def axes(self, value: Node | str) -> Axes:
        """The axes of a value; an operand may be given by its schema name."""
        node = self.arguments[value] if isinstance(value, str) else value
        shape = self.shapes[node.name]
        assert isinstance(shape, TensorShape), f"{node.name} is not one tensor"
        return tuple(Factor(node.name, dim) for dim in range(len(shape.sizes)))


MacRule: TypeAlias = Callable[[Operator], "Sequence[Product]"]

RULES: OperatorTable[MacRule] = OperatorTable("a rule of what it multiplies")
multiplies = RULES.register
"""A decorator: what operator families or single overloads multiply; a second rule for one operator is an error."""


def products_of(program: Program, node: Node) -> Sequence[Product]:
    """What one node of a program multiplies: nothing if its operator has no rule."""
    rule = RULES.get(node.target) if node.op == "call_function" else None
    return rule(Operator(node, program.shapes, arguments(node))) if rule is not None else ()


@multiplies(families.CONVOLUTIONS)
def convolution(op: Operator) -> Sequence[Product]:
    """Every weight once per output position."""
    return [_slid(op, op.out)]


@multiplies(families.TRANSPOSED_CONVOLUTIONS)
def transposed_convolution(op: Operator) -> Sequence[Product]:
    """Every weight once per input position."""
    return [_slid(op, op.axes("input"))]


@multiplies(families.ANY_CONVOLUTION)
def any_convolution(op: Operator) -> Sequence[Product]:
    """As a plain or a transposed one, whichever it says it is."""
    return transposed_convolution(op) if op["transposed"] else convolution(op)


def _slid(op: Operator, over: Axes) -> Product:
    weight = op.axes("weight")
    n_space = len(weight) - 2
    batch, space = over[: len(over) - n_space - 1], over[len(over) - n_space :]
    return Product((op["input"], op["weight"]), (*batch, *space, *weight))


@multiplies(families.CONV_TBC)
def time_convolution(op: Operator) -> Sequence[Product]:
    """Each output element sums over kernel positions and channels; the weight is (K, C, O)."""
    return [Product((op["self"], op["weight"]), (*op.out, *op.axes("weight")[:2]))]


@multiplies(families.LINEAR)
def linear(op: Operator) -> Sequence[Product]:
    """Each output element sums over the input features."""
    return [Product((op["input"], op["weight"]), (*op.out, op.axes("weight")[-1]))]


@multiplies(families.PRODUCTS | families.OTHER_MATMUL)
def matmul(op: Operator) -> Sequence[Product]:
    """Each output element sums over the last dimension of the first operand; a scalar multiplies without a sum."""
    second = next(name for name in ("other", "mat2", "vec", "tensor") if name in op.arguments)
    return _summed_last(op, "self", second)


@multiplies(families.ADDED_PRODUCTS | families.ADDMV)
def added_matmul(op: Operator) -> Sequence[Product]:
    """As the product alone."""
    pairs = (("mat1", "mat2"), ("batch1", "batch2"), ("mat", "vec"))
    return _summed_last(op, *next(pair for pair in pairs if pair[0] in op.arguments))


@multiplies(families.AFFINE_GRID)
def affine_grid(op: Operator) -> Sequence[Product]:
    """Each coordinate sums over a row of its sample's matrix."""
    return [Product((op["theta"],), (*op.out, op.axes("theta")[-1]))]


def _summed_last(op: Operator, first: str, second: str) -> Sequence[Product]:
    summed = op.axes(first)[-1:]
    return [Product((op[first], op[second]), (*op.out, *summed))] if summed else []


@multiplies(families.ADDBMM)
def summed_matmul(op: Operator) -> Sequence[Product]:
    """Each output element sums over the batch and the last dimension."""
    batch1 = op.axes("batch1")
    return [Product((op["batch1"], op["batch2"]), (*op.out, batch1[0], batch1[2]))]


@multiplies(families.TENSORDOT)
def tensordot(op: Operator) -> Sequence[Product]:
    """Each output element sums over the dimensions that are named; without any there is no sum."""
    x = op.axes("self")
    dims: Sequence[int] = op["dims_self"]
    summed = [x[dim] for dim in dims]
    return [Product((op["self"], op["other"]), (*op.out, *summed))] if summed else []


@multiplies(families.BILINEAR)
def bilinear(op: Operator) -> Sequence[Product]:
    """Σ_ij x_i w_oij y_j: first over j for each (o, i), then over i."""
    weight = op.axes("weight")
    return [
        Product((op["input2"], op["weight"]), (*op.out, *weight[1:])),
        Product((op["input1"], op["input2"], op["weight"]), (*op.out, weight[1])),
    ]


@multiplies(families.ATTENTION)
def attention(op: Operator) -> Sequence[Product]:
    """Queries times keys, then weights times values; all of it, whatever a mask hides, and shared keys once a query."""
    out, width, key = op.out, op.axes("query")[-1], op.axes("key")[-2]
    return [
        Product((op["query"], op["key"]), (*out[:-1], key, width)),
        Product((op["query"], op["key"], op["value"]), (*out, key)),
    ]


@multiplies(families.RECURRENT)
def recurrent(op: Operator) -> Sequence[Product]:
    """Every matrix of every layer and direction (all gates in one) once per step; biases are vectors."""
    x = op["data"] if "data" in op.arguments else op["input"]
    steps = op.axes(x)[:-1]
    matrices = [p for p in op["params"] if len(op.axes(p)) == 2]
    return [Product((x, matrix), (*steps, *op.axes(matrix))) for matrix in matrices]


@multiplies(families.RECURRENT_CELL)
def recurrent_cell(op: Operator) -> Sequence[Product]:
    """Both matrices once per sample."""
    samples = op.axes("input")[:-1]
    return [Product((op["input"], op[name]), (*samples, *op.axes(name))) for name in ("w_ih", "w_hh")]


@multiplies(families.EINSUM)
def einsum(op: Operator) -> Sequence[Product]:
    """Two operands at a time, in the order of `path`: one MAC per combination of the letters of both, if any is summed.

    Source:  at::einsum and its sumproduct_pair: a letter that one operand alone has and nobody needs any more is summed
             before; where no letter is shared and summed, operands are multiplied element by element.
    """
    operands = list(op["tensors"])
    ranks = [len(op.axes(operand)) for operand in operands]
    specs, out = einsum_letters(op["equation"], ranks)
    axis: dict[str, Factor] = {}
    for spec, operand in zip(specs, operands, strict=True):
        for letter, factor in zip(spec, op.axes(operand), strict=True):
            if letter not in axis or _length(op, axis[letter]) == 1:  # a dimension of 1 is stretched
                axis[letter] = factor
    waiting: list[tuple[set[str], tuple[Node, ...]]]
    waiting = [(set(spec), (operand,)) for spec, operand in zip(specs, operands, strict=True)]
    found: list[Product] = []
    path = list(op["path"] or ())
    while len(waiting) > 1:
        second, first = sorted(path[:2] or (0, 1), reverse=True)
        path = path[2:]
        (right, y), (left, x) = waiting.pop(second), waiting.pop(first)
        needed = set(out).union(*(letters for letters, _ in waiting))
        if (left & right) - needed:
            used = (left & right) | ((left | right) & needed)
            found.append(Product((*x, *y), tuple(axis[letter] for letter in sorted(used))))
        # A path puts its result at the end, the plain order takes it on to the next operand.
        waiting.insert(len(waiting) if op["path"] else 0, ((left | right) & needed, (*x, *y)))
    return found


def _length(op: Operator, factor: Factor) -> int:
    shape = op.shapes[factor.name]
    assert isinstance(shape, TensorShape)
    return shape.sizes[factor.dim]


_WORDS = frozenset(
    {
        "attention", "bilinear", "cdist", "cholesky", "conv", "convolution", "conv1d", "conv2d", "conv3d", "corrcoef",
        "cov", "det", "dot", "einsum", "fft", "gru", "inner", "inverse", "istft", "linalg", "linear", "logdet", "lstm",
        "lstsq", "lu", "matmul", "matrix", "mv", "pdist", "pinverse", "qr", "rnn", "slogdet", "solve", "stft", "svd",
        "transformer", "trilinear",
    }
)  # fmt: skip
"""Words in the names of ATen operators that multiply and sum; those that end with `mm` do too."""

_OTHER_WORDS = frozenset({"cross", "diagonal", "fftfreq", "fftshift", "H", "ifftshift", "norm", "rfftfreq", "unpack"})
"""Words of operators that do not, whatever else is in their names: norms, cross products, parts of matrices."""


def uncounted_operators(program: Program) -> tuple[str, ...]:
    """Operators that may well multiply and sum, but nobody has said how much: they count as nothing, and are reported.

    Those of torch's by their names, and every one from elsewhere that makes numbers out of numbers.
    """
    found: dict[str, int] = {}
    for node in program.module.graph.nodes:
        if node.op == "call_function" and node.target not in RULES and _may_multiply(program, node):
            found[str(node.target)] = found.get(str(node.target), 0) + 1
    return tuple(f"{name} ({n}x)" if n > 1 else name for name, n in found.items())


def _may_multiply(program: Program, node: Node) -> bool:
    if not is_overload(node.target):
        return False
    if node.target.namespace != "aten":
        sources = (program.shapes.get(source.name) for source in node.all_input_nodes)
        return _is_floating(program.shapes.get(node.name)) and any(_is_floating(shape) for shape in sources)
    return sounds_like_a_product(operator_name(node.target))


def sounds_like_a_product(name: str) -> bool:
    """Whether an ATen operator multiplies and sums, by its name: `linalg_solve` does, `linalg_norm` does not."""
    words = set(name.split("_"))
    return not words & _OTHER_WORDS and bool(words & _WORDS or any(word.endswith("mm") for word in words))


def _is_floating(shape: Shape) -> bool:
    if isinstance(shape, tuple):
        return any(_is_floating(part) for part in shape)
    return isinstance(shape, TensorShape) and (shape.dtype.is_floating_point or shape.dtype.is_complex)
