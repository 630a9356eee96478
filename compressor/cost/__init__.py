"""Parameters, MACs and activations, as numbers and as functions of kept counts; it must never hold units or masks."""

from compressor.cost.count import count_activations, count_macs
from compressor.cost.terms import Factor, Term, mac_terms, macs_of_layers, parameter_terms

__all__ = ["Factor", "Term", "count_activations", "count_macs", "mac_terms", "macs_of_layers", "parameter_terms"]
