"""Bundled architectures and `build`, which makes a module from any `--arch`.

It must never hold data sets, training, or a graph of a network.
"""

from compressor.models.registry import ALIASES, ARCHITECTURES, Architecture, Built, build, parse_arch_args

__all__ = ["ALIASES", "ARCHITECTURES", "Architecture", "Built", "build", "parse_arch_args"]
