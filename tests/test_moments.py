"""vsmd.moments: tensors and streams agree with numpy, principal axes diagonalise, bad moments are named."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from vsmd.moments import Moments, measured


def data(n: int, d: int, seed: int = 0) -> torch.Tensor:
    stream = torch.Generator().manual_seed(seed)
    mix = torch.randn(d, d, generator=stream, dtype=torch.float64)
    return torch.randn(n, d, generator=stream, dtype=torch.float64) @ mix + 5


@given(st.lists(st.integers(1, 50), min_size=2, max_size=6), st.integers(1, 4), st.floats(-1e6, 1e6))
def test_a_stream_is_the_whole(sizes: list[int], d: int, offset: float) -> None:
    x = data(sum(sizes), d) + offset
    found, basis = measured(iter(x.split(sizes)))
    assert basis is None
    np.testing.assert_allclose(found.mean, x.numpy().mean(0), rtol=1e-12, atol=1e-9)
    np.testing.assert_allclose(found.var, x.numpy().var(0), rtol=1e-7, atol=1e-12)


@pytest.mark.parametrize("parts", [1, 7])
def test_principal_axes(parts: int) -> None:
    x = data(700, 5)
    found, basis = measured(iter(x.chunk(parts)), full=True)
    assert basis is not None
    torch.testing.assert_close(basis.T @ basis, torch.eye(5, dtype=torch.float64))
    rotated = (x - x.mean(0)) @ basis
    np.testing.assert_allclose(np.cov(rotated.numpy().T, bias=True), np.diag(found.var), rtol=1e-9, atol=1e-9)
    again, same = measured(x, full=True, basis=basis)  # directions that are given are kept
    assert same is basis
    torch.testing.assert_close(again.var, found.var)


def test_pictures_and_singular_data() -> None:
    x = data(50, 12).view(50, 3, 2, 2)
    found, _ = measured(x)
    assert found.mean.shape == found.var.shape == (3, 2, 2)
    line = torch.linspace(0, 1, 20)[:, None].expand(20, 3)
    assert bool((measured(line, full=True)[0].var >= 0).all())


def test_given() -> None:
    found = Moments.given(0.0, torch.tensor([1.0, 4.0]), (3, 2))
    assert found.var.shape == (3, 2)
    assert found.mean.dtype == found.var.dtype == torch.float64


@pytest.mark.parametrize(
    ("mean", "var", "message"),
    [
        (0.0, -1.0, r"^var=-1 at its least: must be >= 0$"),
        (0.0, math.nan, r"^var: must be finite, has NaN or inf$"),
        (torch.zeros(3), 1.0, r"^mean: shape \(3,\); must be a number or \(2,\)$"),
    ],
)
def test_bad_moments(mean: Any, var: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Moments.given(mean, var, (2,))


def test_one_point_is_not_enough() -> None:
    with pytest.raises(ValueError, match=r"^data: 1 points; moments need at least 2$"):
        measured(torch.ones(1, 2))
