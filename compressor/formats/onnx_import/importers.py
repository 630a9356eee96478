"""All modules that hold importers, so that loading this one fills the table; it must never hold one itself."""

from compressor.formats.onnx_import import (
    contract,
    lookup,
    move,
    norm,
    pointwise,
    pool,
    recurrent,
    reduce,
    resize,
    shape,
    size_arithmetic,
)

IMPORTER_MODULES = (contract, recurrent, norm, pointwise, reduce, pool, resize, move, lookup, shape, size_arithmetic)
