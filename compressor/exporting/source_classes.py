"""Modules of the generated source as classes: what differs only in widths shares one; it must never hold how a forward
is divided or written."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from torch import nn
from torch.fx import Node

from compressor.exporting.source_forward import Forward
from compressor.exporting.source_graph import Told
from compressor.exporting.source_layers import bare_module
from compressor.exporting.source_regions import Path
from compressor.exporting.source_text import (
    Arg,
    Build,
    Slot,
    attribute,
    class_name,
    is_attribute,
    literal,
    quoted,
    shape_of,
    slots_of,
    unique,
    variable,
    written,
)  # fmt: skip

_MARK = re.compile("\0(\\d+)\0")
_WORD = re.compile(r"[a-z]{2,12}", re.ASCII)
_DICT = frozenset(dir(nn.ModuleDict))


@dataclass
class Part:
    """One place in the tree of names."""

    path: Path
    children: dict[str, Part] = field(default_factory=dict)
    tensors: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Init:
    """One line of a constructor: a module, a parameter or a buffer by name."""

    name: str
    build: Build
    kind: str = "module"


@dataclass
class Body:
    """A class before it is known who shares it."""

    path: Path
    inits: list[Init]
    inputs: list[str] = field(default_factory=list)
    lines: list[str] = field(default_factory=list)
    forward_slots: list[Slot] = field(default_factory=list)
    n_outputs: int = 1

    @property
    def slots(self) -> list[tuple[str, Slot]]:
        """Every constant with the name of what it is a constant of."""
        of_inits = [(init.name, slot) for init in self.inits for slot in slots_of(init.build)]
        return of_inits + [("", slot) for slot in self.forward_slots]

    @property
    def shape(self) -> tuple[Any, ...]:
        inits = tuple((init.name, init.kind, shape_of(init.build)) for init in self.inits)
        lines = tuple(_MARK.sub(lambda m: f"\0{self.forward_slots[int(m[1])].kind}\0", line) for line in self.lines)
        return inits, tuple(self.inputs), lines


class Classes:
    """Writes all classes of a network, the inner ones first; `texts` has them in order."""

    def __init__(self, told: Told, outputs: Any, inputs: Mapping[Node, str]) -> None:
        self.told, self._outputs, self._inputs = told, outputs, inputs
        self.texts: list[str] = []
        self.root = _tree(told)
        self._layers = {tuple(call.path.split(".")): call.build for call in told.regions.layers.values()}
        self._chains: dict[Path, list[tuple[str | None, Build | Path]]] = {}
        self._builds: dict[Path, Build] = {}
        self._names: set[str] = {"Model"}
        self._find_chains()
        self._write_all()

    def _parts(self) -> Iterator[Part]:
        waiting = [self.root]
        while waiting:
            part = waiting.pop()
            yield part
            waiting += part.children.values()

    def _kind(self, part: Part) -> str:
        if part.path in self._layers:
            return "layer"
        if part.path in self._chains:
            return "chain"
        if part.path in self.told.regions.callable or not part.path:
            return "class"
        names = list(part.children)
        if part.tensors or not names:
            return "class"
        if names == [str(n) for n in range(len(names))]:
            return "list"
        return "dict" if not _DICT & set(names) and all(_fits_dict(name) for name in names) else "class"

    def _find_chains(self) -> None:
        """Numbered modules in a row become an `nn.Sequential`; where they are not in a row, whoever holds them says how
        they follow each other."""
        callable_parts = (part for part in self._parts() if part.path in self.told.regions.callable)
        for part in sorted(callable_parts, key=lambda part: len(part.path), reverse=True):
            if not all(name.isascii() and name.isdigit() for name in part.children):
                continue
            chain = self._chain(part)
            if chain is not None:
                self._chains[part.path] = chain
            elif not part.tensors:
                self.told.regions.dissolve(part.path)

    def _chain(self, part: Part) -> list[tuple[str | None, Build | Path]] | None:
        """The entries of an `nn.Sequential` where that is all the module does, None otherwise."""
        ports = self.told.ports(part.path)
        if part.tensors or len(ports.inputs) != 1 or len(ports.outputs) != 1:
            return None
        at = ports.inputs[0]
        entries: list[tuple[str | None, Build | Path]] = []
        items = self.told.regions.items(part.path)
        for number, item in enumerate(items):
            entry, reads, gives = self._entry(item, len(part.path))
            is_last = number == len(items) - 1
            if entry is None or reads != [at] or len(gives) != 1:
                return None
            if not is_last and (len(gives[0].users) == 0 or gives[0] in ports.outputs):
                return None
            entries.append(entry)
            at = gives[0]
        named = [name for name, _ in entries if name is not None]
        return entries if sorted(named) == sorted(part.children) and at == ports.outputs[0] else None

    def _entry(
        self, item: Node | Path, depth: int
    ) -> tuple[tuple[str | None, Build | Path] | None, list[Node], list[Node]]:
        if not isinstance(item, Node):
            ports = self.told.ports(item)
            entry = (item[depth], item) if len(item) == depth + 1 else None
            return entry, list(ports.inputs), list(ports.outputs)
        call = self.told.regions.layers.get(item)
        if call is not None:
            path = tuple(call.path.split("."))
            return ((path[depth], path) if len(path) == depth + 1 else None), self.told.values(item), [item]
        build = bare_module(item)
        return ((None, build) if build is not None else None), self.told.values(item), [item]

    def _build(self, part: Part) -> Build:
        kind = self._kind(part)
        if kind == "layer":
            return self._layers[part.path]
        if kind == "chain":
            return self._sequential(part)
        if kind == "class":
            return self._builds[part.path]
        entries = tuple(
            Arg(name if kind == "dict" else None, self._build(child)) for name, child in part.children.items()
        )
        return Build("nn.ModuleList" if kind == "list" else "nn.ModuleDict", entries)

    def _sequential(self, part: Part) -> Build:
        chain = self._chains[part.path]
        is_plain = all(name in (None, str(number)) for number, (name, _) in enumerate(chain))
        taken: set[str] = set(part.children)
        args: list[Arg] = []
        for name, entry in chain:
            build = entry if isinstance(entry, Build) else self._build(part.children[entry[-1]])
            key = name or unique(build.callee.removeprefix("nn.").lower(), taken)
            taken.add(key)
            args.append(Arg(None if is_plain else key, build))
        return Build("nn.Sequential" if is_plain else "OrderedSequential", tuple(args))

    def _height(self, part: Part) -> int:
        inner = max((self._height(child) for child in part.children.values()), default=0)
        return inner + (self._kind(part) == "class")

    def _write_all(self) -> None:
        levels: dict[int, list[Part]] = {}
        for part in self._parts():
            if self._kind(part) == "class":
                levels.setdefault(self._height(part), []).append(part)
        for _, parts in sorted(levels.items()):
            groups: dict[tuple[Any, ...], list[Body]] = {}
            for part in sorted(parts, key=lambda p: _natural(p.path)):
                body = self._body(part)
                groups.setdefault(body.shape if part.path else ((), "the model"), []).append(body)
            for bodies in groups.values():
                self._write_class(bodies)

    def _body(self, part: Part) -> Body:
        inits = [Init(name, self._build(child)) for name, child in part.children.items()]
        inits += [self._tensor(name, full) for name, full in part.tensors.items()]
        body = Body(part.path, inits)
        is_model = not part.path
        if not is_model and part.path not in self.told.regions.callable:
            return body
        ports = self.told.ports(part.path)
        names = dict(self._inputs) if is_model else dict(zip(ports.inputs, _inputs(len(ports.inputs)), strict=True))
        forward = Forward(self.told, part.path, names, lambda path: self._access(part, path))
        outputs = ports.outputs[0] if len(ports.outputs) == 1 else ports.outputs
        forward.write(self._outputs if is_model else outputs)
        body.inputs, body.lines, body.forward_slots = list(names.values()), forward.lines, forward.slots
        body.n_outputs = 0 if is_model else len(ports.outputs)
        return body

    def _tensor(self, name: str, full: str) -> Init:
        tensor = self.told.tensors[full]
        sizes = tuple(Arg(None, Slot(size, "width", "size")) for size in tensor.shape)
        sizes = sizes or (Arg(None, Slot((), "shape", "shape")),)
        dtype = (
            (Arg("dtype", Slot(tensor.dtype, "dtype", "dtype"), None),) if str(tensor.dtype) != "torch.float32" else ()
        )
        empty = Build("torch.zeros", (*sizes, *dtype))
        if not isinstance(tensor, nn.Parameter):
            return Init(name, empty, "buffer")
        fixed = () if tensor.requires_grad else (Arg("requires_grad", Slot(False, "requires_grad", "requires_grad")),)
        return Init(name, Build("nn.Parameter", (Arg(None, empty), *fixed)), "parameter")

    def _access(self, scope: Part, path: Path) -> str:
        text, part = "self", scope
        for name in path[len(scope.path) :]:
            kind = self._kind(part)
            if kind == "list" or (kind == "dict" and name in part.children):
                text = f"{text}[{name if kind == 'list' else quoted(name)}]"
            else:
                text = attribute(text, name)
            part = part.children.get(name, part)
        return text

    def _write_class(self, bodies: list[Body]) -> None:
        is_model = not bodies[0].path
        name = "Model" if is_model else unique(_name_of(bodies[0]), self._names)
        self._names.add(name)
        arguments = _arguments(bodies)
        self.texts.append(_class_text(name, bodies, arguments))
        for body in bodies:
            slots = body.slots
            first = {argument: position for position, argument in reversed(arguments.items())}
            args = tuple(
                Arg(argument, Slot(slots[position][1].value, slots[position][1].kind, argument))
                for argument, position in sorted(first.items(), key=lambda entry: entry[1])
            )
            self._builds[body.path] = Build(name, args)


def _name_of(body: Body) -> str:
    """`ConvBn` for a numbered module of a few layers, else what its path says."""
    names = [init.name for init in body.inits]
    are_layers = all(init.build.callee.startswith("nn.") for init in body.inits)
    if 1 < len(names) <= 3 and are_layers and body.path[-1].isdigit() and all(map(_WORD.fullmatch, names)):
        return class_name(("".join(name.capitalize() for name in names),))
    return class_name(body.path)


def _tree(told: Told) -> Part:
    """Names as a tree, in the order in which they are first read; numbers in their own."""
    read = [v for node in told.regions.nodes for v in node.all_input_nodes if v.op == "get_attr"]
    root = Part(())
    for full in dict.fromkeys([*(str(node.target) for node in read), *told.tensors]):
        part = root
        *owners, last = full.split(".")
        for name in owners:
            part = part.children.setdefault(name, Part((*part.path, name)))
        part.tensors[last] = full
    _number(root)
    return root


def _number(part: Part) -> None:
    if all(name.isascii() and name.isdigit() and len(name) < 9 for name in part.children):
        part.children = dict(sorted(part.children.items(), key=lambda entry: int(entry[0])))
    for child in part.children.values():
        _number(child)


def _fits_dict(name: str) -> bool:
    return name.isascii() and len(name) < 60


def _natural(path: Path) -> tuple[Any, ...]:
    return tuple(
        (int(part), part) if part.isascii() and part.isdigit() and len(part) < 9 else (-1, part) for part in path
    )


def _inputs(n: int) -> list[str]:
    return ["x", "y", "z", "w", "v", "u"][:n] if n <= 6 else ["x", *(f"x{i}" for i in range(2, n + 1))]


def _arguments(bodies: Sequence[Body]) -> dict[int, str]:
    """The argument that stands for a constant, by the constant's position; those that are the same everywhere have
    none."""
    columns = list(zip(*(body.slots for body in bodies), strict=True))
    names: dict[int, str] = {}
    known: dict[tuple[Any, ...], str] = {}
    attributes = {init.name for init in bodies[0].inits}
    for position, column in enumerate(columns):
        values = tuple(literal(slot.value) for _, slot in column)
        if len(set(values)) == 1:
            continue
        owner, slot = column[0]
        key = (slot.kind, values)
        if key not in known:
            known[key] = unique(_argument_name(owner, slot, columns), {*known.values(), *attributes})
        names[position] = known[key]
    return names


def _argument_name(owner: str, slot: Slot, columns: Sequence[Any]) -> str:
    """`stride` where one thing only has it, `conv2_out` where several have: said by whom."""
    if slot.hint == "in":
        return "inputs"
    is_only = sum(column[0][1].hint == slot.hint for column in columns) == 1
    return variable(slot.hint if is_only or not owner or slot.hint == owner else f"{owner}_{slot.hint}")


def _class_text(name: str, bodies: Sequence[Body], arguments: Mapping[int, str]) -> str:
    body = bodies[0]
    own = list(dict.fromkeys(arguments.values()))
    values = {argument: [b.slots[p][1].value for b in bodies] for p, argument in arguments.items()}
    signature = "".join(f", {argument}: {_type(values[argument])}" for argument in own)
    lines = [f"class {name}(nn.Module):", f'    """{_places(bodies)}"""', ""]
    n_inits = sum(1 for init in body.inits for _ in slots_of(init.build))
    if body.inits or own:
        line = f"    def __init__(self{signature}) -> None:"
        if len(line) > 100:
            wrapped = "".join(f"        {argument}: {_type(values[argument])},\n" for argument in own)
            line = f"    def __init__(\n        self,\n{wrapped}    ) -> None:"
        lines += [line, "        super().__init__()"]
        kept = dict.fromkeys(arguments[p] for p in arguments if p >= n_inits)
        lines += [f"        self.{argument} = {argument}" for argument in kept]
        positions = iter(range(n_inits))
        lines += [_init_line(init, arguments, positions) for init in body.inits]
    if body.lines:
        lines += [""] if body.inits or own else []
        given = "".join(f", {given}" for given in body.inputs)
        lines += [f"    def forward(self{given}):"]
        lines += ["        " + _filled(line, body, n_inits, arguments) for line in body.lines]
    return "\n".join(lines)


def _filled(line: str, body: Body, n_inits: int, arguments: Mapping[int, str]) -> str:
    def fill(match: re.Match[str]) -> str:
        position = n_inits + int(match[1])
        return f"self.{arguments[position]}" if position in arguments else literal(body.slots[position][1].value)

    return _MARK.sub(fill, line)


def _init_line(init: Init, arguments: Mapping[int, str], positions: Iterator[int]) -> str:
    text = written(init.build, arguments, positions, 8, used=len(init.name) + 8)
    if init.kind == "buffer":
        return f"        self.register_buffer({quoted(init.name)}, {text})"
    if is_attribute(init.name):
        return f"        self.{init.name} = {text}"
    register = "register_parameter" if init.kind == "parameter" else "add_module"
    return f"        self.{register}({quoted(init.name)}, {text})"


def _type(values: Sequence[Any]) -> str:
    kinds = {type(value).__name__ for value in values}
    plain = kinds <= {"int", "float", "bool", "str", "tuple", "NoneType"}
    return " | ".join(sorted("None" if k == "NoneType" else k for k in kinds)) if plain else "object"


def _places(bodies: Sequence[Body]) -> str:
    """Where the class stands in the network."""
    paths = [re.sub(r"[^A-Za-z0-9_.]", "_", ".".join(body.path))[:60] for body in bodies]
    if not bodies[0].path:
        return "The whole network."
    if len(paths) <= 3:
        return ", ".join(paths) + "."
    return f"{paths[0]} to {paths[-1]}, {len(paths)} in all."
