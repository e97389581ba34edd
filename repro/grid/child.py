"""The fresh process of a run: started, explained when it fails, stopped with what it started."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from vsmd.files import write_atomic

_THREADS = (
    "OMP_NUM_THREADS",
    "MKL_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "NUMEXPR_NUM_THREADS",
    "VECLIB_MAXIMUM_THREADS",
)
Process = subprocess.Popen[bytes]


def paths_here() -> list[str]:
    """Where this process finds its modules; a child looks in the same places."""
    return list(dict.fromkeys(p or os.getcwd() for p in sys.path))


def start(
    order: dict[str, Any], request: Path, log: Path, locks: Sequence[int] = (), source: Path | None = None
) -> Process:
    """Start the worker of an order, in one thread; it ends with us, however we end.

    request: the file in which the worker finds its order. log: the file of what it prints. locks: descriptors that it
    holds too. source: a folder whose packages it imports in place of the present ones.
    """
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
    env["PYTHONPATH"] = os.pathsep.join(dict.fromkeys([*first, *order.get("paths", []), *paths_here()]))
    with log.open("wb") as out:
        return subprocess.Popen(
            [sys.executable, "-P", "-m", _worker_of(source), str(request)],
            stdin=subprocess.PIPE,  # its end tells the child that we are gone
            stdout=out,
            stderr=subprocess.STDOUT,
            env=env,
            pass_fds=locks,
            start_new_session=True,
        )


def _worker_of(source: Path | None) -> str:
    """The worker that fits the packages which a run imports: older sources bring their own along."""
    old = source is not None and (source / "vsmd" / "experiments" / "worker.py").exists()
    return "vsmd.experiments.worker" if old else "repro.grid.worker"


def perform(order: dict[str, Any], request: Path, log: Path, unwanted: Callable[[], bool]) -> int:
    """Start the worker of an order and wait for its exit status, or stop it once it is `unwanted`."""
    process = start(order, request, log)
    try:
        while process.poll() is None and not unwanted():
            time.sleep(0.1)
    finally:
        stop([process])
    return process.wait()


def reason(status: int, log: Path) -> str:
    """The last line of the traceback (or the signal), and where the log is."""
    where = os.path.relpath(log)
    if status < 0:
        name = signal.Signals(-status).name
        return f"killed by {name}{' (out of memory?)' if name == 'SIGKILL' else ''} (log: {where})"
    lines = [line for line in log.read_text(errors="replace").splitlines() if line.strip()]
    return f"{lines[-1].strip() if lines else f'exit status {status}'} (log: {where})"


def stop(processes: Sequence[Process]) -> None:
    """Terminate those that are left, with what they started."""
    for sign, patience in ((signal.SIGTERM, 3.0), (signal.SIGKILL, 3.0)):
        alive = [p for p in processes if p.poll() is None]
        for process in alive:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(process.pid, sign)
        limit = time.monotonic() + patience
        while time.monotonic() < limit and any(p.poll() is None for p in alive):
            time.sleep(0.02)
