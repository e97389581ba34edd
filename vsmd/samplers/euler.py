"""First-order solvers: Euler on the probability flow and Euler–Maruyama on the reverse SDE, paper (16)."""

from __future__ import annotations

from torch import Tensor

from vsmd.random import Noise
from vsmd.samplers.base import Solver


class Euler(Solver):
    """a <- a + h f(a, t) on the probability flow; one evaluation, order 1."""

    def step(self, a: Tensor, i: int, noise: Noise) -> Tensor:
        return a + self.h[i] * self.drift(a, self.table.at(i), 0.5)


class EulerMaruyama(Solver):
    """a <- a + h f(a, t) + sqrt(g^2 h) xi on the reverse SDE, (16) with the factor x it drops; weak order 1."""

    name = "euler-maruyama"
    stochastic = True

    def step(self, a: Tensor, i: int, noise: Noise) -> Tensor:
        at = self.table.at(i)
        xi = noise(a[:, -1])
        a = a + self.h[i] * self.drift(a, at, 1.0)
        a[:, -1] += (at.noise * self.h[i]).sqrt() * xi
        return a
