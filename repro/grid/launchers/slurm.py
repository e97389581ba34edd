"""Slurm through submitit: a job a run, on machines that share this folder. `slurm:cluster=local` tries it out here.

submitit keeps what it submits in files of its own; results do not come that way but through the spool.
"""

from __future__ import annotations

import contextlib
import json
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import submitit

from repro.grid import child
from repro.grid.files import locked, read_json
from repro.grid.launchers import Lost, Order, RunFailed
from vsmd.files import write_atomic

DEFAULTS = {"name": "vsmd", "cpus_per_task": 1, "timeout_min": 1440}  # submitit's own limit is five minutes
AT_ONCE = 100  # jobs that Slurm holds of ours, unless `at_once` says otherwise


def perform(request: str) -> None:
    """What a job does: the order in the file `request`, unless the driver has its result already and took it away."""
    path = Path(request)
    with locked(path.with_suffix(".lock")):  # a job of a driver that was killed may be at it still
        order = read_json(path)
        if order is None or Path(order["spool"]).exists():
            return
        log = Path(order["log"])
        status = child.perform(order, path.with_suffix(".order"), log, lambda: not path.exists())
        if status and path.exists():
            write_atomic(_failure(path), child.reason(status, log))


def _failure(request: Path) -> Path:
    return request.with_suffix(".failed")


class Job:
    """The handle of a job."""

    patience = 30.0  # seconds that a shared disk may need to show what a job that has ended wrote

    def __init__(self, job: submitit.Job[None], request: Path, spool: Path) -> None:
        self.job, self.request, self.spool = job, request, spool
        self._ended: float | None = None

    def done(self) -> bool:
        if self.spool.exists() or _failure(self.request).exists():
            return True
        if not self.job.done():
            self._ended = None
            return False
        self._ended = self._ended or time.monotonic()
        return time.monotonic() - self._ended >= self.patience

    def fetch(self) -> None:
        failure = _failure(self.request)
        said = failure.read_text(encoding="utf-8") if failure.exists() else ""
        self.forget()
        if self.spool.exists():
            return
        if said:
            raise RunFailed(said)
        raise Lost(f"job {self.job.job_id} ended without a result ({self.job.state.lower()})")

    def forget(self) -> None:
        """Take the order back: a job that has not begun it, or is at it, does no more."""
        self.request.unlink(missing_ok=True)
        _failure(self.request).unlink(missing_ok=True)


class Slurm:
    """At most `at_once` jobs, each of one run."""

    idle, poll = "waiting for Slurm", 1.0

    def __init__(self, scheduler: str, cache: Path, workers: int | None) -> None:
        options = _options(scheduler)
        cluster = options.pop("cluster", "slurm")
        most = options.pop("at_once", os.cpu_count() or 1 if cluster == "local" else AT_ONCE)
        if not isinstance(most, int) or most < 1:
            raise ValueError(f"scheduler={scheduler!r}: at_once={most!r} must be an integer >= 1")
        self.most, self.folder = min(workers or most, most), cache / "slurm"
        try:
            self.executor = submitit.AutoExecutor(self.folder / "jobs", cluster=str(cluster))
            plain = submitit.AutoExecutor._typed_parameters()
            self.executor.update_parameters(
                **{k if k in plain else f"slurm_{k}": v for k, v in (DEFAULTS | options).items()}
            )
        except (AssertionError, NameError, RuntimeError, ValueError) as error:
            raise ValueError(f"scheduler={scheduler!r}: {str(error).splitlines()[0]}") from None
        self.jobs: list[Job] = []

    @contextmanager
    def vacancy(self) -> Iterator[bool]:
        self.jobs = [job for job in self.jobs if job.request.exists()]
        yield len(self.jobs) < self.most

    def submit(self, order: Order, lock: int) -> Job:
        spool = Path(order["spool"])
        request = self.folder / f"{spool.stem}.json"
        _failure(request).unlink(missing_ok=True)
        log = self.folder.parent / "logs" / f"{spool.stem}.log"
        write_atomic(request, json.dumps({**order, "log": str(log), "paths": child.paths_here()}))
        self.jobs.append(Job(self.executor.submit(perform, str(request)), request, spool))
        return self.jobs[-1]

    def close(self) -> None:
        for job in self.jobs:
            if job.request.exists():
                job.forget()
                with contextlib.suppress(Exception):  # Slurm may have ended it meanwhile
                    job.job.cancel()


def _options(scheduler: str) -> dict[str, Any]:
    """What stands after the colon: numbers as numbers."""
    pairs = (pair.split("=", 1) for pair in scheduler.partition(":")[2].split(",") if pair)
    return {name: int(text) if text.isdigit() else text for name, text in pairs}
