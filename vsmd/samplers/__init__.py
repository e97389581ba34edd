"""Solvers of the reverse process: one short file each, all with the same face (`Solver`), loaded by name."""

from __future__ import annotations

import importlib

from torch import Tensor

from vsmd import checks
from vsmd.samplers.base import Solver, integrate, time_grid
from vsmd.scores import Score

__all__ = ["SOLVERS", "Solver", "integrate", "make_solver", "time_grid"]

SOLVERS = {
    "euler-maruyama": "vsmd.samplers.euler:EulerMaruyama",
    "euler": "vsmd.samplers.euler:Euler",
    "aboba": "vsmd.samplers.splitting:ABOBA",
    "baoab": "vsmd.samplers.splitting:BAOAB",
    "aboba-midpoint": "vsmd.samplers.splitting:ABOBAMidpoint",
    "baoab-midpoint": "vsmd.samplers.splitting:BAOABMidpoint",
    "heun": "vsmd.samplers.heun:Heun",
    "heun-sde": "vsmd.samplers.heun:StochasticHeun",
    "exponential": "vsmd.samplers.exponential:Exponential",
    "exponential-1": "vsmd.samplers.exponential:Exponential1",
    "rk45": "vsmd.samplers.rk45:RK45",
}


def solver_class(name: str) -> type[Solver]:
    """The solver's class (ValueError for an unknown name); its file is imported only here."""
    module, cls = SOLVERS[checks.one_of("solver", name, SOLVERS)].split(":")
    return getattr(importlib.import_module(module), cls)


def make_solver(name: str, score: Score, times: Tensor, context: Tensor | None = None, **options: float) -> Solver:
    """Build the solver `name` on a decreasing grid of times."""
    return solver_class(name)(score, times, context, **options)
