r"""What notebook 03 measures with: exact laws of linear solvers and reverse processes, and fits with intervals.

For Gaussian data every solver here is linear with additive noise, so that its law needs no sampling: one run on basis
states and basis draws gives the covariance. The reverse SDE in continuous time is linear too: with F, N the forward
kernel over [t_1, t_2] and S_t the law of the data at t, its step from t_2 to t_1 is the law of a_1 given a_2,

    P_1 = S_1 + K (P_2 - S_2) K',    K = S_1 F' S_2^{-1}.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from scipy.special import stdtrit
from torch import Tensor

from repro.studies.derivations import as_array, forward_covariance
from vsmd import kernels
from vsmd.adaptation import Adaptation, PathMoments, gradient
from vsmd.family import forward_process
from vsmd.kernels import Kernel
from vsmd.processes import ForwardProcess
from vsmd.samplers import Solver, integrate
from vsmd.schedules import BetaSchedule

Array = NDArray[np.float64]
Row = dict[str, Any]


# ---- processes -------------------------------------------------------------------------------------------------------
def gaussian_process(
    method: str, std: ArrayLike, beta: float | BetaSchedule, damping: float | None = None, stiffness: ArrayLike = 1.0
) -> ForwardProcess:
    """The process of a method on centred Gaussian data of these standard deviations, with a constant stiffness."""
    spread, s = (torch.from_numpy(v.copy()) for v in np.broadcast_arrays(*map(np.float64, (std, stiffness))))  # type: ignore[arg-type]
    spread, s = spread.reshape(-1), s.reshape(-1)
    damping = damping if damping is None or damping < 1 else None  # R = 1 is in the name
    process = forward_process(method, (len(s),), beta=beta, damping=damping, prior="gaussian")
    return process.with_moments(torch.zeros(len(s)), spread.square()).with_stiffness(s[None])


def target_law(process: ForwardProcess) -> Array:
    """Covariance (d, k, k) of the fixed prior N(0, Sigma_T): the stationary law of the reference."""
    return np.tile(np.eye(process.k) * process.reference_variance(), (process.dim, 1, 1))


def prior_law(process: ForwardProcess) -> Array:
    """Covariance (d, k, k) of the prior N(0, Sigma_{T|0})."""
    return as_array(process.terminal(0.0)[1])


def between(process: ForwardProcess, early: Tensor, late: Tensor) -> Kernel:
    """Forward kernel from times `early` to `late` (n,), each pair within one piece of A; entries (n, d)."""
    tau = (process.schedule.clock(late) - process.schedule.clock(early)).clamp(min=1e-300)[:, None]
    piece = ((early + late) / 2 * process.pieces).long().clamp(0, process.pieces - 1)
    if process.k == 1:
        return kernels.overdamped(tau, process.stiffness[piece])
    return kernels.momentum(tau, process.stiffness[piece], process.friction[piece], process.gamma)


# ---- laws ------------------------------------------------------------------------------------------------------------
def backward_laws(process: ForwardProcess, times: Array, start: Array) -> tuple[Array, Array]:
    """S_t and the law P_t (n, d, k, k) of the reverse SDE from N(0, start) at times[0], in continuous time.

    times: decreasing, with A's knots among them; 0 is allowed.
    """
    t = torch.from_numpy(times)
    s = forward_covariance(process, times)
    pull = s[1:] @ as_array(between(process, t[1:], t[:-1]).mean).swapaxes(-1, -2) @ np.linalg.inv(s[:-1])
    p = [start]
    for i, k in enumerate(pull):
        p.append(s[i + 1] + k @ (p[-1] - s[i]) @ k.swapaxes(-1, -2))
    return s, np.stack(p)


def flow_end(process: ForwardProcess, start: Array, nodes: int = 100) -> Array:
    r"""Law (d, k, k) at t = 0 of the probability flow from N(0, start) at t = 1, constant A; linear in `start`.

    The flow carries S_1 = LL' to S_0 = L_0 L_0' by Psi = L_0 R L^{-1}, R a rotation by \int (beta/2) L_vv/L_xx dt.
    """
    x, w = np.polynomial.legendre.leggauss(nodes)
    lower = np.linalg.cholesky(forward_covariance(process, np.append((x + 1) / 2, [0.0, 1.0])))
    if process.k == 1:
        psi = lower[-2] / lower[-1]
        return np.asarray(psi * start * psi)
    rate = 0.5 * process.schedule.beta(torch.from_numpy((x + 1) / 2)).numpy()
    angle = 0.5 * (w * rate) @ (lower[:-2, :, 1, 1] / lower[:-2, :, 0, 0])
    rotation = np.stack([np.cos(angle), -np.sin(angle), np.sin(angle), np.cos(angle)], -1).reshape(-1, 2, 2)
    psi = lower[-2] @ rotation @ np.linalg.inv(lower[-1])
    return np.asarray(psi @ start @ psi.swapaxes(-1, -2))


class BasisNoise:
    """Noise for linear solvers: each component of each draw is one row's alone; row `used` gets `scale`, the others 0.

    The sum over rows of outer products is then the covariance that the draws cause, exactly; with scale = sqrt(rows)
    so is the mean. Directions share rows: they are independent here.
    """

    def __init__(self, used: int = 0, scale: float = 1.0) -> None:
        self.used, self.scale = used, scale

    def __call__(self, like: Tensor) -> Tensor:
        draw = torch.zeros_like(like)
        for component in draw.unbind(1) if draw.ndim == 3 else (draw,):
            component[self.used] = self.scale
            self.used += 1
        return draw


def solver_law(solver: Solver, start: Array) -> Array:
    """Covariance (d, k, k) at the end of a linear solver's grid, from N(0, start) (d, k, k): one run, no sampling."""
    process, rows = solver.process, solver.process.k
    if solver.stochastic:
        draws = BasisNoise()
        solver.step(torch.zeros(8, process.k, *process.shape, dtype=torch.float64), 0, draws)
        rows += draws.used * (len(solver.times) - 1)
    a = torch.zeros(rows, process.k, *process.shape, dtype=torch.float64)
    a[: process.k] = torch.from_numpy(np.linalg.cholesky(start)).movedim((2, 1), (0, 1))
    a = integrate(solver, a, BasisNoise(used=process.k))
    return np.asarray(torch.einsum("nid,njd->dij", a, a))


