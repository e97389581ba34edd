r"""The variational score in closed form: covariance steering of the data's second moments, and its transition kernel.

Among linear forward processes the control problem of the paper (§4.3) sees the data through two moments only, and for
Gaussian marginals its solution is the Schrödinger bridge of a linear system whose noise enters through the controlled
channel (Chen, Georgiou, Pavon 2016). Per direction, with Phi and N the mean map and the noise covariance of the
reference (A_x = 0 with its R) over [t, T], N_0 = N over [0, T] = L L', W = L^{-1}, P_0 = diag(std^2, 1) and Sigma_T the
reference's stationary law,

    Q = W chol(Sigma_T),  B = W Phi(T, 0) P_0^{1/2},  Q'B = U sigma V',
    K = Q U diag(1/(1/2 + sqrt(1/4 + sigma^2))) U' Q',    Pi_T = W'(K^{-1} - I) W,
    Pi(t) = Phi' (I + Pi_T N)^{-1} Pi_T Phi,              A_t = A_ref - (v-row of Pi(t)),
    a_2 | a_1 ~ N((I + N Pi(t_2))^{-1} Phi a_1, (I + N Pi(t_2))^{-1} N),   Phi and N over [t_1, t_2],

so that x_0 of variance std^2 and v_0 ~ N(0, 1) end in N(0, Sigma_T) exactly, at the least control cost. Everything is
in the clock tau; nothing is simulated or composed. k = 1 is the same with numbers in place of matrices.
"""

from __future__ import annotations

import torch
from torch import Tensor

from vsmd import kernels
from vsmd.kernels import Kernel, Matrix
from vsmd.schedules import BetaSchedule

SAFE = 1e-8  # relative error of the steered end law from which on beta counts as too small for the tables
PROBES = torch.linspace(1, 4, 25).tolist()  # times the beta named as safe: rounding is no smooth function of beta


def inverse(m: Matrix) -> Matrix:
    """Inverse of a matrix field, k <= 2."""
    if len(m) == 1:
        return ((1 / m[0][0],),)
    (a, b), (c, d) = m
    det = a * d - b * c
    return (d / det, -b / det), (-c / det, a / det)


def _plus_eye(m: Matrix) -> Matrix:
    return tuple(tuple(e + 1 if i == j else e for j, e in enumerate(row)) for i, row in enumerate(m))


def _symmetric(m: Matrix) -> Matrix:
    if len(m) == 1:
        return m
    off = (m[0][1] + m[1][0]) / 2
    return (m[0][0], off), (off, m[1][1])


def _terminal_gain(reference: Kernel, std: Tensor, target: float) -> Matrix:
    """Pi_T of the reference's kernel over [0, T]; symmetric (*shape) entries."""
    k = len(reference.noise)
    lower = torch.linalg.cholesky(kernels.stacked(reference.noise))
    start = torch.stack([std, torch.ones_like(std)][:k], -1)
    b = torch.linalg.solve_triangular(lower, kernels.stacked(reference.mean) * start[..., None, :], upper=False)
    eye = torch.eye(k, dtype=torch.float64, device=std.device).expand(lower.shape)
    w = torch.linalg.solve_triangular(lower, eye, upper=False)  # Q = w sqrt(target)
    u, sigma, _ = torch.linalg.svd(target**0.5 * w.mT @ b)
    # K^{-1} = Q^{-T} U diag(1/2 + sqrt(1/4 + sigma^2)) U' Q^{-1}, Q^{-1} = L / sqrt(target): hence
    # W'K^{-1} W = U diag(.) U' / target exactly, and Pi_T needs no inverse but N_0's
    grown = (u * (0.5 + torch.sqrt(0.25 + sigma.square()))[..., None, :]) @ u.mT / target
    return _symmetric(kernels.entries(grown - w.mT @ w))


