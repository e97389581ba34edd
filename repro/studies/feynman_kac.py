"""Proposition 1, the nonlinear Feynman-Kac formula (4), along simulated paths of a bridge that is known exactly.

In the clock the reference is da = M a dtau + sqrt(2 gamma) e_v dw. With psi the backward potential of the Schrodinger
bridge, phi = rho / psi the forward one and g = sqrt(2 gamma) e_v,

    y = log psi(a_tau),  z = g . grad log psi:   dy = z^2/2 dtau + z dw
    u = log phi(a_tau),  q = g . grad log phi:   du = (q^2/2 + div(g q - M a) + q z) dtau + q dw

along da = (M a + g z) dtau + g dw. Between Gaussians psi = exp(-a' Pi a/2) / sqrt det(I + Pi_T N) (`vsmd.steering`).
"""

from __future__ import annotations

import torch
from torch import Tensor

from vsmd import kernels
from vsmd.random import generator
from vsmd.schedules import BetaSchedule
from vsmd.steering import Steering

GAMMA = 2.0


def _potentials(bridge: Steering, t: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Pi (n, 2, 2), log psi at 0 (n,), the inverse of rho's covariance (n, 2, 2) and log rho at 0 (n,), at times t."""
    assert bridge.friction is not None  # with velocity
    eye, one = torch.eye(2, dtype=torch.float64), torch.ones((), dtype=torch.float64)
    left = (bridge.end * (1 - t)).clamp(min=1e-300)
    noise = kernels.stacked(kernels.momentum(left, one, one * bridge.friction, GAMMA).noise)
    psi = -0.5 * torch.logdet(eye + kernels.stacked(bridge.gain) @ noise)
    moved = bridge.kernel(t.clamp(min=1e-12))
    mean = kernels.stacked(moved.mean)
    cov = mean @ torch.diag(torch.stack([bridge.std.square(), one])) @ mean.mT + kernels.stacked(moved.noise)
    return kernels.stacked(bridge.cost_to_go(t)), psi, torch.linalg.inv(cov), -0.5 * torch.logdet(cov)


def residuals(
    steps: int, std: float = 8.0, beta: float = 5.0, damping: float = 1.0, paths: int = 1_000, seed: int = 0
) -> tuple[float, float]:
    """Root mean squares over paths of what (4) leaves of log psi and of log phi between t = 0 and 1; 0 as steps grow.

    Euler-Maruyama with the integrals as sums at the left ends: both fall as 1 / sqrt(steps).
    """
    friction = damping**0.5
    schedule = BetaSchedule.of(beta)
    bridge = Steering(torch.tensor(std, dtype=torch.float64), friction, GAMMA, schedule, 1 / friction)
    pi, psi, inverse, rho = _potentials(bridge, torch.linspace(0, 1, steps + 1, dtype=torch.float64))
    g, h, rng = (2 * GAMMA) ** 0.5, float(bridge.end) / steps, generator(seed, "feynman-kac")
    a = torch.randn(paths, 2, generator=rng, dtype=torch.float64) * torch.tensor([std, 1.0], dtype=torch.float64)
    drift = torch.tensor([[0.0, 1.0], [-1.0, -GAMMA * friction]], dtype=torch.float64)

    def logs(k: int) -> tuple[Tensor, Tensor]:
        backward = psi[k] - 0.5 * ((a @ pi[k]) * a).sum(1)
        return backward, rho[k] - 0.5 * ((a @ inverse[k]) * a).sum(1) - backward

    left = [-value for value in logs(0)]
    for k in range(steps):
        z = -g * (a @ pi[k])[:, 1]
        q = -g * (a @ inverse[k])[:, 1] - z
        divergence = g**2 * (pi[k] - inverse[k])[1, 1] + GAMMA * friction
        dw = h**0.5 * torch.randn(paths, generator=rng, dtype=torch.float64)
        left[0] = left[0] - 0.5 * z**2 * h - z * dw
        left[1] = left[1] - (0.5 * q**2 + divergence + q * z) * h - q * dw
        a = a + h * a @ drift.T
        a[:, 1] += g * (z * h + dw)
    ends = logs(steps)
    first, second = (float((change + end).square().mean().sqrt()) for change, end in zip(left, ends, strict=True))
    return first, second
