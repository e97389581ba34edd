r"""Closed-form Gaussian kernels of the linear forward processes: pure functions, float64, no state.

Everything holds per *direction* (a coordinate, or an eigenvector of A). A k x k matrix is a tuple of rows of entries,
which are tensors over times and directions: k = 1 for the overdamped family, k = 2 for (x, v).

In the clock tau(t) = 1/2 \int_0^t beta the momentum process, (5) and (15), is da = M a dtau + sqrt(2 gamma) e_v dw,

    M = [[0, 1], [-s, -gamma c]],     s = 1 - 2 gamma A_x (stiffness),     c = 1 - 2 A_v (friction),

and the overdamped one dx = -D x dtau + sqrt(2) dw, D = 1 - 2 A. A kernel is the pair (F, N): a_t = F a_0 + N(0, N).
"""

from __future__ import annotations

from collections.abc import Callable
from functools import reduce
from operator import add, mul
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

NEAR = 1e-6  # |disc| / p^2 under which a direction counts as critically damped and C and S come from their series
CLOSED_ABOVE = 1e-3  # share of the stationary variance above which the difference form of N keeps 1e-12
# 8-point Gauss–Legendre on [0, 1], twice the weights, and the end of the interval as a ninth node of weight zero
_NODES = torch.from_numpy(np.append((1 + np.polynomial.legendre.leggauss(8)[0]) / 2, 1.0))
_WEIGHTS = torch.from_numpy(np.append(np.polynomial.legendre.leggauss(8)[1], 0.0))

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


def stacked(m: Matrix) -> Tensor:
    """A matrix field as one tensor (..., k, k)."""
    return torch.stack([torch.stack(torch.broadcast_tensors(*row), -1) for row in m], -2)


def entries(m: Tensor) -> Matrix:
    """Inverse of `stacked`."""
    return tuple(tuple(m[..., i, j] for j in range(m.shape[-1])) for i in range(m.shape[-2]))


def compose(first: Kernel, second: Kernel) -> Kernel:
    """Kernel of `first` followed by `second`: (F2 F1, F2 N1 F2' + N2), a sum of positive terms."""
    moved = matmul(matmul(second.mean, first.noise), transpose(second.mean))
    noise = tuple(tuple(map(add, r1, r2)) for r1, r2 in zip(moved, second.noise))
    return Kernel(matmul(second.mean, first.mean), noise)


def _double(*values: Tensor | float) -> list[Tensor]:
    return [torch.as_tensor(v, dtype=torch.float64) for v in values]


def _series(tau: Tensor, p: Tensor, disc: Tensor) -> tuple[Tensor, Tensor]:
    x = disc * tau.square()
    even, odd = (
        1 + x / 2 * (1 + x / 12 * (1 + x / 30)),
        1 + x / 6 * (1 + x / 20 * (1 + x / 42)),
    )  # |x| <= NEAR (p tau)^2
    decay = torch.exp(-p * tau)
    return decay * even, decay * tau * odd


def _oscillating(tau: Tensor, p: Tensor, disc: Tensor) -> tuple[Tensor, Tensor]:
    k = (-disc).sqrt()
    decay, angle = torch.exp(tau * -p), tau * k
    return decay * torch.cos(angle), decay * torch.sin(angle) * k.reciprocal()


def _decaying(tau: Tensor, p: Tensor, disc: Tensor) -> tuple[Tensor, Tensor]:
    k = disc.sqrt()
    positive = p > 0  # there k - p = -s/(k + p) keeps all digits where s is small
    slow = torch.where(positive, (disc - p * p) / torch.where(positive, k + p, torch.ones_like(p)), k - p)
    lead, kt2 = torch.exp(slow * tau), -2 * k * tau
    return lead * (1 + torch.exp(kt2)) / 2, lead * torch.expm1(kt2) / (-2 * k)


_BRANCHES = ((_series, 0.0, 0.0), (_oscillating, 0.0, -1.0), (_decaying, 1.0, 1.0))  # with arguments harmless to each


def stationary(s: Tensor, c: Tensor) -> tuple[Tensor, Tensor]:
    """Diagonal (1/(s c), 1/c) of the stationary covariance, paper Lemma 1; it exists for s, c > 0 only."""
    return 1 / (s * c), 1 / c


