"""Wasserstein and Fréchet distances against exact plans, scipy and closed forms."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from vsmd import metrics
from vsmd.metrics.distances import marginal_wasserstein2
from vsmd.random import generator

SEEDS = st.integers(0, 2**32)


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=generator(seed, "test", *shape), dtype=torch.float64)


def test_wasserstein_is_exact_for_known_plans() -> None:
    x, shift = normal(300, 2), torch.tensor([3.0, -4.0], dtype=torch.float64)
    assert metrics.wasserstein2(x, x[torch.randperm(300, generator=generator(0))]) == 0.0
    assert metrics.wasserstein2(x, x + shift) == pytest.approx(5.0, abs=1e-9)
    # x -> 3x + shift is the gradient of a convex function, hence the optimal map
    cost = (2 * x + shift).square().sum(1).mean().sqrt().item()
    assert metrics.wasserstein2(x, 3 * x + shift) == pytest.approx(cost, rel=1e-12)
    assert metrics.wasserstein2(x, x.repeat(3, 1) + shift) == pytest.approx(5.0, abs=1e-9)  # unequal sizes
    assert metrics.wasserstein2(x.view(300, 1, 2) + 1e7, x.view(300, 1, 2) + shift + 1e7) == pytest.approx(
        5.0, abs=1e-6
    )
    assert metrics.wasserstein2(x.numpy(), (x + shift).float()) == pytest.approx(5.0, abs=1e-5)


def test_wasserstein_agrees_with_the_assignment_problem() -> None:
    from scipy.optimize import linear_sum_assignment

    x, y = normal(120, 3, seed=1), normal(120, 3, seed=2) * 2
    cost = torch.cdist(x, y).square().numpy()
    expected = math.sqrt(cost[linear_sum_assignment(cost)].mean())
    assert metrics.wasserstein2(x, y) == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("far", [1e3, 1e7, 1e9, 1e11, 1e12])
def test_wasserstein_is_exact_beside_a_far_point(far: float) -> None:
    x, y = normal(100, 2, seed=1), normal(100, 2, seed=2)
    point = torch.tensor([[far, 0.0]], dtype=torch.float64)  # in both sets: it stays where it is
    expected = metrics.wasserstein2(x, y) * math.sqrt(100 / 101)
    both = torch.cat([x, point]), torch.cat([y, point])
    assert metrics.wasserstein2(*both) == pytest.approx(expected, rel=1e-12)
    unequal = both[0], both[1].repeat(2, 1)  # the same laws: the right value, or one line
    if far <= 1e3:
        assert metrics.wasserstein2(*unequal) == pytest.approx(expected, rel=1e-6)
    else:
        with pytest.raises(
            RuntimeError, match=r"wasserstein2: 101 x 202 points: found \S+ for its square, which may be"
        ):
            metrics.wasserstein2(*unequal)


def test_wasserstein_of_gaussian_clouds_approaches_the_bures_distance() -> None:
    x, y = normal(2000, 2, seed=3), normal(2000, 2, seed=4) * 2 + 1
    exact = math.sqrt(metrics.frechet_distance(torch.zeros(2), torch.eye(2), torch.ones(2), 4 * torch.eye(2)))
    assert exact == pytest.approx(2.0)
    assert metrics.wasserstein2(x, y) == pytest.approx(exact, rel=0.03)


def quantile_oracle(x: Tensor, y: Tensor) -> float:
    """One-dimensional W₂² from both sets repeated to one size."""
    n, m = len(x), len(y)
    a = x.sort().values.repeat_interleave(m)
    b = y.sort().values.repeat_interleave(n)
    return (a - b).square().mean().item()


@settings(max_examples=30, deadline=None)
@given(SEEDS, st.integers(2, 30), st.integers(2, 30))
def test_sliced_wasserstein_in_one_dimension_is_wasserstein(seed: int, n: int, m: int) -> None:
    x, y = normal(n, 1, seed=seed), 2 * normal(m, 1, seed=seed + 1) + 0.5
    value = metrics.sliced_wasserstein2(x, y, 3)
    assert value == pytest.approx(math.sqrt(quantile_oracle(x[:, 0], y[:, 0])), rel=1e-9)
    assert value == pytest.approx(metrics.wasserstein2(x, y), rel=1e-7)


@settings(max_examples=30, deadline=None)
@given(SEEDS, st.integers(2, 30), st.integers(2, 30), st.sampled_from([(1,), (3, 2), (17,)]))
def test_marginal_wasserstein_is_that_of_every_coordinate(seed: int, n: int, m: int, shape: tuple[int, ...]) -> None:
    x, y = normal(n, *shape, seed=seed), 2 * normal(m, *shape, seed=seed + 1) + 0.5
    value = marginal_wasserstein2(x, y)
    assert value.shape == shape
    pairs = zip(x.flatten(1).T, y.flatten(1).T, strict=True)
    expected = torch.tensor([math.sqrt(quantile_oracle(a, b)) for a, b in pairs], dtype=torch.float64)
    torch.testing.assert_close(value.flatten(), expected, rtol=1e-9, atol=1e-12)


@settings(max_examples=30, deadline=None)
@given(SEEDS, st.integers(2, 25), st.integers(2, 25))
def test_wasserstein_invariances(seed: int, n: int, m: int) -> None:
    x, y = normal(n, 2, seed=seed), normal(m, 2, seed=seed + 1)
    shift = 10 * normal(2, seed=seed)
    order = torch.randperm(n, generator=generator(seed))
    for distance in (metrics.wasserstein2, metrics.sliced_wasserstein2):
        value = distance(x, y)
        assert distance(x + shift, y + shift) == pytest.approx(value, rel=1e-7)
        assert distance(x[order], y) == pytest.approx(value, rel=1e-7)
        assert distance(y, x) == pytest.approx(value, rel=1e-7)
        assert distance(-2 * x, -2 * y) == pytest.approx(2 * value, rel=1e-7)
        assert distance(x, x[order]) == pytest.approx(0.0, abs=1e-7)
    assert metrics.sliced_wasserstein2(x, y) <= metrics.wasserstein2(x, y) * (1 + 1e-9)


def test_sliced_wasserstein_of_a_shift_and_its_directions() -> None:
    x, shift = normal(100, 4), torch.tensor([2.0, 0.0, 0.0, 0.0], dtype=torch.float64)
    # E(θ·shift)² = |shift|²/d
    value = metrics.sliced_wasserstein2(x, x + shift, 20_000)
    assert value == pytest.approx(1.0, rel=0.02)
    assert value == metrics.sliced_wasserstein2(x, x + shift, 20_000)
    first, again, other = (metrics.sliced_wasserstein2(x, 2 * x, 8, generator(s)) for s in (1, 1, 2))
    assert first == again != other


def test_frechet_of_known_gaussians() -> None:
    zero, eye = torch.zeros(3), torch.eye(3)
    assert metrics.frechet_distance(zero, eye, zero + 2, eye) == pytest.approx(12.0)
    a, b = torch.tensor([1.0, 4.0, 9.0]), torch.tensor([16.0, 1.0, 0.0])
    assert metrics.frechet_distance(zero, a.diag(), zero, b.diag()) == pytest.approx(9 + 1 + 9)
    # one turned by the other's eigenvectors: tr(C1 + C2) - 2 tr √C1 √C2 for commuting matrices
    q = torch.linalg.qr(normal(3, 3)).Q
    turned = metrics.frechet_distance(zero, q @ a.double().diag() @ q.T, zero, q @ b.double().diag() @ q.T)
    assert turned == pytest.approx(19.0)
    # 2 x 2: tr √(C1 C2) = √(tr C1C2 + 2 √det C1C2)
    c1, c2 = normal(2, 2, seed=1), normal(2, 2, seed=2)
    c1, c2 = c1 @ c1.T, c2 @ c2.T
    root = torch.sqrt((c1 @ c2).trace() + 2 * (c1.det() * c2.det()).sqrt())
    expected = (c1.trace() + c2.trace() - 2 * root).item()
    assert metrics.frechet_distance(zero[:2], c1, zero[:2], c2) == pytest.approx(expected, rel=1e-9)


@settings(max_examples=30, deadline=None)
@given(SEEDS, st.integers(1, 8), st.integers(1, 8), st.sampled_from([1e-6, 1.0, 1e6]))
def test_frechet_of_singular_covariances(seed: int, d: int, rank: int, scale: float) -> None:
    factor, mean = scale * normal(d, rank, seed=seed), normal(d, seed=seed)
    other = scale * normal(d, rank, seed=seed + 1)
    c1, c2 = factor @ factor.T, other @ other.T
    size = (c1.trace() + c2.trace()).item()
    value = metrics.frechet_distance(mean, c1, mean, c2)
    assert math.isfinite(value)
    assert metrics.frechet_distance(mean, c1, mean, c1) < 1e-12 * size
    # tr(C1^½ C2 C1^½)^½ is the nuclear norm of F1ᵀ F2 for any factors
    nuclear = torch.linalg.svdvals(factor.T @ other).sum().item()
    assert value == pytest.approx(size - 2 * nuclear, abs=1e-6 * size)
    assert value == pytest.approx(metrics.frechet_distance(mean + 1, c2, mean + 1, c1), abs=1e-9 * size)


def test_frechet_of_features() -> None:
    from scipy.linalg import sqrtm

    x, y = normal(500, 2, 3, seed=1), normal(400, 2, 3, seed=2) * 1.5 + 0.3
    a, b = x.flatten(1).numpy(), y.flatten(1).numpy()
    c1, c2 = np.cov(a.T), np.cov(b.T)
    expected = np.sum((a.mean(0) - b.mean(0)) ** 2) + np.trace(c1 + c2 - 2 * np.real(sqrtm(c1 @ c2)))
    assert metrics.frechet_distance_of(x, y) == pytest.approx(expected, rel=1e-9)
    assert metrics.frechet_distance_of(x, x + 1) == pytest.approx(6.0)
    assert metrics.frechet_distance_of(x, x) == pytest.approx(0.0, abs=1e-12)
    one = normal(50, 1)
    assert metrics.frechet_distance_of(one, 3 * one) == pytest.approx((4 * one.mean() ** 2 + 4 * one.var()).item())


NAN, ONE, EMPTY = torch.tensor([[0.0, math.nan]] * 3), torch.zeros(1, 2), torch.zeros(0, 2)
GOOD, T3 = torch.zeros(4, 2), torch.linspace(0, 1, 3)


CASES: list[tuple[Callable[[], Any], type[Exception], str]] = [
    (lambda: metrics.wasserstein2([[0.0]], GOOD), TypeError, "x: must be a tensor"),  # type: ignore[arg-type]
    (lambda: metrics.wasserstein2(GOOD, GOOD > 0), TypeError, "y: must hold real numbers, not torch.bool"),
    (lambda: metrics.wasserstein2(np.array([["a"]]), GOOD), TypeError, "x: must hold real numbers"),
    (lambda: metrics.sliced_wasserstein2(GOOD, GOOD, 0), ValueError, "projections=0"),
    (lambda: metrics.frechet_distance(T3, torch.eye(2), T3, torch.eye(3)), ValueError, "cov1: shape (2, 2)"),
    (lambda: metrics.frechet_distance(T3, torch.eye(3), T3[:2], torch.eye(3)), ValueError, "mean2: shape (2,)"),
    (lambda: metrics.frechet_distance(torch.eye(3), torch.eye(3), T3, torch.eye(3)), ValueError, "mean1: shape"),
    (lambda: metrics.frechet_distance(T3, torch.eye(3), T3, -torch.eye(3)), ValueError, "cov2: smallest"),
    (lambda: metrics.frechet_distance(T3, torch.ones(3, 3).triu(), T3, torch.eye(3)), ValueError, "cov1: is not sym"),
]


@pytest.mark.parametrize(("call", "kind", "message"), CASES, ids=range(len(CASES)))
def test_bad_input_is_named(call: Callable[[], Any], kind: type[Exception], message: str) -> None:
    with pytest.raises(kind, match=re.escape(message)) as error:
        call()
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("function", [metrics.wasserstein2, metrics.sliced_wasserstein2, metrics.frechet_distance_of])
@pytest.mark.parametrize(
    ("bad", "message"),
    [
        (NAN, "3 of 6 values are NaN"),
        (ONE, "n >= 2"),
        (EMPTY, "is empty"),
        (GOOD[:, 0], "n >= 2"),
        (GOOD * math.inf, "NaN"),
    ],
)
def test_distances_name_bad_sets(function: Callable[..., float], bad: Tensor, message: str) -> None:
    for arguments in ((bad, GOOD), (GOOD, bad)):
        with pytest.raises(ValueError, match=re.escape(message)) as error:
            function(*arguments)
        assert "\n" not in str(error.value)
        assert re.match(r"(x|y|features[12]):", str(error.value))
    with pytest.raises(ValueError, match=r"shape \(3,\); must be \(2,\)"):
        function(GOOD, torch.zeros(4, 3))
