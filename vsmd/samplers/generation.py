"""From states of the prior to data: a solver on its grid, and the denoising of what it leaves."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from vsmd import checks
from vsmd.random import Noise
from vsmd.samplers import Solver, accuracy, as_solver, integrate, time_grid
from vsmd.samplers.base import no_noise
from vsmd.scores import Score


def steps_within(solver: str | type[Solver] | Solver, evaluations: int, denoise: bool = False) -> int:
    """Steps of a solver within so many network calls a sample, of which denoising takes one.

    Raises ValueError for an unknown solver, one with no fixed number of calls, or evaluations too few for a step.
    """
    method = as_solver(solver)
    each = method.evaluations
    if each < 1:
        raise ValueError(f"solver={method.title!r}: takes as many evaluations as it needs; give steps instead")
    if checks.positive_int("evaluations", evaluations) < each + checks.flag("denoise", denoise):
        calls = f"a step of {method.title} and denoising take" if denoise else f"a step of {method.title} takes"
        raise ValueError(f"evaluations={evaluations}: must be at least {each + denoise}, what {calls}")
    return (evaluations - denoise) // each


class Generation:
    """The reverse process from t = 1 down to t_min, prepared once and run on any number of batches.

    score: of a process, and the network that is called. solver: name, class or instance; `steps` of it on times
    t = u^grid_power. denoise: one more call gives E[x_0 | a] at the grid's end, where the noise of that time is still
    on the data: of standard deviation .1 with SGM at beta = 10, .005 with CLD. checked: whether steps that are too few
    (`accuracy.check`) and states that have left the process's law (`check_states`) are told. options: the solver's own.
    """

    def __init__(
        self,
        score: Score,
        solver: str | type[Solver] | Solver,
        steps: int,
        t_min: float,
        *,
        grid_power: float = 2.0,
        denoise: bool = True,
        checked: bool = True,
        **options: Any,
    ) -> None:
        self.score, self.denoise = score, checks.flag("denoise", denoise)
        self.solver = as_solver(solver, **options).on(score, time_grid(steps, t_min, grid_power))
        told = checks.flag("checked", checked) and not self.solver.exact
        self.checked = told and bool(score.process.known().var.any())
        if self.checked:
            accuracy.check(self.solver, lambda n: time_grid(n, t_min, grid_power))
            self.size = float(accuracy.law_width(self.solver).square().mean().sqrt())
        self.evaluations = steps * self.solver.evaluations + denoise  # network calls a sample

    def __call__(
        self,
        start: Tensor,
        noise: Noise = no_noise,
        context: Tensor | None = None,
        watch: Callable[[int, Tensor], None] | None = None,
    ) -> Tensor:
        """Data (n, *shape) float32 on the CPU of states `start` (n, k, *shape) of the prior.

        noise: of stochastic solvers. context: (n, …) for the network. watch(i, x): sees the data at every node.
        """
        device, process = self.score.device, self.score.process
        self.solver.context = None if context is None else context.to(device)

        def seen(i: int, a: Tensor) -> None:
            if watch is not None:
                watch(i, process.from_directions(a[:, 0].cpu()))

        end = integrate(self.solver, start.to(device), noise, None if watch is None else seen)
        if self.checked:
            accuracy.check_states(end, self.solver, self.size)
        x = self.denoised(end) if self.denoise else end[:, 0]
        return process.from_directions(x.cpu())

    @torch.no_grad()
    def denoised(self, a: Tensor) -> Tensor:
        """E[x_0 | a] of states a (n, k, *shape) at the grid's end, in directions."""
        last = self.solver.table.at(len(self.solver.times) - 1)
        return self.score.denoise(a, last, self.solver.context).float()
