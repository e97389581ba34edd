r"""Pairs whose Schrödinger plan is known: a law of data made from the plan, not the plan from the data.

As in the continuous benchmark of Gushchin et al. (2023), a plan between a Gaussian and a law that it makes itself, here
for the reference of a process, overdamped or with velocity. Per direction a_T | x_0 ~ N(F x_0, Sigma); with
G(x) = sum_j alpha_j N(x; m_j, s^2 I) and the prior N(0, var I) of a_T,

    pi(x_0 | a_T) ~ N(a_T; F x_0, Sigma) G(x_0),  a mixture with weights alpha_j N(a_T; F m_j, Sigma + s^2 F F'),

is the plan between the prior and whatever law of x_0 it gives, since a plan is one of Schrödinger exactly if it is
rho(x_0) p(a_T | x_0) phi_T(a_T) / phi_0(x_0). Its potential, the prior over sum_j alpha_j N(a_T; F m_j, …), is no
mixture. Without velocity the benchmark's eps is Sigma/F = 2 sinh(beta/2).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from vsmd import kernels, random
from vsmd.bridges import MixtureProcess


@dataclass(frozen=True)
class KnownPlan:
    """means: m_j (m, d), in pairs of opposite ones, so that the data have mean 0; equal alpha. std: s.

    start: F (k,); noise: Sigma (k, k); var: of the prior.
    """

    means: Tensor
    std: float
    start: Tensor
    noise: Tensor
    var: float

    @classmethod
    def of(cls, process: MixtureProcess, pairs: int = 3, radius: float = 4.0, std: float = 0.5) -> KnownPlan:
        """The plan for a process's reference: `pairs` of means on a sphere of that radius times sqrt(d)/sqrt(2)."""
        whole, k, d = process.reference(0.0, 1.0), process.k, process.dim
        at = torch.randn(pairs, d, generator=random.generator(d, "means"), dtype=torch.float64)
        at = at / at.norm(dim=1, keepdim=True) * radius * math.sqrt(d / 2)
        start = kernels.stacked(whole.mean).view(k, k)[:, 0]
        noise = kernels.stacked(process.covariance(whole, 0.0)).view(k, k)
        return cls(torch.cat([at, -at]), std, start, noise, process.reference_variance())

    def _terms(self, a: Tensor) -> Tensor:
        """log N(a_T; F m_j, Sigma + s^2 F F') (n, m) up to a constant, of states a (n, k, d)."""
        law = self.noise + self.std**2 * self.start[:, None] * self.start
        lower = torch.linalg.cholesky(law)
        white = torch.linalg.solve_triangular(lower, a, upper=False)
        centre = torch.linalg.solve_triangular(lower, self.start[:, None], upper=False) * self.means[:, None, :]
        return -0.5 * torch.cdist(white.flatten(1), centre.flatten(1)).square() - a.shape[2] * lower.diag().log().sum()

    def draw(self, n: int, stream: torch.Generator) -> tuple[Tensor, Tensor]:
        """n pairs x_0 (n, d) and a_T (n, k, d) of the plan, float64."""
        shape = (n, len(self.start), self.means.shape[1])
        a = math.sqrt(self.var) * torch.randn(shape, generator=stream, dtype=torch.float64)
        which = torch.multinomial(self._terms(a).softmax(1), 1, generator=stream)[:, 0]
        pull = torch.linalg.solve(self.noise, self.start)
        precision = 1 / self.std**2 + float(pull @ self.start)
        mean = (self.means[which] / self.std**2 + torch.einsum("k,nkd->nd", pull, a)) / precision
        return mean + torch.randn(mean.shape, generator=stream, dtype=torch.float64) / math.sqrt(precision), a

    def log_potential(self, a: Tensor) -> Tensor:
        """log phi_T (n,) at states a (n, k, d), up to a constant."""
        return -0.5 * a.square().flatten(1).sum(1) / self.var - self._terms(a).logsumexp(1)