class Momentum:
    r"""Kernel of the momentum process over a step tau > 0 of the clock, for any real stiffness s and friction c.

    mean: F = exp(M tau) = C I + S (M + p I) with p = gamma c/2, disc = p^2 - s, k = sqrt(disc) of either sign and
    C = e^{-p tau} cosh(k tau), S = e^{-p tau} sinh(k tau)/k.
    noise: N = 2 gamma \int_0^tau phi phi' du, phi the v-column of F. Where N is a fair share of the stationary law
    Sigma = diag(1/(s c), 1/c) it is Sigma - F Sigma F', elsewhere (small tau; s or c near or below 0, where that form
    cancels or Sigma does not exist) a Gauss–Legendre sum. Relative error of N about 1e-12, of F about 1e-15.

    What depends on directions alone is computed once, here; a call costs some twenty passes over times x directions.
    s, c: broadcastable tensors (float64 inside); tau broadcasts against them.
    """

    def __init__(self, s: Tensor, c: Tensor, gamma: float) -> None:
        self.gamma = gamma
        self.s, self.c = s, c = tuple(torch.broadcast_tensors(*_double(s, c)))
        self.p = p = gamma * c / 2
        self.disc = disc = p * p - s
        with torch.no_grad():
            near = disc.abs() <= NEAR * p * p
            masks = (near, ~near & (disc < 0), ~near & (disc > 0))
            self.branches = [(m, *b) for m, b in zip(masks, _BRANCHES) if bool(m.any())]
            self.rate = torch.where(disc > 0, p.abs() + disc.clamp(min=0).sqrt(), s.abs().sqrt() + p.abs())
            # earliest tau at which N is that share: short-time law tau^3, diffusive law, v-component
            r = CLOSED_ABOVE
            short = (1.5 * r / (gamma * s * c).abs()) ** (1 / 3)
            share = torch.stack([short, r * gamma * c.abs() / s.abs(), r / c.abs()]).amax(0)
            usable = (s > 0) & (c > 0)
            self.closed_from = torch.where(usable, share, torch.inf)
            self.closed_after = float(self.closed_from.max()) if s.numel() else 0.0
        one = torch.ones_like(s)
        self.px, self.pv = stationary(torch.where(usable, s, one), torch.where(usable, c, one))
        self.sc = s * s * self.px  # s/c

    def cosh_sinh(self, tau: Tensor, flat: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """C and S (of the flat entries only, if given). Branches see harmless arguments outside their own regime."""
        pick = (lambda v: v) if flat is None else (lambda v: v.expand(self.s.shape).reshape(-1)[flat])
        p, disc = pick(self.p), pick(self.disc)
        (_, branch, *_), *others = self.branches
        if not others:
            return branch(tau, p, disc)
        result = (torch.zeros((), dtype=torch.float64),) * 2
        for mask, branch, p_, disc_ in self.branches:  # double `where`: gradients stay finite through disc = 0
            inside = pick(mask)
            safe = (torch.where(inside, v, torch.full_like(v, o)) for v, o in ((p, p_), (disc, disc_)))
            values = branch(tau, *safe)
            result = (torch.where(inside, values[0], result[0]), torch.where(inside, values[1], result[1]))
        return result

    def mean(self, tau: Tensor) -> Matrix:
        """F(tau)."""
        cosh, sinh = self.cosh_sinh(tau)
        return (torch.addcmul(cosh, self.p, sinh), sinh), (sinh * -self.s, torch.addcmul(cosh, self.p, sinh, value=-1))

    def __call__(self, tau: Tensor) -> Kernel:
        """F and N over the step(s) tau."""
        (tau,) = _double(tau)
        mean = (xx, xv), (_, vv) = self.mean(tau)
        square = xv * xv
        nxv = square * self.gamma
        nxx = torch.addcmul(self.px, self.px * xx, xx, value=-1).addcmul_(square, self.pv, value=-1)
        nvv = torch.addcmul(self.pv, self.pv * vv, vv, value=-1).addcmul_(square, self.sc, value=-1)
        if tau.numel() and float(tau.detach().min()) < self.closed_after:
            rest = (tau < self.closed_from).expand(nxx.shape).reshape(-1).nonzero()[:, 0]
            if len(rest):
                exact = self.quadrature(tau.expand(nxx.shape).reshape(-1)[rest], self._direction(nxx.shape, rest))
                nxx, nxv, nvv = (
                    n.reshape(-1).index_put((rest,), q).view(n.shape) for n, q in zip((nxx, nxv, nvv), exact)
                )
        return Kernel(mean, ((nxx, nxv), (nxv, nvv)))

    def _direction(self, shape: torch.Size, flat: Tensor) -> Tensor:
        """Flat index into s of each flat index into the broadcast `shape`."""
        if self.s.shape == shape:
            return flat
        return torch.arange(self.s.numel(), device=flat.device).view(self.s.shape).expand(shape).reshape(-1)[flat]

    def quadrature(self, tau: Tensor, flat: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """(N_xx, N_xv, N_vv) at the flat entries, by Gauss–Legendre on tau/2^m and m doublings: positive sums."""
        m = int(torch.log2((self.rate.reshape(-1)[flat] * tau.detach()).max().clamp(min=1)).ceil().clamp(max=60))
        h = tau / 2**m
        p = self.p.reshape(-1)[flat]
        cosh, sinh = self.cosh_sinh(_NODES.to(h.device)[:, None] * h, flat)  # the last node is the end of the step
        across = torch.addcmul(cosh, p, sinh, value=-1)
        weights = self.gamma * _WEIGHTS.to(h.device)
        nxx, nvv = weights @ sinh.square() * h, weights @ across.square() * h
        nxv = self.gamma * sinh[-1].square()
        if m:
            last = sinh[-1]
            mean = ((cosh[-1] + p * last, last), (-self.s.reshape(-1)[flat] * last, across[-1]))
            kernel = Kernel(mean, ((nxx, nxv), (nxv, nvv)))
            for _ in range(m):
                kernel = compose(kernel, kernel)
            ((nxx, nxv), (_, nvv)) = kernel.noise
        return nxx, nxv, nvv


def momentum(tau: Tensor, s: Tensor, c: Tensor, gamma: float) -> Kernel:
    """`Momentum(s, c, gamma)(tau)`: the kernel for stiffness, friction and steps given together."""
    return Momentum(s, c, gamma)(tau)


def overdamped(tau: Tensor, drift: Tensor) -> Kernel:
    """Kernel of dx = -D x dtau + sqrt(2) dw: mean e^{-D tau}, variance (1 - e^{-2 D tau})/D (limit 2 tau at D = 0)."""
    tau, drift = torch.broadcast_tensors(*_double(tau, drift))
    small = (drift * tau).abs() < 1e-12
    safe = torch.where(small, torch.ones_like(drift), drift)
    variance = torch.where(small, 2 * tau, -torch.expm1(-2 * safe * tau) / safe)
    return Kernel(((torch.exp(-drift * tau),),), ((variance,),))


def covariance(kernel: Kernel, var: Tensor | float, v0: float = 1.0) -> Matrix:
    """F diag(var, v0) F' + N entry by entry: S_t for data of variance `var`, Sigma_{t|0} for var = 0."""
    f, n = kernel
    start, size = _double(var, v0)[: len(n)], range(len(n))
    return tuple(tuple(sum((f[i][m] * start[m] * f[j][m] for m in size), n[i][j]) for j in size) for i in size)


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
    unit: tuple[Tensor, ...]  # e/|e|, k entries: where in L^{-1} a the signal is

    def map(self, f: Callable[[Tensor], Tensor]) -> Channel:
        """Apply `f` to every tensor."""
        return Channel(*(tuple(map(f, v)) if isinstance(v, tuple) else f(v) for v in self))  # type: ignore[arg-type]


def log_level(snr: Tensor) -> Tensor:
    """log snr, bounded below where a direction does not vary."""
    return snr.clamp(min=1e-12).log()


def channel(kernel: Kernel, chol: tuple[Tensor, ...], std: Tensor) -> Channel:
    """Sufficient statistic, Gaussian score and network gain of a kernel for data of standard deviation `std`."""
    fx = [row[0] for row in kernel.mean]  # the x-column of F
    if len(chol) == 1:
        snr = fx[0] * std / chol[0]
        norm = (1 + snr * snr).sqrt()
        inp = 1 / (chol[0] * norm)
        return Channel((inp,), (-inp.square(),), snr * inp, snr, snr / norm, (torch.ones_like(snr),))
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
    return Channel(through_cholesky(ex / norm, ev / norm), gain, kappa / lvv, snr, kappa, (ex, ev))
