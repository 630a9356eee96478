"""The normal equations, solved exactly and step by step, and what a layer keeps where it may choose."""

from __future__ import annotations

import itertools

import pytest
import torch
from torch import Tensor

from compressor.pruning.least_squares import Support, admm_support, conjugate_rows, ridge_rows
from compressor.sparsity.grouping import Blocks, Singles
from compressor.sparsity.supports import WeightSupport, WindowSupport


def test_ridge_rows_solves_the_normal_equations_of_each_support() -> None:
    torch.manual_seed(0)
    x, y = torch.randn(50, 4, dtype=torch.float64), torch.randn(50, 3, dtype=torch.float64)
    free = torch.tensor([[1, 1, 1, 1], [1, 0, 1, 0], [0, 0, 0, 0]], dtype=torch.bool)
    start = torch.randn(3, 4, dtype=torch.float64)
    got = ridge_rows(x.T @ x, x.T @ y, start, free, 1e-12)
    assert torch.allclose(got[0], torch.linalg.lstsq(x, y[:, 0]).solution)
    fixed = y[:, 1] - x[:, [1, 3]] @ start[1, [1, 3]]
    assert torch.allclose(got[1, [0, 2]], torch.linalg.lstsq(x[:, [0, 2]], fixed).solution)
    assert torch.equal(got[1, [1, 3]], start[1, [1, 3]]) and torch.equal(got[2], start[2])


def test_a_strong_ridge_leaves_the_weights_as_they_are() -> None:
    torch.manual_seed(0)
    x, y, start = torch.randn(50, 4), torch.randn(50, 2), torch.randn(2, 4)
    free = torch.ones(2, 4, dtype=torch.bool)
    assert torch.allclose(ridge_rows(x.T @ x, x.T @ y, start, free, 1e6), start, atol=1e-3)
    assert not torch.allclose(ridge_rows(x.T @ x, x.T @ y, start, free, 1e-3), start, atol=1e-1)