def w2(law: Array, other: Array) -> Array:
    """W2 between the x-marginals of centred Gaussians, per direction: the difference of standard deviations."""
    return np.asarray(np.abs(np.sqrt(law[..., 0, 0]) - np.sqrt(other[..., 0, 0])))


def kl(delta: Array, other: Array) -> Array:
    """KL(N(0, other + delta) || N(0, other)) in nats, (…, k, k) -> (…): keeps its digits however small delta is."""
    lower = np.linalg.cholesky(other)
    half = np.linalg.solve(lower, delta)
    lam = np.linalg.eigvalsh(np.linalg.solve(lower, half.swapaxes(-1, -2)))
    series = lam**2 * (0.5 - lam / 3 + lam**2 / 4 - lam**3 / 5)
    with np.errstate(invalid="ignore"):
        exact = lam - np.log1p(lam)
    return np.asarray(0.5 * np.where(np.abs(lam) < 1e-3, series, exact).sum(-1))


# ---- adaptation in closed form ---------------------------------------------------------------------------------------
def exact_moments(process: ForwardProcess, settings: Adaptation) -> PathMoments:
    """What `backward_moments` estimates, in continuous time and without sampling: by Gauss nodes on each piece."""
    x, w = np.polynomial.legendre.leggauss(settings.nodes)
    m = process.pieces
    inner = ((np.arange(m)[:, None] + (x + 1) / 2) / m).ravel()[::-1]
    times = np.unique(np.concatenate([inner, np.arange(1, m) / m, [1.0]]))[::-1].copy()
    keep = np.isin(times, inner)
    s, p = (e[keep] for e in backward_laws(process, times, start_law(process, settings)))
    row = -np.linalg.inv(s)[..., -1:, :]
    score = (row @ p)[..., 0, :]
    rate = process.schedule.beta(torch.from_numpy(inner.copy())).numpy() * (process.gamma if process.k == 2 else 1.0)
    weight = rate * np.tile(w[::-1], m) / (2 * m)
    terms = [np.ones((len(inner), 1)), p[..., 0, 0], score[..., 0], p[..., 0, -1], p[..., -1, -1], score[..., -1]]
    sums = ((weight[:, None] * e).reshape(m, settings.nodes, -1)[::-1].sum(1) for e in terms)
    return PathMoments(*(torch.from_numpy(e.copy()) for e in sums))


