"""Laws of codes: scores against autograd, the exact start and the exact drift of a bridge."""

from __future__ import annotations

import math

import pytest
import torch

from repro.studies import latent_laws as laws
from vsmd import latent
from vsmd.metrics.distances import sliced_wasserstein2
from vsmd.model import Model
from vsmd.random import generator


def five(dim: int) -> tuple[laws.Codes, Model]:
    """The five Gaussians and a bridge started exactly at their smoothed law, with the exact drift."""
    codes = laws.five_gaussians(dim)
    bridge = latent.schrodinger_bridge((dim,)).with_data(codes(20_000, generator(0, "moments")))
    process = codes.start(bridge)
    return codes, Model(process, laws.Exact(process, codes.score))


def test_score_of_the_five_gaussians_is_the_gradient() -> None:
    codes = laws.five_gaussians(3)
    x = torch.randn(6, 3, generator=generator(0, "x"), dtype=torch.float64).requires_grad_()
    s = 0.7
    var = codes.std.square() + s**2
    log_density = (-0.5 * ((x[:, None] - codes.means).square() / var).sum(-1)).logsumexp(1)
    (gradient,) = torch.autograd.grad(log_density.sum(), x)
    torch.testing.assert_close(codes.score(x.detach(), s), gradient)
    size = codes(50_000, generator(1, "codes")).square().mean().sqrt()
    assert float(size) == pytest.approx(1.0, abs=0.1)


def test_start_is_the_smoothed_law_exactly() -> None:
    """Its log-density against that of Σ N(mean, diag(std² + σ²))/5, through the rotation into directions."""
    codes, model = five(3)
    process = model.process
    x = 2 * torch.randn(20, 3, generator=generator(0, "x"), dtype=torch.float64)
    var = codes.std.square() + latent.SIGMA**2
    parts = -0.5 * ((x[:, None] - codes.means).square() / var + (2 * math.pi * var).log()).sum(-1)
    expected = parts.logsumexp(1) - math.log(5)
    log_prob = process.prior_law().log_prob(process.to_directions(x)[:, None])
    torch.testing.assert_close(log_prob, expected, rtol=1e-6, atol=1e-6)


def test_exact_drift_is_the_closed_form_and_generates_the_law() -> None:
    codes, model = five(2)
    x = 2 * torch.randn(20, 2, generator=generator(0, "x"), dtype=torch.float64)
    for t in (0.0, 0.5, 0.99):
        expected = latent.SIGMA**2 * codes.score(x, latent.SIGMA * (1 - t) ** 0.5)
        torch.testing.assert_close(latent.drift(model, x, t).double(), expected, rtol=1e-3, atol=1e-3)
    drawn = model.sample(3_000, solver="euler-maruyama", steps=50)
    assert sliced_wasserstein2(drawn, codes(3_000, generator(2, "codes"))) < 0.1


def test_empirical_score_points_to_the_points() -> None:
    points = torch.tensor([[0.0, 0.0], [4.0, 0.0]], dtype=torch.float64)
    score = laws.empirical_score(points)(torch.tensor([[0.5, 0.0], [2.0, 1.0]], dtype=torch.float64), 0.5)
    torch.testing.assert_close(score, torch.tensor([[-2.0, 0.0], [0.0, -4.0]], dtype=torch.float64), atol=1e-4, rtol=0)
