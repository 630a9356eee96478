"""Checkpoints whose digest is right and whose content lies: what nobody's `save` wrote."""

from __future__ import annotations

import json
from typing import Any

import pytest
import torch

from compressor.formats import from_bytes
from tests.bad.forging import DELETE, saved

NAN = float("nan")
LIES: list[tuple[str, Any]] = [
    ("graph", 7),
    ("graph", ""),
    ("graph", "\n\n"),
    ("graph", "{}\n"),
    ("graph", "[]\n"),
    ("graph", "null\n"),
    ("graph", "[" * 3000 + "\n"),
    ("graph", "\x00"),
    ("graph", "9" * 5000 + "\n"),
    ("graph", "\n" * 200_000),
    ("graph", DELETE),
    ("masks", 3),
    ("masks", [1]),
    ("masks", DELETE),
    ("masks", {"0.weight": torch.ones(4, 1, 3, 2, dtype=torch.bool)}),
    ("masks", {"0.weight": torch.ones(4, 1, 3, 3)}),
    ("masks", {"0.weight": torch.ones((), dtype=torch.bool)}),
    ("masks", {"0.weight": torch.ones(0, dtype=torch.bool)}),
    ("masks", {"nobody.weight": torch.ones(3, dtype=torch.bool)}),
    ("masks", {"1.running_mean": torch.ones(4, dtype=torch.bool)}),
    ("masks", {"0.weight": "all"}),
    ("masks", {3: torch.ones(3, dtype=torch.bool)}),
    ("state_dict", []),
    ("state_dict", {}),
    ("state_dict", {"w": torch.zeros(1)}),
    ("state_dict", DELETE),
    ("state_dict/0.weight", DELETE),
    ("state_dict/0.weight", torch.zeros(4, 1, 3)),
    ("state_dict/0.weight", torch.zeros(4, 2, 3, 3)),
    ("state_dict/0.weight", torch.zeros(0, 1, 3, 3)),
    ("state_dict/0.weight", torch.zeros(4, 1, 0, 3)),
    ("state_dict/0.weight", torch.zeros(4, 1, 3, 3, dtype=torch.int64)),
    ("state_dict/0.weight", torch.zeros(4, 1, 3, 3, dtype=torch.complex64)),
    ("state_dict/0.weight", torch.zeros(4, 1, 3, 3, dtype=torch.float16)),
    ("state_dict/0.weight", torch.zeros(4, 1, 3, 3).to_sparse()),
    ("state_dict/0.weight", torch.full((4, 1, 3, 3), NAN)),
    ("state_dict/0.weight", torch.full((4, 1, 3, 3), float("inf"))),
    ("state_dict/0.weight", torch.zeros(1).expand(4, 1, 3, 3)),
    ("state_dict/0.weight", torch.empty(4, 1, 3, 3, device="meta")),
    ("state_dict/0.weight", "a text"),
    ("state_dict/0.weight", None),
    ("state_dict/1.running_var", torch.full((4,), NAN)),
    ("state_dict/1.running_var", torch.ones(5)),
    ("state_dict/unread", torch.zeros(1)),
    ("state_dict/forward", torch.zeros(1)),
    ("state_dict/__class__", torch.zeros(1)),
    ("state_dict/0.weight.more", torch.zeros(1)),
    ("state_dict/a'b", torch.zeros(1)),
    ("state_dict/" + "x" * 1000, torch.zeros(1)),
    ("compressor", []),
    ("compressor", {}),
    ("compressor/schema", 0),
    ("compressor/schema", 999),
    ("compressor/schema", "1"),
    ("compressor/schema", True),
    ("compressor/inputs", []),
    ("compressor/inputs", [3]),
    ("compressor/inputs", None),
    ("compressor/inputs/0/shape", None),
    ("compressor/inputs/0/shape", []),
    ("compressor/inputs/0/shape", [None, 1, 6]),
    ("compressor/inputs/0/shape", [None, 1, 0, 6]),
    ("compressor/inputs/0/shape", [None, 2, 6, 6]),
    ("compressor/inputs/0/shape", [None, 1, 2**31, 2**31]),
    ("compressor/inputs/0/shape", [None, 1, 2**70, 6]),
    ("compressor/inputs/0/shape", ["x", 1, 6, 6]),
    ("compressor/inputs/0/dtype", "float31"),
    ("compressor/inputs/0/dtype", "load"),
    ("compressor/inputs/0/dtype", "int64"),
    ("compressor/inputs/0/name", "other"),
    ("compressor/inputs/0/high", "many"),
    ("compressor/record", None),
    ("compressor/record", []),
    ("compressor/record/arch", 3),
    ("compressor/record/data", ["x"]),
    ("compressor/record/task", {"a": 1}),
    ("compressor/record/steps", 3),
    ("compressor/record/steps", [3]),
    ("compressor/aliases", {"a": "b"}),
    ("compressor/aliases", {"0.weight": "0.weight"}),
    ("compressor/aliases", [1]),
    ("compressor/buffers", {"a": "b"}),
    ("compressor/buffers", [3]),
    ("compressor/frozen", "0.weight"),
    ("compressor/versions", torch.zeros(3)),
]


