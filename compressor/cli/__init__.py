"""The command line: one file per command, each parses, calls one function, renders, and says how it ended.

It must never hold an algorithm, nor import torch at module level: `compress --help` answers at once.
"""
