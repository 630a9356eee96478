"""What the values of a call must be to each other: what kernels take is let pass, what crashes them is refused."""

from __future__ import annotations

import itertools
import logging
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, fx
from torch._subclasses.fake_tensor import FakeTensorMode

from compressor.errors import ModelError
from compressor.formats import contracts
from compressor.formats.allowed import refusal
from compressor.formats.contracts import check_contracts
from compressor.program.shapes import TensorShape

aten = torch.ops.aten


def checked(target: Any, *args: Any, **kwargs: Any) -> None:
    """Checks one call; tensors among the arguments are nodes of those shapes."""
    graph, shapes = fx.Graph(), {}

    def node_of(value: Any) -> Any:
        if not isinstance(value, Tensor):
            return value
        node = graph.placeholder(f"t{len(shapes)}")
        shapes[node.name] = TensorShape(tuple(value.shape), value.dtype)
        return node

    given = [node_of(value) for value in args]
    graph.output(graph.call_function(target, tuple(given), {key: node_of(value) for key, value in kwargs.items()}))
    check_contracts(graph, shapes, {})


def of(*sizes: int, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.empty(sizes, dtype=dtype)


LONG, INT, SHORT = (of(4, dtype=dtype) for dtype in (torch.int64, torch.int32, torch.int16))
IMAGE, FOUR, THREE = of(2, 3, 6, 6), of(4), of(3)

FITS = {
    "a norm for each row": (aten._weight_norm.default, of(8, 4), of(8, 1), 0),
    "one for each column": (aten._weight_norm.default, of(8, 4), of(1, 4), 1),
    "one for all": (aten._weight_norm.default, of(8, 4), of(), -1),
    "three dimensions": (aten._weight_norm_interface.default, of(8, 4, 3), of(8, 1, 1), 0),
    "whole numbers by a number": (aten.div.Tensor_mode, LONG, 2, "trunc"),
    "by a tensor, rounded down": (aten.div.Tensor_mode, LONG, LONG, "floor"),
    "by a tensor, not rounded": (aten.div.Tensor_mode, LONG, LONG, None),
    "numbers of 16 bits by minus one": (aten.div.Scalar_mode, SHORT, -1, "trunc"),
    "numbers of 16 bits": (aten.div.Tensor_mode, SHORT, SHORT, "trunc"),
    "floating ones": (aten.div.Tensor_mode, FOUR, LONG, "trunc"),
    "by a half": (aten.div.Scalar_mode, LONG, -1.0, "trunc"),
    "a plain quotient": (aten.div.Tensor, LONG, LONG),
    "a batch norm": (aten.batch_norm.default, IMAGE, THREE, THREE, THREE, THREE, False, 0.1, 1e-5, False),
    "one without weights": (aten.batch_norm.default, IMAGE, None, None, THREE, THREE, False, 0.1, 1e-5, False),
    "a group norm": (aten.group_norm.default, of(2, 6, 5), 3, of(6), None),
    "another": (aten.native_group_norm.default, IMAGE, THREE, None, 2, 3, 36, 3, 1e-5),
    "the first dimension, from behind": (aten.select.int, of(4, 3), -2, 3),
    "that of a number": (aten.softmax.int, of(), 0),
    "channels shuffled": (aten.channel_shuffle.default, IMAGE, 3),
    "some differences": (aten.diff.default, FOUR, 64),
}
DOES_NOT = {
    "a norm too few": (aten._weight_norm.default, of(8, 4), of(7, 1), 0),
    "norms of the other dimension": (aten._weight_norm.default, of(8, 4), of(1, 4), 0),
    "many for all": (aten._weight_norm.default, of(8, 4), of(2), -1),
    "a flat row of norms": (aten._weight_norm.default, of(8, 4), of(8), 0),
    "no such dimension": (aten._weight_norm.default, of(8, 4), of(8, 1), 2),
    "another type": (aten._weight_norm.default, of(8, 4), of(8, 1, dtype=torch.float64), 0),
    "whole norms": (aten._weight_norm.default, of(8, 4, dtype=torch.int64), of(8, 1, dtype=torch.int64), 0),
    "by minus one": (aten.div.Scalar_mode, LONG, -1, "trunc"),
    "by a tensor": (aten.div.Tensor_mode, LONG, LONG, "trunc"),
    "by one of 32 bits": (aten.div.Tensor_mode, INT, LONG, "trunc"),
    "by one of 16 bits": (aten.div.Tensor_mode, LONG, SHORT, "trunc"),
    "of 16 bits, by one of 64": (aten.div.Tensor_mode, SHORT, LONG, "trunc"),
    "in place": (aten.div_.Tensor_mode, INT, INT, "trunc"),
    "under its other name": (aten.divide.Tensor_mode, LONG, LONG, "trunc"),
    "a weight too few": (aten.batch_norm.default, IMAGE, of(2), THREE, THREE, THREE, False, 0.1, 1e-5, False),
    "a bias too few": (aten.batch_norm.default, IMAGE, THREE, of(2), THREE, THREE, False, 0.1, 1e-5, False),
    "a mean too few": (aten.batch_norm.default, IMAGE, THREE, THREE, of(1), THREE, False, 0.1, 1e-5, False),
    "a variance too few": (aten.batch_norm.default, IMAGE, None, None, THREE, of(1), False, 0.1, 1e-5, False),
    "no channels": (aten.batch_norm.default, of(3), None, None, THREE, THREE, False, 0.1, 1e-5, False),
    "of an instance norm": (aten.instance_norm.default, IMAGE, FOUR, THREE, None, None, True, 0.1, 1e-5, False),
    "groups that do not fit": (aten.group_norm.default, of(2, 6, 5), 4, of(6), None),
    "no groups": (aten.group_norm.default, of(2, 6, 5), 0, of(6), None),
    "a group norm's weight": (aten.group_norm.default, of(2, 6, 5), 3, of(5), None),
    "a group norm's bias": (aten.group_norm.default, of(2, 6, 5), 3, None, of(7)),
    "other channels": (aten.native_group_norm.default, IMAGE, None, None, 2, 6, 36, 3, 1e-5),
    "another batch": (aten.native_group_norm.default, IMAGE, None, None, 4, 3, 36, 3, 1e-5),
    "another area": (aten.native_group_norm.default, IMAGE, None, None, 2, 3, 35, 3, 1e-5),
    "differences without end": (aten.diff.default, FOUR, 65),
    "a dimension before the first": (aten.select.int, FOUR, -2, 3),
    "one behind the last": (aten.softmax.int, of(4, 4), 2),
    "one of a number": (aten.sort.default, of(), 1),
    "the second of two": (aten.diagonal_scatter.default, of(4, 4), FOUR, 0, 0, 2),
    "channels shuffled in groups that do not fit": (aten.channel_shuffle.default, IMAGE, 2),
    "in no groups": (aten.native_channel_shuffle.default, IMAGE, 0),
    "powers without end": (aten.linalg_matrix_power.default, of(4, 4), -65),
}  # fmt: skip


@pytest.mark.parametrize("what", FITS)
def test_what_fits_passes(what: str) -> None:
    assert checked(*FITS[what]) is None


@pytest.mark.parametrize("what", DOES_NOT)
def test_what_does_not_fit_is_refused_by_name(what: str) -> None:
    target, *args = DOES_NOT[what]
    name = target._schema.name.removeprefix("aten::")
    with pytest.raises(ModelError, match=rf"^{name}\w*: aten\.{name}\."):
        checked(target, *args)


def test_an_operator_has_one_contract() -> None:
    with pytest.raises(ValueError, match="diff has two contracts"):
        contracts._contract("diff")(lambda given: None)


def guarded(build: Any) -> None:
    """Checks `x // divisor` rounded towards 0, with the divisor that `build` makes of (graph, y, held)."""
    graph = fx.Graph()
    x, y, held = graph.placeholder("x"), graph.placeholder("y"), graph.get_attr("held")
    divisor = build(graph, y, held)
    out = graph.call_function(aten.div.Tensor_mode, (x, divisor), {"rounding_mode": "trunc"})
    graph.output(out)
    shapes = {node.name: TensorShape((4,), torch.int64) for node in graph.nodes if node.op != "output"}
    check_contracts(graph, shapes, {"held": torch.tensor([3, 0, 2, -2])})


def call(name: str) -> Any:
    packet, _, overload = name.partition(".")
    return lambda graph, *args: graph.call_function(getattr(getattr(aten, packet), overload), args)


EQ, NE, FILL, WHERE = call("eq.Scalar"), call("ne.Scalar"), call("masked_fill.Scalar"), call("where.ScalarSelf")
CLAMP, ABS, FLAT = call("clamp.default"), call("abs.default"), call("reshape.default")
PROVEN: dict[str, Any] = {
    "what an import writes": lambda g, y, _: FILL(g, y, EQ(g, y, -1), 1),
    "filled at two numbers": lambda g, y, _: FILL(g, FILL(g, y, EQ(g, y, 0), 1), EQ(g, y, -1), 1),
    "the other way round": lambda g, y, _: FILL(g, FILL(g, y, EQ(g, y, -1), 1), EQ(g, y, 0), 1),
    "a choice": lambda g, y, _: WHERE(g, EQ(g, y, -1), 7, y),
    "a tensor without it": lambda _, __, held: held,
    "one seen otherwise": lambda g, _, held: FLAT(g, held, [4]),
    "at least zero": lambda g, y, _: CLAMP(g, y, 0),
    "an absolute value": lambda g, y, _: ABS(g, y),
}
OPEN: dict[str, Any] = {
    "an input": lambda _, y, __: y,
    "filled with it": lambda g, y, _: FILL(g, y, EQ(g, y, -1), -1),
    "filled with it in between": lambda g, y, _: FILL(g, FILL(g, y, EQ(g, y, 0), -1), EQ(g, y, -1), 1),
    "filled at another number": lambda g, y, _: FILL(g, y, EQ(g, y, 1), 2),
    "filled everywhere else": lambda g, y, _: FILL(g, y, NE(g, y, -1), 1),
    "filled where another value is": lambda g, y, held: FILL(g, y, EQ(g, held, -1), 1),
    "at least less": lambda g, y, _: CLAMP(g, y, -5),
    "at most": lambda g, y, _: CLAMP(g, y, None, 5),
    "a sum": lambda g, _, held: call("add.Scalar")(g, held, 1),
}


@pytest.mark.parametrize("name", PROVEN)
def test_a_divisor_that_cannot_be_minus_one_is_let_pass(name: str) -> None:
    assert guarded(PROVEN[name]) is None


@pytest.mark.parametrize("name", OPEN)
def test_one_that_may_be_is_refused(name: str) -> None:
    with pytest.raises(ModelError, match="may be -1"):
        guarded(OPEN[name])


def _with_dims() -> list[Any]:
    """Every overload that a checkpoint may call and that is told a dimension."""
    names = {name.removeprefix("aten::").split(".")[0] for name in _all_names() if name.startswith("aten::")}
    packets = [getattr(aten, name) for name in sorted(names)]
    overloads = [getattr(packet, name) for packet in packets for name in packet.overloads()]
    allowed = [overload for overload in overloads if refusal(overload) is None]
    return [overload for overload in allowed if any(_is_dim(a) for a in overload._schema.arguments)]


def _all_names() -> list[str]:
    """Of all operators that torch has; `dir(torch.ops.aten)` has those that somebody has asked for."""
    return torch._C._dispatch_get_all_op_names()


def _is_dim(argument: Any) -> bool:
    return "dim" in argument.name and str(argument.type) in ("int", "Optional[int]", "List[int]", "Optional[List[int]]")


def _filled(overload: Any, tensor: Tensor, dim: int) -> tuple[list[Any], dict[str, Any]]:
    """Arguments with that tensor and dimension wherever one goes, and the plainest value for all else."""
    plain: dict[str, Any] = {
        "Tensor": tensor, "List[Tensor]": [tensor, tensor], "int": 1, "number": 1, "bool": False, "float": 1.0,
        "List[int]": [1],
    }  # fmt: skip
    found = {
        a.name: ([dim] if "List" in str(a.type) else dim) if _is_dim(a)
        else a.default_value if a.has_default_value() else plain.get(str(a.type))
        for a in overload._schema.arguments
    }  # fmt: skip
    by_name = [a.name for a in overload._schema.arguments if a.kwarg_only]
    return [value for name, value in found.items() if name not in by_name], {name: found[name] for name in by_name}


def _refuses(overload: Any, args: list[Any], kwargs: dict[str, Any]) -> bool:
    try:
        overload(*args, **kwargs)
    except (RuntimeError, IndexError, ValueError, TypeError, NotImplementedError):
        return True
    return False


@pytest.fixture
def quiet() -> Iterator[None]:
    """torch writes a page for each call that a meta form refuses."""
    logging.disable(logging.CRITICAL)
    yield
    logging.disable(logging.NOTSET)


@pytest.mark.usefixtures("quiet")
def test_a_dimension_that_only_the_meta_form_takes_is_refused() -> None:
    """Shape inference stands for the kernel everywhere: what it lets pass and the kernel does not has a contract."""
    seen, open_to = set[str](), set[str]()
    for overload, dim in itertools.product(_with_dims(), (-4, -3, 2, 3)):
        for dtype in (torch.float32, torch.int64):
            args, kwargs = _filled(overload, torch.ones(4, 4, dtype=dtype), dim)
            with FakeTensorMode():
                fake_args, fake_kwargs = _filled(overload, torch.ones(4, 4, dtype=dtype), dim)
                passes = not _refuses(overload, fake_args, fake_kwargs)
            if passes and _refuses(overload, args, kwargs):
                try:
                    checked(overload, *args, **kwargs)
                    open_to.add(f"{overload} along {dim}, {dtype}")
                except ModelError as error:
                    assert "dimension" in str(error) or "must be" in str(error)
                    seen.add(str(overload))
    assert not open_to and "aten.select.int" in seen
