"""Priors that generation starts from at t = 1: laws of (x, v) in the process's directions, drawn and scored exactly.

Given x_0 the state is a_1 = L w with w = |e| (e/|e|) xi + N(0, I) (`kernels.Channel`): across e it is Gaussian whatever
the data, so a prior that knows more than two moments is a law of the statistic z, one number a direction.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import torch
from torch import Tensor

from vsmd import checks, random
from vsmd.kernels import Channel, Matrix

PRIORS = ("gaussian", "moments", "mixture", "empirical")  # of a process; the last two need data
LOG_2PI = math.log(2 * math.pi)
COMPONENTS = 32  # of a mixture prior
MIXTURE_DRAWS = 50_000  # of the statistic, for EM
FULL_UP_TO = 256  # dimensions; above, a mixture's components have diagonal covariances
SCORED = 2**22  # points x components scored in one go


class Prior(Protocol):
    """A law of states (n, k, *shape)."""

    def sample(self, n: int, generator: torch.Generator, dtype: torch.dtype = torch.float32) -> Tensor:
        """Draw n states (n, k, *shape)."""

    def log_prob(self, a: Tensor) -> Tensor:
        """Log-density in nats at states a (n, k, *shape); float64 (n,)."""


@dataclass(frozen=True)
class GaussianPrior:
    """N(0, cov), independent over directions, with the x-v covariance; cov is k x k entries of shape (*shape)."""

    cov: Matrix

    @property
    def cholesky(self) -> tuple[Tensor, ...]:
        """Entries (L_xx,) or (L_xx, L_vx, L_vv) of the lower Cholesky factor."""
        lxx = self.cov[0][0].sqrt()
        if len(self.cov) == 1:
            return (lxx,)
        lvx = self.cov[1][0] / lxx
        return lxx, lvx, (self.cov[1][1] - lvx.square()).sqrt()

    def sample(self, n: int, generator: torch.Generator, dtype: torch.dtype = torch.float32) -> Tensor:
        """Draw n states (n, k, *shape)."""
        return self.state(torch.randn(n, len(self.cov), *self.cov[0][0].shape, generator=generator, dtype=dtype))

    def state(self, z: Tensor) -> Tensor:
        """The states (n, k, *shape) of standard normals z of that shape."""
        chol = [e.to(z) for e in self.cholesky]
        if len(chol) == 1:
            return chol[0] * z
        return torch.stack([chol[0] * z[:, 0], chol[1] * z[:, 0] + chol[2] * z[:, 1]], 1)

    def log_prob(self, a: Tensor) -> Tensor:
        """Log-density in nats at states a (n, k, *shape); float64."""
        chol = self.cholesky
        a = a.to(torch.float64)
        w = [a[:, 0] / chol[0]]
        if len(chol) == 3:
            w.append((a[:, 1] - chol[1] * w[0]) / chol[2])
        log_det = chol[0].log().sum() + (chol[2].log().sum() if len(chol) == 3 else 0.0)
        square = torch.stack(w, 1).square().flatten(1).sum(1)
        return -0.5 * (square + len(w) * chol[0].numel() * LOG_2PI) - log_det


class Lift(NamedTuple):
    """Between a state at t = 1 and its two parts: the statistic z, and a standard normal across the signal."""

    chol: tuple[Tensor, ...]
    channel: Channel

    def state(self, z: Tensor, across: Tensor) -> Tensor:
        """a = L (|e|-scaled z along e, `across` across it); (n, k, *shape)."""
        chol, norm = [e.to(z) for e in self.chol], (1 + self.channel.snr.square()).sqrt().to(z)
        along = norm * z
        if len(chol) == 1:
            return (chol[0] * along)[:, None]
        ex, ev = (e.to(z) for e in self.channel.unit)
        wx, wv = ex * along - ev * across, ev * along + ex * across
        return torch.stack([chol[0] * wx, chol[1] * wx + chol[2] * wv], 1)

    def split(self, a: Tensor) -> tuple[Tensor, Tensor, float]:
        """z and the part across of states a (n, k, *shape), and log |d(z, across)/da|; float64."""
        a, norm = a.to(torch.float64), (1 + self.channel.snr.square()).sqrt()
        log_det = -float(norm.log().sum() + self.chol[0].log().sum())
        wx = a[:, 0] / self.chol[0]
        if len(self.chol) == 1:
            return wx / norm, torch.zeros_like(wx[:, :0]), log_det
        wv = (a[:, 1] - self.chol[1] * wx) / self.chol[2]
        ex, ev = self.channel.unit
        return (ex * wx + ev * wv) / norm, ex * wv - ev * wx, log_det - float(self.chol[2].log().sum())


class Mixture(NamedTuple):
    """Gaussian mixture over vectors of d numbers: weights (m,), means (m, d), and its components' Cholesky factors.

    scale: (m, d, d) lower triangular, (m, d) diagonal, or (d,) diagonal and shared; float64.
    """

    weights: Tensor
    means: Tensor
    scale: Tensor

    @classmethod
    def fitted(cls, xi: Tensor, snr: Tensor, components: int, seed: int) -> Mixture:
        """EM on draws of z = (snr xi + n)/sqrt(1 + snr^2) from standardised data xi (n, *shape)."""
        from sklearn.mixture import GaussianMixture

        if checks.positive_int("components", components) > len(xi):
            raise ValueError(f"components={components}: must be at most the number of points, {len(xi)}")
        stream = random.generator(seed, "mixture prior")
        repeats = -(-MIXTURE_DRAWS // len(xi))  # every point equally often, each time with noise of its own
        rows = torch.randperm(len(xi), generator=stream).repeat(repeats)[: max(MIXTURE_DRAWS, components)]
        points, level = xi[rows].to(torch.float64).flatten(1), snr.flatten()
        noise = torch.randn(points.shape, generator=stream, dtype=torch.float64)
        z = (level * points + noise) / (1 + level.square()).sqrt()
        full = z.shape[1] <= FULL_UP_TO
        model = GaussianMixture(components, covariance_type="full" if full else "diag", random_state=seed)
        model.fit(z.numpy())
        weights, means, covariances = (torch.from_numpy(v) for v in (model.weights_, model.means_, model.covariances_))
        return cls(weights, means, torch.linalg.cholesky(covariances) if full else covariances.sqrt())

    @classmethod
    def empirical(cls, xi: Tensor, snr: Tensor) -> Mixture:
        """The law of z for the points themselves: a component a point, of the channel's noise."""
        level, points = snr.flatten(), xi.to(torch.float64).flatten(1)
        norm = (1 + level.square()).sqrt()
        weights = torch.full((len(points),), 1 / len(points), dtype=torch.float64)
        return cls(weights, points * (level / norm), 1 / norm)

    def sample(self, n: int, generator: torch.Generator) -> Tensor:
        """Draw n vectors (n, d), float64."""
        component = torch.multinomial(self.weights, n, replacement=True, generator=generator)
        noise = torch.randn(n, self.means.shape[1], generator=generator, dtype=torch.float64)
        if self.scale.ndim < 3:
            return self.means[component] + (self.scale[component] if self.scale.ndim == 2 else self.scale) * noise
        for m in range(len(self.weights)):  # a product a component: no (n, d, d) of factors
            rows = component == m
            noise[rows] = self.means[m] + noise[rows] @ self.scale[m].T
        return noise

    def log_prob(self, z: Tensor) -> Tensor:
        """Log-density in nats at z (n, d), float64 (n,)."""
        scale, d = self.scale, z.shape[1]
        size = scale.diagonal(dim1=-2, dim2=-1) if scale.ndim == 3 else scale
        constant = self.weights.log() - size.log().sum(-1) - 0.5 * d * LOG_2PI
        values = []
        for rows in z.split(max(1, SCORED // (len(self.weights) * d))):
            off = rows[:, None] - self.means
            if scale.ndim == 3:
                off = torch.linalg.solve_triangular(scale, off.permute(1, 2, 0), upper=False).permute(2, 0, 1)
            else:
                off = off / scale
            values.append((constant - 0.5 * off.square().sum(-1)).logsumexp(1))
        return torch.cat(values)


@dataclass(frozen=True)
class MixturePrior:
    """A mixture law of the statistic, lifted to states: exact for the law of a_1 where the mixture is."""

    lift: Lift
    mixture: Mixture

    def sample(self, n: int, generator: torch.Generator, dtype: torch.dtype = torch.float32) -> Tensor:
        """Draw n states (n, k, *shape)."""
        shape = self.lift.channel.snr.shape
        z = self.mixture.sample(n, generator).view(n, *shape)
        return self.lift.state(z, torch.randn(z.shape, generator=generator, dtype=torch.float64)).to(dtype)

    def log_prob(self, a: Tensor) -> Tensor:
        """Log-density in nats at states a (n, k, *shape); float64 (n,)."""
        z, across, log_det = self.lift.split(a)
        normal = -0.5 * (across.square() + LOG_2PI).flatten(1).sum(1)
        return self.mixture.log_prob(z.flatten(1)) + normal + log_det


def gaussian_kl(mean: tuple[Tensor, ...], law: Matrix, prior: Matrix) -> Tensor:
    """KL(N(mean, law) || N(0, prior)) per direction in nats, for k x k covariances given entry by entry."""
    if len(law) == 1:
        ratio = law[0][0] / prior[0][0]
        return 0.5 * (ratio - 1 - ratio.log() + mean[0].square() / prior[0][0])
    (pxx, pxv), (_, pvv) = prior
    det = pxx * pvv - pxv.square()
    det_law = law[0][0] * law[1][1] - law[0][1].square()
    second = [[law[i][j] + mean[i] * mean[j] for j in range(2)] for i in range(2)]
    trace = (pvv * second[0][0] - 2 * pxv * second[0][1] + pxx * second[1][1]) / det
    return 0.5 * (trace - 2 - (det_law / det).log())
