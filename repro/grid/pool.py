"""Execution of runs: a fresh process each, one process a core on the whole machine."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import stat
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from repro.grid.files import try_lock
from repro.grid.progress import Progress
from repro.grid.runs import Run, labels
from repro.grid.store import Status, Store
from vsmd.files import write_atomic

_THREADS = (
    "OMP_NUM_THREADS",
    "MKL_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "NUMEXPR_NUM_THREADS",
    "VECLIB_MAXIMUM_THREADS",
)
_POLL = 0.05  # seconds
ASKED: dict[str, None] = {}  # keys of all runs that this process has asked for


class RunError(RuntimeError):
    """Some runs failed; the message lists them. The others are stored."""


@dataclass
class _Child:
    run: Run
    process: subprocess.Popen[bytes]
    log: Path
    started: float


def slots_folder() -> Path:
    """Where the slots of this user's machine-wide pool are locked (VSMD_SLOTS, or in the temporary folder).

    Everybody can guess the name there, so the folder must be the user's own, closed to others and no link: else
    PermissionError.
    """
    if named := os.environ.get("VSMD_SLOTS"):
        return Path(named)
    folder = Path(tempfile.gettempdir()) / f"vsmd-slots-{os.getuid()}"
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    about = folder.lstat()
    if not stat.S_ISDIR(about.st_mode) or about.st_uid != os.getuid() or about.st_mode & 0o077:
        raise PermissionError(
            f"{folder}: must be a folder that this user owns and nobody else may enter; or set VSMD_SLOTS"
        )
    return folder


def _take_slot() -> int | None:
    for i in range(os.cpu_count() or 1):
        if (fd := try_lock(slots_folder() / f"{i}.lock")) is not None:
            return fd
    return None


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
) -> Status:
    """Execute those `runs` that `store` does not hold, each in a fresh process of one thread; return their status.

    workers: processes at once, at most and by default the number of cores. Every run also takes one of the
    machine's slots (one a core, shared by all of a user's notebooks and drivers), so nothing is ever
    oversubscribed. progress: show a bar (see `Progress`). refresh: run stale ones again too; default from
    the environment (REFRESH=1). source: a folder whose packages the runs import in place of the present ones.

    Each run is stored when it ends: an interruption loses only what was in flight, and Ctrl-C stops the
    children. A run that fails does not stop the others. A run function with a parameter `workdir` gets a
    folder for checkpoints that lasts until the run has finished. Raises RunError, at the end, listing the
    runs that failed with their log.
    """
    runs = list(dict.fromkeys(runs))
    for run in runs:
        if not isinstance(run, Run):
            raise TypeError(f"runs: {run!r} is not a Run; make them with grid.product")
    most = os.cpu_count() or 1
    if workers is not None:
        from vsmd import checks  # loads torch, which a run that needs none should not pay for

        workers = checks.positive_int("workers", workers)
    workers = min(workers or most, most)
    refresh = os.environ.get("REFRESH", "") not in ("", "0") if refresh is None else refresh
    store.declared.update({run.key: run for run in runs})
    ASKED.update({run.key: None for run in runs})
    states = store.states(runs)
    wanted = {"missing", "stale"} if refresh else {"missing"}
    todo = [run for run in runs if states[run.key] in wanted]
    failed: dict[str, str] = {}
    if todo:
        bar = Progress(len(runs), len(runs) - len(todo), progress)
        with contextlib.closing(bar):
            failed = _work(todo, store, workers, wanted, bar, labels(runs), source)
    status = store.status(runs)
    if failed:
        lines = "\n".join(f"  {line}" for line in failed.values())
        raise RunError(f"{len(failed)} of {len(runs)} runs failed (the others are stored):\n{lines}")
    if status.stale and source is None:
        print(f"{status.stale} of {status.total} runs are stale (other code made them): REFRESH=1 runs them again")
    return status


def _work(
    todo: list[Run],
    store: Store,
    workers: int,
    wanted: set[str],
    bar: Progress,
    names: dict[str, str],
    source: Path | None,
) -> dict[str, str]:
    pending, children, failed = list(todo), list[_Child](), dict[str, str]()
    revision = commit(Path.cwd())
    try:
        while pending or children:
            while pending and len(children) < workers:
                child = _start_next(pending, store, wanted, bar, revision, source)
                if child is None:
                    break
                children.append(child)
            for child in [c for c in children if c.process.poll() is not None]:
                children.remove(child)
                if child.process.returncode != 0:
                    failed[child.run.key] = f"{names[child.run.key]}: {_reason(child)}"
                bar.advance(child.process.returncode != 0)
            bar.show([names[c.run.key] for c in children])
            time.sleep(_POLL)
    finally:
        _stop(children)
    return failed


def _start_next(
    pending: list[Run], store: Store, wanted: set[str], bar: Progress, revision: str, source: Path | None
) -> _Child | None:
    """Start the first pending run that no other process is executing, if a slot is free."""
    slot = _take_slot()
    if slot is None:
        return None
    try:
        for run in list(pending):
            running = try_lock(store.cache / "running" / f"{run.key}.lock")
            if running is None:
                continue  # another notebook is at it: look again later
            try:
                pending.remove(run)
                if store.states([run])[run.key] in wanted:
                    return _start(run, store, revision, (slot, running), source)
                bar.advance(False)  # another process has finished it meanwhile
            finally:
                os.close(running)
    finally:
        os.close(slot)  # a child holds the lock through its own copy
    return None


def _start(run: Run, store: Store, revision: str, locks: tuple[int, ...], source: Path | None) -> _Child:
    log, request = store.cache / "logs" / f"{run.key}.log", store.cache / "running" / f"{run.key}.json"
    order = {
        "function": run.function,
        "config": dict(run.config),
        "root": str(store.root),
        "profile": store.profile,
        "commit": revision,
    }
    write_atomic(request, json.dumps(order))
    log.parent.mkdir(parents=True, exist_ok=True)
    env = {
        **os.environ,
        **dict.fromkeys(_THREADS, "1"),
        "PYTHONHASHSEED": "0",
        "MPLBACKEND": "agg",
        "VSMD_PROGRESS": "0",
    }
    first = [str(source)] if source else []
    env["PYTHONPATH"] = os.pathsep.join(dict.fromkeys([*first, *(p or os.getcwd() for p in sys.path)]))
    with log.open("wb") as out:
        process = subprocess.Popen(
            [sys.executable, "-P", "-m", _worker_of(source), str(request)],
            stdin=subprocess.PIPE,  # its end tells the child that we are gone
            stdout=out,
            stderr=subprocess.STDOUT,
            env=env,
            pass_fds=locks,
            start_new_session=True,
        )
    return _Child(run, process, log, time.monotonic())


def _worker_of(source: Path | None) -> str:
    """The worker that fits the packages which a run imports: older sources bring their own along."""
    old = source is not None and (source / "vsmd" / "experiments" / "worker.py").exists()
    return "vsmd.experiments.worker" if old else "repro.grid.worker"


def _reason(child: _Child) -> str:
    """The last line of the traceback (or the signal), and where the log is."""
    where = os.path.relpath(child.log)
    code = child.process.returncode
    if code < 0:
        name = signal.Signals(-code).name
        return f"killed by {name}{' (out of memory?)' if name == 'SIGKILL' else ''} (log: {where})"
    lines = [line for line in child.log.read_text(errors="replace").splitlines() if line.strip()]
    return f"{lines[-1].strip() if lines else f'exit status {code}'} (log: {where})"


def _stop(children: list[_Child]) -> None:
    """Terminate the children that are left, with what they started."""
    for sign, patience in ((signal.SIGTERM, 3.0), (signal.SIGKILL, 3.0)):
        alive = [c for c in children if c.process.poll() is None]
        for child in alive:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(child.process.pid, sign)
        limit = time.monotonic() + patience
        while time.monotonic() < limit and any(c.process.poll() is None for c in alive):
            time.sleep(0.02)