class Steering:
    """The steered process: its A_t and its kernels at times t in [0, 1], for directions of any shape.

    std: of the data per direction (*shape), >= 0; a direction that does not vary is left to the reference.
    friction: c of the reference (its stiffness is 1), or None for the overdamped one (D = 1). schedule: of beta.
    target: variance of each component at t = 1. Raises ValueError where beta is so small that the end law would miss
    its target by more than 1e-8, with the smallest safe beta.
    """

    def __init__(
        self, std: Tensor, friction: float | None, gamma: float, schedule: BetaSchedule, target: float
    ) -> None:
        self.k, self.gamma, self.schedule, self.target = 1 if friction is None else 2, gamma, schedule, target
        self.friction, self.std = friction, std.to(torch.float64)
        one = torch.ones((), dtype=torch.float64)
        self._momentum = None if friction is None else kernels.Momentum(one, one * friction, gamma)
        varying = self.std[self.std > 0].unique()
        self.end = schedule.clock(one)
        if len(varying) and self._miss(varying, self.end) > SAFE:
            end = self.end
            while max(self._miss(varying, end * above) for above in PROBES) > SAFE / 10 and float(end) < 100:
                end = end * 1.1
            raise ValueError(
                f"beta={2 * float(self.end):.4g}: too small to steer standard deviations {float(varying.min()):.4g} to "
                f"{float(varying.max()):.4g} in double precision; its mean over time must be >= {2 * float(end):.3g}"
            )
        safe = torch.where(self.std > 0, self.std, torch.ones_like(self.std))
        gain = _terminal_gain(self._reference(self.end), safe, target)
        self.gain = tuple(tuple(torch.where(self.std > 0, e, torch.zeros_like(e)) for e in row) for row in gain)

    def _miss(self, std: Tensor, end: Tensor) -> float:
        """Largest error of the end law of data of these stds, relative to the target, if the clock ended at `end`."""
        gain = _terminal_gain(self._reference(end), std, self.target)
        mean, noise = self._steered(*self._reference(end), gain)
        start = (std.square(), torch.ones_like(std))[: self.k]
        law = kernels.stacked(noise)
        for i, var in enumerate(start):
            column = torch.stack(torch.broadcast_tensors(*(row[i] for row in mean)), -1)
            law = law + var[..., None, None] * column[..., :, None] * column[..., None, :]
        miss = (law / self.target - torch.eye(self.k, dtype=torch.float64)).abs().max()
        return float(miss) if bool(torch.isfinite(miss)) else float("inf")

    def _reference(self, tau: Tensor) -> Kernel:
        if self._momentum is None:
            return kernels.overdamped(tau, torch.ones((), dtype=torch.float64))
        return self._momentum(tau)

    @staticmethod
    def _steered(phi: Matrix, noise: Matrix, cost: Matrix) -> Kernel:
        pull = inverse(_plus_eye(kernels.matmul(noise, cost)))
        return Kernel(kernels.matmul(pull, phi), _symmetric(kernels.matmul(pull, noise)))

    def _clock(self, t: Tensor) -> Tensor:
        return self.schedule.clock(t).view(-1, *[1] * self.std.ndim)

    def cost_to_go(self, t: Tensor) -> Matrix:
        """Pi(t) at times t (n,): symmetric k x k entries (n, *shape); the control is -2 gamma (v-row of Pi) a."""
        left = (self.end - self._clock(t)).clamp(min=torch.finfo(torch.float64).tiny)
        phi, noise = self._reference(left)
        inner = kernels.matmul(inverse(_plus_eye(kernels.matmul(self.gain, noise))), self.gain)
        return _symmetric(kernels.matmul(kernels.matmul(kernels.transpose(phi), inner), phi))

    def kernel(self, t: Tensor, since: Tensor | None = None) -> Kernel:
        """The kernel from time `since` (n,) < t (0 by default) to t (n,): F and N, k x k entries (n, *shape)."""
        start = 0.0 if since is None else self._clock(since)
        return self._steered(*self._reference(self._clock(t) - start), self.cost_to_go(t))

    def rates(self, t: Tensor, within: Tensor | None = None) -> tuple[Tensor, ...]:
        """Stiffness and friction (s, c), or (D,) if overdamped, at times t (n,); (n, *shape). A_t has no jumps."""
        pi = self.cost_to_go(t)
        if self.friction is None:
            return (1 + 2 * pi[0][0],)
        return 1 + 2 * self.gamma * pi[1][0], self.friction + 2 * pi[1][1]
