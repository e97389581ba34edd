"""Heun's second-order method on the probability flow, the paper's solver for all its experiments."""

from __future__ import annotations

import torch
from torch import Tensor

from vsmd.random import Noise
from vsmd.samplers.base import Solver, reverse_drift


class Heun(Solver):
    """Predict with f(a, t_i), correct with the mean of both ends' drifts; two evaluations, order 2."""

    evaluations = 2

    def step(self, a: Tensor, i: int, noise: Noise) -> Tensor:
        h = self.h[i]
        first = self.drift(a, self.table.at(i), 0.5)
        second = self.drift(a + h * first, self.arrival.at(i + 1), 0.5)
        return a + (0.5 * h) * (first + second)


class StochasticHeun(Solver):
    """Heun on the reverse SDE: both drifts at the same noise (additive, so weak order 2); two evaluations."""

    name = "heun-sde"
    evaluations = 2
    stochastic = True

    def step(self, a: Tensor, i: int, noise: Noise) -> Tensor:
        return self.advance(a, self.score(a, self.table.at(i), self.context), i, noise)

    def advance(self, a: Tensor, score: Tensor, i: int, noise: Noise) -> Tensor:
        """The step for a first score already known (adaptation measures moments with the same network call)."""
        h, departure, arrival = self.h[i], self.table.at(i), self.arrival.at(i + 1)
        jump = torch.zeros_like(a)
        jump[:, -1] = (0.5 * (departure.noise + arrival.noise) * h).sqrt() * noise(score)
        first = reverse_drift(score, a, departure, 1.0)
        second = self.drift(a + h * first + jump, arrival, 1.0)
        return a + (0.5 * h) * (first + second) + jump
