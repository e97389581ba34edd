r"""What notebook 01 checks the closed forms with: oracles that share no code with the package, and exact Gaussian runs.

A linear process is given here by its drift M(t) and noise Q per unit of the clock, da = M a dtau, d<a> = Q dtau:
M = [[0, 1], [-s, -gamma c]], Q = diag(0, 2 gamma), or M = [[-D]], Q = [[2]] without velocity.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any, NamedTuple

import mpmath
import numpy as np
import torch
from numpy.typing import NDArray
from scipy.integrate import quad_vec, solve_ivp
from scipy.linalg import expm
from torch import Tensor, nn

from vsmd import kernels, random
from vsmd.adaptation import Adaptation, PathMoments, least_stiffness, update
from vsmd.kernels import Kernel, Matrix
from vsmd.priors import GaussianPrior
from vsmd.processes import ForwardProcess
from vsmd.samplers import integrate, make_solver, time_grid
from vsmd.schedules import BetaSchedule
from vsmd.scores import Score

Array = NDArray[np.float64]
Coefficient = float | Callable[[float], float]


class Linear(NamedTuple):
    """A linear forward process: drift M(t) (k, k), noise Q (k, k), both per unit of the clock, and beta(t)."""

    drift: Callable[[float], Array]
    noise: Array
    schedule: BetaSchedule

    def rate(self, t: float) -> float:
        """dtau/dt = beta(t)/2."""
        low, high, power = self.schedule.b_min, self.schedule.b_max, self.schedule.power
        return 0.5 * (low + (high - low) * t**power)


def _at(value: Coefficient, t: float) -> float:
    return value(t) if callable(value) else value


def overdamped(drift: Coefficient, beta: float | BetaSchedule) -> Linear:
    """dx = -D(t) x dtau + sqrt(2) dw; D a number or a function of t."""
    return Linear(lambda t: np.array([[-_at(drift, t)]]), np.array([[2.0]]), BetaSchedule.of(beta))


def momentum(s: Coefficient, c: Coefficient, gamma: float, beta: float | BetaSchedule) -> Linear:
    """dx = v dtau, dv = -(s(t) x + gamma c(t) v) dtau + sqrt(2 gamma) dw; s and c numbers or functions of t."""
    noise = np.diag([0.0, 2 * gamma])
    return Linear(lambda t: np.array([[0.0, 1.0], [-_at(s, t), -gamma * _at(c, t)]]), noise, BetaSchedule.of(beta))


# ---- oracles -------------------------------------------------------------------------------------------------------
def moment_odes(process: Linear, times: Sequence[float], start: Array) -> tuple[Array, Array]:
    """Mean map F and covariance Sigma (n, k, k) at increasing `times` from (6a)–(6b), by an ODE solver of order 8.

    start: Sigma_0 (k, k). Tolerances follow the short-time law, std of x ~ tau^(3/2) and of v ~ tau^(1/2): errors are
    about 1e-12 of the standard deviations, however small tau is.
    """
    k, since = len(process.noise), 0.0
    power = np.where(np.diag(process.noise) > 0, 0.5, 1.5)

    def rates(t: float, y: Array) -> Array:
        m, (f, s) = process.drift(t), y.reshape(2, k, k)
        ms = m @ s
        return process.rate(t) * np.stack([m @ f, ms + ms.T + process.noise]).ravel()

    y, solution = np.stack([np.eye(k), start]).ravel(), []
    for t in times:
        std = min(1.0, process.rate(t) * t) ** power
        atol = 1e-15 * np.stack([np.ones((k, k)), np.outer(std, std)]).ravel()
        reach = 1 / (process.rate(t) * np.linalg.norm(process.drift(t)))  # keep stiff systems off the stability limit
        y = solve_ivp(rates, (since, t), y, "DOP853", rtol=1e-13, atol=atol, max_step=reach).y[:, -1]
        since = t
        solution.append(y.reshape(2, k, k))
    return np.stack(solution)[:, 0], np.stack(solution)[:, 1]


def as_printed(process: Linear, t: float, start: Array) -> tuple[Array, Array]:
    """F and Sigma (k, k) as (7) and (8) have them: exponentials of the *integrated* matrices, Sigma = C H^{-1}."""
    k = len(process.noise)

    def block(u: float) -> Array:
        m = process.drift(u)
        return process.rate(u) * np.block([[m, process.noise], [np.zeros((k, k)), -m.T]])

    integral = quad_vec(block, 0.0, t, epsabs=1e-13, epsrel=1e-13)[0]
    stacked = expm(integral) @ np.vstack([start, np.eye(k)])
    return expm(integral[:k, :k]), stacked[:k] @ np.linalg.inv(stacked[k:])


def monte_carlo(process: Linear, paths: int, steps: int, start: Array, seed: int) -> tuple[Array, Array]:
    """Covariance at t = 1 of Euler–Maruyama paths from N(0, start) diagonal, and its standard errors; (k, k) each."""
    rng, k, h = np.random.default_rng(seed), len(process.noise), 1 / steps
    a = rng.standard_normal((paths, k)) * np.sqrt(np.diag(start))
    for t in (np.arange(steps) + 0.5) * h:
        dtau = h * process.rate(t)
        a = a + dtau * a @ process.drift(t).T
        a[:, -1] += math.sqrt(dtau * process.noise[-1, -1]) * rng.standard_normal(paths)
    cov = a.T @ a / paths
    return cov, np.sqrt((cov**2 + np.outer(np.diag(cov), np.diag(cov))) / paths)


def exact_kernel(tau: float, s: float, c: float, gamma: float) -> tuple[Any, Any]:
    """F and N = Sigma - F Sigma F' of the momentum process as mpmath matrices, with digits for all that cancels."""
    p = gamma * c / 2
    with mpmath.workdps(int(2 * tau * (abs(p) + math.sqrt(abs(p * p - s))) / math.log(10)) + 80):
        t, s_, c_, g = (mpmath.mpf(v) for v in (tau, s, c, gamma))
        f = mpmath.expm(t * mpmath.matrix([[0, 1], [-s_, -g * c_]]))
        law = mpmath.diag([1 / (s_ * c_), 1 / c_])
        return f, law - f * law * f.T


