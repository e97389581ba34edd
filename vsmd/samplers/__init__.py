"""Solvers of the reverse process: one short file each, all with the same face (`Solver`), loaded by name.

A new one is a subclass of `Solver`, here or elsewhere, and a line in `SOLVERS`; wherever a solver is named, its class
or an instance (with its options) will do.
"""

from __future__ import annotations

import importlib
import inspect
from typing import Any

from torch import Tensor

from vsmd import checks
from vsmd.samplers.base import Solver, integrate, time_grid
from vsmd.scores import Score

__all__ = ["SOLVERS", "Solver", "as_solver", "integrate", "make_solver", "time_grid"]

SOLVERS: dict[str, str | type[Solver]] = {  # a class, or where it is found when it is first used
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


def as_solver(solver: str | type[Solver] | Solver, **options: Any) -> Solver:
    """The solver of a name in `SOLVERS` or of a class, made with its `options`; or itself, where it is an instance.

    Raises ValueError for an unknown name, and for options beside an instance, which has its own; TypeError for options
    that the solver does not have.
    """
    if isinstance(solver, Solver):
        if options:
            raise ValueError(f"{next(iter(options))}: {solver.title} is made already; give it its options there")
        return solver
    if isinstance(solver, str) or not (isinstance(solver, type) and issubclass(solver, Solver)):
        entry = SOLVERS[checks.one_of("solver", solver, SOLVERS)]
        if isinstance(entry, str):
            module, name = entry.split(":")
            entry = getattr(importlib.import_module(module), name)
        solver = entry
    try:
        inspect.signature(solver).bind(**options)
    except TypeError as error:
        raise TypeError(f"solver={solver.name or solver.__name__.lower()!r}: {error}") from None
    return solver(**options)


def make_solver(
    solver: str | type[Solver] | Solver, score: Score, times: Tensor, context: Tensor | None = None, **options: Any
) -> Solver:
    """A solver on a decreasing grid of times, ready to step."""
    return as_solver(solver, **options).on(score, times, context)
