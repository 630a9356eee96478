"""The one representation of a network: an ATen graph with its tensors, masks, inputs and history.

It must never hold knowledge of axes, patterns or file formats.
"""

from compressor.program.arguments import arguments, measured_arguments, set_argument
from compressor.program.capture import capture
from compressor.program.choices import (
    Router,
    close_choices,
    find_routers,
    leaves_out,
    open_choices,
    rows_of,
    weight_of_choice,
)
from compressor.program.excerpt import Excerpt, between
from compressor.program.gather import insert_gather
from compressor.program.interface import Interface, Port
from compressor.program.layers import CONTRACTIONS, FILTERED, Layer, find_layers, layer_name, why_columns_stay
from compressor.program.module import ProgramModule, is_learned, of_same_kind
from compressor.program.naming import free_name
from compressor.program.own_positions import own_positions
from compressor.program.precision import computing_in, default_type
from compressor.program.program import Program
from compressor.program.record import Record, Step
from compressor.program.response_norm import open_response_norms
from compressor.program.shapes import TensorShape, infer_shapes
from compressor.program.spec import Inputs, InputSpec, all_lengths, as_specs, misfit, other_lengths, parse_input
from compressor.program.stored_type import half_type, has_halves, narrowed, taking_float32, widened
from compressor.program.tables_of_numbers import open_heads
from compressor.program.tapped import is_same_graph, landmarks, tapped

__all__ = [
    "CONTRACTIONS",
    "FILTERED",
    "Excerpt",
    "InputSpec",
    "Inputs",
    "Interface",
    "Layer",
    "Port",
    "Program",
    "ProgramModule",
    "Record",
    "Router",
    "Step",
    "TensorShape",
    "all_lengths",
    "arguments",
    "as_specs",
    "between",
    "capture",
    "close_choices",
    "computing_in",
    "default_type",
    "find_layers",
    "find_routers",
    "free_name",
    "half_type",
    "has_halves",
    "infer_shapes",
    "insert_gather",
    "is_learned",
    "is_same_graph",
    "landmarks",
    "layer_name",
    "leaves_out",
    "measured_arguments",
    "misfit",
    "narrowed",
    "of_same_kind",
    "open_choices",
    "open_heads",
    "open_response_norms",
    "other_lengths",
    "own_positions",
    "parse_input",
    "rows_of",
    "set_argument",
    "taking_float32",
    "tapped",
    "weight_of_choice",
    "why_columns_stay",
    "widened",
]
