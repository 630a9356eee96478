"""Parameters, MACs, activations and time, as functions of kept counts too; it must never hold units or masks."""

from compressor.cost.count import count_activations, count_macs
from compressor.cost.latency import LatencyTable, Stopwatch, width_grid
from compressor.cost.preferences import USUAL, Contraction, Preference, Preferences, contractions, filled_work
from compressor.cost.probes import find_preferences
from compressor.cost.terms import Factor, Term, mac_terms, macs_of_layers, parameter_terms

__all__ = [
    "USUAL",
    "Contraction",
    "Factor",
    "LatencyTable",
    "Preference",
    "Preferences",
    "Stopwatch",
    "Term",
    "contractions",
    "count_activations",
    "count_macs",
    "filled_work",
    "find_preferences",
    "mac_terms",
    "macs_of_layers",
    "parameter_terms",
    "width_grid",
]
