"""What must be removed together: ids, labels, one rule per operator, one walk, the unit map.

It must never hold scores, masks or weights: units follow from the graph alone.
"""

from compressor.axes.blocks import Block, Blocks, PinnedBlock, find_blocks, needed_without, without_blocks
from compressor.axes.ids import Ids, Pin
from compressor.axes.labels import Label, Value, Walked
from compressor.axes.meeting import ids_along, unify
from compressor.axes.rules_contract import contract
from compressor.axes.table import Arguments, Context, rule
from compressor.axes.units import Keep, UnitMap, find_units
from compressor.axes.walk import Walk, walk

__all__ = [
    "Arguments",
    "Block",
    "Blocks",
    "Context",
    "Ids",
    "Keep",
    "Label",
    "Pin",
    "PinnedBlock",
    "UnitMap",
    "Value",
    "Walk",
    "Walked",
    "contract",
    "find_blocks",
    "find_units",
    "ids_along",
    "needed_without",
    "rule",
    "unify",
    "walk",
    "without_blocks",
]