@pytest.mark.parametrize(("path", "value"), LIES, ids=[f"{i}-{path[:40]}" for i, (path, _) in enumerate(LIES)])
def test_a_lie_is_refused(refused: Any, edited: Any, forge: Any, path: str, value: Any) -> None:
    found = edited(path, value)
    try:
        content = forge(found)
    except Exception:  # it cannot even be signed: then as it is, unsigned
        content = saved(found)
    refused(from_bytes, content)


def test_twin_the_unedited_checkpoint_is_read(edited: Any, forge: Any) -> None:
    assert from_bytes(forge(edited("compressor/record/arch", "other"))).record.arch == "other"


def node(name: str, target: str, *args: Any, op: str = "call_function", **kwargs: Any) -> dict[str, Any]:
    return {"name": name, "op": op, "target": target, "args": list(args), "kwargs": kwargs}


X = {"node": "input_1"}
CHAIN = 'import os; os.mkdir("canary")'
GRAPHS: dict[str, list[dict[str, Any]]] = {
    "an operator outside aten": [node("y", "prims.add.default", X, X)],
    "a Python function": [node("y", "os.system", "touch canary")],
    "eval": [node("y", "builtins.eval", CHAIN)],
    "a method": [node("y", "relu", X, op="call_method")],
    "a module": [node("y", "0", X, op="call_module")],
    "a kind that is none": [node("y", "aten.relu.default", X, op="run")],
    "a dunder": [node("y", "aten.__class__.default", X)],
    "a dotted escape": [node("y", "aten.relu.default.__globals__", X)],
    "an unknown operator": [node("y", "aten.frobnicate.default", X)],
    "an unknown overload": [node("y", "aten.relu.Tensor", X)],
    "an operator that reads files": [node("y", "aten.from_file.default", "good.pt", size=3)],
    "an operator that writes": [node("y", "aten.add_.Tensor", X, X), node("z", "aten.resize_.default", X, [9])],
    "an operator with an out tensor": [node("y", "aten.add.out", X, X, out=X)],
    "an assertion": [node("y", "aten._assert_async.msg", X, "text")],
    "a weight that is not there": [node("y", "9.weight", op="get_attr")],
    "a weight that is a method": [node("y", "forward", op="get_attr")],
    "a target that is no text": [{**node("y", "x", X), "target": ["aten.relu.default"]}],
    "a value from the future": [node("y", "aten.relu.default", {"node": "z"}), node("z", "aten.relu.default", X)],
    "a value that reads itself": [node("y", "aten.relu.default", {"node": "y"})],
    "a ring of two": [node("y", "aten.add.Tensor", X, {"node": "z"}), node("z", "aten.relu.default", {"node": "y"})],
    "a name twice": [node("input_1", "aten.relu.default", X)],
    "a name that is code": [node("y); import os; os.mkdir('canary'); (x", "aten.relu.default", X)],
    "a name with a line break": [node("y\nimport os", "aten.relu.default", X)],
    "a word of Python as name": [node("lambda", "aten.relu.default", X)],
    "a builtin as name": [node("self", "aten.relu.default", X)],
    "a name in other letters": [node("ÿ", "aten.relu.default", X)],
    "no name": [node("", "aten.relu.default", X)],
    "a name that is a number": [{**node("y", "aten.relu.default", X), "name": 3}],
    "a second input": [node("y", "y", op="placeholder")],
    "an output before the end": [node("output", "output", X, op="output"), node("y", "aten.relu.default", X)],
    "an argument too many": [node("y", "aten.relu.default", X, 3)],
    "an argument twice": [node("y", "aten.relu.default", X, self=X)],
    "an argument of no name": [node("y", "aten.relu.default", X, inplace=True)],
    "no argument": [node("y", "aten.relu.default")],
    "text for a tensor": [node("y", "aten.relu.default", "input_1")],
    "a tensor for a size": [node("y", "aten.transpose.int", X, X, 1)],
    "a half for a size": [node("y", "aten.transpose.int", X, 0.5, 1)],
    "a dimension that is not there": [node("y", "aten.transpose.int", X, 7, 1)],
    "a view that does not fit": [node("y", "aten.view.default", X, [5, 5])],
    "a matrix that does not fit": [node("y", "aten.matmul.default", X, {"node": "_4_weight"})],
    "a concatenation of nothing": [node("y", "aten.cat.default", [])],
    "an einsum that is code": [node("y", "aten.einsum.default", CHAIN, [X])],
    "an integer beyond 64 bits": [node("y", "aten.add.Scalar", X, 2**64)],
    "an unknown tag": [node("y", "aten.relu.default", {"eval": CHAIN})],
    "two tags": [node("y", "aten.relu.default", {"node": "input_1", "float": "inf"})],
    "an unknown device": [node("y", "aten.to.device", X, {"device": "tpu:0"}, {"dtype": "float32"})],
    "an unknown type": [node("y", "aten.to.dtype", X, {"dtype": "load"})],
    "a number that is none": [node("y", "aten.mul.Scalar", X, {"float": "one"})],
    "an index that is a text": [node("y", "operator.getitem", X, "shape")],
    "an attribute": [node("y", "operator.attrgetter", "shape")],
    "a tower of powers": [node("a", "aten.sym_size.int", X, 0), node("y", "operator.pow", {"node": "a"}, 10**9)],
    "a size that grows": [
        node("a", "aten.sym_size.int", X, 3),
        *(node(f"m{i}", "operator.mul", *[{"node": f"m{i - 1}" if i else "a"}] * 2) for i in range(40)),
        node("y", "aten.relu.default", X),
    ],
    "a zero that divides": [node("a", "aten.sym_size.int", X, 3), node("y", "operator.floordiv", {"node": "a"}, 0)],
    "ones without end": [node("y", "aten.ones.default", [2**50])],
    "a row without end": [node("y", "aten.arange.default", 2**60)],
    "a square without end": [node("y", "aten.eye.default", 2**40)],
    "a repetition without end": [node("y", "aten.repeat.default", X, [2**20, 2**20, 1, 1])],
    "a stretch without end": [
        node("a", "aten.ones.default", [1]),
        node("y", "aten.expand.default", {"node": "a"}, [2**50]),
    ],
    "parts without end, split": [
        node("a", "aten.ones.default", [2**25]),
        node("s", "aten.split.Tensor", {"node": "a"}, 1),
        node("y", "operator.getitem", {"node": "s"}, 0),
    ],
    "parts without end, unbind": [
        node("a", "aten.ones.default", [2**25]),
        node("s", "aten.unbind.int", {"node": "a"}),
        node("y", "operator.getitem", {"node": "s"}, 0),
    ],
    "parts without end, chunk": [
        node("a", "aten.ones.default", [2**25]),
        node("s", "aten.chunk.default", {"node": "a"}, 2**25),
        node("y", "operator.getitem", {"node": "s"}, 0),
    ],
    "parts without end, sections": [
        node("s", "aten.tensor_split.sections", X, 2**31, 3),
        node("y", "operator.getitem", {"node": "s"}, 0),
    ],
    "bins without end": [
        node("h", "aten.histogramdd.default", X, [2**31] * 6),
        node("y", "operator.getitem", {"node": "h"}, 0),
    ],
    "padding without end": [node("y", "aten.constant_pad_nd.default", X, [2**40, 2**40])],
    "a window without end": [node("y", "aten.max_pool2d.default", X, [2**40, 2**40])],
    "upsampling without end": [node("y", "aten.upsample_nearest2d.vec", X, [2**30, 2**30], None)],
}  # fmt: skip


