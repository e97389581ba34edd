"""Distances between sets of points: exact and sliced 2-Wasserstein, Fréchet."""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

from vsmd import checks, random
from vsmd.metrics._inputs import Array, pair, real


def wasserstein2(x: Array, y: Array) -> float:
    """Return the exact 2-Wasserstein distance of the point sets `x` (n, *shape) and `y` (m, *shape).

    W₂ = √(min over plans P of Σ P_ij ‖x_i - y_j‖²), weights 1/n and 1/m. n = m: an assignment. Else POT's network
    simplex, whose answer is held against its dual: about a second and 32 MB for 2,000 x 2,000. RuntimeError if the
    simplex does not finish, or if the two differ (it stops early where one point lies very far off).
    """
    from scipy.optimize import linear_sum_assignment
    from scipy.spatial.distance import cdist

    a, b = (z.cpu().numpy() for z in pair(("x", "y"), x, y))
    cost = cdist(a, b, "sqeuclidean")  # by differences: no cancellation far from the origin
    value = cost[linear_sum_assignment(cost)].mean() if len(a) == len(b) else _transport(cost)
    return math.sqrt(max(float(value), 0.0))


def _transport(cost: np.ndarray) -> float:
    """The least mean of `cost` (n, m) over plans with uniform weights, checked against the dual's value."""
    import ot

    n, m = cost.shape
    weights = np.full(n, 1 / n), np.full(m, 1 / m)
    value, log = ot.emd2(*weights, cost, numItermax=100_000_000, log=True)
    if log["warning"] is not None:
        raise RuntimeError(f"wasserstein2: did not finish for {n} x {m} points: {log['warning']}")
    v = (cost - (log["u"] - np.median(log["u"]))[:, None]).min(0)
    u = (cost - v).min(1)  # any potentials with u_i + v_j <= c_ij bound the minimum from below, but for rounding
    bound = u.mean() + v.mean() - np.finfo(float).eps * (np.abs(u).mean() + np.abs(v).mean())
    if value - bound > 1e-6 * value + 1e-12 * float(np.median(cost)):
        raise RuntimeError(
            f"wasserstein2: {n} x {m} points: found {value:.6g} for its square, which may be as low as {bound:.6g}; "
            "one point is too far off for double precision: leave it out, or compare sets of equal size"
        )
    return float(value)


def sliced_wasserstein2(x: Array, y: Array, projections: int = 256, generator: torch.Generator | None = None) -> float:
    """Return √(E_θ W₂²(θ·x, θ·y)) of `x` (n, *shape) and `y` (m, *shape) over random unit directions θ.

    Exact in each of the `projections` directions, for equal and different sizes. `generator` gives the
    directions; without one they are the same in every call.
    """
    a, b = pair(("x", "y"), x, y)
    generator = generator if generator is not None else random.generator(0, "sliced-wasserstein")
    shape = (checks.positive_int("projections", projections), a.shape[1])
    directions = torch.randn(shape, generator=generator, device=generator.device, dtype=torch.float64)
    directions = (directions / directions.norm(dim=1, keepdim=True)).to(a.device)
    total = a.new_zeros(())
    for some in directions.split(16):
        total += _quantile_gaps(a @ some.T, b @ some.T).sum()
    return (total / projections).sqrt().item()


def marginal_wasserstein2(x: Array, y: Array) -> Tensor:
    """Return the exact W₂ of every coordinate of `x` (n, *shape) and `y` (m, *shape) by itself, (*shape) float64.

    √(∫₀¹ (F⁻¹(u) - G⁻¹(u))² du), by sorting.
    """
    a, b = pair(("x", "y"), x, y)
    return torch.cat([_quantile_gaps(p, q) for p, q in zip(a.split(16, 1), b.split(16, 1))]).sqrt().view(x.shape[1:])


