"""Files that hold models: `load` any accepted one, `save` the one form that is our own.

It must never hold what is done to a model, nor run code out of a file unless the user trusts it.
"""

from compressor.formats.archive import file_sha256
from compressor.formats.checkpoint import check_storable, save, to_bytes
from compressor.formats.detect import is_onnx
from compressor.formats.load import INITIAL, from_bytes, load
from compressor.formats.weights import Taken, read_weights, take_weights

__all__ = [
    "INITIAL",
    "Taken",
    "check_storable",
    "file_sha256",
    "from_bytes",
    "is_onnx",
    "load",
    "read_weights",
    "save",
    "take_weights",
    "to_bytes",
]
