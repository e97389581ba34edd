"""Progress of runs: a text bar, or a small file that the driver of `python -m repro` shows."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import sys
import threading
import time
from pathlib import Path
from typing import Any

from repro.grid.files import read_json
from vsmd.durations import duration
from vsmd.files import write_atomic


class Progress:
    """Shows done / total runs, which are running, and the time left.

    VSMD_PROGRESS: a path, to write {"done", "total", "failed", "left" (seconds), "running", "said"} there and print
    nothing (so that executed notebooks are the same each time); "0" for nothing at all; unset for a tqdm
    text bar, which notebooks, logs and terminals all show well (less often where it is not a terminal).
    """

    seldom = 5.0  # seconds between two lines where the bar is not on a terminal
    most = 16  # runs that are named

    def __init__(self, total: int, done: int, show: bool) -> None:
        self.total, self.done, self.first, self.failed = total, done, done, 0
        self.start, self._said, self.lines = time.monotonic(), ("", -1), list[str]()
        target = os.environ.get("VSMD_PROGRESS", "")
        self.file = Path(target) if target not in ("", "0") else None
        self.bar: Any = None
        if show and target == "" and done < total:
            from tqdm import tqdm

            self.bar = tqdm(
                total=total,
                initial=done,
                unit="run",
                smoothing=0,
                leave=False,
                file=sys.stderr,
                dynamic_ncols=True,
                mininterval=0.2 if sys.stderr.isatty() else self.seldom,
                ascii=not sys.stderr.isatty() or None,
                bar_format="{n_fmt}/{total_fmt} runs |{bar:20}| {elapsed} (left {remaining}){postfix}",
            )

    @property
    def left(self) -> float | None:
        """Seconds left, from the mean of the runs finished here; None before the first."""
        count = self.done - self.first
        return (time.monotonic() - self.start) / count * (self.total - self.done) if count else None

    def say(self, line: str) -> None:
        """A line about something that went wrong and was mended."""
        self.lines.append(line)
        self._said = ("", -1)
        if self.file is None and os.environ.get("VSMD_PROGRESS", "") != "0":
            from tqdm import tqdm

            tqdm.write(line, file=sys.stderr)

    def show(self, running: list[str]) -> None:
        """Show what is running now; cheap enough to call ten times a second."""
        more = [f"{len(running) - self.most} more"] if len(running) > self.most else []
        text = " · ".join(running[: self.most] + more)
        if self.bar is not None:
            self.bar.set_postfix_str(text, refresh=False)
            if time.monotonic() - self.bar.last_print_t >= self.bar.mininterval:
                self.bar.refresh()
                self.bar.last_print_t = time.monotonic()
        if self.file is not None and self._said != (text, self.done):
            left = self.left
            state = {"done": self.done, "total": self.total, "failed": self.failed, "left": left, "running": text}
            write_atomic(self.file, json.dumps(state | {"said": self.lines}))
        self._said = (text, self.done)

    def advance(self, failed: bool) -> None:
        """One run more has ended."""
        self.done, self.failed = self.done + 1, self.failed + failed
        if self.bar is not None:
            self.bar.update(1)

    def close(self) -> None:
        """Remove the bar."""
        if self.bar is not None:
            self.bar.close()
        if self.file is not None:
            self.file.unlink(missing_ok=True)


class Watch(threading.Thread):
    """Shows which run a notebook is at, and keeps the peak memory of everything that this driver has started."""

    def __init__(self, title: str, progress: Path) -> None:
        super().__init__(daemon=True)
        self.title, self.progress, self.peak, self.done = title, progress, 0.0, threading.Event()
        self._start_time, self._lines, self._when = time.monotonic(), 0, 0.0

    def run(self) -> None:
        while not self.done.wait(0.5):
            self.peak = max(self.peak, tree_mb())
            self._show()

    def _show(self) -> None:
        elapsed = time.monotonic() - self._start_time
        text = f"{self.title}: {elapsed:.0f} s"
        state = None
        with contextlib.suppress(ValueError, OSError):
            state = read_json(self.progress)
        if state:
            self._pass_on(state["said"])
            left = "" if state["left"] is None else f", {duration(state['left'])} left"
            failed = f", {state['failed']} failed" if state["failed"] else ""
            text += f", run {state['done']} of {state['total']} done{failed}{left}: {state['running']}"
        if sys.stderr.isatty():
            width = max(20, shutil.get_terminal_size().columns - 1)
            print(f"\r\x1b[K{text[:width]}", end="", file=sys.stderr, flush=True)
        elif state and time.monotonic() - self._when >= 15:  # a log: seldom, a line each
            print(text, file=sys.stderr, flush=True)
            self._when = time.monotonic()

    def _pass_on(self, lines: list[str]) -> None:
        """Print lines that were not printed before; each grid of a notebook begins a list of its own."""
        begin = "\r\x1b[K" if sys.stderr.isatty() else ""
        for line in lines[self._lines if len(lines) >= self._lines else 0 :]:
            print(f"{begin}{line}", file=sys.stderr, flush=True)
        self._lines = len(lines)

    def finish(self) -> None:
        self.done.set()
        self.join()
        if sys.stderr.isatty():
            print("\r\x1b[K", end="", file=sys.stderr, flush=True)


def tree_mb() -> float:
    """Resident memory of our descendants in MB (0 without psutil, which comes with ipykernel)."""
    try:
        import psutil  # type: ignore[import-untyped]
    except ImportError:
        return 0.0
    total = 0
    for child in psutil.Process().children(recursive=True):
        with contextlib.suppress(psutil.Error):
            total += child.memory_info().rss
    return total / 1e6
