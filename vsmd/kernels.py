r"""Closed-form Gaussian kernels of the linear forward processes: pure functions, float64, no state.

Everything holds per *direction* (a coordinate, or an eigenvector of A). A k x k matrix is a tuple of rows whose entries
are tensors over times and directions: k = 1 for the overdamped family, k = 2 for (x, v).

In the clock tau(t) = 1/2 \int_0^t beta the momentum process (paper (5), (15)) is da = M a dtau + sqrt(2 gamma) e_v dw with

    M = [[0, 1], [-s, -gamma c]],     s = 1 - 2 gamma A_x (stiffness),     c = 1 - 2 A_v (friction),

and the overdamped one dx = -D x dtau + sqrt(2) dw, D = 1 - 2 A. A kernel is the pair (F, N): a_t = F a_0 + N(0, N).
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial, reduce
from operator import add, mul
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

SERIES_BELOW = 1e-2  # |disc| tau^2 under which C and S come from their power series
CLOSED_ABOVE = 1e-3  # share of the stationary variance above which the difference form of N keeps 1e-12
_NODES, _WEIGHTS = (torch.from_numpy(0.5 * v + o) for v, o in zip(np.polynomial.legendre.leggauss(8), (0.5, 0.0)))

Matrix = tuple[tuple[Tensor, ...], ...]  # k x k entries, each a tensor over times and directions


class Kernel(NamedTuple):
    """Gaussian transition a_t | a_0 ~ N(mean a_0, noise), both k x k matrices of float64 tensors."""

    mean: Matrix
    noise: Matrix

    def map(self, f: Callable[[Tensor], Tensor]) -> Kernel:
        """Apply `f` to every entry."""
        return Kernel(*(tuple(tuple(map(f, row)) for row in m) for m in self))


def matmul(a: Matrix, b: Matrix) -> Matrix:
    """Product of two matrix fields, entry by entry (k <= 2: no batched BLAS call pays)."""
    return tuple(tuple(reduce(add, map(mul, row, col)) for col in zip(*b)) for row in a)


def transpose(a: Matrix) -> Matrix:
    """Transposed matrix field."""
    return tuple(zip(*a))


def compose(first: Kernel, second: Kernel) -> Kernel:
    """Kernel of `first` followed by `second`: (F2 F1, F2 N1 F2' + N2), a sum of positive terms."""
    moved = matmul(matmul(second.mean, first.noise), transpose(second.mean))
    noise = tuple(tuple(map(add, r1, r2)) for r1, r2 in zip(moved, second.noise))
    return Kernel(matmul(second.mean, first.mean), noise)


def _double(*values: Tensor | float) -> list[Tensor]:
    return [torch.as_tensor(v, dtype=torch.float64) for v in values]


def _cosh_sinh(tau: Tensor, p: Tensor, disc: Tensor) -> tuple[Tensor, Tensor]:
    """C = e^{-p tau} cosh(k tau) and S = e^{-p tau} sinh(k tau)/k with k = sqrt(disc) of either sign, without overflow.

    The regime is decided per direction, so that most calls take one branch; where directions differ, each branch sees
    harmless arguments outside its own (double `where`), which keeps gradients finite through disc = 0.
    """
    reach = tau.detach().max() if tau.numel() else tau.new_ones(())
    near = disc.detach().abs() * reach**2 < SERIES_BELOW
    result: tuple[Tensor, Tensor] | None = None
    for mask, branch in (
        (near, _series),
        (~near & (disc < 0), _oscillating),
        (~near & (disc > 0), _decaying),
    ):
        if not bool(mask.any()):
            continue
        if bool(mask.all()):
            return branch(tau, p, disc)
        safe_p, safe_disc = (torch.where(mask, v, torch.full_like(v, o)) for v, o in zip((p, disc), branch.harmless))
        values = branch(tau, safe_p, safe_disc)
        result = values if result is None else tuple(map(partial(torch.where, mask), values, result))  # type: ignore
    assert result is not None
    return result


def _regime(p: float, disc: float) -> Callable[[Callable[..., Any]], Any]:
    """Attach to a branch arguments that are harmless to it."""

    def mark(branch: Any) -> Any:
        branch.harmless = (p, disc)
        return branch

    return mark


@_regime(0.0, 0.0)
def _series(tau: Tensor, p: Tensor, disc: Tensor) -> tuple[Tensor, Tensor]:
    x = disc * tau.square()
    even, odd = 1 + x / 132, 1 + x / 156
    for n in range(5, 0, -1):  # Horner; the first term left out is below 1e-25
        even, odd = 1 + even * x / ((2 * n - 1) * (2 * n)), 1 + odd * x / ((2 * n) * (2 * n + 1))
    decay = torch.exp(-p * tau)
    return decay * even, decay * tau * odd


@_regime(0.0, -1.0)
def _oscillating(tau: Tensor, p: Tensor, disc: Tensor) -> tuple[Tensor, Tensor]:
    k = (-disc).sqrt()
    decay, angle = torch.exp(-p * tau), k * tau
    return decay * torch.cos(angle), decay * torch.sin(angle) / k


@_regime(1.0, 1.0)
def _decaying(tau: Tensor, p: Tensor, disc: Tensor) -> tuple[Tensor, Tensor]:
    k = disc.sqrt()
    positive = p > 0  # there k - p = -s/(k + p) keeps all digits where s is small
    slow = torch.where(positive, (disc - p * p) / torch.where(positive, k + p, torch.ones_like(p)), k - p)
    lead, kt2 = torch.exp(slow * tau), -2 * k * tau
    return lead * (1 + torch.exp(kt2)) / 2, lead * torch.expm1(kt2) / (-2 * k)


def momentum_mean(tau: Tensor, s: Tensor, c: Tensor, gamma: float) -> Matrix:
    """Mean map F(tau) = exp(M tau) = C I + S (M + p I), p = gamma c / 2, for any real s and c."""
    tau, s, c = _double(tau, s, c)
    p = gamma * c / 2
    cosh, sinh = _cosh_sinh(tau, p, p * p - s)
    shift = p * sinh
    return (cosh + shift, sinh), (-s * sinh, cosh - shift)


def stationary(s: Tensor, c: Tensor) -> tuple[Tensor, Tensor]:
    """Diagonal (1/(s c), 1/c) of the stationary covariance, paper Lemma 1; it exists for s, c > 0 only."""
    return 1 / (s * c), 1 / c


def _noise_by_quadrature(tau: Tensor, s: Tensor, c: Tensor, gamma: float) -> Matrix:
    """N = 2 gamma int_0^tau phi phi' du by Gauss-Legendre on tau/2^m, then m doublings: sums of positive terms only."""
    p = gamma * c / 2
    disc = p * p - s
    rate = torch.where(disc > 0, p.abs() + disc.clamp(min=0).sqrt(), s.abs().sqrt() + p.abs())
    m = int(torch.log2((rate * tau).detach().max().clamp(min=1)).ceil().clamp(max=60))
    h = tau / 2**m
    nodes, weights = (v.to(h.device)[:, None] for v in (_NODES, _WEIGHTS))
    cosh, sinh = _cosh_sinh(nodes * h, p, disc)
    w = 2 * gamma * weights * h
    mean = momentum_mean(h, s, c, gamma)
    nxv = gamma * mean[0][1].square()
    nxx, nvv = (w * sinh.square()).sum(0), (w * (cosh - p * sinh).square()).sum(0)
    kernel = Kernel(mean, ((nxx, nxv), (nxv, nvv)))
    for _ in range(m):
        kernel = compose(kernel, kernel)
    return kernel.noise


def momentum(tau: Tensor, s: Tensor, c: Tensor, gamma: float) -> Kernel:
    r"""Kernel of the momentum process over a step tau > 0 of the clock, for any real s and c.

    N = 2 gamma \int_0^tau phi phi' du, phi the v-column of exp(M u). Where N is a fair share of the stationary law
    Sigma = diag(1/(s c), 1/c) it is Sigma - F Sigma F', elsewhere (small tau; s or c near or below 0, where that form
    cancels or Sigma does not exist) a Gauss-Legendre sum. Relative error of N about 1e-12, of F about 1e-15.

    tau, s, c: broadcastable tensors (float64 inside). Each entry of the result has their common shape.
    """
    tau, s, c = _double(tau, s, c)
    s, c = torch.broadcast_tensors(s, c)
    mean = (xx, xv), (vx, vv) = momentum_mean(tau, s, c, gamma)
    with torch.no_grad():  # earliest tau at which N is that share: short-time law tau^3, diffusive law, v-component
        r = CLOSED_ABOVE
        share = torch.stack([(1.5 * r / (gamma * s * c).abs()) ** (1 / 3), r * gamma * c.abs() / s.abs(), r / c.abs()])
        from_tau = torch.where((s > 0) & (c > 0), share.amax(0), torch.inf)
        rest = tau < from_tau
        usable = torch.isfinite(from_tau)
    some_rest = bool(rest.any())
    if some_rest and not bool(usable.all()):
        s_, c_ = (torch.where(usable, v, torch.ones_like(v)) for v in (s, c))
    else:
        s_, c_ = s, c
    px, pv = stationary(s_, c_)
    nxv = gamma * xv.square()
    nxx = px * (1 - xx.square()) - pv * xv.square()
    nvv = pv * (1 - vv.square()) - px * vx.square()
    if some_rest:
        t, s_, c_ = (v.expand(rest.shape)[rest] for v in (tau, s, c))
        quad = _noise_by_quadrature(t, s_, c_, gamma)
        nxx, nxv, nvv = (
            n.masked_scatter(rest, q) for n, q in zip((nxx, nxv, nvv), (quad[0][0], quad[0][1], quad[1][1]))
        )
    return Kernel(mean, ((nxx, nxv), (nxv, nvv)))


def overdamped(tau: Tensor, drift: Tensor) -> Kernel:
    """Kernel of dx = -D x dtau + sqrt(2) dw: mean e^{-D tau}, variance (1 - e^{-2 D tau})/D (limit 2 tau at D = 0)."""
    tau, drift = torch.broadcast_tensors(*_double(tau, drift))
    small = (drift * tau).abs() < 1e-12
    safe = torch.where(small, torch.ones_like(drift), drift)
    variance = torch.where(small, 2 * tau, -torch.expm1(-2 * safe * tau) / safe)
    return Kernel(((torch.exp(-drift * tau),),), ((variance,),))


def lower_cholesky(kernel: Kernel, v0_variance: float = 1.0) -> tuple[Tensor, ...]:
    """Entries (L_xx, L_vx, L_vv) – (L_xx,) if k = 1 – of the Cholesky factor of Sigma = F diag(0, v0) F' + N.

    L_vv^2 = (det N + v0 (u_x^2 N_vv - 2 u_x u_v N_xv + u_v^2 N_xx)) / Sigma_xx, u the v-column of F, does not cancel.
    """
    mean, noise = kernel
    if len(noise) == 1:
        return (noise[0][0].sqrt(),)
    (_, ux), (_, uv) = mean
    (nxx, nxv), (_, nvv) = noise
    sxx, sxv = nxx + v0_variance * ux * ux, nxv + v0_variance * ux * uv
    det = nxx * nvv - nxv * nxv + v0_variance * (ux * ux * nvv - 2 * ux * uv * nxv + uv * uv * nxx)
    lxx = sxx.sqrt()
    return lxx, sxv / lxx, (det / sxx).sqrt()


class Channel(NamedTuple):
    r"""The kernel seen as a Gaussian channel for x_0, and the score that follows from it.

    With L the Cholesky factor of Cov(a_t | x_0) and e = L^{-1} F_x std(x_0), the projection (e/|e|) . L^{-1} a_t is a
    sufficient statistic for x_0: standardised, z = (snr xi + n)/sqrt(1 + snr^2) with xi = x_0/std, n ~ N(0, 1),
    snr = |e|. Hence the score of the last component is, for *any* law of x_0,

        s(a) = gain . a + out E[target | z],    target = (xi - snr n)/sqrt(1 + snr^2),    z = inp . a,

    where gain is the v-row of -S_t^{-1} (the exact score of Gaussian data), target has mean 0 and variance 1 and is
    uncorrelated with a_t, and out = e_v/(L_vv sqrt(1 + snr^2)) is DESIGN's kappa/L_vv with its sign.
    """

    inp: tuple[Tensor, ...]  # k entries
    gain: tuple[Tensor, ...]  # k entries
    out: Tensor
    snr: Tensor  # signal-to-noise amplitude per direction
    kappa: Tensor  # share of the noise's last component that the network has to explain, signed


def channel(kernel: Kernel, chol: tuple[Tensor, ...], std: Tensor) -> Channel:
    """Sufficient statistic, Gaussian score and network gain of a kernel for data of standard deviation `std`."""
    fx = [row[0] for row in kernel.mean]  # the x-column of F
    if len(chol) == 1:
        snr = fx[0] * std / chol[0]
        norm = (1 + snr * snr).sqrt()
        inp = 1 / (chol[0] * norm)
        return Channel((inp,), (-inp.square(),), snr * inp, snr, snr / norm)
    lxx, lvx, lvv = chol
    wx = fx[0] / lxx
    wv = (fx[1] - lvx * wx) / lvv
    length = torch.hypot(wx, wv).clamp(min=torch.finfo(wx.dtype).tiny)
    ex, ev = wx / length, wv / length
    snr = length * std
    norm = (1 + snr * snr).sqrt()

    def through_cholesky(cx: Tensor, cv: Tensor) -> tuple[Tensor, Tensor]:  # the row (cx, cv) L^{-1}
        return (cx - cv * lvx / lvv) / lxx, cv / lvv

    # I - e e'/(1 + |e|^2), split along and across e so that a large snr does not cancel
    shrink = norm.square().reciprocal()
    gain = through_cholesky(ex * ev * (1 - shrink) / lvv, -(ex * ex + ev * ev * shrink) / lvv)
    kappa = snr * ev / norm
    return Channel(through_cholesky(ex / norm, ev / norm), gain, kappa / lvv, snr, kappa)
