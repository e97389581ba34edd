"""Manifolds: exact moments of the law, an isometric frame, a chart that inverts the embedding."""

from __future__ import annotations

import math

import pytest
import torch

from repro.studies.sets.manifolds import BEND, manifold
from vsmd.random import generator

CASES = [(2, 16), (2, 64), (4, 16), (4, 64)]


@pytest.mark.parametrize(("intrinsic", "ambient"), CASES)
def test_chart_inverts_the_embedding(intrinsic: int, ambient: int) -> None:
    data = manifold(intrinsic, ambient)
    u = data.coordinates(500, generator(0, "u"))
    x = data(500, generator(0, "u"))
    assert x.shape == (500, ambient)
    assert x.dtype == torch.float32
    assert (data.intrinsic, data.ambient) == (intrinsic, ambient)
    torch.testing.assert_close(data.chart(x), u, atol=1e-6, rtol=0)
    assert data.off(x).max() < 1e-5
    gram = data.frame.T @ data.frame
    torch.testing.assert_close(gram, torch.eye(len(gram), dtype=torch.float64), atol=1e-13, rtol=0)


def test_law_of_the_coordinates() -> None:
    """Mean 0, variance scale² (.16 + .36/9), within (-scale, scale), a valley that is not empty, independent axes."""
    n, data = 100_000, manifold(4, 16)
    u = data.coordinates(n, generator(1, "u")) / data.scale
    assert u.abs().max() < 1
    assert u.mean(0).abs().max() < 5 * math.sqrt(0.2 / n)
    assert (u.square().mean(0) - 0.2).abs().max() < 5 * math.sqrt(0.05 / n)
    centre, lobe = ((u - at).abs().lt(0.1).double().mean(0) for at in (0.0, 0.4))
    assert ((0.1 * lobe < centre) & (centre < 0.8 * lobe)).all()
    assert (torch.corrcoef(u.T) - torch.eye(4)).abs().max() < 5 / math.sqrt(n)
    assert data.scale.max() / data.scale.min() == pytest.approx(4.0)


def test_ambient_dimensions_hold_the_same_law() -> None:
    near, far = manifold(2, 16), manifold(2, 64)
    x, y = near(200, generator(2)), far(200, generator(2))
    torch.testing.assert_close(x.double() @ x.double().T, y.double() @ y.double().T, atol=1e-5, rtol=0)
    assert near is manifold(2, 16)


def test_it_is_curved() -> None:
    """No d*-dimensional plane holds it: the fifth of its variance that the sines have lies in more directions."""
    x = manifold(2, 16)(5_000, generator(3)).double()
    values = torch.linalg.eigvalsh(torch.cov(x.T)).flip(0)
    assert values[2] > 0.05 * values[0]
    assert values[8:].max() < 1e-10 * 1e4
    assert BEND > 0


def test_shift() -> None:
    data = manifold(2, 16)
    moved = data.shifted(0.5)
    torch.testing.assert_close(
        moved.coordinates(50, generator(4)), data.coordinates(50, generator(4)) + 0.5 * data.scale, atol=1e-12, rtol=0
    )
    assert moved.off(moved(50, generator(4))).max() < 1e-5


def test_distance_from_the_manifold() -> None:
    data = manifold(2, 16)
    x = data(20, generator(5)).double()
    normal = torch.linalg.qr(torch.cat([data.frame, torch.ones(16, 1, dtype=torch.float64)], 1))[0][:, -1]
    torch.testing.assert_close(
        data.off(x + 0.3 * normal), torch.full((20,), 0.3, dtype=torch.float64), atol=1e-5, rtol=0
    )


def test_bad_input() -> None:
    with pytest.raises(ValueError, match=r"^ambient=15: must be at least 16 for intrinsic=4$"):
        manifold(4, 15)
    with pytest.raises(ValueError, match=r"^intrinsic=0: must be an integer >= 1$"):
        manifold(0, 8)
    with pytest.raises(ValueError, match=r"^n=0: must be"):
        manifold(2, 16)(0, generator(0))
    with pytest.raises(ValueError, match=r"^x: shape \(3, 4\); must be \(n, 16\)$"):
        manifold(2, 16).chart(torch.zeros(3, 4))
