"""Parameters, MACs, activations and time, as functions of kept counts too; it must never hold units or masks."""

from compressor.cost.count import count_activations, count_macs
from compressor.cost.latency import LatencyTable, Stopwatch, width_grid
from compressor.cost.terms import Factor, Term, mac_terms, macs_of_layers, parameter_terms

__all__ = [
    "Factor",
    "LatencyTable",
    "Stopwatch",
    "Term",
    "count_activations",
    "count_macs",
    "mac_terms",
    "macs_of_layers",
    "parameter_terms",
    "width_grid",
]
