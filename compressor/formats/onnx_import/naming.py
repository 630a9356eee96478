"""Names of tensors for an imported network: the initializer's own where its exporter left it, else its layer's.

It must never change a tensor. Names that exporters make up (`onnx::Conv_193`, `val_12`) say nothing to a user, so
such a tensor is called by the layer that reads it: `layer1.0.conv1.weight`.
"""

from __future__ import annotations

import keyword
import re

from compressor.errors import ModelError
from compressor.formats.names import check_tensor_names

_MADE_UP = re.compile(
    r"^(onnx::|/|val_\d|\d+$|_?constant|const_fold|_to_copy|.*Constant(_\d+)?_output|.*_output_\d+$|.*__\d+$"
    r"|initializer|slice_|scalar_tensor|expand_|unsqueeze_|permute_|p_|b_|lifted_tensor|tensor_\d|t_\d|node_)",
    re.IGNORECASE,
)
_SUFFIX = re.compile(
    r"[_/.](weights?|kernel|bias(es)?|gamma|beta|scale|mean|var|variance|moving_mean|moving_variance|running_mean"
    r"|running_var|W|b|w|B)(/Read(VariableOp)?)?(/resource)?(:0)?$"
)
_TORCH_LEAVES = ("weight", "bias", "running_mean", "running_var")
_UNFIT = re.compile(r"[^A-Za-z0-9_:/+@ -]", re.ASCII)
_OPERATOR = re.compile(r"_\d+$")


class Names:
    """Names given so far; every new one differs from all of them and lies inside none."""

    def __init__(self) -> None:
        self._taken: set[str] = set()
        self._inside: set[str] = set()

    def choose(self, stored: str, role: str | None, layer: str | None) -> str:
        """A free name for a tensor that is stored as `stored` and plays `role` (weight, bias …) in `layer`."""
        wanted = _wanted(stored, role, layer)
        free, n = wanted, 1
        while not self._is_free(free):
            n += 1
            owner, _, leaf = wanted.rpartition(".")
            if self._lies_inside(wanted):
                first, _, rest = wanted.partition(".")
                free = f"{first}_{n}.{rest}"
            else:
                free = f"{owner}_{n}.{leaf}" if owner and leaf in _TORCH_LEAVES else f"{wanted}_{n}"
        self._taken.add(free)
        parts = free.split(".")
        self._inside.update(".".join(parts[:i]) for i in range(1, len(parts)))
        return free

    def _is_free(self, name: str) -> bool:
        return name not in self._taken and name not in self._inside and not self._lies_inside(name)

    def _lies_inside(self, name: str) -> bool:
        """Whether the name leads through another tensor."""
        parts = name.split(".")
        return any(".".join(parts[:i]) in self._taken for i in range(1, len(parts)))


def is_made_up(name: str) -> bool:
    """Whether an exporter numbered the value instead of naming it."""
    return not name or _MADE_UP.match(name) is not None


def layer_of(node_name: str, kind: str, weight: str | None) -> str:
    """The layer that a node stands for: from its weight's name, else the path in the node's own.

    `/layer1/layer1.0/conv1/Conv` is `layer1.0.conv1`: TorchScript repeats a Sequential's own name in its children's.
    """
    if weight is not None and not is_made_up(weight):
        return _without_role(weight.removesuffix(".T"))
    parts = [part for part in node_name.split("/") if part]
    if parts and _OPERATOR.sub("", parts[-1]) == kind:
        parts = parts[:-1]
    path: list[str] = []
    for part in parts:
        if path and part.startswith(f"{path[-1]}."):
            path.pop()
        path.append(part)
    return ".".join(path) or kind.lower()


def _without_role(name: str) -> str:
    return _SUFFIX.sub("", name) or name


def _wanted(stored: str, role: str | None, layer: str | None) -> str:
    own = stored.removesuffix(".T")
    if not is_made_up(own):
        is_path = "." in own and "/" not in own  # as torch names tensors, in_proj_weight too
        name = own if is_path or role is None else f"{_without_role(own)}.{role}"
    else:
        name = f"{layer or 'constant'}.{role or 'value'}"
    return _fitting(name)


def _fitting(name: str) -> str:
    """The name with what no attribute can be called replaced."""
    parts = [_UNFIT.sub("_", part)[:100] or "_" for part in name.split(".")]
    parts = [f"{part}_" if keyword.iskeyword(part) else part for part in parts][-20:]
    for _ in range(len(parts) + 1):
        try:
            check_tensor_names([".".join(parts)])
            return ".".join(parts)
        except ModelError:
            parts = [_unlike_attributes(part) for part in parts]
    return "tensor"


def _unlike_attributes(part: str) -> str:
    try:
        check_tensor_names([f"{part}.a", f"a.{part}"])
        return part
    except ModelError:
        return f"{part}_"
