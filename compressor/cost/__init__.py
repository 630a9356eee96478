"""Parameters, MACs, activations and time, as functions of kept counts too; it must never hold units or masks."""

from compressor.cost.count import count_activations, count_macs
from compressor.cost.latency import LatencyTable, Stopwatch, width_grid
from compressor.cost.preferences import USUAL, Contraction, Preference, Preferences, contractions, filled_work
from compressor.cost.probes import find_preferences
from compressor.cost.products import Factor, Operator, Product, multiplies, uncounted_operators
from compressor.cost.terms import Term, dense_cost, mac_terms, macs_of_layers, parameter_terms, weight_prices

__all__ = [
    "USUAL",
    "Contraction",
    "Factor",
    "LatencyTable",
    "Operator",
    "Preference",
    "Preferences",
    "Product",
    "Stopwatch",
    "Term",
    "contractions",
    "count_activations",
    "count_macs",
    "dense_cost",
    "filled_work",
    "find_preferences",
    "mac_terms",
    "macs_of_layers",
    "multiplies",
    "parameter_terms",
    "uncounted_operators",
    "weight_prices",
    "width_grid",
]
