"""What `compact` is asked for; it must never hold how anything is removed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias, get_args

from compressor.asking.option import at_least, check, option
from compressor.asking.rounding import read_multiple
from compressor.errors import UsageError

LoweringChoice: TypeAlias = Literal["auto", "dense", "gather", "box", "gather+box", "columns"]
LOWERINGS: tuple[LoweringChoice, ...] = get_args(LoweringChoice)


@dataclass(frozen=True, kw_only=True)
class CompactSettings:
    """What counts as dead, and in which form the rest is left.

    Widths are kept a multiple of `round_to`; with 0 (`auto`) those that the runtime likes.

    Raises:  UsageError for a value out of range.
    """

    allow_noop: bool = option(False, "Succeed when there is nothing to remove, and write the model as it is.")
    masks_only: bool = option(
        False,
        "Remove what the masks cut and nothing else: for zeros that shall learn again (batch norms that start at 0).",
    )
    lowering: LoweringChoice = option(
        "auto",
        "Form of layers with columns of zeros (pattern shape): what is measured to be fastest, or this one where a "
        "layer has it; dense keeps the zeros.",
    )
    round_to: int = option(
        1,
        "Keep dead channels, as zeros, to make widths a multiple of N; auto: where kernels are faster for it.",
        metavar="N", read=read_multiple, shown="1",
    )  # fmt: skip
    threads: int = option(
        1, "Threads of onnxruntime that --lowering auto and --report measure with.", metavar="N", range=at_least(1)
    )

    def __post_init__(self) -> None:
        check(self)
        if self.round_to < 0:
            raise UsageError(f"--round-to {self.round_to}: must be at least 1, or auto")

    @property
    def takes_time(self) -> bool:
        """Whether something may have to be timed."""
        return self.lowering == "auto" or self.round_to == 0


DEFAULTS = CompactSettings()
"""What is done where nothing is asked for."""
