"""What the reading of one file may cost, all of it together: elements, products, nodes, time.

It must never know an operator. A file of a few bytes can ask for any amount of work; a limit for each single request
would be reached a thousand times.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field

from compressor.errors import ModelError

_FREE_ELEMENTS = 2**27
_PER_HELD = 16
"""Elements of computed constants that any file may have, and beyond them for each element that it really holds."""

_MOST_PRODUCTS = 2**37
"""Multiplications of constants by constants: a minute or two."""

MOST_NODES = 2**19
"""Nodes, those of functions and branches counted as often as they are written out. The largest that people made have
tens of thousands."""

MOST_DEPTH = 100
"""Functions that call one another in a row: as deep as protobuf reads graphs in graphs."""

LARGEST_VALUE = 2**33
"""Elements of one value, at the smallest trial: no machine has room for more."""

_MOST_SECONDS = 600.0
_LARGEST_ARGUMENT = 2**20
"""Entries of a shape, of axes or positions that are looked at one by one."""


class TooMuchError(ModelError):
    """A file asks for more than any is given; another way of reading it asks for as much."""


@dataclass
class Budget:
    """What is left; `n_held` are the elements of the tensors that the file holds."""

    n_held: int = 0
    began_s: float = field(default_factory=time.monotonic)
    n_elements: int = 0
    n_products: int = 0

    def take_elements(self, n: int) -> None:
        """Raises:  TooMuchError where all constants that are made while importing would be too many elements."""
        self.n_elements += n
        most = _FREE_ELEMENTS + _PER_HELD * self.n_held
        if self.n_elements > most:
            raise TooMuchError(f"makes constants of {self.n_elements:,} elements in all; at most {most:,} are made")
        self.check_time()

    def take_products(self, n: int) -> None:
        """Raises:  TooMuchError where constants would be multiplied for hours."""
        self.n_products += n
        if self.n_products > _MOST_PRODUCTS:
            raise TooMuchError(f"multiplies constants {self.n_products:,} times; at most {_MOST_PRODUCTS:,} are done")

    def check_time(self) -> None:
        """Raises:  TooMuchError once reading has taken too long."""
        if time.monotonic() - self.began_s > _MOST_SECONDS:
            raise TooMuchError(f"takes more than {_MOST_SECONDS:.0f} s to read; the file cannot be trusted")


def check_value(n_elements: int) -> None:
    """Raises:  TooMuchError for a value that no machine can hold."""
    if n_elements > LARGEST_VALUE:
        raise TooMuchError(f"makes a value of {n_elements:,} elements, which no machine can hold")


def check_argument(n_entries: int) -> None:
    """Raises:  TooMuchError for a shape, or positions, that would be looked at for hours."""
    if n_entries > _LARGEST_ARGUMENT:
        raise TooMuchError(f"has an argument of {n_entries:,} entries; at most {_LARGEST_ARGUMENT:,} are read")
