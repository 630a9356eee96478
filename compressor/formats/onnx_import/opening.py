"""Where the batch is in a shape that was written down with the batch in it; it must never hold an importer.

What is chosen here is a reading of the file, not a proof: an imported network whose batch was opened is run on samples
together and alone, and keeps its batch fixed when that differs.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from compressor.errors import ModelError
from compressor.formats.onnx_import.emitter import Emitter
from compressor.formats.onnx_import.values import Const, Number, Size, Traced

_PRODUCTS = ("Gemm", "MatMul")


def opened_batch(ctx: Emitter, x: Traced, wanted: Sequence[Number]) -> list[Number]:
    """The shape with the dimension that holds the batch left open; as it is when nothing fixes the batch.

    That is the first one of the input that depends on the batch, if the dimensions before it stay what they are, with
    two exceptions that attention over (tokens, batch, features) needs: a matrix that a product reads has its rows open,
    and rows that were (tokens x batch) come apart in that order again.

    Raises:  ModelError if the shape does not follow the batch.
    """
    given = [entry for entry in wanted if not isinstance(entry, Size)]
    dependent = [dim for dim in range(x.rank) if len(set(x.at(dim))) > 1]
    if ctx.fixed_batch is None or len(given) < len(wanted) or not dependent:
        return list(wanted)
    whole = _at_fixed_batch(ctx, x, given)
    first = dependent[0]
    if whole[:first] != [x.at(dim)[0] for dim in range(first)]:
        raise ModelError(f"its shape {given} mixes the batch with other dimensions")
    place = first
    if first and first == len(whole) - 1 and _is_read_by_a_product(ctx, whole[-1]):
        place = first - 1
        ctx.batch_inside.add(whole[place])
    elif _comes_apart(ctx, x, whole, first):
        place = first + 1
    return [-1 if position == place else n for position, n in enumerate(whole)]


def _at_fixed_batch(ctx: Emitter, x: Traced, given: Sequence[int]) -> list[int]:
    """The shape at the file's own batch, without an open size."""
    assert ctx.fixed_batch is not None
    small, large = (meta.numel() for meta in x.metas[:2])
    numel = small + (ctx.fixed_batch - ctx.trials[0]) * (large - small)
    known = math.prod(n for n in given if n != -1)
    whole = [numel // known if n == -1 and known else n for n in given]
    first = next(dim for dim in range(x.rank) if len(set(x.at(dim))) > 1)
    if math.prod(whole) != numel or len(whole) <= first:
        raise ModelError(f"its shape {list(given)} does not follow the batch")
    return whole


def _is_read_by_a_product(ctx: Emitter, n_features: int) -> bool:
    """Whether a constant matrix with as many rows as the shape has features is multiplied with the result."""
    readers: Sequence[Any] = [] if ctx.op is None else ctx.consumers.get(ctx.op.outputs[0], ())
    matrices = [ctx.known(reader.input[1]) for reader in readers if reader.op_type in _PRODUCTS]
    return any(isinstance(value, Const) and n_features in value.tensor.shape[:2] for value in matrices)


def _comes_apart(ctx: Emitter, x: Traced, whole: Sequence[int], first: int) -> bool:
    """Whether a dimension of tokens times batch becomes one of tokens and one of samples."""
    if len(whole) < first + 2 or whole[first] not in ctx.batch_inside or whole[first + 1] != ctx.fixed_batch:
        return False
    return all(size == whole[first] * batch for size, batch in zip(x.at(first), ctx.trials, strict=True))
