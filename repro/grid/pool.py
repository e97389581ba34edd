"""Execution of runs: which are to be run, in which order, and what becomes of them. Where they run is a launcher's.

The driver alone writes the store: a worker hands its result back as a file in the store's spool (`.cache/spool/`), and
what a killed driver left there is stored by the next one.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import time
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from repro.grid.files import try_lock
from repro.grid.launchers import Handle, Launcher, Lost, RunFailed, Unreachable, launcher
from repro.grid.progress import Progress
from repro.grid.runs import Run, labels
from repro.grid.spool import Finished
from repro.grid.store import Status, Store

ASKED: dict[str, None] = {}  # keys of all runs that this process has asked for
TRIES = 4  # how often a run is handed over before it is given up, workers dying with it


class RunError(RuntimeError):
    """Some runs failed; the message lists them. The others are stored."""


def commit(folder: Path) -> str:
    """`git rev-parse HEAD` of `folder`, "-dirty" added if tracked files outside reports/ differ; "" without git."""

    def git(*words: str) -> str:
        out = subprocess.run(["git", "-C", str(folder), *words], capture_output=True, text=True, timeout=20)
        return out.stdout.strip() if out.returncode == 0 else ""

    try:
        top, head = git("rev-parse", "--show-toplevel"), git("rev-parse", "HEAD")
        if not head:
            return ""
        status = ("status", "--porcelain", "--untracked-files=no", "--", ".", ":(exclude)reports")
        changed = git("-C", top, *status)
    except (OSError, subprocess.SubprocessError):
        return ""
    return head[:12] + ("-dirty" if changed else "")


def execute(
    runs: Iterable[Run],
    store: Store,
    workers: int | None = None,
    progress: bool = True,
    refresh: bool | None = None,
    source: Path | None = None,
    scheduler: str | None = None,
) -> Status:
    """Execute those `runs` that `store` does not hold, each in a fresh process of one thread; return their status.

    workers: runs at once, at most; by default as many as the launcher takes, on this machine the number of cores. There
    every run also takes one of the machine's slots (one a core, shared by all of a user's notebooks and drivers), so
    nothing is ever oversubscribed. progress: show a bar (see `Progress`). refresh: run stale ones again too; default
    from the environment (REFRESH=1). source: a folder whose packages the runs import in place of the present ones, on
    this machine. scheduler: where runs are executed (see `launchers.launcher`); default from the environment
    (VSMD_SCHEDULER), or else this machine's cores.

    Each run is stored when it ends: an interruption loses only what was in flight, and Ctrl-C stops the
    children. A run that fails does not stop the others. A run function with a parameter `workdir` gets a
    folder for checkpoints that lasts until the run has finished. Raises RunError, at the end, listing the
    runs that failed with their log, or saying that the scheduler was lost; ValueError for one that does not answer.
    """
    runs = list(dict.fromkeys(runs))
    for run in runs:
        if not isinstance(run, Run):
            raise TypeError(f"runs: {run!r} is not a Run; make them with grid.product")
    if workers is not None:
        from vsmd import checks  # loads torch, which a run that needs none should not pay for

        workers = checks.positive_int("workers", workers)
    refresh = os.environ.get("REFRESH", "") not in ("", "0") if refresh is None else refresh
    scheduler = os.environ.get("VSMD_SCHEDULER", "") if scheduler is None else scheduler
    store.declared.update({run.key: run for run in runs})
    ASKED.update({run.key: None for run in runs})
    left_over(store)
    states = store.states(runs)
    wanted = {"missing", "stale"} if refresh else {"missing"}
    todo = [run for run in runs if states[run.key] in wanted]
    failed: dict[str, str] = {}
    if todo:
        packages = {run.function.split(".")[0].split(":")[0] for run in todo}
        bar = Progress(len(runs), len(runs) - len(todo), progress)
        with contextlib.closing(bar):
            place = launcher("" if source else scheduler, store.cache, packages, workers, bar.say, source)
            failed = _Driver(store, place, wanted, bar, labels(runs), source is None).work(todo)
    status = store.status(runs)
    if failed:
        lines = "\n".join(f"  {line}" for line in failed.values())
        raise RunError(f"{len(failed)} of {len(runs)} runs failed (the others are stored):\n{lines}")
    if status.stale and source is None:
        print(f"{status.stale} of {status.total} runs are stale (other code made them): REFRESH=1 runs them again")
    return status


def spool(store: Store, key: str) -> Path:
    """Where the worker of a run leaves its result."""
    return store.cache / "spool" / f"{key}.json"


def left_over(store: Store) -> None:
    """Store results that a killed driver left in the spool, unless there are fresh rows of the run, or a driver of it.

    One that is no result of a run is put aside as *.damaged, and a printed line says so.
    """
    for path in sorted((store.cache / "spool").glob("[0-9a-f]*.json")):
        running = try_lock(store.cache / "running" / f"{path.stem}.lock")
        if running is None:
            continue
        try:
            result = Finished.read(path.read_text(encoding="utf-8"), os.path.relpath(path))
            state = store.states([result.run])[result.run.key]
            if state == "missing" or (state == "stale" and not store.is_stale(result.entry)):
                store.add(result)
            path.unlink()
        except FileNotFoundError:
            pass  # its driver has stored it meanwhile
        except ValueError as error:
            os.replace(path, path.with_suffix(".damaged"))
            print(f"{error}; put aside as {path.stem}.damaged")
        finally:
            os.close(running)


@dataclass
class _Flight:
    run: Run
    handle: Handle
    lock: int


@dataclass
class _Driver:
    """Hands runs to a launcher and stores what comes back."""

    store: Store
    place: Launcher
    wanted: set[str]
    bar: Progress
    names: dict[str, str]
    handed: bool  # results come through the spool; older sources write the store themselves
    flights: list[_Flight] = field(default_factory=list)
    failed: dict[str, str] = field(default_factory=dict)
    tries: Counter[str] = field(default_factory=Counter)

    def work(self, todo: list[Run]) -> dict[str, str]:
        """Execute `todo`; why those failed that did, by key. Raises RunError where the launcher is lost."""
        pending, self.revision = list(todo), commit(Path.cwd())
        try:
            while pending or self.flights:
                while pending and self._start_next(pending):
                    pass
                for flight in [f for f in self.flights if f.handle.done()]:
                    self._land(flight, pending)
                self.bar.show([self.names[f.run.key] for f in self.flights] or [self.place.idle])
                time.sleep(self.place.poll)
        except Unreachable as error:
            lines = "".join(f"\n  {line}" for line in self.failed.values())
            raise RunError(f"{error}; finished runs are stored, the same command continues{lines}") from None
        finally:
            self.place.close()
            for flight in self.flights:
                os.close(flight.lock)
        return self.failed

    def _start_next(self, pending: list[Run]) -> bool:
        """Hand over the first pending run that no other process is executing, if there is a place for it."""
        with self.place.vacancy() as free:
            if not free:
                return False
            for run in list(pending):
                lock = try_lock(self.store.cache / "running" / f"{run.key}.lock")
                if lock is None:
                    continue  # another notebook is at it: look again later
                pending.remove(run)
                try:
                    if self.store.states([run])[run.key] in self.wanted:
                        self.flights.append(_Flight(run, self._submit(run, lock), lock))
                        return True
                except BaseException:
                    os.close(lock)
                    raise
                os.close(lock)
                self.bar.advance(False)  # another process has finished it meanwhile
        return False

    def _submit(self, run: Run, lock: int) -> Handle:
        order = {
            "function": run.function,
            "config": dict(run.config),
            "root": str(self.store.root),
            "profile": self.store.profile,
            "commit": self.revision,
            "spool": str(spool(self.store, run.key)),
        }
        self.tries[run.key] += 1
        return self.place.submit(order, lock)

    def _land(self, flight: _Flight, pending: list[Run]) -> None:
        """Store the result of a run that is done, or note why there is none, or let it go elsewhere."""
        key, why = flight.run.key, ""
        try:
            flight.handle.fetch()
            path = spool(self.store, key)
            if path.exists():
                self.store.add(Finished.read(path.read_text(encoding="utf-8"), os.path.relpath(path)))
                path.unlink()
            elif self.handed:
                why = "ended without a result"
        except Lost as lost:
            if self.tries[key] < TRIES:
                self.bar.say(f"{self.names[key]}: {lost}; it goes elsewhere")
                pending.insert(0, flight.run)
                return
            why = f"{lost}, {TRIES} times"
        except (RunFailed, ValueError) as error:
            why = str(error)
        finally:
            self.flights.remove(flight)
            os.close(flight.lock)
        if why:
            self.failed[key] = f"{self.names[key]}: {why}"
        self.bar.advance(bool(why))
