"""What all solvers share: the grid of times, its coefficients in one table, and the reverse drift."""

from __future__ import annotations

import copy
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Self

import torch
from torch import Tensor

from vsmd import checks, memory
from vsmd.coefficients import Coefficients
from vsmd.processes import ForwardProcess
from vsmd.random import Noise
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
    """A solver of the reverse process in r = 1 - t, (12), one step at a time between nodes of a decreasing grid.

    An instance holds its options; `on` makes it ready for a score and a grid.
    Class attributes: evaluations (network calls a step), stochastic (takes noise), needs_velocity, exact (on Gaussian
    data, in any number of steps).
    """

    name = ""  # in the registry, where it is not the class's own in lower case
    evaluations = 1
    stochastic = False
    needs_velocity = False
    exact = False

    score: Score
    process: ForwardProcess
    times: Tensor
    context: Tensor | None

    @property
    def title(self) -> str:
        """The name by which messages call it."""
        return self.name or type(self).__name__.lower()

    def on(self, score: Score, times: Tensor, context: Tensor | None = None) -> Self:
        """A copy that solves for `score` on the grid `times`, float64 decreasing; context: what the network is told.

        Raises ValueError for a method without velocity where the solver splits one off.
        """
        if self.needs_velocity and score.process.k == 1:
            raise ValueError(f"solver={self.title!r}: {score.process.method} has no velocity to split")
        ready = copy.copy(self)
        ready.score, ready.process, ready.times, ready.context = score, score.process, times, context
        ready.prepare()
        return ready

    def prepare(self) -> None:
        """Compute what all steps share: tables of coefficients at the grid's nodes."""
        times, inside = self.times, (self.times[:-1] + self.times[1:]) / 2  # which piece of A_t each step lies in
        self.table = self.coefficients(times, torch.cat([inside, times[-1:]]))  # of the step that leaves a node
        self.arrival = self.table  # of the step that comes to it
        if self.process.pieces > 1:
            self.arrival = self.coefficients(times, torch.cat([times[:1], inside]))
        self.h = (times[:-1] - times[1:]).tolist()

    def coefficients(self, times: Tensor, within: Tensor | None = None) -> Coefficients:
        """Coefficients of all `times` in one call."""
        return self.process.coefficients(times, device=self.score.device, within=within)

    @abstractmethod
    def step(self, a: Tensor, i: int, noise: Noise) -> Tensor:
        """Carry states a (n, k, *shape) from times[i] to times[i + 1]."""

    def drift(self, a: Tensor, at: Coefficients, share: float) -> Tensor:
        """Reverse drift da/dr with `share` of g^2 s: 1 for the SDE, 1/2 for the probability flow."""
        score = self.score(a, at, self.context)
        if at.potential and share != 1:
            score = score - (1 / share - 1) * self.score.control(a, at)
        return reverse_drift(score, a, at, share)


def reverse_drift(score: Tensor, a: Tensor, at: Coefficients, share: float) -> Tensor:
    """-(forward drift) + share g^2 s in the last component."""
    last = torch.addcmul(combine(at.row, a), at.noise, score, value=share)
    return last[:, None] if a.shape[1] == 1 else torch.stack([a[:, 1] * (at.beta * -0.5), last], 1)


def no_noise(like: Tensor) -> Tensor:
    """The noise of deterministic solvers: there is none to ask for."""
    raise ValueError("noise=None: a stochastic solver takes its noise from an object of `vsmd.random`")


def integrate(
    solver: Solver, a: Tensor, noise: Noise = no_noise, watch: Callable[[int, Tensor], None] | None = None
) -> Tensor:
    """Carry states a (n, k, *shape) down the solver's grid; `watch(i, a)` sees every node, the start included.

    noise: what a stochastic solver draws from; ValueError where it has none.
    """
    with torch.no_grad():
        if watch:
            watch(0, a)
        for i in range(len(solver.times) - 1):
            a = solver.step(a, i, noise)
            memory.give_back()
            if watch:
                watch(i + 1, a)
    return a
