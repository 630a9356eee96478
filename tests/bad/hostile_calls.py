"""Checkpoints whose graph calls one operator with hostile arguments, made from a number, and what became of each.

Run as a program it reads lines of JSON, each a list of numbers, and answers each with the outcomes: the cases are run
in a child that may be killed by what they do, so that a signal is an outcome like any other. It holds no tests.
"""

from __future__ import annotations

import functools
import io
import json
import os
import random
import resource
import signal
import sys
import traceback
from typing import Any

import torch
from torch import Tensor
from torch._ops import OpOverload

from compressor.axes import find_units
from compressor.errors import CompressError
from compressor.formats import from_bytes
from compressor.formats.allowed import refusal
from compressor.formats.digest import digest

CPU_S = 120
"""Processor time of one case, so that the load of the machine does not count; its budget lets it have a third."""
MEMORY_BYTES = 7 << 30
"""Address space of a case: torch itself takes 1 GiB of it."""

LOWEST = -(2**63)
SMALL = (0, 1, 1, 2, 2, 3, 4, -1, -2)
HOSTILE = (
    LOWEST,
    LOWEST + 1,
    -(2**62) + 1,
    -(2**31),
    -7,
    7,
    64,
    4096,
    2**16,
    2**24,
    2**29,
    2**31,
    2**33,
    2**62,
    2**63 - 1,
)
TEXTS = {
    "equation": ("ij,jk->ik", "ij,ij->", "abcd,abcd->ad", "i,j,k,l->ijkl", "...", "->", "ii", "a"),
    "rounding_mode": ("trunc", "floor", "none"),
    "reduce": ("sum", "prod", "mean", "amax", "amin"),
    "mode": ("constant", "reflect", "replicate", "circular", "bilinear"),
    "padding": ("same", "valid", "x"),
    "indexing": ("ij", "xy"),
    "approximate": ("none", "tanh"),
    "norm": ("backward", "ortho", "forward"),
    "interpolation": ("linear", "lower", "midpoint"),
    "UPLO": ("L", "U"),
    "driver": ("gesvd",),
    "ord": ("fro", "nuc"),
    "side": ("left", "right"),
}
NUMBERS = (0, 1, 2, 0.5, -1, -0.5, 1e30, {"float": "inf"}, {"float": "-inf"}, {"float": "nan"}, LOWEST, 2**62, 1e-320)
TYPES = ("float32", "float64", "int64", "int32", "bool", "uint8", "bfloat16", "complex64", "float16", "quint8", "int8",
         "float8_e4m3fn", "complex32", "uint64")  # fmt: skip


@functools.cache
def tensors() -> dict[str, Tensor]:
    """What a file may hold, by name: of every rank, with the values that break whole numbers."""
    made = torch.Generator().manual_seed(0)

    def normal(*sizes: int) -> Tensor:
        return torch.randn(*sizes, generator=made)

    floating = {
        "image": normal(2, 3, 6, 6), "kernel": normal(4, 3, 3, 3), "four": normal(4), "one": normal(1),
        "square": normal(4, 4), "wide": normal(3, 4), "number": torch.tensor(2.5), "half": normal(4, 4).half(),
        "double": normal(4, 4).double(), "none": torch.zeros(0, 4), "steps": normal(5, 2, 4), "long": normal(4096),
        "tiny": torch.full((4,), 1e-42), "gates": normal(16, 4), "gate": normal(16), "volume": normal(1, 3, 4, 4, 4),
        "column": normal(1, 4), "tall": normal(4096, 4), "state": normal(1, 2, 4), "triple": normal(12, 4),
    }  # fmt: skip
    whole = {
        "low": torch.tensor([LOWEST, -1, 0, 2**62]), "minus": torch.full((4,), -1), "index": torch.arange(4),
        "rows": torch.tensor([[0, 1, 2, 3], [3, 1, 2, 0]]), "bits": torch.tensor([True, False, True, True]),
        "low32": torch.tensor([-(2**31), -1, 0, 2**30], dtype=torch.int32), "mask": torch.ones(4, 4, dtype=torch.bool),
        "bytes": torch.arange(16, dtype=torch.uint8).view(4, 4),
    }  # fmt: skip
    return floating | whole


