"""vsmd.scores: exact for Gaussian data, sufficient for any; what networks and backbones see."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from mixtures1d import MEANS, POSTERIOR, VAR, VARIANCES, WEIGHTS, Zero, at, process_for
from torch import Tensor, nn

from vsmd.family import forward_process
from vsmd.processes import ForwardProcess
from vsmd.scores import Score

METHODS = ("CLD", "ULD", "VSULD", "SGM", "VSDM")
TIMES = (1e-3, 0.03, 0.3, 1.0)


def states(process: ForwardProcess, t: float, scale: float = 1.0, n: int = 200) -> Tensor:
    """Draws of a_t for the mixture, with a few far from it: (n, k, 1)."""
    rng = torch.Generator().manual_seed(0)
    pick = torch.rand(n, generator=rng, dtype=torch.float64) < WEIGHTS[0]
    noise = torch.randn(3, n, generator=rng, dtype=torch.float64)
    i = torch.where(pick, 0, 1)
    x = scale * (MEANS[i] + VARIANCES[i].sqrt() * noise[0])
    law = process.transition(t)
    low = torch.linalg.cholesky(law.cov[0])
    a = x[:, None] * law.mean[0, :, 0] + noise[1 : 1 + process.k].T @ low.T
    a[: n // 10] *= 3
    return a[..., None]


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("t", TIMES)
def test_zero_network_is_the_score_of_gaussian_data(method: str, t: float) -> None:
    process = process_for(method)
    law = process.transition(t)
    f = law.mean[0, :, 0]
    s = law.cov[0] + VAR * f[:, None] * f
    a = states(process, t)
    want = -torch.linalg.solve(s, a[..., 0].T)[-1]
    got = Score(process, Zero())(a, at(process, t))
    assert got.shape == (len(a), 1)
    torch.testing.assert_close(got[:, 0], want, rtol=1e-8, atol=1e-8 * float(want.abs().max()))


def mixture_score(process: ForwardProcess, a: Tensor, t: float, scale: float) -> Tensor:
    """d log p(a_t)/d(last component), p = sum_i w_i N(F_x m_i, F_x F_x' v_i + Sigma_t), directly in (x, v)."""
    law = process.transition(t)
    f, logs, pulls = law.mean[0, :, 0], [], []
    for w, m, v in zip(WEIGHTS, MEANS * scale, VARIANCES * scale**2, strict=True):
        gap = a[..., 0] - f * m
        cov = law.cov[0] + v * f[:, None] * f
        pull = torch.linalg.solve(cov, gap.T).T
        logs.append(w.log() - 0.5 * (gap * pull).sum(1) - 0.5 * torch.logdet(cov))
        pulls.append(-pull[:, -1])
    return (torch.stack(logs, -1).softmax(-1) * torch.stack(pulls, -1)).sum(-1)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("t", TIMES)
@pytest.mark.parametrize("scale", [0.2, 1.0, 10.0])
def test_one_number_per_direction_is_enough(method: str, t: float, scale: float) -> None:
    """The score of a mixture in (x, v) is gain . a + out E[target | z]: z is sufficient, whatever the data's law."""
    process = process_for(method, scale)
    a = states(process, t, scale)
    want = mixture_score(process, a, t, scale)
    got = Score(process, POSTERIOR)(a, at(process, t))[:, 0]
    torch.testing.assert_close(got, want, rtol=1e-6, atol=1e-7 * float(want.abs().max()))
    if scale == 1 and t == 0.03:  # and the network has a share
        assert float((got - Score(process, Zero())(a, at(process, t))[:, 0]).abs().max()) > 1e-2


@pytest.mark.parametrize("method", ["CLD", "VSULD", "SGM"])
@pytest.mark.parametrize("t", [0.03, 0.3])
def test_denoiser(method: str, t: float) -> None:
    """E[x_0 | a_t] against Bayes' rule on a fine grid of x_0."""
    process = process_for(method)
    a = states(process, t, n=20)
    law = process.transition(t)
    grid = torch.linspace(-9, 9, 36_001, dtype=torch.float64)
    gap = grid[:, None] - MEANS
    density = (WEIGHTS / VARIANCES.sqrt() * torch.exp(-0.5 * gap**2 / VARIANCES)).sum(1)
    precision = torch.linalg.inv(law.cov[0])
    got = Score(process, POSTERIOR).denoise(a, at(process, t))[:, 0]
    for row, value in zip(a[..., 0], got, strict=True):
        left = row - grid[:, None] * law.mean[0, :, 0]
        log = -0.5 * (left @ precision * left).sum(1)
        weight = density * torch.exp(log - log[density > 1e-250].max())
        assert float(value) == pytest.approx(float((weight * grid).sum() / weight.sum()), abs=2e-5)


class Recorder(nn.Module):
    """Remembers what it was given."""

    def forward(self, z: Tensor, log_snr: Tensor, context: Tensor | None = None) -> Tensor:
        self.seen: tuple[Any, ...] = (z, log_snr, context)
        return torch.zeros_like(z)


def test_what_the_network_sees() -> None:
    """z like the data, levels that broadcast against it (one row when shared), and the context untouched."""
    process = forward_process("CLD", (2, 3)).with_moments(torch.zeros(2, 3), torch.full((2, 3), 4.0))
    network = Recorder()
    context = torch.randn(5, 7)
    a = torch.randn(5, 2, 2, 3)
    coefficients = process.coefficients(torch.tensor([0.2])).at(0)
    score = Score(process, network)(a, coefficients, context)
    z, level, seen = network.seen
    assert score.shape == z.shape == (5, 2, 3)
    assert level.shape == (1, 2, 3)
    assert seen is context
    snr, _ = process.snr(torch.tensor([0.2]))
    np.testing.assert_allclose(level.numpy(), snr.log().numpy(), rtol=1e-6)
