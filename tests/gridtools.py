"""For tests of grids: reading tables and logs, waiting for what other processes do."""

from __future__ import annotations

import csv
import io
import os
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable
from itertools import count
from pathlib import Path
from typing import Any

from repro import grid

HERE = Path(__file__).parent


def lines(path: Path) -> list[str]:
    return path.read_text().splitlines() if path.exists() else []


def untimed(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return [{k: v for k, v in row.items() if not grid.is_timing(k)} for row in csv.DictReader(file)]


def wait_for(condition: Callable[[], bool], seconds: float = 20.0) -> None:
    limit = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < limit, "waited in vain"
        time.sleep(0.02)


def alive(pid: str) -> bool:
    try:
        return "State:\tZ" not in Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return False


def background(tmp_path: Path, body: str) -> subprocess.Popen[bytes]:
    """A process that executes runs, as a notebook's kernel does."""
    script = tmp_path / f"script{time.monotonic_ns()}.py"
    head = f"import sys; sys.path.insert(0, {str(HERE)!r})\nfrom repro.grid import Store, execute, product\n"
    script.write_text(head + f"store = Store({str(tmp_path / 'r')!r})\n" + textwrap.dedent(body))

    def interruptible() -> None:  # a shell's background job ignores SIGINT, and hands that on
        signal.signal(signal.SIGINT, signal.SIG_DFL)

    command = [sys.executable, str(script)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, preexec_fn=interruptible)


def files(root: Path) -> dict[str, object]:
    """Tables and points of a store by name: bytes, but tables with columns that time something without these."""
    paths = [*root.glob("tables/*.csv"), *root.glob("points/*")]
    rows = {str(path.relative_to(root)): path.read_bytes() for path in paths}
    timed = (name for name, content in rows.items() if any(map(grid.is_timing, header(content, name))))
    return {**rows, **{name: untimed(root / name) for name in timed}}


def header(content: bytes, name: str) -> list[str]:
    """The columns of a table; none for what is no table."""
    return next(csv.reader(io.StringIO(content.decode()))) if name.endswith(".csv") else []


def stops_at(n: int) -> Callable[[Any, Any], None]:
    """An `os.replace` that is interrupted in place of its n-th call, from 0."""
    real, calls = os.replace, count()

    def replace(source: Any, target: Any) -> None:
        if next(calls) == n:
            raise KeyboardInterrupt
        real(source, target)

    return replace
