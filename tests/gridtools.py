"""For tests of grids: reading tables and logs, waiting for what other processes do."""

from __future__ import annotations

import csv
import time
from collections.abc import Callable
from pathlib import Path

from repro import grid


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
