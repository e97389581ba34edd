"""What a solver makes of Gaussian data, known before anything is drawn: how wide it leaves them, and what would do.

With the exact score of Gaussian data of the same moments a step is linear, a -> K a + sum_j B_j xi_j per direction, so
that the law at the grid's end is had from a few states and no network's call. What counts is the width of all, and of
directions that carry some of it: few steps leave the narrowest many times too wide, and no sample shows it.
"""

from __future__ import annotations

import copy
import dataclasses
import math
import warnings
from collections.abc import Callable
from itertools import count

import torch
from torch import Tensor, nn

from vsmd import diagnostics
from vsmd.priors import GaussianPrior
from vsmd.random import Noise
from vsmd.samplers.base import Solver
from vsmd.samplers.exponential import WIDEST, WIDEST_GIVEN

OFF = 1.1  # times too wide, or too narrow, from which on it is said
CARRIES = 0.01  # of the largest variance, from which on a direction counts
DRAWS = 4  # of noise in a step, at most
MOST, LARGEST = 200, 2**20  # steps, and steps x directions, up to which is looked for what would do


class SolverWarning(UserWarning):
    """Of a solver whose steps are too few for its process."""


class _Zero(nn.Module):
    """The exact network of Gaussian data."""

    def forward(self, z: Tensor, log_snr: Tensor, context: Tensor | None = None) -> Tensor:
        return torch.zeros_like(z)


def widths(solver: Solver) -> Tensor:
    """Standard deviation of x at the end of the solver's grid over the exact one, of Gaussian data; (*shape), float64.

    inf beyond all numbers. The start is the exact law at t = 1.
    """
    process, ready = solver.process, copy.copy(solver)
    ready.score, ready.context = dataclasses.replace(solver.score, network=_Zero()), None
    k, shape, var = process.k, process.shape, process.known().var
    unit = torch.eye(k, dtype=torch.float64).view(k, k, *[1] * len(shape)).expand(k, k, *shape)
    rows = GaussianPrior(process.terminal(var)[1]).state(unit)
    none = torch.zeros(DRAWS * solver.stochastic, k, *shape)
    with torch.no_grad():
        for i in range(len(solver.times) - 1):
            rows = ready.step(torch.cat([rows, none]).to(solver.table.beta), i, _draws(k)).double().cpu()
            if solver.stochastic:  # k rows of the same covariance
                rows = torch.linalg.qr(rows.movedim((0, 1), (-2, -1))).R.movedim((-2, -1), (0, 1))
    return (rows[:, 0].norm(dim=0) / law_width(solver)).nan_to_num(torch.inf, posinf=torch.inf)


def _draws(first: int) -> Noise:
    """Noise whose j-th draw is 1 in row `first` + j and 0 in the others: what it causes adds up in squares."""
    rows = count(first)
    return lambda like: torch.zeros_like(like).index_fill(0, torch.tensor(next(rows), device=like.device), 1.0)


def law_width(solver: Solver) -> Tensor:
    """Standard deviation of x under the process's own law at the end of the solver's grid, (*shape), float64."""
    return solver.process.spread(solver.times[-1:])[1][0][0].expand(solver.process.shape)


def check(solver: Solver, grid: Callable[[int], Tensor]) -> None:
    """Warn (`SolverWarning`) of steps that leave Gaussian data 10 % too wide or too narrow, in all or in a direction.

    grid: the times of so many steps. FloatingPointError where all is more than 5 times too wide: of no use. Adaptive
    steps are not looked at, nor are mixture processes, whose steps are not linear.
    """
    if solver.evaluations < 1 or solver.table.potential:
        return
    (size, off, worst), steps = _judged(solver), len(solver.times) - 1
    if off <= OFF:
        return
    cures = (n for i in range(1, 10) if (n := steps * 2**i) <= MOST and n * solver.process.dim <= LARGEST)
    enough = next((n for n in cures if _judged(solver.on(solver.score, grid(n)))[1] <= OFF), None)
    said = (
        f"solver={solver.title!r}, steps={steps}: too few for this process, Gaussian data of the same moments would "
        f"come out {size:.3g} times as wide, {off:.3g} times off in {diagnostics.direction(solver.process, worst)}; "
        f"{'' if enough is None else f'steps={enough} or '}solver='exponential' would do"
    )
    if size > WIDEST:
        raise FloatingPointError(said)
    warnings.warn(said, SolverWarning, stacklevel=5)


def _judged(solver: Solver) -> tuple[float, float, int]:
    """Width of all over the exact one; how many times too wide or narrow a direction that counts is, and which."""
    width, exact = widths(solver), law_width(solver)
    var = solver.process.known().var
    off = torch.where(var >= CARRIES * var.max(), torch.maximum(width, 1 / width), 1.0).flatten()
    return float((width * exact).norm() / exact.norm()), float(off.max()), int(off.argmax())


def check_states(a: Tensor, solver: Solver, size: float) -> None:
    """FloatingPointError for states a at the end of a grid that are not finite, or x 5 times as wide as `size`.

    20 times with a context, whose law may be wider than the law of all; a few draws may be far out.
    """
    width = float(a[:, 0].square().mean().sqrt()) / size
    most = WIDEST if solver.context is None else WIDEST_GIVEN
    if not width <= most * (1 + 100 / a[:, 0].numel()) ** 0.5:
        state = f"{width:.3g} times as wide as the data" if math.isfinite(width) else "not finite"
        raise FloatingPointError(
            f"solver={solver.title!r}, steps={len(solver.times) - 1}: the samples are {state}: the network is worse "
            "than none, or the steps are too few for it; train it longer, or take more steps or solver='exponential'"
        )