@pytest.mark.parametrize("what", GRAPHS)
def test_a_graph_that_lies_is_refused(
    refused: Any, content: dict[str, Any], forge: Any, what: str, folder: Any
) -> None:
    refused(from_bytes, forge({**content, "graph": _with(content["graph"], GRAPHS[what])}))


def test_twin_a_graph_with_one_more_node_is_read(content: dict[str, Any], forge: Any) -> None:
    more = [node("y", "aten.relu.default", X), node("z", "aten.flatten.using_ints", {"node": "y"}, 1)]
    program = from_bytes(forge({**content, "graph": _with(content["graph"], more)}))
    assert program.module(torch.ones(2, 1, 6, 6))[0].shape == (2, 36)


def _with(graph: str, more: list[dict[str, Any]]) -> str:
    """The graph with nodes between its last one and an output that returns the last of them."""
    lines = [json.loads(line) for line in graph.splitlines()]
    old = lines.pop()["args"]
    lines += more
    if more[-1]["op"] != "output":
        returned = [{"node": str(more[-1]["name"])}, *(old if isinstance(old, list) else [])]
        lines.append(node("output", "output", {"tuple": returned}, op="output"))
    return "".join(json.dumps(line) + "\n" for line in lines)


def test_lists_within_lists_end(refused: Any, content: dict[str, Any]) -> None:
    for kind in (lambda part: [part, part], lambda part: {"a": part, "b": part}):
        nested: Any = "ha"
        for _ in range(60):
            nested = kind(nested)
        content["compressor"]["record"] = {"notes": nested}
        assert "metadata has no end" in refused(from_bytes, saved(content))


def test_many_names_for_the_same_bytes_are_refused(refused: Any, content: dict[str, Any]) -> None:
    one = torch.zeros(2**18)
    content["state_dict"] |= {f"w{i}": one[:] for i in range(200)}
    assert "share" in refused(from_bytes, saved(content))
