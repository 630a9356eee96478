"""SHA-256 over everything that a checkpoint means; it must never depend on how torch lays a file out.

It guards against damage and hand-edited files, not against forgery: whoever writes a file can compute it too.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any, Protocol

import torch
from torch import Tensor

from compressor.errors import ModelError


def digest(graph: str, metadata: Mapping[str, Any], tensors: Mapping[str, Tensor], masks: Mapping[str, Tensor]) -> str:
    """The digest in hexadecimal; an entry `sha256` of the metadata plays no part.

    Raises:  ModelError if the metadata is not plain JSON.
    """
    sha = hashlib.sha256()
    plain = {key: value for key, value in metadata.items() if key != "sha256"}
    try:
        text = json.dumps(plain, sort_keys=True)
    except (TypeError, ValueError, RecursionError) as error:
        raise ModelError(f"its metadata is not plain JSON ({error}); the file is damaged") from error
    for part in (text, graph):
        _add(sha, part.encode("utf-8", errors="surrogatepass"))
    for kind, named in (("tensor", tensors), ("mask", masks)):
        for name, tensor in sorted(named.items()):
            _add(sha, f"{kind} {name} {tensor.dtype} {list(tensor.shape)}".encode(errors="surrogatepass"))
            _add(sha, tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return sha.hexdigest()


class _Sum(Protocol):
    """One of hashlib's, whose class has no public name."""

    def update(self, data: bytes | memoryview, /) -> None: ...


def _add(sha: _Sum, part: bytes | memoryview) -> None:
    # The length first, so that no two different lists of parts run together to the same bytes.
    sha.update(len(part).to_bytes(8, "little"))
    sha.update(part)