def relative_errors(taus: Sequence[float], s: float, c: float, gamma: float) -> dict[str, dict[str, list[float]]]:
    """Relative errors over taus of N_xx and L_vv (v_0 marginalised), textbook form and package's, against mpmath."""
    errors: dict[str, dict[str, list[float]]] = {n: {"textbook": [], "package": []} for n in ("N_xx", "L_vv")}
    one, start = torch.ones((), dtype=torch.float64), mpmath.diag([0, 1])
    for tau in taus:
        f, noise = exact_kernel(tau, s, c, gamma)
        with mpmath.workdps(80):
            cov = noise + f * start * f.T
            true = {"N_xx": noise[0, 0], "L_vv": mpmath.sqrt(cov[1, 1] - cov[0, 1] ** 2 / cov[0, 0])}
        kernel = kernels.momentum(tau * one, s * one, c * one, gamma)
        ((xx, xv), (_, vv)), ((nxx, nxv), (_, nvv)) = kernel
        px, pv = kernels.stationary(s * one, c * one)
        schur = nvv + vv**2 - (nxv + xv * vv) ** 2 / (nxx + xv**2)
        ours = {"N_xx": (px - px * xx**2 - pv * xv**2, nxx)}
        ours["L_vv"] = (schur.clamp(min=0).sqrt(), kernels.lower_cholesky(kernel)[2])
        for name, values in ours.items():
            for column, value in zip(errors[name].values(), values, strict=True):
                column.append(float(abs(mpmath.mpf(float(value)) / true[name] - 1)))
    return errors


# ---- kernels as arrays, and how far they are off -------------------------------------------------------------------
def as_array(matrix: Matrix) -> Array:
    """A matrix field (k x k entries of one shape) as an array (*shape, k, k)."""
    return torch.stack([torch.stack(row, -1) for row in matrix], -2).numpy()


def kernel_arrays(kernel: Kernel, v0: float) -> tuple[Array, Array]:
    """F and Sigma = F diag(0, v0) F' + N of a kernel, (*shape, k, k)."""
    f, n = map(as_array, kernel)
    return f, n if f.shape[-1] == 1 else n + v0 * f[..., :, 1:] * f[..., None, :, 1]


