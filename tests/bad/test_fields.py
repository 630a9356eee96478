"""Every field of what a checkpoint says about itself, times every wrong kind of value: refused, or of no harm."""

from __future__ import annotations

import dataclasses
import io
import json
import typing
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from compressor.cli.main import main
from compressor.errors import CompressError, ModelError
from compressor.formats import from_bytes, save
from compressor.program import InputSpec, Program, Record, Step
from compressor.schema import check_plain, read_as
from tests.bad.forging import check_message, no_hang

NAN = float("nan")
VALUES: dict[str, Any] = {
    "nothing": None, "true": True, "false": False, "minus one": -1, "zero": 0, "one": 1, "a half": 0.5, "nan": NAN,
    "infinity": float("inf"), "beyond 64 bits": 2**70, "beyond double": 10**400, "the largest": 2**63 - 1,
    "the smallest": -(2**63), "no text": "", "a text": "x", "an order": "\x1b[2J\u202e", "half a letter": "\ud800",
    "a long text": "x" * 100_000, "an empty list": [], "a list": [1], "a list of nothing": [None], "lists": [[[]]],
    "an empty table": {}, "a table": {"a": 1}, "a table of nothing": {"": None}, "tables": {"a": {"a": {"a": []}}},
    "a tensor": torch.zeros(2), "a tuple": (1, 2), "bytes": b"x", "a number as key": {1: 2},
}  # fmt: skip


