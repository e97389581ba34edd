"""The child process of one run: `python -m repro.grid.worker ORDER.json`; what it returns goes into a spool.

An order names function and config, the commit and profile to be noted, the folder `root` under which checkpoints are
kept, and `spool`, the file to be written. The store is not touched: that is the driver's.
"""

from __future__ import annotations

import datetime
import importlib
import inspect
import json
import math
import os
import platform
import shutil
import signal
import sys
import threading
import time
from pathlib import Path
from typing import Any

from repro.grid import code
from repro.grid.runs import Run
from repro.grid.spool import Finished
from vsmd import memory
from vsmd.files import write_atomic


def _follow_parent() -> None:
    """End with the parent, however it ended: our standard input is a pipe that only it holds open."""

    def watch() -> None:
        while os.read(0, 1):
            pass
        os.killpg(0, signal.SIGTERM)
        time.sleep(3)
        os.killpg(0, signal.SIGKILL)

    threading.Thread(target=watch, daemon=True).start()


def _give_memory_back() -> None:
    """Trim also what does not train or sample with the package, GluonTS's networks say."""

    def repeat() -> None:
        while True:
            time.sleep(memory.SECONDS)
            memory.give_back()

    threading.Thread(target=repeat, daemon=True).start()


def device() -> str:
    """The GPU that this process computes on, or the processor."""
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_available() and torch.cuda.is_initialized():
        return str(torch.cuda.get_device_name())
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        name = next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        name = platform.processor() or platform.machine()
    return f"CPU, 1 thread ({name})"


def _peak_mb() -> float:
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return round(peak / (1e6 if sys.platform == "darwin" else 1e3), 1)


def _leave_out_times(result: Any) -> None:
    """nan for train_seconds of a run that was interrupted: a clock sees its last part only.

    Rows that state a rate of their own beside it have taken care.
    """
    for rows in getattr(result, "tables", {}).values():
        for row in rows:
            if "train_seconds" in row and "images_per_second" not in row:
                row["train_seconds"] = math.nan


def work(order: dict[str, Any]) -> None:
    """Execute one run and hand over what it returns."""
    run = Run(order["function"], order["config"])
    module_name, name = run.function.split(":")
    packages = {"vsmd", module_name.split(".")[0]}
    start = time.monotonic()
    module = importlib.import_module(module_name)
    if "torch" in sys.modules:
        sys.modules["torch"].set_num_threads(1)
    function = getattr(module, name, None)
    if not callable(function):
        raise ValueError(f"function={run.function!r}: {module_name} has no function {name!r}")
    before = code.loaded(packages)  # hashed now: what is edited while the run goes on is not what it used
    extra: dict[str, Any] = {}
    resumed = False
    checkpoints = Path(order["root"]) / ".cache" / "work"
    if "workdir" in inspect.signature(function).parameters:
        # Other code starts afresh: a checkpoint is continued only by the code that wrote it.
        state = code.source_hash(repr(sorted(before.items())))
        extra["workdir"] = checkpoints / f"{run.key}-{state}"
        extra["workdir"].mkdir(parents=True, exist_ok=True)
        resumed = any(extra["workdir"].iterdir())
    result = function(**run.config, **extra)
    if resumed:
        _leave_out_times(result)
    torch = sys.modules.get("torch")
    provenance = {
        "commit": order["commit"],
        "device": device(),
        "torch": str(getattr(torch, "__version__", "")),
        "python": platform.python_version(),
        "date": f"{datetime.datetime.now(datetime.UTC):%Y-%m-%dT%H:%M:%SZ}",
        "seconds": round(time.monotonic() - start, 2),
        "peak_rss_mb": _peak_mb(),
    }
    used = {**code.loaded(packages), **before}
    finished = Finished.of(run, result, profile=order["profile"], code=used, provenance=provenance)
    write_atomic(Path(order["spool"]), finished.text())
    for folder in checkpoints.glob(f"{run.key}-*"):
        shutil.rmtree(folder, ignore_errors=True)


def main() -> None:
    """Read the order and work; whatever goes wrong ends in a traceback and exit status 1."""
    _follow_parent()
    _give_memory_back()
    path = Path(sys.argv[1])
    order = json.loads(path.read_text(encoding="utf-8"))
    path.unlink()
    work(order)


if __name__ == "__main__":
    main()
