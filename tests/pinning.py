"""What makes a command do the same on every machine; it must never hold anything that a user could not set too."""

from __future__ import annotations

PINNED = {"COMPRESS_ROUND_TO": "1", "COMPRESS_NO_LATENCY": "1"}
"""No width and no line of a result depends on measured time, as in anybody's CI."""