@pytest.fixture(scope="module")
def rich(program: Program, tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """A checkpoint in which every field of the metadata has a value: pruned, compacted, with a history."""
    folder = tmp_path_factory.mktemp("rich")
    before = {"accuracy": 0.5, "loss": 1.5}
    step = Step("prune", {"ratio": "2x", "keep": ["a"]}, {"params": 9, "accuracy": 0.25, "before": before}, 1, "0" * 64,
                {"torch": "2"}, "2026-01-01T00:00:00+00:00")  # fmt: skip
    record = dataclasses.replace(
        program.record, arch_args={"width": 2}, task="classification", steps=(step,), notes=("a note",),
        dense_params=999, dense_macs=9999, walk={"keep_heads": True}, preprocessing={"scale": 0.5}, data="none.npz",
    )  # fmt: skip
    inputs = (dataclasses.replace(program.inputs[0], high=5),)
    save(program.replace(record=record, inputs=inputs), folder / "pruned.pt")
    assert main(["compact", str(folder / "pruned.pt"), "-o", str(folder / "compact.pt"), "-q"]) == 0
    return (folder / "compact.pt").read_bytes()


def paths(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Every place in nested tables and lists; of a list its first entry stands for all."""
    if path:
        yield path
    parts = value.items() if isinstance(value, dict) else enumerate(value[:1]) if isinstance(value, list) else ()
    for key, part in parts:
        yield from paths(part, (*path, key))


def changed(content: dict[str, Any], path: tuple[Any, ...], value: Any) -> dict[str, Any]:
    found = torch.load(io.BytesIO(content["bytes"]), weights_only=True)
    at = found["compressor"]
    for key in path[:-1]:
        at = at[key]
    at[path[-1]] = value
    return found


def is_of(value: Any, kind: Any) -> bool:
    """Whether a value is what an annotation says, told independently of the library that reads it."""
    origin, parts = typing.get_origin(kind), typing.get_args(kind)
    if kind is Any:
        return True
    if dataclasses.is_dataclass(kind):
        hints = typing.get_type_hints(kind)
        return type(value) is kind and all(is_of(getattr(value, name), hint) for name, hint in hints.items())
    if origin is tuple:
        return type(value) is tuple and all(is_of(part, parts[0]) for part in value)
    if origin is list:
        return type(value) is list and all(is_of(part, parts[0]) for part in value)
    if origin is dict:
        return type(value) is dict and all(is_of(k, parts[0]) and is_of(v, parts[1]) for k, v in value.items())
    if parts:  # X | None
        return any(value is None if part is type(None) else is_of(value, part) for part in parts)
    return type(value) is kind


def commands(model: Path, folder: Path) -> list[list[str]]:
    return [
        ["analyze", str(model), "--report", str(folder / "page.html"), "--force", "-v"],
        ["compact", str(model), "--allow-noop", "-o", str(folder / "out.pt"), "--force", "-q"],
    ]


def test_every_field_with_every_wrong_value(rich: bytes, forge: Any, folder: Path, capsys: Any) -> None:
    content = {"bytes": rich}
    places = list(paths(torch.load(io.BytesIO(rich), weights_only=True)["compressor"]))
    assert len(places) > 60 and ("record", "kept", "0.weight", "0") in places
    accepted: dict[tuple[Any, ...], list[Path]] = {}
    for path in places:
        for name, value in VALUES.items():
            try:
                forged = forge(changed(content, path, value))
            except (ModelError, ValueError, TypeError, RuntimeError):  # there is no digest of it
                continue
            try:
                with no_hang():
                    back = from_bytes(forged)
            except CompressError as error:
                check_message(str(error))
            else:
                assert is_of(back.record, Record), (path, name)
                assert all(is_of(spec, InputSpec) for spec in back.inputs), (path, name)
                model = folder / f"{len(accepted)}-{name}.pt"
                model.write_bytes(forged)
                accepted.setdefault(path, []).append(model)
    for path, models in accepted.items():
        for model in models[:: max(1, len(models) // 2)]:
            for command in commands(model, folder):
                with no_hang():
                    code = main(command)
                told = capsys.readouterr()
                assert code in (0, 1, 2) and "bug in compress" not in told.err, (path, model, told.err)
    assert len(accepted) > 20, "texts and tables of options are free"


FREE = {"options", "metrics", "arch_args", "preprocessing", "walk"}


@pytest.mark.parametrize("value", [name for name in VALUES if name not in ("a tensor", "a tuple", "bytes")])
def test_only_free_tables_take_a_value_of_another_kind(rich: bytes, forge: Any, value: str) -> None:
    """The twin: a field that has a type is read as that type or not at all."""
    content, found = {"bytes": rich}, torch.load(io.BytesIO(rich), weights_only=True)["compressor"]
    for path in paths(found):
        at = found
        for key in path:
            at = at[key]
        if path[0] not in ("record", "inputs") or at is None or FREE & set(path) or type(at) is type(VALUES[value]):
            continue
        if VALUES[value] is None or (type(at) is float and type(VALUES[value]) is int):
            continue
        try:
            forged = forge(changed(content, path, VALUES[value]))
        except (ModelError, ValueError, TypeError, RuntimeError):  # there is no digest of it
            continue
        with pytest.raises(ModelError):
            raise AssertionError(f"{path} was read as {from_bytes(forged).record}")


def endless(depth: int) -> Any:
    value: Any = []
    for _ in range(depth):
        value = [value, value]
    return value


@pytest.mark.parametrize(
    ("value", "told"),
    [
        (endless(40), "has no end"), (json.loads("[" * 300 + "]" * 300), "has no end"),
        ({"a": 2**64}, "beyond 64 bits"), ({1: 2}, "a key that is no text"), ((1,), "holds a tuple"),
        ({"a": {1}}, "holds a set"), ([b""], "holds a bytes"),
        ("x" * 2**24, "has no end"), (dict.fromkeys(map(str, range(2**23)), 1), "has no end"),
    ],
    ids=["twice itself", "deep", "large", "a key", "a tuple", "a set", "bytes", "long", "wide"],
)  # fmt: skip
def test_values_that_are_not_plain(value: Any, told: str) -> None:
    with no_hang(), pytest.raises(ModelError, match=f"^the file .*{told}"):
        check_plain(value, ModelError, "the file")


def test_numbers_and_texts_are_not_turned_into_each_other() -> None:
    for kind, value in ((int, "3"), (int, 3.0), (int, True), (float, "1"), (str, 3), (bool, 1), (list[int], {"0": 1})):
        with pytest.raises(ModelError, match="the file cannot be read: "):
            read_as(kind, value, ModelError, "the file")
    assert read_as(float, 3, ModelError, "the file") == 3.0
    assert read_as(dict[str, float], {"a": 1.5}, ModelError, "the file") == {"a": 1.5}