NODES = ("x", *tensors())


@functools.cache
def allowed() -> list[tuple[str, OpOverload]]:
    """Every overload that a checkpoint's graph may call."""
    found = []
    for name in sorted(torch._C._dispatch_get_all_op_names()):
        namespace, _, rest = name.partition("::")
        packet, _, overload = rest.partition(".")
        if namespace == "aten":
            target = getattr(getattr(torch.ops.aten, packet), overload or "default")
            found += [(f"aten.{packet}.{overload or 'default'}", target)] if refusal(target) is None else []
    return found


def case(number: int) -> list[dict[str, Any]]:
    """The nodes of a graph that calls the overload `number` modulo their count; the rest is drawn by the number."""
    chance = random.Random(number)
    text, overload = allowed()[number % len(allowed())]
    lines = [line("x", "x", op="placeholder")]
    names: list[str] = list(NODES)
    if chance.random() < 0.2:
        lines.append(_grown(chance))
        names += ["grown"] * 8
    args, kwargs = _arguments(overload, names, chance)
    lines.append(line("y", text, args, kwargs))
    returned = overload._schema.returns
    if len(returned) > 1 or "List" in str(returned[0].type):
        lines.append(line("part", "operator.getitem", [{"node": "y"}, 0]))
    last = lines[-1]["name"]
    if chance.random() < 0.5:
        lines.append(
            line("z", chance.choice(("aten.sum.default", "aten.relu.default", "aten.neg.default")), [{"node": last}])
        )
        last = "z"
    held = [line(name, name, op="get_attr") for name in dict.fromkeys(read([args, kwargs])) if name in tensors()]
    return [lines[0], *held, *lines[1:], line("output", "output", [{"node": last}], op="output")]


def line(name: str, target: str, args: list[Any] | None = None, kwargs: Any = None, op: str = "") -> dict[str, Any]:
    """A node as a checkpoint's graph has it."""
    return {"name": name, "op": op or "call_function", "target": target, "args": args or [], "kwargs": kwargs or {}}


def read(value: Any) -> list[str]:
    """Names of the nodes that arguments speak of."""
    if isinstance(value, dict):
        return [value["node"]] if set(value) == {"node"} else [n for part in value.values() for n in read(part)]
    return [n for part in value for n in read(part)] if isinstance(value, list) else []


