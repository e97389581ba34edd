"""Grids of runs: declared by a notebook, each executed in a process of its own and stored with the code that it used.

    report = reports.Report("02_anisotropic_toys", profile)
    runs = grid.product("repro.studies.toys:run", dataset=["spiral-8Y"], method=["CLD", "VSCLD"], seed=[0, 1, 2])
    grid.execute(runs, report.store)
    table = report.store.table("toys", runs)        # a pandas DataFrame

A run function takes its configuration as keyword arguments and returns a `Result`. What is stored is keyed by
(function, configuration). Rows whose code has changed since are *stale*: they are still used, a printed line says so,
and REFRESH=1 runs them again.

Where runs are executed is a launcher's (`repro.grid.launchers`): this machine's cores, dask or Slurm. Workers hand a
result back as a file (`spool`), the driver alone (`pool`) writes the store (`store`), and `merge` brings in what
another machine made.
"""

from __future__ import annotations

from repro.grid.pool import RunError, execute
from repro.grid.profiles import PROFILES, Profile, profile
from repro.grid.rows import is_timing
from repro.grid.runs import Result, Run, product
from repro.grid.store import Status, Store

__all__ = [
    "PROFILES",
    "Profile",
    "Result",
    "Run",
    "RunError",
    "Status",
    "Store",
    "execute",
    "is_timing",
    "product",
    "profile",
]
