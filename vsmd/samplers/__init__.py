"""Solvers of the reverse process: one short file each, all with the same face (`Solver`), loaded by name."""

from __future__ import annotations

import importlib
from collections.abc import Callable

import torch
from torch import Tensor

from vsmd import checks
from vsmd.samplers.base import Solver, time_grid
from vsmd.scores import Score

__all__ = ["SOLVERS", "Solver", "integrate", "make_solver", "time_grid"]

SOLVERS = {
    "euler-maruyama": "vsmd.samplers.euler:EulerMaruyama",
    "euler": "vsmd.samplers.euler:Euler",
    "aboba": "vsmd.samplers.splitting:ABOBA",
    "baoab": "vsmd.samplers.splitting:BAOAB",
    "heun": "vsmd.samplers.heun:Heun",
    "heun-sde": "vsmd.samplers.heun:StochasticHeun",
    "rk45": "vsmd.samplers.rk45:RK45",
}


def solver_class(name: str) -> type[Solver]:
    """The solver's class (ValueError for an unknown name); its file is imported only here."""
    module, cls = SOLVERS[checks.one_of("solver", name, SOLVERS)].split(":")
    return getattr(importlib.import_module(module), cls)


def make_solver(name: str, score: Score, times: Tensor, context: Tensor | None = None, **options: float) -> Solver:
    """Build the solver `name` on a decreasing grid of times."""
    return solver_class(name)(score, times, context, **options)


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
            if watch:
                watch(i + 1, a)
    return a