def _grown(chance: random.Random) -> dict[str, Any]:
    """A value larger than the file: filled, counted up or stretched."""
    n = chance.choice((2**10, 2**12, 2**16, 2**20, 2**24, 2**25, 2**29, 2**33))
    kind = {"dtype": {"dtype": chance.choice(("float32", "int64", "bool"))}}
    sizes = chance.choice(([n], [n // 4, 4], [1, 3, n // 512, 512], [n // 16, 4, 4], [1] * 63 + [n]))
    which = chance.randrange(3)
    if which == 0:
        return line("grown", "aten.full.default", [sizes, chance.choice((0, 1, -1))], kind)
    if which == 1:
        return line("grown", "aten.arange.default", [n])
    return line("grown", "aten.expand.default", [{"node": "x"}, [n, 2, 3, 6, 6]])


def _arguments(overload: OpOverload, names: list[str], chance: random.Random) -> tuple[list[Any], dict[str, Any]]:
    args: list[Any] = []
    kwargs: dict[str, Any] = {}
    for argument in overload._schema.arguments:
        if argument.has_default_value() and chance.random() < 0.4:
            break
        value = _value(argument.name, str(argument.real_type), names, chance)
        if argument.kwarg_only:
            kwargs[argument.name] = value
        else:
            args.append(value)
    return args, kwargs


def _value(name: str, kind: str, names: list[str], chance: random.Random) -> Any:
    if kind.startswith("Optional["):
        return None if chance.random() < 0.3 else _value(name, kind[9:-1], names, chance)
    if kind.startswith("List["):
        n = chance.choice((0, 1, 1, 2, 2, 3, 4, 16)) if kind[5:-1] != "Tensor" else chance.choice((1, 2, 3, 4))
        return [_value(name, kind[5:-1], names, chance) for _ in range(n)]
    if kind in ("int", "SymInt"):
        return chance.choice(SMALL if chance.random() < 0.75 else HOSTILE)
    choices: dict[str, tuple[Any, ...]] = {
        "Tensor": tuple({"node": one} for one in names),
        "bool": (True, False),
        "float": (0.0, 1.0, 0.5, 2.0, *(one for one in NUMBERS if not isinstance(one, int))),
        "number": NUMBERS,
        "str": TEXTS.get(name, ("none", "sum", "ij")),
        "ScalarType": tuple({"dtype": one} for one in TYPES),
        "Device": ({"device": "cpu"}, {"device": "cpu"}, {"device": "meta"}),
        "Layout": ({"layout": "strided"}, {"layout": "sparse_coo"}),
        "MemoryFormat": ({"memory_format": "contiguous_format"}, {"memory_format": "channels_last"}),
    }
    return chance.choice(choices.get(kind, (None,)))


def forged(lines: list[dict[str, Any]]) -> bytes:
    """The checkpoint with that graph, its digest right."""
    state = {line["target"]: tensors()[line["target"]] for line in lines if line["op"] == "get_attr"}
    graph = "".join(json.dumps(line) + "\n" for line in lines)
    metadata: dict[str, Any] = {
        "schema": 1,
        "inputs": [{"name": "x", "shape": [None, 3, 6, 6], "dtype": "float32"}],
        "record": {},
        "buffers": [name for name, tensor in state.items() if not tensor.is_floating_point()],
    }
    metadata["sha256"] = digest(graph, metadata, state, {})
    buffer = io.BytesIO()
    torch.save({"state_dict": state, "masks": {}, "graph": graph, "compressor": metadata}, buffer)
    return buffer.getvalue()


def outcome(lines: list[dict[str, Any]]) -> str:
    """`refused: ...`, `ran`, or what must not happen: `memory`, `bug: ...`."""
    try:
        program = from_bytes(forged(lines))
        find_units(program)
        with torch.no_grad():
            program.module(*program.example_inputs(2))
    except CompressError as error:
        return f"refused: {error}"
    except MemoryError:
        return "memory"
    except Exception as error:
        if "allocate memory" in str(error):
            return "memory"
        frame = traceback.extract_tb(error.__traceback__)[-1]
        return f"bug: {type(error).__name__}: {str(error)[:120]} ({os.path.basename(frame.filename)}:{frame.lineno})"
    return "ran"


def _child(numbers: list[Any], writing: int) -> None:
    """Answers one case after the other until one ends this process."""
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))
    for number in numbers:
        signal.setitimer(signal.ITIMER_PROF, CPU_S)
        found = outcome(case(number) if isinstance(number, int) else number)
        os.write(writing, json.dumps(found).encode() + b"\n")
    os._exit(0)


def outcomes(numbers: list[Any]) -> list[str]:
    """What became of each case, signals and time-outs included."""
    found: list[str] = []
    while len(found) < len(numbers):
        reading, writing = os.pipe()
        child = os.fork()
        if child == 0:
            os.close(reading)
            _child(numbers[len(found) :], writing)
        os.close(writing)
        with os.fdopen(reading) as answers:
            found += [json.loads(answer) for answer in answers]
        status = os.waitpid(child, 0)[1]
        if os.WIFSIGNALED(status):
            name = signal.Signals(os.WTERMSIG(status)).name
            found.append("time-out" if name == "SIGPROF" else f"signal: {name}")
    return found


def main() -> None:
    torch.set_num_threads(1)
    for number in (0, 1):  # children find all of torch loaded
        outcome(case(number))
    sys.stdout = sys.stderr  # what torch prints is no answer
    for numbers in sys.stdin:
        print(json.dumps(outcomes(json.loads(numbers))), file=sys.__stdout__, flush=True)


if __name__ == "__main__":
    main()
