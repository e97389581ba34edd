"""vsmd.scores: exact for Gaussian data, sufficient for any, and plain score matching learns the same."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from vsmd.family import forward_process
from vsmd.processes import Coefficients, ForwardProcess
from vsmd.scores import Score, hybrid_pair, plain_pair

METHODS = ("CLD", "ULD", "VSULD", "SGM", "VSDM")
TIMES = (1e-3, 0.03, 0.3, 1.0)


class Zero(nn.Module):
    def forward(self, z: Tensor, log_snr: Tensor, context: Tensor | None = None) -> Tensor:
        return torch.zeros_like(z)


class Posterior(nn.Module):
    """E[target | z] in one dimension for standardised data xi ~ sum_i w_i N(m_i, v_i): a function of z and snr."""

    def __init__(self, weights: Tensor, means: Tensor, variances: Tensor) -> None:
        super().__init__()
        self.w, self.m, self.v = weights, means, variances

    def forward(self, z: Tensor, log_snr: Tensor, context: Tensor | None = None) -> Tensor:
        snr = log_snr.double().exp()
        norm = (1 + snr**2).sqrt()
        y = (z.double() * norm)[..., None]  # snr xi + n
        level = snr[..., None]
        spread = level**2 * self.v + 1
        logits = self.w.log() - 0.5 * spread.log() - 0.5 * (y - level * self.m) ** 2 / spread
        means = self.m + level * self.v / spread * (y - level * self.m)
        xi = (logits.softmax(-1) * means).sum(-1)
        return (xi - snr * (y[..., 0] - snr * xi)) / norm


# 0.3 N(-1.5, .25) + 0.7 N(mu, .09), centred
WEIGHTS = torch.tensor([0.3, 0.7], dtype=torch.float64)
MEANS = torch.tensor([-1.5, 1.5 * 0.3 / 0.7], dtype=torch.float64)
VARIANCES = torch.tensor([0.25, 0.09], dtype=torch.float64)
VAR = float((WEIGHTS * (MEANS**2 + VARIANCES)).sum())
STD = math.sqrt(VAR)
POSTERIOR = Posterior(WEIGHTS, MEANS / STD, VARIANCES / VAR)


def process_for(method: str, scale: float = 1.0, matching: str = "hybrid") -> ForwardProcess:
    """The process for the mixture stretched by `scale`; a stiffness of its own where A is adaptive."""
    process = forward_process(method, (1,), beta=6.0, score_matching=matching)
    if process.variational_score == "adaptive":
        process = process.with_stiffness(torch.tensor([[3.0]]))
    return process.with_moments(torch.zeros(1), torch.tensor([VAR * scale**2], dtype=torch.float64))


def at(process: ForwardProcess, t: float) -> Coefficients:
    return process.coefficients(torch.tensor([t], dtype=torch.float64), dtype=torch.float64).at(0)


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


def test_hybrid_pair() -> None:
    """z = (snr xi + n)/sqrt(1 + snr^2), target its orthogonal partner: a rotation of (xi, n)."""
    rng = torch.Generator().manual_seed(0)
    xi, n = torch.randn(2, 100, 3, generator=rng, dtype=torch.float64)
    snr = torch.logspace(-3, 3, 100, dtype=torch.float64)[:, None].expand(100, 3)
    z, target = hybrid_pair(xi, snr, n)
    torch.testing.assert_close(z**2 + target**2, xi**2 + n**2, rtol=1e-12, atol=0)
    torch.testing.assert_close((snr * z + target) / (1 + snr**2).sqrt(), xi, rtol=1e-9, atol=1e-9)
    zero = torch.zeros_like(snr)
    assert torch.equal(hybrid_pair(xi, zero, n)[0], n)


TESTS = (lambda z: torch.ones_like(z), lambda z: z, torch.tanh, lambda z: torch.cos(2 * z), lambda z: z.abs())


@pytest.mark.parametrize("method", ["CLD", "VSULD", "SGM"])
@pytest.mark.parametrize("t", [1e-3, 0.1, 0.6])
def test_plain_score_matching_has_the_same_minimiser(method: str, t: float) -> None:
    """E[(target - E[target | z]) phi(z)] = 0 for the pairs of plain score matching, within five standard errors."""
    process = process_for(method, matching="plain")
    n, rng = 100_000, torch.Generator().manual_seed(0)
    i = torch.where(torch.rand(n, generator=rng) < WEIGHTS[0], 0, 1)
    x = MEANS[i] + VARIANCES[i].sqrt() * torch.randn(n, generator=rng, dtype=torch.float64)
    times = torch.full((n,), t, dtype=torch.float64)
    z, target = plain_pair(process, x[:, None], times, rng)
    assert z.shape == target.shape == (n, 1)
    rest = (target.double() - POSTERIOR(z, at(process, t).log_snr))[:, 0]
    for phi in TESTS:
        product = rest * phi(z[:, 0].double())
        assert abs(float(product.mean())) < 5 * float(product.std()) / n**0.5
    # it sees a_t as the hybrid pairs do, and pays for the drawn v_0 with variance
    snr = at(process, t).log_snr.exp().expand(n, 1)
    z_hybrid, target_hybrid = hybrid_pair(x[:, None] / STD, snr, torch.randn(n, 1, generator=rng, dtype=torch.float64))
    for power in (1, 2, 3, 4):
        one, two = z.double() ** power, z_hybrid**power
        assert abs(float(one.mean() - two.mean())) < 5 * float((one.var() + two.var()) / n) ** 0.5
    if process.k == 2:
        assert float(target.var()) > 1.05 * float(target_hybrid.var())
    else:
        assert float(target.var()) == pytest.approx(float(target_hybrid.var()), rel=0.05)


def test_plain_pair_of_a_constant_coordinate() -> None:
    process = forward_process("CLD", (2,), score_matching="plain").with_moments(
        torch.zeros(2), torch.tensor([1.0, 0.0])
    )
    x = torch.tensor([[0.5, 0.0], [-1.0, 0.0]])
    z, target = plain_pair(process, x, torch.tensor([1e-3, 0.5]), torch.Generator().manual_seed(0))
    assert bool(torch.isfinite(z).all())
    assert torch.equal(target[:, 1], torch.zeros(2))


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
