"""Launchers: where runs are executed. This machine's cores, dask's workers, or Slurm's jobs.

A launcher takes an order (see `repro.grid.worker`) and gives a handle; once that is done, the result lies in the spool,
or the reason why not is raised. Queues, placing and the death of machines are the engine's; what is run, in which
order, and the store are the driver's (`repro.grid.pool`), the same whatever the launcher.
"""

from __future__ import annotations

import re
import tempfile
from collections.abc import Callable, Collection
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, Protocol

Order = dict[str, Any]
FORMS = "an address of a dask scheduler as tcp://host:port, slurm, or slurm:partition=long,timeout_min=600"


class RunFailed(Exception):
    """The run has ended without a result, and would do so elsewhere too."""


class Lost(Exception):
    """Who was at the run is gone or unfit; it may go elsewhere."""


class Unreachable(RuntimeError):
    """The launcher takes no run any more."""


class Handle(Protocol):
    """A run that was handed over."""

    def done(self) -> bool:
        """Whether `fetch` has something to say; cheap."""

    def fetch(self) -> None:
        """Leave the result in the order's spool file. Raises RunFailed or Lost, one line, or Unreachable."""


class Launcher(Protocol):
    """Takes runs and executes them somewhere.

    idle: words for the time in which none is under way. poll: seconds between two questions whether a run is done.
    """

    idle: str
    poll: float

    def vacancy(self) -> AbstractContextManager[bool]:
        """Whether one more run is taken now; within, a place for it is kept. Raises Unreachable."""

    def submit(self, order: Order, lock: int) -> Handle:
        """Take a run. lock: descriptor of the lock that the driver holds on it, for children on this machine."""

    def close(self) -> None:
        """Stop what is under way, and let go."""


def scheme(scheduler: str) -> str:
    """ "cores", "dask" or "slurm"; ValueError, one line, for anything else."""
    if scheduler in ("", "cores"):
        return "cores"
    if re.fullmatch(r"(tcp|tls|ucx|ws|wss)://\S+:\d+", scheduler):
        return "dask"
    if re.fullmatch(r"slurm(:\w+=[^,=]+(,\w+=[^,=]+)*)?", scheduler):
        return "slurm"
    raise ValueError(f"scheduler={scheduler!r}: must be {FORMS}")


def launcher(
    scheduler: str,
    cache: Path,
    packages: Collection[str],
    workers: int | None = None,
    say: Callable[[str], None] = print,
    source: Path | None = None,
) -> Launcher:
    """The launcher of a scheduler's name; "" is this machine's cores.

    cache: the store's folder for logs and requests. packages: top-level names of what the runs import. workers: runs at
    once, at most. say: takes a line on what goes wrong on the way. source: for cores only, see `child.start`. Raises
    ValueError, one line, for a name that is none, a scheduler that does not answer, or a package that is missing.
    """
    which = scheme(scheduler)
    if which == "cores":
        from repro.grid.launchers.cores import Cores

        return Cores(cache, workers, source)
    try:
        if which == "dask":
            from repro.grid.launchers.dask import Dask

            return Dask(scheduler, cache, packages, workers, say)
        from repro.grid.launchers.slurm import Slurm

        return Slurm(scheduler, cache, workers)
    except ModuleNotFoundError as error:
        if (error.name or "").split(".")[0] not in ("dask", "distributed", "submitit"):
            raise
        raise ValueError(
            f"scheduler={scheduler!r}: needs the package {error.name}; install the extra `cluster`"
        ) from None


def check(scheduler: str) -> None:
    """Raise ValueError as `launcher` does, before long work: a scheduler is asked whether it answers."""
    if scheme(scheduler) != "cores":
        with tempfile.TemporaryDirectory(prefix="vsmd-") as folder:
            launcher(scheduler, Path(folder), ()).close()
