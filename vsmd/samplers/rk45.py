"""Adaptive Runge–Kutta 4(5) on the probability flow (SciPy's Dormand–Prince), and the exact log-likelihood with it."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from scipy.integrate import solve_ivp
from torch import Tensor

from vsmd import checks
from vsmd.potentials import Potential
from vsmd.random import Noise
from vsmd.samplers.base import Solver, reverse_drift
from vsmd.scores import Score, combine

Rates = Callable[[float, np.ndarray], np.ndarray]


def _solve(rates: Rates, span: tuple[float, float], y: np.ndarray, rtol: float, atol: float) -> np.ndarray:
    """State at the end of the span; FloatingPointError where the rates are not finite or the steps vanish."""

    def finite(t: float, state: np.ndarray) -> np.ndarray:
        value = rates(t, state)
        if not np.isfinite(value).all():
            raise FloatingPointError(f"rk45: the flow is not finite at t = {t:.4g}; the network has diverged")
        return value

    solution = solve_ivp(finite, span, y, rtol=checks.positive("rtol", rtol), atol=checks.in_range("atol", atol, 0, 1))
    if not solution.success:
        raise FloatingPointError(f"rk45: stopped at t = {solution.t[-1]:.4g}: {solution.message}")
    return solution.y[:, -1]


class RK45(Solver):
    """Dormand–Prince with error control over the whole batch; `calls` counts the network evaluations it took.

    rtol, atol: relative and absolute tolerance of a step (default 1e-4).
    """

    evaluations = 0  # as many as it needs

    def __init__(self, rtol: float = 1e-4, atol: float = 1e-4) -> None:
        self.rtol, self.atol, self.calls = rtol, atol, 0

    def step(self, a: Tensor, i: int, noise: Noise) -> Tensor:
        def flow(t: float, y: np.ndarray) -> np.ndarray:
            self.calls += 1
            at = self.coefficients(torch.tensor([t], dtype=torch.float64)).at(0)
            state = torch.from_numpy(y).to(a).view_as(a)
            return -self.drift(state, at, 0.5).double().cpu().numpy().reshape(-1)

        span = (float(self.times[i]), float(self.times[i + 1]))
        y = _solve(flow, span, a.double().cpu().numpy().reshape(-1), self.rtol, self.atol)
        return torch.from_numpy(y).to(a).view_as(a)


def log_likelihood(
    score: Score, a: Tensor, t_min: float, context: Tensor | None = None, rtol: float = 1e-4, atol: float = 1e-4
) -> Tensor:
    r"""Log-density in nats of states a (n, k, *shape) at t_min under the probability flow; float64 (n,).

    d log p(a_t)/dt = -div f along the flow. Only the last component of f depends on the network, so the divergence is
    a trace over d directions (one vector–Jacobian product each; exact).
    """
    process, n = score.process, a.shape[0]

    def rates(t: float, y: np.ndarray) -> np.ndarray:
        at = process.coefficients(torch.tensor([t], dtype=torch.float64), device=a.device).at(0)
        state = torch.from_numpy(y[: a.numel()]).view_as(a).to(a)
        with torch.enable_grad():
            z = combine(at.inp, state).requires_grad_()
            net = score.output(z, at.log_snr[None], context)
            trace = _trace(net, z, at.out * at.inp[-1])
        s = combine(at.gain, state) + at.out * net.detach()
        if at.potential:
            s = s - score.control(state, at)
        drift = -reverse_drift(s, state, at, 0.5)  # forward in t
        linear = (at.row[-1] + 0.5 * at.noise * at.gain[-1]).expand(process.shape).sum()
        if at.potential:
            trace = trace - Potential(*at.potential).pull_divergence(state)
        divergence = -(linear + 0.5 * at.noise.max() * trace)
        return torch.cat([drift.double().reshape(-1), divergence.double()]).cpu().numpy()

    y0 = np.concatenate([a.double().cpu().numpy().reshape(-1), np.zeros(n)])
    y = _solve(rates, (t_min, 1.0), y0, rtol, atol)
    end = torch.from_numpy(y[: a.numel()]).view(a.shape)
    return process.prior_law().log_prob(end) + torch.from_numpy(y[a.numel() :])


def _trace(out: Tensor, z: Tensor, weight: Tensor) -> Tensor:
    """sum_i weight_i d out_i / d z_i per row, by d vector–Jacobian products."""
    flat, weights = out.flatten(1), weight.expand(out.shape[1:]).reshape(-1)
    total = torch.zeros(len(out), dtype=out.dtype, device=out.device)
    if not out.requires_grad:
        return total
    for i in range(flat.shape[1]):
        (grad,) = torch.autograd.grad(flat[:, i].sum(), z, retain_graph=True)
        total = total + weights[i] * grad.flatten(1)[:, i]
    return total
