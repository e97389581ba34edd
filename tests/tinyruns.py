"""Run functions for the tests of experiments, reports and the driver: importable by the child processes."""

from __future__ import annotations

import ctypes
import os
import signal
import time
from pathlib import Path
from typing import Any

import numpy as np

from repro.grid import Result


def run(method: str, seed: int, slow: float = 0.0, log: str = "", extra: bool = False) -> Result:
    """Deterministic rows; `log` collects a line for each call, so that tests can count executions."""
    if log:
        with Path(log).open("a") as file:
            file.write(f"{method}-{seed}\n")
    time.sleep(slow)
    random = np.random.default_rng([seed, len(method)])
    rows: list[dict[str, Any]] = [
        {
            "method": method,
            "seed": seed,
            "nfe": nfe,
            "error": float(random.random() / nfe),
            "train_seconds": time.time(),
        }
        for nfe in (100, 20)
    ]
    if extra:
        rows[0]["note"] = "an extra, with comma"
    points = {f"{method}-{seed}": random.standard_normal((5, 2))}
    return Result({"tiny": rows, "tiny_curves": [{"method": method, "seed": seed, "step": 1}]}, points)


def held(seed: int, log: str) -> Result:
    """Note seed, folder and process in `log`, then wait until there is a file `log`.go."""
    with Path(log).open("a") as file:
        file.write(f"{seed} {Path.cwd()} {os.getpid()}\n")
    while not Path(f"{log}.go").exists():
        time.sleep(0.05)
    return Result({"tiny": [{"seed": seed, "error": seed / 3, "own_seconds": time.time()}]}, {f"p{seed}": np.eye(2)})


def fail(kind: str) -> Result:
    """Fail in one of several ways, or not."""
    if kind == "raise":
        raise ValueError("beta=-1: must be a finite number > 0")
    if kind == "killed":
        os.kill(os.getpid(), signal.SIGKILL)
    if kind == "type":
        return {"rows": []}  # type: ignore[return-value]
    return Result({"tiny": [{"kind": kind, "ok": True, "lost": float("nan")}]})


def checkpointed(log: str, workdir: Path) -> Result:
    """Stops the first time, after a checkpoint; the second time it continues."""
    state = workdir / "state.txt"
    if not state.exists():
        state.write_text("41")
        raise RuntimeError("stopped at 41")
    Path(log).write_text(str(workdir))
    value = int(state.read_text()) + 1
    rated = [{"train_seconds": 2.0, "images_per_second": 3.0}]
    return Result({"resumed": [{"value": value, "train_seconds": 1.0}], "rated": rated})


def pids(log: str, seed: int) -> Result:
    """Note our process, then sleep for long."""
    with Path(log).open("a") as file:
        file.write(f"{os.getpid()}\n")
    time.sleep(60)
    return Result({"tiny": []})


def overlap(log: str, seed: int) -> Result:
    """Note begin and end, to see how many runs were at it together."""
    with Path(log).open("a") as file:
        file.write("+\n")
        file.flush()
        time.sleep(0.15)
        file.write("-\n")
    return Result({"tiny": [{"seed": seed}]})


def resident() -> float:
    """Megabytes that this process holds."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 1e6


def free_below_a_kept_block() -> tuple[float, float]:
    """Take 190 MB and free all but the topmost block; megabytes held with them, and after."""
    libc = ctypes.CDLL(None)
    libc.malloc.restype, libc.malloc.argtypes = ctypes.c_void_p, [ctypes.c_size_t]
    libc.free.argtypes = [ctypes.c_void_p]
    blocks = [libc.malloc(65_536) for _ in range(2_900)]
    for block in blocks:
        ctypes.memset(block, 1, 65_536)
    full = resident()
    for block in blocks[:-1]:
        libc.free(block)
    return full, resident()


def freed() -> Result:
    """Waits for freed memory to go back: megabytes with it, after it was freed, and in the end."""
    (full, kept), end = free_below_a_kept_block(), time.monotonic() + 30
    while resident() > full - 150 and time.monotonic() < end:
        time.sleep(0.2)
    return Result({"tiny": [{"full": full, "kept": kept, "left": resident()}]})
