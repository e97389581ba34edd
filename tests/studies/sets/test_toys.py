"""Generated data sets: moments against quadrature and closed forms, supports, determinism."""

from __future__ import annotations

import copy
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from repro.studies.sets.toys import TOYS, rotated, toy
from vsmd.random import generator

N = 400_000


def draw(name: str, n: int = N, seed: int = 0) -> torch.Tensor:
    return toy(name)(n, generator(seed, name))


def moments(curve: np.ndarray, weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    mean = weights @ curve
    return mean, (curve - mean).T @ ((curve - mean) * weights[:, None])


def exact_moments(name: str) -> tuple[np.ndarray, np.ndarray]:
    """Mean and covariance of each set, by Gauss-Legendre quadrature along its curve or in closed form."""
    node, weight = np.polynomial.legendre.leggauss(80)
    s, w = (node + 1) / 2, weight / 2  # U(0, 1)
    if name == "spiral-8Y-45":
        mean, cov = exact_moments("spiral-8Y")
        turn = np.array([[1, -1], [1, 1]]) / math.sqrt(2)
        return turn @ mean, turn @ cov @ turn.T
    if name == "spiral-8Y":  # √u has the density 2s
        theta = 3 * np.pi * s - np.pi / 2
        radius = 0.4 * (theta + np.pi)
        curve = np.stack([radius * np.cos(theta), 8 * radius * np.sin(theta)], -1)
        mean, cov = moments(curve, 2 * s * w)
        return mean, cov + np.diag([0.1**2, 0.8**2])
    if name == "checkerboard-6X":
        side, scale = 4 * np.pi, np.array([6.0, 1.0])
        corr = np.array([[side**2 / 12, -(np.pi**2) / 4], [-(np.pi**2) / 4, side**2 / 12]])
        return np.zeros(2), corr * np.outer(scale, scale)
    if name == "8gaussians":
        return np.zeros(2), (12.5 + math.sqrt(0.1)) * np.eye(2)
    if name.endswith("-8Y") and not name.startswith("spiral"):  # development sets
        stretch, (mean, cov) = np.array([1.0, 8.0]), exact_moments(name.removesuffix("-8Y"))
        return stretch * mean, np.outer(stretch, stretch) * cov
    if name == "moons":
        theta = np.pi * s
        outer = np.stack([np.cos(theta), np.sin(theta)], -1)
        inner = np.stack([1 - np.cos(theta), 0.5 - np.sin(theta)], -1)
        mean, cov = moments(np.concatenate([outer, inner]), np.concatenate([w, w]) / 2)
        return 3 * (mean + 0.1) - 1, 9 * (cov + 0.04 / 12 * np.ones((2, 2)))
    half = 1.5 * np.pi * s  # scurve: odd in θ
    curve = 1.5 * np.stack([np.sin(half), np.cos(half) - 1], -1)
    return np.zeros(2), curve.T @ (curve * w[:, None]) + (1.5 * 0.05) ** 2 * np.eye(2)


@pytest.mark.parametrize("name", TOYS)
def test_moments_are_exact(name: str) -> None:
    x = draw(name).double().numpy()
    mean, cov = exact_moments(name)
    std = np.sqrt(np.diag(cov))
    assert np.abs((x.mean(0) - mean) / std).max() < 5 / math.sqrt(N)
    # Var of a product of two standardised coordinates is E[a²b²] - ρ² <= 3 for these light-tailed laws
    assert np.abs((np.cov(x.T) - cov) / np.outer(std, std)).max() < 5 * math.sqrt(3 / N)


@pytest.mark.parametrize(
    ("name", "mean", "std"), [("spiral-8Y", (0.9, 1.6), (2.1, 18.7)), ("checkerboard-6X", (0.0, 0.0), (21.8, 3.6))]
)
def test_moments_of_the_published_sets(name: str, mean: tuple[float, ...], std: tuple[float, ...]) -> None:
    exact_mean, exact_cov = exact_moments(name)
    assert np.abs(exact_mean - mean).max() < 0.06
    assert np.abs(np.sqrt(np.diag(exact_cov)) - std).max() < 0.06


def test_checkerboard_lies_on_its_fields_and_fills_each_alike() -> None:
    x = draw("checkerboard-6X").double() / torch.tensor([6.0, 1.0], dtype=torch.float64)
    assert (x.abs() <= 2 * math.pi + 1e-5).all()
    assert (x.sin().prod(1) < 1e-5).all()
    field = ((x + 2 * math.pi) / math.pi).long().clamp(0, 3)
    counts = torch.bincount(field[:, 0] * 4 + field[:, 1], minlength=16).view(4, 4).double() / N
    black = torch.tensor([[(i + j) % 2 for j in range(4)] for i in range(4)], dtype=torch.float64)
    assert (counts - black / 8).abs().max() < 5 * math.sqrt(1 / 8 * 7 / 8 / N)


def test_spiral_and_scurve_scatter_about_their_curves() -> None:
    median = 0.6744897501960817  # of |N(0, 1)|
    x = draw("spiral-8Y", 5000).double() / torch.tensor([0.4, 3.2], dtype=torch.float64)
    angle = torch.linspace(-math.pi / 2, 2.5 * math.pi, 4000, dtype=torch.float64)
    curve = (angle + math.pi)[:, None] * torch.stack([angle.cos(), angle.sin()], -1)
    distance = torch.cdist(x, curve).amin(1)
    assert distance.median().item() == pytest.approx(0.25 * median, rel=0.1)
    assert distance.max() < 1.4
    x = draw("scurve").double() / 1.5  # two arcs of radius 1, about (0, 1) and (0, -1) ...
    x = x[x[:, 1].abs() > 0.5]  # ... away from where they meet, and noise can take a point to the other
    centre = torch.stack([torch.zeros_like(x[:, 1]), x[:, 1].sign()], -1)
    distance = ((x - centre).norm(dim=1) - 1).abs()
    assert distance.median().item() == pytest.approx(0.05 * median, rel=0.02)


def test_eight_gaussians_are_equal_and_of_the_published_width() -> None:
    x = torch.view_as_complex(draw("8gaussians").double())
    number = (x.angle() / (math.pi / 4)).round()
    share = torch.bincount(number.long() % 8, minlength=8) / N
    assert (share - 0.125).abs().max() < 5 * math.sqrt(0.11 / N)
    rest = x * torch.exp(-1j * number * math.pi / 4) - 5  # the nearest component turned to (5, 0)
    assert rest.real.std().item() == pytest.approx(0.1**0.25, rel=0.01)


def test_moons_lie_on_two_half_circles() -> None:
    x = (draw("moons", 2000).double() + 1) / 3
    x = x[:, None] - torch.linspace(0, 0.2, 401, dtype=torch.float64)[:, None]  # undo some offset
    outer = ((x.norm(dim=-1) - 1).abs() + (-x[..., 1]).clamp(min=0)).amin(1)
    y = x - torch.tensor([1.0, 0.5], dtype=torch.float64)
    inner = ((y.norm(dim=-1) - 1).abs() + y[..., 1].clamp(min=0)).amin(1)
    assert torch.minimum(outer, inner).max() < 1e-3
    assert ((outer < inner).double().mean() - 0.5).abs() < 0.05


@pytest.mark.parametrize("name", TOYS)
def test_draws_are_a_function_of_the_generator(name: str) -> None:
    x = draw(name, 1000)
    assert x.shape == (1000, 2)
    assert x.dtype == torch.float32
    assert x.isfinite().all()
    assert torch.equal(x, draw(name, 1000))
    assert not torch.equal(x, draw(name, 1000, seed=1))
    state = torch.get_rng_state()
    draw(name, 10)
    assert torch.equal(state, torch.get_rng_state())  # the global stream is left alone
    assert draw(name, 1).shape == (1, 2)


@settings(max_examples=25, deadline=None)
@given(st.floats(-720, 720), st.sampled_from(sorted(TOYS)))
def test_rotation_turns_the_same_points(degrees: float, name: str) -> None:
    x, turned = draw(name, 50), rotated(toy(name), degrees)(50, generator(0, name))
    assert turned.dtype == torch.float32
    expected = torch.view_as_complex(x.double()) * np.exp(1j * math.radians(degrees))
    assert torch.allclose(torch.view_as_complex(turned.double()), expected, atol=1e-4)


def test_rotation_by_a_right_angle_and_in_another_process() -> None:
    sampler = rotated(TOYS["scurve"], 90)
    x, turned = draw("scurve", 100), sampler(100, generator(0, "scurve"))
    assert torch.allclose(turned, torch.stack([-x[:, 1], x[:, 0]], -1), atol=1e-6)
    assert torch.equal(copy.deepcopy(sampler)(100, generator(0, "scurve")), turned)


def test_bad_input_is_named() -> None:
    with pytest.raises(ValueError, match=r"name='spiral'.*did you mean 'spiral-8Y'"):
        toy("spiral")
    for sampler in TOYS.values():
        with pytest.raises(ValueError, match="n=0"):
            sampler(0, generator(0))
    for degrees in (math.nan, math.inf, "45", True):
        with pytest.raises(ValueError, match="degrees="):
            rotated(toy("moons"), degrees)  # type: ignore[arg-type]
