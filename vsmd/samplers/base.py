"""What all solvers share: the grid of times, its coefficients in one table, and the reverse drift."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable

import torch
from torch import Tensor

from vsmd import checks, memory
from vsmd.processes import Coefficients
from vsmd.scores import Score, combine


def time_grid(steps: int, t_min: float = 1e-3, power: float = 1.0) -> Tensor:
    """Decreasing times from 1 to t_min in `steps` steps, t = (t_min^{1/p} + u (1 - t_min^{1/p}))^p, u from 1 to 0.

    power 1 is uniform (the paper's); larger ones spend more of the steps near the data. float64 (steps + 1,).
    """
    steps = checks.positive_int("steps", steps)
    power = checks.positive("power", power)
    low = checks.in_range("t_min", t_min, 1e-9, 0.5) ** (1 / power)
    return (low + torch.linspace(1, 0, steps + 1, dtype=torch.float64) * (1 - low)) ** power


class Solver(ABC):
    """One step of a solver of the reverse process in r = 1 - t, (12), between two nodes of a decreasing grid.

    Attributes: evaluations (network calls a step), stochastic (takes noise), needs_velocity.
    """

    name = ""  # in the registry, where it is not the class's own in lower case
    evaluations = 1
    stochastic = False
    needs_velocity = False

    def __init__(self, score: Score, times: Tensor, context: Tensor | None = None) -> None:
        if self.needs_velocity and score.process.k == 1:
            name = self.name or type(self).__name__.lower()
            raise ValueError(f"solver={name!r}: {score.process.method} has no velocity to split")
        self.score, self.process, self.times, self.context = score, score.process, times, context
        inside = (times[:-1] + times[1:]) / 2  # of each step: which piece of A_t it lies in
        self.table = self.coefficients(times, torch.cat([inside, times[-1:]]))  # of the step that leaves a node
        self.arrival = self.table  # of the step that comes to it
        if self.process.pieces > 1:
            self.arrival = self.coefficients(times, torch.cat([times[:1], inside]))
        self.h = (times[:-1] - times[1:]).tolist()

    def coefficients(self, times: Tensor, within: Tensor | None = None) -> Coefficients:
        """Coefficients of all `times` in one call."""
        return self.process.coefficients(times, device=self.score.device, within=within)

    @abstractmethod
    def step(self, a: Tensor, i: int, generator: torch.Generator | None = None) -> Tensor:
        """Carry a from times[i] to times[i + 1]."""

    def drift(self, a: Tensor, at: Coefficients, share: float) -> Tensor:
        """Reverse drift da/dr with `share` of g^2 s: 1 for the SDE, 1/2 for the probability flow."""
        return reverse_drift(self.score(a, at, self.context), a, at, share)


def reverse_drift(score: Tensor, a: Tensor, at: Coefficients, share: float) -> Tensor:
    """-(forward drift) + share g^2 s in the last component."""
    last = torch.addcmul(combine(at.row, a), at.noise, score, value=share)
    return last[:, None] if a.shape[1] == 1 else torch.stack([a[:, 1] * (at.beta * -0.5), last], 1)


def integrate(
    solver: Solver,
    a: Tensor,
    generator: torch.Generator | None = None,
    watch: Callable[[int, Tensor], None] | None = None,
) -> Tensor:
    """Carry states a (n, k, *shape) down the solver's grid; `watch(i, a)` sees every node, the start included."""
    with torch.no_grad():
        if watch:
            watch(0, a)
        for i in range(len(solver.times) - 1):
            a = solver.step(a, i, generator)
            memory.give_back()
            if watch:
                watch(i + 1, a)
    return a
