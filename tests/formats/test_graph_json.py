"""The graph text gives the same graph back, and no text gives a graph that does more than compute."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, fx

from compressor.errors import ModelError
from compressor.formats.graph_json import read_graph, write_graph
from compressor.program import Program, ProgramModule

TENSORS = {"w": torch.ones(3)}


def text(*entries: dict[str, Any]) -> str:
    return "\n".join(json.dumps(entry) for entry in entries)


def node(name: str, op: str, target: str | None = None, args: list[Any] | None = None, **more: Any) -> dict[str, Any]:
    return {"name": name, "op": op, "target": target or name, "args": args or [], "kwargs": {}, **more}


X = node("x", "placeholder")
RELU = node("relu", "call_function", "aten.relu.default", [{"node": "x"}])
OUT = node("output", "output", args=[{"node": "relu"}])


def test_round_trip_of_an_exported_graph(small: Program) -> None:
    graph = small.module.graph
    back = read_graph(write_graph(graph), small.module.tensors())
    assert write_graph(back) == write_graph(graph)
    assert [n.name for n in back.nodes] == [n.name for n in graph.nodes]
    assert [n.meta["where"] for n in back.nodes] == [n.meta.get("where") or "" for n in graph.nodes]
    assert str(ProgramModule(small.module.tensors(), back).code) == str(small.module.code)


def test_one_node_per_line(small: Program) -> None:
    lines = write_graph(small.module.graph).splitlines()
    assert len(lines) == len(small.module.graph.nodes)
    assert all(json.loads(line)["name"] for line in lines)


def test_smallest_graph_runs() -> None:
    module = ProgramModule({}, read_graph(text(X, RELU, OUT), {}))
    assert torch.equal(module(torch.tensor([-1.0, 2.0])), torch.tensor([0.0, 2.0]))


@pytest.mark.parametrize(
    ("structure", "expected"),
    [
        ({"node": "relu"}, Tensor),
        ([{"node": "relu"}], list),
        ({"tuple": [{"node": "relu"}, 3, None]}, tuple),
        ({"dict": {"a": {"node": "relu"}, "b": {"tuple": [{"node": "x"}]}}}, dict),
    ],
)
def test_structure_of_the_output_is_kept(structure: Any, expected: type) -> None:
    graph = read_graph(text(X, RELU, node("output", "output", args=[structure])), {})
    found = ProgramModule({}, graph)(torch.zeros(2))
    assert isinstance(found, expected)
    assert json.loads(write_graph(graph).splitlines()[-1])["args"] == [structure]


def refused(lines: str, message: str, tensors: dict[str, Tensor] | None = None) -> None:
    with pytest.raises(ModelError, match=message) as caught:
        read_graph(lines, tensors or {})
    assert str(caught.value).count("\n") <= 2


@pytest.mark.parametrize(
    ("entries", "message"),
    [
        ((X, RELU), "has no output"),
        ((X, RELU, OUT, OUT), "line 4 .output.: it comes after the output"),
        ((X, RELU, OUT, node("y", "placeholder")), "line 4 .y.: it comes after the output"),
        ((X, X, RELU, OUT), "line 2 .x.: its name is used twice"),
        ((RELU, X, OUT), "line 1 .relu.: it reads 'x', which does not come before it"),
        ((X, {**RELU, "args": [{"node": "relu"}]}, OUT), "it reads 'relu', which does not come before it"),
        ((X, {**RELU, "op": "call_method"}, OUT), "unknown kind 'call_method'"),
        ((X, {**RELU, "op": "call_module"}, OUT), "unknown kind 'call_module'"),
        ((X, {**RELU, "op": ["call_function"]}, OUT), "unknown kind"),
        ((X, {**RELU, "target": 3}, OUT), "unknown kind"),
        ((X, {**RELU, "target": "aten.from_file.default"}, OUT), "aten.from_file.default is refused"),
        ((X, {**RELU, "args": {}}, OUT), "not a list and a dictionary"),
        ((X, {**RELU, "kwargs": []}, OUT), "not a list and a dictionary"),
        ((X, {**RELU, "args": []}, OUT), "lacks its argument self"),
        ((X, {**RELU, "type": "int"}, OUT), "is not a node"),
        ((X, {**RELU, "name": ["relu"]}, OUT), "cannot be the name of a node"),
        ((node("input", "placeholder"), RELU, OUT), "one that generated code needs"),
        ((node("torch", "placeholder"), RELU, OUT), "one that generated code needs"),
        ((node("w", "get_attr", "v"), RELU, OUT), "there is no tensor 'v'"),
        ((node("w", "get_attr", "w", [1]), RELU, OUT), "get_attr with arguments"),
        ((node("x", "placeholder", args=[1]), RELU, OUT), "placeholder with arguments"),
        ((node("x", "placeholder", "*x"), RELU, OUT), "target is not its name"),
        ((node("x", "placeholder", "x=exit()"), RELU, OUT), "target is not its name"),
        ((X, RELU, node("output", "output", args=[3])), "no value of the graph"),
        ((X, RELU, node("output", "output")), "output with arguments"),
    ],
)
def test_graphs_that_are_refused(entries: tuple[dict[str, Any], ...], message: str) -> None:
    refused(text(*entries), message, {"w": torch.ones(3)})


@pytest.mark.parametrize(
    "lines", ["{", "3", "[]", "null", '"x"', "[" * 100_000, '{"name":' * 100_000, "1" * 5000, "\x00"]
)
def test_lines_that_are_no_nodes(lines: str) -> None:
    refused(lines, "line 1: is not")


def test_too_many_nodes_are_refused_before_they_are_read() -> None:
    refused("\n" * 1_000_001, "has 1,000,001 nodes")


def _attack(where: str, code: str) -> tuple[dict[str, Any], ...]:
    """A graph with `code` where generated Python source could take it up."""
    bad = {
        "name": ({**X, "name": f"x={code}", "target": f"x={code}"}, RELU, OUT),
        "name-newline": (X, {**RELU, "name": f"r\n    {code}\n    r"}, OUT),
        "placeholder-target": ({**X, "target": f"x={code}"}, RELU, OUT),
        "placeholder-default": ({**X, "args": [code]}, RELU, OUT),
        "get_attr": (X, node("w", "get_attr", f'w") or {code} or ("'), RELU, OUT),
        "call-target": (X, {**RELU, "target": f"aten.relu.default({code})"}, OUT),
        "keyword": (X, {**RELU, "kwargs": {f"a={code}, b": 1}}, OUT),
        "where": (X, {**RELU, "where": f"\n{code}\n"}, OUT),
        "text": (
            X,
            node("relu", "call_function", "aten.einsum.default", [f"'+{code}+'", [{"node": "x"}]]),
            OUT,
        ),
        "output-key": (
            X,
            RELU,
            node("output", "output", args=[{"dict": {f"'+str({code})+'": {"node": "relu"}}}]),
        ),
        "output-text": (X, RELU, node("output", "output", args=[[{"node": "relu"}, f"\n'+str({code})+'"]])),
        "comment": (X, RELU, node("output", "output", args=[[{"node": "relu"}, f"# COUNTER: 0\n{code}"]])),
    }
    return bad[where]


HARMLESS = {"where", "text", "output-key", "output-text"}
"""Attacks on what is always quoted: these graphs may load and run, and must only compute."""


@pytest.mark.parametrize(
    "where",
    [
        "name", "name-newline", "placeholder-target", "placeholder-default", "get_attr", "call-target",
        "keyword", "where", "text", "output-key", "output-text", "comment",
    ],
)  # fmt: skip
def test_no_text_of_a_file_is_run(where: str, tmp_path: Path) -> None:
    sentinel = tmp_path / "ran"
    code = f"__import__('pathlib').Path({str(sentinel)!r}).touch()"
    entries = _attack(where, code)
    tensors = {entry["target"]: torch.ones(1) for entry in entries if entry["op"] == "get_attr"}
    try:
        module = ProgramModule(tensors, read_graph(text(*entries), tensors))
    except ModelError:
        assert where not in HARMLESS
    else:
        assert where in HARMLESS
        with torch.no_grad():
            if where == "text":
                with pytest.raises(ModelError, match="einsum"):
                    module(torch.zeros(2))
            else:
                assert module(torch.zeros(2)) is not None
    assert not sentinel.exists()


def test_the_sentinel_is_touched_when_code_runs(tmp_path: Path) -> None:
    sentinel = tmp_path / "ran"
    graph = fx.Graph()
    graph.output(graph.placeholder(f"x=__import__('pathlib').Path({str(sentinel)!r}).touch()"))
    fx.GraphModule({}, graph)
    assert sentinel.exists()


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda g: g.call_function(torch.relu, (g.placeholder("x"),)), "not an ATen operator"),
        (lambda g: g.call_method("relu", (g.placeholder("x"),)), "kind call_method"),
        (lambda g: g.call_function(torch.ops.aten.add.Tensor, (g.placeholder("x"), 1j)), "type complex"),
    ],
)
def test_a_graph_that_could_not_be_read_is_not_written(build: Callable[[fx.Graph], fx.Node], message: str) -> None:
    graph = fx.Graph()
    graph.output(build(graph))
    with pytest.raises(ModelError, match=message):
        write_graph(graph)
