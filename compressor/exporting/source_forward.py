"""The lines of one `forward`: values named, short ones put where they are read; it must never hold how an operator is
written."""

from __future__ import annotations

import operator
from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch.fx import Node
from torch.utils import _pytree as pytree

from compressor.exporting.source_graph import Told
from compressor.exporting.source_idioms import expression
from compressor.exporting.source_regions import Path
from compressor.exporting.source_text import Slot, literal, unique
from compressor.program.shapes import TensorShape

_NAMES = ("x", "y", "z", "w", "v", "u")
_LONGEST_INLINE = 72
_DEEPEST_INLINE = 3

Item = Node | Path


class Forward:
    """Writes one; `access` gives the text by which a tensor or a module is reached."""

    def __init__(self, told: Told, path: Path, inputs: Mapping[Node, str], access: Callable[[Path], str]) -> None:
        self.told, self.path, self.access = told, path, access
        self.slots: list[Slot] = []
        self.lines: list[str] = []
        self.needs_batch = self.needs_device = False
        self._names: dict[Node, str] = dict(inputs)
        self._inline: dict[Node, tuple[str, bool]] = {}
        self._unpacked: dict[Node, list[Node | None]] = {}
        self._given = set(inputs.values())
        self._items: list[Item] = list(told.regions.items(path))
        self._here = {item for item in self._items if isinstance(item, Node)}
        self._pending: list[str] = []
        self._live: set[str] = set()
        self._is_mutable = any(
            getattr(getattr(node.target, "_schema", None), "is_mutable", False) for node in told.regions.nodes
        )

    def write(self, outputs: Any) -> None:
        """Fills `lines`; `outputs` is the structure of values that is returned."""
        self._items = [item for item in self._items if not self._is_unpacking(item)]
        returned = [v for v in pytree.tree_leaves(outputs) if isinstance(v, Node)]
        uses, last = self._uses(returned)
        for number, item in enumerate(self._items):
            following = self._items[number + 1] if number + 1 < len(self._items) else None
            self._statement(item, following, number, uses, last, returned)
        self.lines.append(f"return {self.value(outputs)}")
        if self.needs_batch:
            given, dim = next((v, d) for v, d in self._batch_dims() if d is not None)
            self.lines.insert(0, f"batch = {given}.shape[{dim}]")
        if self.needs_device:
            names = self._first_names.items()  # sizes go into a part of the network too, and have no device
            given = next(name for node, name in names if isinstance(self.told.shapes[0].get(node.name), TensorShape))
            self.lines.insert(0, f"device = {given}.device")

    def _batch_dims(self) -> list[tuple[str, int | None]]:
        return [(self._first_names[node], self.told.batch_dim(node)) for node in self._first_names]

    @property
    def _first_names(self) -> dict[Node, str]:
        return {node: name for node, name in self._names.items() if name in self._given}

    def _is_unpacking(self, item: Item) -> bool:
        """Whether it takes its part out of a tuple that the line before takes apart."""
        if not isinstance(item, Node) or item.target is not operator.getitem:
            return False
        source = item.args[0]
        return isinstance(source, Node) and self._parts(source) is not None

    def _parts(self, source: Node) -> list[Node | None] | None:
        shape = self.told.shapes[0].get(source.name)
        if not isinstance(shape, tuple) or source not in self._here or not 1 < len(shape) <= 8:
            return None
        if source in self._unpacked:
            return self._unpacked[source]
        parts: list[Node | None] = [None] * len(shape)
        for user in source.users:
            if user not in self._here or user.target is not operator.getitem or not isinstance(user.args[1], int):
                return None
            if parts[user.args[1]] is not None:
                return None
            parts[user.args[1]] = user
        self._unpacked[source] = parts
        return parts

    def _reads(self, item: Item) -> list[Node]:
        """Values by occurrence."""
        if isinstance(item, Node):
            found = [v for v in pytree.tree_leaves((item.args, item.kwargs)) if isinstance(v, Node)]
            return [v for v in found if v.op != "get_attr" and v not in self.told.sizes]
        return list(self.told.ports(item).inputs)

    def _writes(self, item: Item) -> list[Node | None]:
        if isinstance(item, Node):
            return self._unpacked.get(item) or [item]
        return list(self.told.ports(item).outputs)

    def _uses(self, returned: list[Node]) -> tuple[Counter[Node], dict[Node, int]]:
        uses: Counter[Node] = Counter()
        last: dict[Node, int] = {}
        for number, item in enumerate(self._items):
            for value in self._reads(item):
                uses[value] += 1
                last[value] = number
        for value in returned:
            uses[value] += 1
            last[value] = len(self._items)
        return uses, last

    def _statement(
        self,
        item: Item,
        following: Item | None,
        number: int,
        uses: Counter[Node],
        last: Mapping[Node, int],
        returned: list[Node],
    ) -> None:
        reads = [self._names[value] for value in self._reads(item) if value in self._names]
        text, is_compound = self._text(item)
        written = self._writes(item)
        if (
            len(written) == 1
            and isinstance(written[0], Node)
            and self._fits(written[0], text, following, uses, returned)
        ):
            self._inline[written[0]] = (text, is_compound)
            self._pending += reads
            return
        reads, self._pending = [*self._pending, *reads], []
        self._free(number, last)
        names = self._new_names(written, reads)
        comment = "  # an operator that has no shorter form" if "torch.ops." in text else ""
        self.lines.append(f"{', '.join(names)} = {text}{comment}")

    def _fits(self, value: Node, text: str, following: Item | None, uses: Counter[Node], returned: list[Node]) -> bool:
        """Whether the value may stand where it is read: once, in the next line."""
        if uses[value] != 1 or "torch.ops." in text or self._is_mutable:
            return False
        if following is None:
            return value in returned and len(returned) == 1
        if len(text) > _LONGEST_INLINE or _depth(text) > _DEEPEST_INLINE:
            return False
        return value in self._reads(following)

    def _free(self, number: int, last: Mapping[Node, int]) -> None:
        self._live = {name for value, name in self._names.items() if last.get(value, -1) > number}

    def _new_names(self, written: list[Node | None], reads: list[str]) -> list[str]:
        names: list[str] = []
        for value in written:
            if value is None:
                names.append("_")
                continue
            taken = {*self._live, *names}
            own = [name for name in reads if name in _NAMES and name not in taken]
            free = [*(name for name in self._wanted(written) if name not in taken), *own]
            free += [name for name in _NAMES if name not in taken and name not in self._given - {"x"}]
            name = free[0] if free else unique("t", taken)
            names.append(name)
            self._names[value] = name
        return names

    @staticmethod
    def _wanted(written: list[Node | None]) -> tuple[str, ...]:
        into = [{str(user.target) for user in value.users} for value in written if value is not None]
        is_attention = len(written) == 3 and any("attention" in name for names in into for name in names)
        return ("q", "k", "v") if is_attention else ()

    def _text(self, item: Item) -> tuple[str, bool]:
        if not isinstance(item, Node):
            given = ", ".join(self.value(value) for value in self.told.ports(item).inputs)
            return f"{self.access(item)}({given})", False
        call = self.told.regions.layers.get(item)
        if call is not None:
            return f"{self.access(tuple(call.path.split('.')))}({self.value(call.value)})", False
        return expression(item, self)

    def value(self, value: Any) -> str:
        if isinstance(value, Node):
            return self._node(value)[0]
        if isinstance(value, dict):
            return "{" + ", ".join(f"{literal(key)}: {self.value(part)}" for key, part in value.items()) + "}"
        if isinstance(value, list):
            return f"[{', '.join(self.value(part) for part in value)}]"
        if isinstance(value, tuple):
            return f"({', '.join(self.value(part) for part in value)}{',' if len(value) == 1 else ''})"
        if isinstance(value, torch.device):  # where the inputs are: the network may be moved
            self.needs_device = True
            return "device"
        return literal(value)

    def operand(self, value: Any) -> str:
        if isinstance(value, Node):
            text, is_compound = self._node(value)
            return f"({text})" if is_compound else text
        text = self.value(value)
        return f"({text})" if text.startswith("-") else text

    def size(self, value: Any) -> str:
        if isinstance(value, list):
            return f"[{', '.join(self.size(part) for part in value)}]"
        if isinstance(value, bool) or not isinstance(value, int | float):
            return self.value(value)
        self.slots.append(
            Slot(value, "width" if isinstance(value, int) else "scale", "size" if isinstance(value, int) else "scale")
        )
        return f"\0{len(self.slots) - 1}\0"

    def sizes(self, of: Any, sizes: list[Any]) -> str:
        return ", ".join(self.size(size) if not _is_open(size) else self.value(size) for size in sizes) or "()"

    def is_flattening(self, of: Any, sizes: list[Any]) -> bool:
        """Whether a reshape to the sizes is `flatten(1)`."""
        shape = self.told.shapes[0].get(of.name) if isinstance(of, Node) else None
        if not isinstance(shape, TensorShape) or len(sizes) != 2 or len(shape.sizes) < 3:
            return False
        return self.told.is_batch(sizes[0]) and self.told.batch_dim(of) == 0

    def _node(self, node: Node) -> tuple[str, bool]:
        if node.op == "get_attr":
            return self.access(tuple(str(node.target).split("."))), False
        if node in self.told.sizes:
            if self.told.is_batch(node):
                self.needs_batch = True
                return "batch", False
            return expression(node, self)
        if node in self._inline:
            return self._inline[node]
        return self._names[node], False


def _is_open(size: Any) -> bool:
    return isinstance(size, int) and size < 0


def _depth(text: str) -> int:
    """How far brackets are nested."""
    deepest = depth = 0
    for character in text:
        depth += (character == "(") - (character == ")")
        deepest = max(deepest, depth)
    return deepest