def scaled_error(ours: Array, truth: Array) -> float:
    """max |ours - truth|_ij / sqrt(truth_ii truth_jj) over all matrices (..., k, k)."""
    d = np.sqrt(np.diagonal(truth, axis1=-2, axis2=-1))
    return float(np.max(np.abs(ours - truth) / (d[..., :, None] * d[..., None, :])))


def kernel_error(process: ForwardProcess, times: Sequence[float]) -> float:
    """Largest error of `process.transition` (constant A, shape (d,)) against (6a)–(6b), F absolute, Sigma scaled."""
    law, worst = process.transition(torch.tensor(times, dtype=torch.float64)), 0.0
    for j, s in enumerate(process.stiffness[0].tolist()):
        if process.k == 1:
            linear = overdamped(s, process.schedule)
        else:
            linear = momentum(s, float(process.friction[0, j]), process.gamma, process.schedule)
        f, cov = moment_odes(linear, times, np.diag([0.0, 1.0][: process.k]))
        worst = max(worst, float(np.abs(law.mean[:, j].numpy() - f).max()), scaled_error(law.cov[:, j].numpy(), cov))
    return worst


# ---- the reverse process on Gaussian data: the exact score, where the network's share is zero ----------------------
class Zero(nn.Module):
    """The network that Gaussian data need."""

    def forward(self, z: Tensor, log_snr: Tensor, context: Tensor | None = None) -> Tensor:
        """Zeros like z."""
        return torch.zeros_like(z)


def reverse_covariance(process: ForwardProcess, solver: str, steps: int, paths: int) -> tuple[Array, Array]:
    """Times and covariances (steps + 1, *shape, k, k) under a solver of the reverse process, from the prior's law.

    A stochastic solver gets `paths` draws; a deterministic one is linear here and gets the columns of the prior's
    Cholesky factor, whose outer products add up to the covariance without any sampling error.
    """
    times, covariances, law = time_grid(steps), list[Tensor](), process.prior_law()
    run, start = make_solver(solver, Score(process, Zero()), times), law.sample(paths, random.generator(0, "start"))
    if not run.stochastic:
        assert isinstance(law, GaussianPrior)
        start = torch.linalg.cholesky(torch.from_numpy(as_array(law.cov))).movedim((-1, -2), (0, 1))

    def watch(i: int, a: Tensor) -> None:
        covariances.append(torch.einsum("ni...,nj...->...ij", a, a).double() / (len(a) if run.stochastic else 1))

    integrate(run, start, random.BatchNoise(random.generator(0, "reverse")), watch)
    return times.numpy(), torch.stack(covariances).numpy()


def forward_covariance(process: ForwardProcess, times: Array) -> Array:
    """S_t (n, *shape, k, k) of data with the process's moments, in closed form."""
    return as_array(process.covariance(process.kernel(torch.from_numpy(times)), process.known().var))


def _reverse_rates(process: ForwardProcess, times: Tensor) -> tuple[Array, Array, Array]:
    """Reverse drift G (n, d, k, k), noise g^2 diag(0, 1) (n, 1, k, k) and score row (n, d, k) of Gaussian data."""
    at = process.coefficients(times, dtype=torch.float64)
    rows = [(torch.zeros_like(at.out), -at.beta / 2 + torch.zeros_like(at.out))] if process.k == 2 else []
    rows.append(tuple(r + at.noise * g for r, g in zip(at.row, at.gain, strict=True)))  # type: ignore[arg-type]
    noise = at.noise.numpy()[..., None, None] * np.diag([0.0, 1.0][-process.k :])
    return as_array(tuple(rows)), noise, torch.stack(at.gain, -1).numpy()


def euler_moments(process: ForwardProcess, steps: int, printed: bool) -> tuple[float, float]:
    """Mean and standard deviation of x, one direction, after Euler–Maruyama (16) from N(0, S_1), without sampling.

    printed: (16) as the paper prints it, its stiffness term without the factor x.
    """
    times = time_grid(steps)
    g, noise, _ = _reverse_rates(process, times)
    mean, cov = np.zeros(2), forward_covariance(process, times[:1].numpy())[0, 0]
    for i, (t0, t1) in enumerate(pairwise(times.tolist())):
        h, pull = t0 - t1, 0.5 * float(process.schedule.beta(times[i])) * float(process.stiffness)
        a, b = np.eye(2) + h * g[i, 0], np.zeros(2)
        if printed:
            a[1, 0], b[1] = a[1, 0] - h * pull, h * pull
        mean, cov = a @ mean + b, a @ cov @ a.T + h * noise[i, 0]
    return float(mean[0]), math.sqrt(cov[0, 0])


