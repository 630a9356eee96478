"""Entries that count layers: found in made-up configurations whose networks are tables of shapes."""

from __future__ import annotations

from typing import Any

import pytest

from compressor.models.depths import find_depths

Shapes = dict[str, tuple[int, ...]]


def plain(entries: Any) -> Shapes | None:
    """Layers, a list that has to be as long as they are, and a list that happens to be."""
    if len(entries["kinds"]) != entries["layers"] or len(entries["dims"]) != len(entries["strides"]):
        return None
    shapes: Shapes = {"embed.weight": (entries["width"], 4)}
    for i in range(entries["layers"]):
        shapes[f"net.layers.{i}.attn.weight"] = (entries["width"], entries["width"])
        shapes[f"net.layers.{i}.mlp.0.weight"] = (3, entries["width"])
        shapes[f"net.layers.{i}.mlp.1.weight"] = (entries["width"], 3)
    return shapes | {f"convs.{i}.weight": (dim, 1) for i, dim in enumerate(entries["dims"])}


PLAIN = {"layers": 3, "kinds": ["a", "b", "a"], "dims": [4, 5, 6], "strides": [1, 2, 3], "width": 8, "heads": 3}


def test_an_entry_that_counts_layers_is_found_with_the_lists_that_are_as_long() -> None:
    (depth,) = find_depths(PLAIN, plain)
    assert (depth.key, depth.n, depth.stacks) == (("layers",), 3, ("net.layers.",))
    assert depth.lists == (("kinds",),)
    assert depth.without(PLAIN, (0, 2)) == {**PLAIN, "layers": 2, "kinds": ["a", "a"]}
    assert PLAIN["layers"] == 3


def test_what_is_left_is_numbered_anew_and_nothing_else_is() -> None:
    (depth,) = find_depths(PLAIN, plain)
    names = [name for name in plain(PLAIN) or () if not name.startswith("net.layers.1.")]
    assert depth.left(names) == (0, 2)
    assert depth.renamed("net.layers.2.mlp.1.weight", (0, 2)) == "net.layers.1.mlp.1.weight"
    assert depth.renamed("convs.2.weight", (0, 2)) == "convs.2.weight"
    assert depth.renamed("net.layers.1.mlp.1.weight", (0, 2)) == "net.layers.1.mlp.1.weight"


def stacks(entries: Any) -> Shapes | None:
    """Two stacks of one entry, one of another's, in a table of its own."""
    shapes: Shapes = {}
    for i in range(entries["n"]):
        shapes |= {f"encoder.{i}.layer.0.w": (2,), f"encoder.{i}.layer.1.w": (2,), f"mirror.{i}.w": (3,)}
    return shapes | {f"vision.layers.{i}.w": (4,) for i in range(entries["vision_config"]["n"])}


def test_stacks_of_one_entry_go_together_and_those_of_tables_are_found() -> None:
    found = find_depths({"n": 2, "vision_config": {"n": 4}}, stacks)
    assert [(depth.key, depth.stacks) for depth in found] == [
        (("n",), ("encoder.", "mirror.")),
        (("vision_config", "n"), ("vision.layers.",)),
    ]


@pytest.mark.parametrize("what", ["another shape", "another name", "no network", "one layer"])
def test_an_entry_whose_network_changes_otherwise_counts_no_layers(what: str) -> None:
    def build(entries: Any) -> Shapes | None:
        n = entries["n"]
        if what == "no network" and n == 2:
            return None
        shapes: Shapes = {f"layers.{i}.w": (2,) for i in range(n)}
        width = n if what == "another shape" else 3
        name = f"head{n}.w" if what == "another name" else "head.w"
        return {**shapes, name: (width,)}

    assert find_depths({"n": 1 if what == "one layer" else 3}, build) == ()
