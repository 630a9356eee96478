"""Damaged and forged checkpoints: each is refused with a short error of ours, or only computes."""

from __future__ import annotations

import io
import json
import random
from collections.abc import Callable
from typing import Any

import torch
from torch._ops import OpOverload

from compressor.errors import CompressError
from compressor.formats import from_bytes, load, to_bytes
from compressor.program import Program
from tests.bad.hostile_calls import allowed

NODES = ({"node": "x"}, {"node": "w"}, {"node": "b"})
INTEGERS = (-(2**63), -2, -1, 0, 1, 2, 3, 5, 2**31, 2**62)
TEXTS = ("ij,jk->ik", "mean", "floor", "linear", "none", "__import__('os')")


def test_flipped_bytes_and_cut_ends(small: Program) -> None:
    whole = to_bytes(small)
    expected = small.module(*small.example_inputs(2))
    chance = random.Random(0)
    n_refused = 0
    for _ in range(150):
        damaged = bytearray(whole)
        if chance.random() < 0.3:
            del damaged[chance.randrange(len(damaged)) :]
        else:
            for _ in range(chance.choice((1, 1, 4))):
                damaged[chance.randrange(len(damaged))] ^= 1 << chance.randrange(8)
        try:
            back = from_bytes(bytes(damaged))
        except CompressError as error:
            n_refused += 1
            assert str(error).count("\n") <= 2
        else:
            assert back.record == small.record
            assert torch.equal(back.module(*small.example_inputs(2)), expected)
    assert n_refused > 75


def test_edited_metadata_and_graph_with_a_right_digest(
    content: dict[str, Any], forged: Callable[[dict[str, Any]], io.BytesIO]
) -> None:
    chance = random.Random(1)
    graph, metadata = content["graph"], json.dumps(content["compressor"])
    n_refused = 0
    for _ in range(150):
        content["graph"], content["compressor"] = graph, json.loads(metadata)
        if chance.random() < 0.7:
            content["graph"] = _edited(graph, chance)
        else:
            try:
                content["compressor"] = json.loads(_edited(metadata, chance))
            except ValueError:
                continue
        try:
            load(forged(content))
        except CompressError as error:
            n_refused += 1
            assert str(error).count("\n") <= 2
    assert n_refused > 75


def _edited(text: str, chance: random.Random) -> str:
    """One token of JSON exchanged for another."""
    tokens = text.replace(",", "\0,\0").replace(":", "\0:\0").split("\0")
    at, taken = chance.randrange(len(tokens)), chance.choice(tokens)
    tokens[at] = chance.choice([taken, "null", "-1", "[]", "{}", '"x"', "1e999", str(2**70), tokens[at][::-1]])
    return "".join(tokens)


def test_calls_with_random_arguments(content: dict[str, Any], forged: Callable[[dict[str, Any]], io.BytesIO]) -> None:
    chance = random.Random(2)
    known = allowed()
    state = {key: content["state_dict"][key] for key in ("conv.weight", "fc.bias")}
    content["compressor"] |= {"buffers": [], "aliases": {}}
    n_refused = n_accepted = 0
    for _ in range(300):
        text, overload = chance.choice(known)
        graph = "\n".join(map(json.dumps, _graph(text, overload, chance)))
        try:
            load(forged({**content, "state_dict": state, "graph": graph}))
            n_accepted += 1
        except CompressError as error:
            n_refused += 1
            assert str(error).count("\n") <= 2
    assert n_refused > 75
    assert n_accepted > 75


def _graph(text: str, overload: OpOverload, chance: random.Random) -> list[dict[str, Any]]:
    args: list[Any] = []
    kwargs: dict[str, Any] = {}
    for argument in overload._schema.arguments:
        if argument.has_default_value() and chance.random() < 0.5:
            break
        value = _value(str(argument.real_type), chance)
        if argument.kwarg_only:
            kwargs[argument.name] = value
        else:
            args.append(value)
    empty: dict[str, Any] = {"args": [], "kwargs": {}}
    return [
        {"name": "x", "op": "placeholder", "target": "x", **empty},
        {"name": "w", "op": "get_attr", "target": "conv.weight", **empty},
        {"name": "b", "op": "get_attr", "target": "fc.bias", **empty},
        {"name": "y", "op": "call_function", "target": text, "args": args, "kwargs": kwargs},
        {"name": "output", "op": "output", "target": "output", "args": [{"node": "y"}], "kwargs": {}},
    ]


def _value(kind: str, chance: random.Random) -> Any:
    """A value of the schema's kind, seldom of another."""
    if chance.random() < 0.03:
        kind = chance.choice(["int", "str", "Tensor", "ScalarType"])
    if kind.startswith("Optional["):
        return None if chance.random() < 0.4 else _value(kind[9:-1], chance)
    if kind.startswith("List["):
        return [_value(kind[5:-1], chance) for _ in range(chance.randrange(5))]
    choices: dict[str, tuple[Any, ...]] = {
        "Tensor": NODES,
        "int": INTEGERS,
        "bool": (True, False),
        "float": (0.0, 1.0, 0.5, -3.0, {"float": "inf"}, {"float": "nan"}),
        "number": (0, 2, 0.5, {"float": "nan"}),
        "str": TEXTS,
        "ScalarType": ({"dtype": "float32"}, {"dtype": "int64"}, {"dtype": "bool"}),
        "Device": ({"device": "cpu"},),
        "Layout": ({"layout": "strided"},),
        "MemoryFormat": ({"memory_format": "contiguous_format"},),
    }
    return chance.choice(choices.get(kind, (None,)))