def correlated(n: int, k: int, seed: int = 0) -> Tensor:
    """Inputs of which many say nearly the same, at very different scales."""
    random = torch.Generator().manual_seed(seed)
    mixed = torch.randn(n, k // 2, generator=random, dtype=torch.float64)
    x = mixed @ torch.randn(k // 2, k, generator=random, dtype=torch.float64)
    scales = torch.logspace(-1, 1, k, dtype=torch.float64)[torch.randperm(k, generator=random)]
    return (x + 0.3 * torch.randn(n, k, generator=random, dtype=torch.float64)) * scales


def test_conjugate_gradients_find_what_factorisations_find() -> None:
    random = torch.Generator().manual_seed(1)
    x, w = correlated(400, 24), torch.randn(9, 24, generator=random, dtype=torch.float64)
    free = torch.rand(9, 24, generator=random) > 0.5
    free[3], free[4] = False, True
    start = torch.randn(9, 24, generator=random, dtype=torch.float64)
    gram, cross = x.T @ x, x.T @ (x @ w.T)
    exact = ridge_rows(gram, cross, start, free, 1e-3)
    steps = conjugate_rows(gram, cross, start, free, 1e-3)
    wanted = x @ exact.T
    assert float((x @ steps.T - wanted).norm()) < 1e-4 * float(wanted.norm()) < float((x @ start.T - wanted).norm())
    assert torch.equal(steps[~free], start[~free])


def test_many_supports_are_not_factorised_one_by_one(monkeypatch: pytest.MonkeyPatch) -> None:
    random = torch.Generator().manual_seed(2)
    x = correlated(800, 640)
    gram, cross, start = x.T @ x, x.T @ x[:, :64], torch.zeros(64, 640, dtype=torch.float64)
    free = torch.rand(64, 640, generator=random) > 0.5
    called: list[int] = []
    whole = torch.linalg.cholesky
    monkeypatch.setattr(torch.linalg, "cholesky", lambda a: called.append(len(a)) or whole(a))
    ridge_rows(gram, cross, start, free, 1e-2)
    assert not called
    free[:] = free[0]
    ridge_rows(gram, cross, start, free, 1e-2)
    assert called == [int(free[0].sum())], "all rows share one"


def singles(o: int, k: int, n: int) -> WeightSupport:
    return WeightSupport(Singles(), torch.ones(o, k, dtype=torch.bool), n)


SUPPORTS: dict[str, tuple[Support, int]] = {
    "single weights": (singles(8, 16, 40), 40),
    "of four, two": (WindowSupport((2, 4), torch.ones(8, 16, dtype=torch.bool)), 64),
    "blocks": (WeightSupport(Blocks(2, 4, 0), torch.ones(8, 16, dtype=torch.bool), 6), 48),
}


@pytest.mark.parametrize("kind", SUPPORTS)
def test_what_is_chosen_by_outputs_fits_them_better(kind: str) -> None:
    """Than what is chosen by |w|, and than by |w| ‖x‖, both with their best weights; as many weights stay."""
    support, n = SUPPORTS[kind]
    random = torch.Generator().manual_seed(3)
    errors = torch.zeros(3)
    for seed in range(5):
        x, w = correlated(300, 16, seed), torch.randn(8, 16, generator=random, dtype=torch.float64)
        gram, cross = x.T @ x, x.T @ (x @ w.T)
        chosen = [
            admm_support(gram[None], cross[None], w, support, ridge=1e-3),
            support(w.abs(), 1.0),
            support(w.abs() * gram.diagonal().sqrt(), 1.0),
        ]
        assert all(int(keep.sum()) == n for keep in chosen)
        for i, keep in enumerate(chosen):
            solved = ridge_rows(gram, cross, w * keep, keep, 1e-6)
            errors[i] += float((x @ (solved - w).T).norm() / (x @ w.T).norm())
    assert errors[0] < errors[1] and errors[0] < errors[2], errors


def test_with_independent_inputs_it_is_what_the_pattern_keeps_of_w_times_x() -> None:
    random = torch.Generator().manual_seed(4)
    energy = torch.rand(16, generator=random, dtype=torch.float64) + 0.1
    w = torch.randn(8, 16, generator=random, dtype=torch.float64)
    gram = torch.diag(energy)
    keep = admm_support(gram[None], (gram @ w.T)[None], w, singles(8, 16, 40), ridge=1e-3)
    assert torch.equal(keep, singles(8, 16, 40)(w.abs() * energy.sqrt(), 1.0))


def test_groups_have_their_own_inputs_and_one_budget() -> None:
    random = torch.Generator().manual_seed(5)
    parts = [correlated(300, 6, seed) for seed in range(2)]
    w = torch.randn(8, 6, generator=random, dtype=torch.float64)
    w[:4] *= 10
    grams = torch.stack([x.T @ x for x in parts])
    crosses = torch.stack([x.T @ (x @ own.T) for x, own in zip(parts, (w[:4], w[4:]), strict=True)])
    keep = admm_support(grams, crosses, w, singles(8, 6, 24), ridge=1e-3)
    assert int(keep.sum()) == 24 and int(keep[:4].sum()) > int(keep[4:].sum())


def test_the_best_support_of_a_small_layer_is_nearly_found() -> None:
    """Against all 924 choices of 6 of 12 inputs: within a few per cent of the best of them, in the mean."""
    random = torch.Generator().manual_seed(6)
    best, found = 0.0, 0.0
    for seed in range(4):
        x, w = correlated(200, 12, seed), torch.randn(1, 12, generator=random, dtype=torch.float64)
        gram, cross = x.T @ x, x.T @ (x @ w.T)

        def error(places: list[int], x: Tensor = x, w: Tensor = w) -> float:
            kept = x[:, places]
            wanted = x @ w[0]
            return float((kept @ torch.linalg.lstsq(kept, wanted).solution - wanted).norm() / wanted.norm())

        best += min(error(list(places)) for places in itertools.combinations(range(12), 6))
        keep = admm_support(gram[None], cross[None], w, singles(1, 12, 6), ridge=1e-4)
        found += error(keep[0].nonzero().flatten().tolist())
    assert found < 1.25 * best, (found, best)
