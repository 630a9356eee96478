"""The union-find: components against a naive one, and pins."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from compressor.axes.ids import IdSpace

N = 12
edges = st.lists(st.tuples(st.integers(0, N - 1), st.integers(0, N - 1)), max_size=20)


def naive(pairs: list[tuple[int, int]], n: int) -> list[set[int]]:
    """Components by merging sets."""
    parts = [{i} for i in range(n)]
    for a, b in pairs:
        first, second = (next(p for p in parts if i in p) for i in (a, b))
        if first is not second:
            parts.remove(second)
            first |= second
    return parts


@given(edges)
def test_components_are_those_of_a_naive_union_find(pairs: list[tuple[int, int]]) -> None:
    space = IdSpace()
    space.new(N)
    for a, b in pairs:
        space.unite(np.array([a]), np.array([b]), "node")
    resolved = space.resolve()
    expected = naive(pairs, N)
    assert resolved.n_components == len(expected)
    for part in expected:
        assert len({int(resolved.component[i]) for i in part}) == 1


@given(edges)
def test_one_call_with_many_pairs_is_many_calls(pairs: list[tuple[int, int]]) -> None:
    single, joint = IdSpace(), IdSpace()
    for space in (single, joint):
        space.new(N)
    for a, b in pairs:
        single.unite(np.array([a]), np.array([b]), "node")
    if pairs:
        joint.unite(np.array([a for a, _ in pairs]), np.array([b for _, b in pairs]), "node")
    assert np.array_equal(single.resolve().component, joint.resolve().component)


def test_a_chain_far_longer_than_a_stack_is_one_component() -> None:
    space = IdSpace()
    ids = space.new(20_000)
    space.unite(ids[:-1], ids[1:], "chain")
    assert space.resolve().n_components == 1


def test_unite_broadcasts() -> None:
    space = IdSpace()
    columns, rows = space.new(3), space.new(2)
    space.unite(columns[None, :], rows[:, None], "outer")
    assert space.resolve().n_components == 1


@given(edges, st.lists(st.integers(0, N - 1), max_size=4))
def test_a_pin_holds_the_whole_component_with_its_first_reason(pairs: list[tuple[int, int]], pinned: list[int]) -> None:
    space = IdSpace()
    space.new(N)
    for number, i in enumerate(pinned):
        space.pin(np.array([i]), f"reason {number}", "node")
    for a, b in pairs:
        space.unite(np.array([a]), np.array([b]), "node")
    resolved = space.resolve()
    for part in naive(pairs, N):
        numbers = [number for number, i in enumerate(pinned) if i in part]
        for i in part:
            pin = int(resolved.pin_of[resolved.component[i]])
            assert pin == (min(numbers) if numbers else -1)
            assert not numbers or resolved.pins[pin].reason == f"reason {min(numbers)}"


def test_nothing_said_means_everything_apart_and_free() -> None:
    space = IdSpace()
    space.new(3)
    resolved = space.resolve()
    assert (resolved.n_components, resolved.pin_of.tolist()) == (3, [-1, -1, -1])
    assert IdSpace().resolve().n_components == 0
