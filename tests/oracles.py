"""Independent answers for the tests of the core: many digits, matrix exponentials and ODEs, nothing from vsmd."""

from __future__ import annotations

import math
from typing import Any

import mpmath as mp
import numpy as np
from scipy.integrate import solve_ivp
from scipy.linalg import expm

Array = np.ndarray[Any, np.dtype[np.float64]]


def kernel_mp(tau: Any, s: Any, c: Any, gamma: float = 2.0, digits: int = 60) -> tuple[mp.matrix, mp.matrix]:
    """F and N of one direction from the 4 x 4 block exponential (Van Loan), with the digits that its growth eats."""
    p = gamma * float(c) / 2
    rate = abs(p) + math.sqrt(abs(p * p - float(s)))
    with mp.workdps(digits + int(2 * float(tau) * rate / math.log(10))):
        block = mp.zeros(4)
        drift = mp.matrix([[0, 1], [-mp.mpf(s), -mp.mpf(gamma) * mp.mpf(c)]])
        for i in range(2):
            for j in range(2):
                block[i, j], block[2 + i, 2 + j] = drift[i, j], -drift[j, i]
        block[1, 3] = 2 * mp.mpf(gamma)
        e = mp.expm(block * mp.mpf(tau))
        mean = e[0:2, 0:2]
        return mean, e[0:2, 2:4] * mean.T


def kernel_np(m: Array, q: Array, tau: float) -> tuple[Array, Array]:
    """exp(M tau) and the integral of exp(M u) Q exp(M u)' for matrices of any size, by Van Loan's exponential."""
    n = len(m)
    e = expm(np.block([[m, q], [np.zeros_like(m), -m.T]]) * tau)
    return e[:n, :n], e[:n, n:] @ e[:n, :n].T


def moments_by_ode(s: Array, c: Array, tau: Array, v0: float, gamma: float = 2.0) -> tuple[Array, Array]:
    """F (n, 2, 2) and Sigma (n, 2, 2) at tau by integrating paper (6a)–(6b) from F = I, Sigma = diag(0, v0)."""
    n = len(s)
    m = np.zeros((n, 2, 2))
    m[:, 0, 1], m[:, 1, 0], m[:, 1, 1] = 1, -s, -gamma * c
    m *= tau[:, None, None]  # each over its own unit of time
    q = np.zeros((n, 2, 2))
    q[:, 1, 1] = 2 * gamma * tau

    def rates(_: float, y: Array) -> Array:
        f, cov = y.reshape(2, n, 2, 2)
        drift = m @ cov
        return np.concatenate([(m @ f).ravel(), (drift + drift.swapaxes(1, 2) + q).ravel()])

    start = np.stack([np.broadcast_to(np.eye(2), (n, 2, 2)), np.broadcast_to(np.diag([0, v0]), (n, 2, 2))])
    short = np.minimum(tau, 1) / (1 + np.abs(s)) / (1 + np.abs(c))  # a lower bound of Sigma_vv; Sigma_xx >= short^3
    atol = np.ones((2, n, 2, 2))
    atol[1] = short[:, None, None] ** np.array([[3, 2], [2, 1]])
    end = solve_ivp(rates, (0, 1), start.ravel(), method="DOP853", rtol=1e-13, atol=1e-15 * atol.ravel()).y[:, -1]
    f, cov = end.reshape(2, n, 2, 2)
    return f, cov


def ratio(delta: Array, cov: Array) -> float:
    """max |delta_ij| / sqrt(cov_ii cov_jj) over covariances (..., 2, 2)."""
    scale = np.sqrt(np.diagonal(cov, axis1=-2, axis2=-1))
    return float((np.abs(delta) / (scale[..., :, None] * scale[..., None, :])).max())