# ---- adaptation with exact moments, and what Figure 1's comparison measures ----------------------------------------
def gaussian_moments(process: ForwardProcess, settings: Adaptation) -> PathMoments:
    """What a backward simulation estimates, for Gaussian data: moment ODEs of the reverse SDE (Heun, one piece)."""
    times = time_grid(settings.nodes)
    g, noise, gain = _reverse_rates(process, times)
    h = -np.diff(times.numpy())
    if settings.start == "target":
        p = np.broadcast_to(np.eye(process.k) * process.reference_variance(), g.shape[1:])
    else:
        p = as_array(process.terminal(0.0)[1])

    def rate(p: Array, i: int) -> Array:
        gp: Array = g[i] @ p
        return gp + gp.swapaxes(-1, -2) + noise[i]

    path = [p]
    for i in range(settings.nodes):
        first = rate(p, i)
        p = p + 0.5 * h[i] * (first + rate(p + h[i] * first, i + 1))
        path.append(p)
    p = np.stack(path)
    s = (gain[..., None, :] @ p)[..., 0, :]
    weight = 0.5 * (np.append(h, 0) + np.append(0, h)) * process.schedule.beta(times).numpy()
    weight *= process.gamma if process.k == 2 else 1.0
    terms = [np.ones((len(times), 1)), p[..., 0, 0], s[..., 0], p[..., 0, -1], p[..., -1, -1], s[..., -1]]
    return PathMoments(*(torch.from_numpy(np.tensordot(weight, e, 1))[None] for e in terms))


def adapt(process: ForwardProcess, settings: Adaptation) -> ForwardProcess:
    """`settings.rounds` updates of A by the package's stochastic approximation, fed with exact moments."""
    least = least_stiffness(process, settings)
    for k in range(settings.rounds):
        process = update(process, gaussian_moments(process, settings), settings, k, least)
    return process


def damping_ratio(process: ForwardProcess, t: float = 0.01) -> float:
    """zeta read off the mean map: det F = e^{-2 p tau}, tr F = 2 e^{-p tau} cos(k tau), zeta = p/sqrt(p^2 + k^2)."""
    f = process.transition(t).mean.reshape(-1, 2, 2)[0]
    p = -0.5 * float(f.det().log())
    cosine = float(f.trace()) * math.exp(p) / 2
    k2 = math.acos(cosine) ** 2 if cosine < 1 else -(math.acosh(cosine) ** 2)
    return p / math.sqrt(p * p + k2)


def hoelder(process: ForwardProcess, paths: int, steps: int, seed: int) -> float:
    """Hölder exponent of x-paths on [0, 1]: half the slope of log E|x_{t+h} - x_t|^2 between h = 1/steps and twice it.

    Paths of the first direction from its data law, by exact kernel steps: 1/2 for Brownian paths, 1 for smooth ones.
    """
    rng, var = np.random.default_rng(seed), float(process.known().var.flatten()[0])
    knots = process.schedule.clock(torch.linspace(0, 1, steps + 1, dtype=torch.float64)).diff()
    s = process.stiffness.flatten()[0]
    if process.k == 1:
        kernel = kernels.overdamped(knots, s)
    else:
        kernel = kernels.momentum(knots, s, process.friction.flatten()[0], process.gamma)
    f, n = map(as_array, kernel)
    a = rng.standard_normal((paths, process.k)) * np.sqrt([var, 1.0][: process.k])
    x = [a[:, 0]]
    for step, noise in zip(f, np.linalg.cholesky(n), strict=True):
        a = a @ step.T + rng.standard_normal(a.shape) @ noise.T
        x.append(a[:, 0])
    fine, coarse = (np.square(np.stack(x[::m][:-1]) - np.stack(x[::m][1:])).mean() for m in (1, 2))
    return float(0.5 * np.log2(coarse / fine))
