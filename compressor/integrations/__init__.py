"""Callbacks that put a `Pruner` into other libraries' trainers, one module each; it must never import one unasked.

A module here needs its library installed, and nothing else of this project needs a module here.
"""
