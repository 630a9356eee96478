"""What it costs to take a pickle apart, reckoned from its instructions before anything is built from them.

torch's safe reader lets a pickle make tuples, name what it has made before, and use it as the key of a dictionary. A
tuple of two references to a tuple of two references … has few instructions and a hash that takes for ever; one that
lies a million deep ends the process. It must never build a value or import a name.
"""

from __future__ import annotations

import io
import pickletools
import zipfile
from typing import BinaryIO

from compressor.errors import ModelError

_MOST_WORK = 1 << 24
"""Parts looked at to make hashes and to call constructors; a checkpoint with 10,000 tensors takes some 200,000."""
_DEEPEST = 1000
_ENOUGH = 1 << 40
_LEGACY_PICKLES = 5
"""Magic number, version, system, content, names of storages: what torch.save wrote one after another before 1.6."""

Cell = list[int]
"""Parts of a value, and how deep it is. A value that grows after it was named keeps its cell."""


def check_pickles(file: BinaryIO) -> None:
    """Nothing, when the pickles of an open torch file can be taken apart in reasonable time; it is left at its start.

    Damage is for the reader to find.

    Raises:  ModelError otherwise.
    """
    file.seek(0)
    try:
        if zipfile.is_zipfile(file):
            with zipfile.ZipFile(file) as archive:
                for name in archive.namelist():
                    if name.rpartition("/")[2] == "data.pkl":
                        _check(io.BytesIO(archive.read(name)))
        else:
            file.seek(0)
            for _ in range(_LEGACY_PICKLES):
                _check(file)
    except ModelError:
        raise
    except Exception:  # no pickle at all, or one that is cut off: pickletools and zipfile raise anything
        return
    finally:
        file.seek(0)


def _check(stream: BinaryIO) -> None:
    """A pickle machine whose values are only counted, for the one pickle that begins here."""
    stack: list[Cell] = []
    marks: list[int] = []
    memo: dict[object, Cell] = {}
    work = deepest = 0
    for opcode, argument, _ in pickletools.genops(stream):
        kind = _KINDS[opcode.name]
        if kind == _PUSH:
            stack.append(_LEAF)
        elif kind == _PUT:
            memo[len(memo) if argument is None else argument] = stack[-1]
        elif kind == _GET:
            stack.append(stack[-1] if argument is None else memo[argument])
        elif kind == _MARK:
            marks.append(len(stack))
        elif kind != _NONE:
            start = marks.pop() if _has_mark(opcode) else len(stack) - len(opcode.stack_before) + (kind == _GROW)
            parts = stack[start:]
            del stack[start:]
            if kind == _MAKE:
                stack.append([1, 0])
            if opcode.name in _PAID:
                keys = parts[::2] if opcode.name in ("SETITEM", "SETITEMS") else parts
                work += sum(cell[0] for cell in keys)
                deepest = max([deepest, *(cell[1] for cell in keys)])
                _refuse(work, deepest)
            if kind != _DROP:
                _grow(stack[-1], parts)


def _refuse(work: int, deepest: int) -> None:
    if work > _MOST_WORK:
        raise ModelError("its pickle has no end: values that hold each other many times over")
    if deepest > _DEEPEST:
        raise ModelError(f"its pickle has no end: keys that lie more than {_DEEPEST} deep")


def _grow(cell: Cell, parts: list[Cell]) -> None:
    if cell is _LEAF:  # nothing grows there; the reader will say so
        return
    cell[0] = min(cell[0] + sum(part[0] for part in parts), _ENOUGH)
    cell[1] = max([cell[1], *(part[1] + 1 for part in parts)])


_LEAF: Cell = [1, 0]
"""Every number, text and name; nothing is ever added to one."""
_GROWING = frozenset({"APPEND", "APPENDS", "SETITEM", "SETITEMS", "ADDITEMS", "BUILD"})
_PAID = frozenset(
    {"SETITEM", "SETITEMS", "ADDITEMS", "BUILD", "REDUCE", "NEWOBJ", "NEWOBJ_EX", "OBJ", "INST", "BINPERSID", "DICT"}
    | {"FROZENSET"}
)
"""Instructions that make keys, or hand their parts to somebody who may; lists are never hashed."""
_PUSH, _PUT, _GET, _MARK, _GROW, _MAKE, _DROP, _NONE = range(8)


def _kind(opcode: pickletools.OpcodeInfo) -> int:
    name = opcode.name
    if name == "MARK":
        return _MARK
    if name in ("PUT", "BINPUT", "LONG_BINPUT", "MEMOIZE"):
        return _PUT
    if name in ("GET", "BINGET", "LONG_BINGET", "DUP"):
        return _GET
    if name in _GROWING:
        return _GROW
    if not opcode.stack_before and not opcode.stack_after:
        return _NONE
    if not opcode.stack_after:
        return _DROP
    is_container = name.startswith("EMPTY_") and name != "EMPTY_TUPLE"  # of its own, for it will grow
    return _PUSH if not opcode.stack_before and not is_container else _MAKE


def _has_mark(opcode: pickletools.OpcodeInfo) -> bool:
    return pickletools.markobject in opcode.stack_before


_KINDS = {opcode.name: _kind(opcode) for opcode in pickletools.opcodes}