def start_law(process: ForwardProcess, settings: Adaptation) -> Array:
    """Covariance (d, k, k) that the backward simulation starts from."""
    return target_law(process) if settings.start == "target" else prior_law(process)


def free_gradient(process: ForwardProcess, m: PathMoments, settings: Adaptation) -> Array:
    """dJ/dA_x along (14) (d,) at the process's constant A: the mean field of a gradient step."""
    g_x, g_v = gradient(process, m, settings)
    if process.damping is not None:
        g_x = g_x + (process.damping / process.stiffness).sqrt() * g_v
    return np.asarray(g_x[0])


# ---- fits ------------------------------------------------------------------------------------------------------------
class Fit(NamedTuple):
    """A slope with its 95 % interval, and the number of points."""

    slope: float
    low: float
    high: float
    n: int


def fit(x: ArrayLike, y: ArrayLike, *others: ArrayLike) -> Fit:
    """Least squares y = a + slope x + other regressors; the interval is Student's on the residuals."""
    columns = np.column_stack([np.asarray(x, float), *(np.asarray(o, float) for o in others), np.ones(np.size(x))])
    target = np.asarray(y, float)
    coefficients, *_ = np.linalg.lstsq(columns, target, rcond=None)
    slope, freedom = float(coefficients[0]), len(target) - columns.shape[1]
    if freedom < 1:
        return Fit(slope, math.nan, math.nan, len(target))
    variance = float(np.square(target - columns @ coefficients).sum() / freedom)
    margin = float(stdtrit(freedom, 0.975)) * math.sqrt(variance * np.linalg.inv(columns.T @ columns)[0, 0])
    return Fit(slope, slope - margin, slope + margin, len(target))


def power(x: ArrayLike, y: ArrayLike) -> Fit:
    """The exponent of y ~ x^slope."""
    return fit(np.log(np.asarray(x, float)), np.log(np.asarray(y, float)))


def mean(values: ArrayLike) -> Fit:
    """The mean of independent values with its 95 % interval."""
    v = np.asarray(values, float)
    margin = float(stdtrit(len(v) - 1, 0.975)) * v.std(ddof=1) / math.sqrt(len(v)) if len(v) > 1 else math.nan
    return Fit(float(v.mean()), float(v.mean()) - margin, float(v.mean()) + margin, len(v))


def rates(
    quantity: str,
    setting: str,
    x: Sequence[float] | Array,
    y: Sequence[float] | Array,
    fitted: Fit | None = None,
    expected: float | None = None,
    seed: int | None = None,
) -> list[Row]:
    """Rows of the table `rates`: the points (x, y) of a series, each with the series' fit and what theory expects."""
    slope, low, high, n = fitted or (None, None, None, len(x))
    shared = {"fitted": slope, "low": low, "high": high, "n": n, "expected": expected, "seed": seed}
    return [{"quantity": quantity, "setting": setting, "x": float(a), "y": float(b), **shared} for a, b in zip(x, y)]
