"""Priors that generation starts from at t = 1: laws of (x, v) in the process's directions, drawn and scored exactly."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from vsmd.kernels import Matrix

LOG_2PI = math.log(2 * math.pi)


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
        chol = [e.to(dtype) for e in self.cholesky]
        z = torch.randn(n, len(self.cov), *chol[0].shape, generator=generator, dtype=dtype)
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