def _quantile_gaps(p: Tensor, q: Tensor) -> Tensor:
    """∫₀¹ (F⁻¹ - G⁻¹)² du of the columns of p (n, k) and q (m, k), each with weights 1/n and 1/m; (k,)."""
    n, m = len(p), len(q)
    p, q = p.sort(0).values, q.sort(0).values
    if n == m:
        return (p - q).square().mean(0)
    # Both quantile functions are constant between neighbours among i/n and j/m: integers in units of 1/(nm).
    # One that is there twice has weight 0.
    ends = torch.cat([torch.arange(1, n + 1) * m, torch.arange(1, m + 1) * n]).sort().values.to(p.device)
    weights = ends.diff(prepend=ends.new_zeros(1)).double() / (n * m)
    return weights @ (p[(ends - 1) // m] - q[(ends - 1) // n]).square()


def _root(name: str, cov: Tensor) -> Tensor:
    """The symmetric square root of a positive semi-definite matrix."""
    scale = cov.abs().max().item()
    if (cov - cov.T).abs().max() > 1e-6 * scale:
        raise ValueError(f"{name}: is not symmetric")
    values: Tensor
    vectors: Tensor
    values, vectors = torch.linalg.eigh((cov + cov.T) / 2)
    if values[0] < -1e-6 * scale:
        raise ValueError(f"{name}: smallest eigenvalue {values[0]:g}; must be positive semi-definite")
    return (vectors * values.clamp(min=0).sqrt()) @ vectors.T


def frechet_distance(mean1: Array, cov1: Array, mean2: Array, cov2: Array) -> float:
    """Return the Fréchet distance of N(mean1, cov1) and N(mean2, cov2): W₂², *not* its root, as FID has it.

    ‖m₁ - m₂‖² + tr C₁ + tr C₂ - 2 tr(C₁^½ C₂ C₁^½)^½, means (d,), covariances (d, d). The last trace is the sum of the
    singular values of C₁^½ C₂^½: no root of a product's rounding errors, so singular covariances are safe.
    """
    m1, c1, m2, c2 = (
        real(name, value).cpu() for name, value in (("mean1", mean1), ("cov1", cov1), ("mean2", mean2), ("cov2", cov2))
    )
    if m1.ndim != 1:
        raise ValueError(f"mean1: shape {tuple(m1.shape)}; must be (d,)")
    d = len(m1)
    for name, value, shape in (("cov1", c1, (d, d)), ("mean2", m2, (d,)), ("cov2", c2, (d, d))):
        if value.shape != shape:
            raise ValueError(f"{name}: shape {tuple(value.shape)}; must be {shape}")
    cross: Tensor = torch.linalg.svdvals(_root("cov1", c1) @ _root("cov2", c2)).sum()
    return max(((m1 - m2).square().sum() + c1.trace() + c2.trace() - 2 * cross).item(), 0.0)


def frechet_distance_of(features1: Array, features2: Array) -> float:
    """Return `frechet_distance` of the moments of two sets of features, (n, *shape) and (m, *shape).

    Covariances divide by n - 1. Biased upwards at small n: compare at equal n only. A set of fewer points than features
    makes it shorter: with centred features A and B over √(n - 1) and √(m - 1), the root's trace is the sum of the
    singular values of A Bᵀ.
    """
    a, b = pair(("features1", "features2"), features1, features2)
    if min(len(a), len(b)) >= a.shape[1]:
        square = (a.shape[1], a.shape[1])  # torch.cov gives a scalar for one feature
        return frechet_distance(a.mean(0), a.T.cov().view(square), b.mean(0), b.T.cov().view(square))
    means = [v.mean(0) for v in (a, b)]
    first, second = ((v - m) / (len(v) - 1) ** 0.5 for v, m in zip((a, b), means))
    root: Tensor = torch.linalg.svdvals(first @ second.T).sum()
    spread = first.square().sum() + second.square().sum()
    return max(((means[0] - means[1]).square().sum() + spread - 2 * root).item(), 0.0)
