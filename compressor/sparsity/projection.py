"""The largest entries of large tensors without sorting them, and tallies to share a budget; it must never know layers.

The bits of a float that is not negative, read as an integer, have the order of the float. Their upper half sorts the
entries into 65,536 bins that are 0.4 % wide, in one pass. A threshold is a bin; only the entries of that one bin are
compared exactly.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

_SHIFT = 15
_N_BINS = 1 << 16


@dataclass(frozen=True)
class Binned:
    """Magnitudes and the bin of each. `n_alive` leaves out what is gone, which has the magnitude -1.

    Shapes:  magnitudes (n,), bins (n,), counts (65536,)
    """

    magnitudes: Tensor
    bins: Tensor
    counts: NDArray[np.int64]
    n_alive: int


def bin_magnitudes(magnitudes: Tensor, gone: Tensor | None = None) -> Binned:
    """The bins of `magnitudes`, which must not be negative; `gone` are entries that may not be chosen.

    Shapes:  magnitudes (n,), gone (n,) bool or None
    """
    values = magnitudes.to(torch.float32).contiguous()
    n_gone = 0 if gone is None else int(gone.sum())
    if gone is not None and n_gone:
        values = values.masked_fill(gone, -1.0)
    bins = values.view(torch.int32) >> _SHIFT
    if n_gone:
        bins.clamp_(min=0)
    counts = torch.bincount(bins, minlength=_N_BINS).cpu().numpy()
    if n_gone:
        counts[0] -= n_gone
    return Binned(values, bins, counts, len(values) - n_gone)


def keep_largest(binned: Binned, n: int) -> Tensor:
    """The n largest of what is alive, True = keep; of equal ones those that come first.

    It is the Euclidean projection onto vectors with n non-zero entries.

    Shapes:  -> (n_entries,) bool
    """
    if n <= 0:
        return torch.zeros(len(binned.bins), dtype=torch.bool, device=binned.bins.device)
    if n >= binned.n_alive:
        return binned.magnitudes >= 0
    from_top = np.cumsum(binned.counts[::-1])
    place = int(np.searchsorted(from_top, n))
    edge = _N_BINS - 1 - place
    above = int(from_top[place] - binned.counts[edge])
    keep = binned.bins > edge
    at_edge = (binned.bins == edge).nonzero().flatten()
    order = torch.sort(binned.magnitudes[at_edge], descending=True, stable=True).indices
    keep[at_edge[order[: n - above]]] = True
    return keep


@dataclass(frozen=True)
class Tally:
    """How many entries of one layer a threshold on the LAMP score leaves.

    The j-th largest entry of a bin with value v has the score v² / (S + j v²), S the energy of all larger bins: it is
    at least 1/x when j <= x − S/v². `rests` holds S/v² of every bin in use, `counts` how many entries lie in it.
    """

    rests: NDArray[np.float64]
    counts: NDArray[np.float64]

    @property
    def n(self) -> int:
        return int(self.counts.sum())

    def count(self, x: float) -> int:
        """Entries with a LAMP score of at least 1/x."""
        return int(np.clip(np.floor(x - self.rests), 0, self.counts).sum())


def tally(binned: Binned) -> Tally:
    """The tally of one layer.

    Source:  Lee et al. 2021, "Layer-adaptive sparsity for the magnitude-based pruning" (LAMP), eq. 3, with the middle
             of its bin for each magnitude (within 0.2 %).
    """
    used = np.flatnonzero(binned.counts)[::-1]
    counts = binned.counts[used].astype(np.float64)
    middles = ((used << _SHIFT) + (1 << (_SHIFT - 1))).astype(np.int32).view(np.float32).astype(np.float64)
    squares = np.where(used > 0, middles, 0.0) ** 2
    larger = np.concatenate([[0.0], np.cumsum(counts * squares)[:-1]])
    # What is zero comes after everything else, whatever the threshold.
    rests = np.divide(larger, squares, out=np.full_like(larger, np.inf), where=squares > 0)
    return Tally(rests, counts)
