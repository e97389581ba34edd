"""blocks-64: exact moments in the whitened coordinates, distinct axes, blocks that are what they are called."""

from __future__ import annotations

import copy
import math

import pytest
import torch

from repro.studies.sets.highdim import DIM, SHAPES, STD_MAX, STD_MIN, blocks_64, white_block
from repro.studies.sets.toys import toy
from vsmd.random import generator

N = 200_000


def test_axes_are_orthonormal_and_all_distinct() -> None:
    data = blocks_64()
    torch.testing.assert_close(data.rotation.T @ data.rotation, torch.eye(DIM, dtype=torch.float64), atol=1e-13, rtol=0)
    std = data.std.sort().values
    assert std[0] == pytest.approx(STD_MIN)
    assert std[-1] == pytest.approx(STD_MAX)
    torch.testing.assert_close(std[1:] / std[:-1], torch.full((DIM - 1,), 200 ** (1 / 63), dtype=torch.float64))
    low, high = data.std[data.planes].sort(1).values.T
    assert bool((high / low > 10).all())
    assert sorted([*data.planes.flatten().tolist(), *data.rest.tolist()]) == list(range(DIM))
    assert data.rotation.abs().max() < 0.7  # no direction is a coordinate


def test_whitened_it_has_mean_zero_and_covariance_one() -> None:
    data = blocks_64()
    x = data(N, generator(0, "x"))
    assert x.shape == (N, DIM)
    assert x.dtype == torch.float32
    w = data.whiten(x)
    assert w.mean(0).abs().max() < 5 / math.sqrt(N)
    assert (torch.cov(w.T) - torch.eye(DIM)).abs().max() < 6 * math.sqrt(2 / N)
    # the inverse map, written out
    torch.testing.assert_close((data.rotation * data.std) @ w[0], x[0].double(), rtol=1e-5, atol=1e-5)


def test_the_rest_is_gaussian_and_the_planes_are_not() -> None:
    data = blocks_64()
    w = data.whiten(data(N, generator(1, "x")))
    kurtosis = w.pow(4).mean(0) - 3
    assert kurtosis[data.rest].abs().max() < 5 * math.sqrt(96 / N)  # Var x^4 = 96
    # of x^2 + y^2, whatever the plane's axes: 8 for a Gaussian
    radius = w[:, data.planes].square().sum(-1).square().mean(0)
    assert bool((radius < 7.5).all())
    squares = w.square() - 1
    across = (squares[:, data.planes[0]].T @ squares[:, data.planes[1]] / N).abs()
    assert across.max() < 5 * 2 / math.sqrt(N)  # blocks are independent of each other


@pytest.mark.parametrize(("name", "stretch"), [("spiral", (1, 8)), ("8gaussians", (1, 1)), ("checkerboard", (6, 1))])
def test_a_block_is_the_toy_set_up_to_an_exact_linear_map(name: str, stretch: tuple[int, int]) -> None:
    """Whitening by sample moments of the toy set gives the same points, up to the moments' own errors."""
    full = {"spiral": "spiral-8Y", "8gaussians": "8gaussians", "checkerboard": "checkerboard-6X"}[name]
    x = toy(full)(N, generator(2, name)).double() / torch.tensor(stretch)
    w = white_block(name, N, generator(2, name))
    values, vectors = torch.linalg.eigh(torch.cov(x.T))
    expected = (x - x.mean(0)) @ (vectors / values.sqrt()) @ vectors.T
    torch.testing.assert_close(w, expected, atol=0.03, rtol=0)
    assert not torch.equal(w, expected)


def test_pure_function_of_the_generator() -> None:
    data = blocks_64()
    assert data is blocks_64()
    assert copy.deepcopy(data)(3, generator(3)).equal(data(3, generator(3)))
    assert not data(3, generator(3)).equal(data(3, generator(4)))


def test_bad_input() -> None:
    with pytest.raises(ValueError, match=r"^n=0: must be an integer >= 1"):
        blocks_64()(0, generator(0))
    with pytest.raises(ValueError, match=r"^x: shape \(5, 2\); must be \(n, 64\)"):
        blocks_64().whiten(torch.zeros(5, 2))
    with pytest.raises(ValueError, match=r"^name='spirals': must be one of .*\(did you mean 'spiral'\?\)"):
        white_block("spirals", 5, generator(0))
    assert len(SHAPES) == 4
