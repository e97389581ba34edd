"""What a run reports while it trains: rows of a CSV file, TensorBoard where it is installed, and printed lines."""

from __future__ import annotations

import contextlib
import csv
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

from vsmd import files
from vsmd.durations import duration

COLUMNS = (
    "step", "images", "seconds", "images_per_second", "loss", "held_out_loss", "stiffness_min", "stiffness_mean",
    "stiffness_max",
)  # fmt: skip
LINE_EVERY = 5.0  # seconds between two printed lines


class Log:
    """Appends to `log.csv` in the run's folder; on resume, rows of steps that are done again are dropped.

    `seconds` counts training over all resumes. Rates and the time left are those since the last report.
    """

    def __init__(self, folder: Path, steps: int, batch_size: int) -> None:
        self.path, self.steps, self.batch_size = folder / "log.csv", steps, batch_size
        self.board = _board(folder)
        self.at, self._printed = 0, 0.0

    def begin(self, step: int) -> list[dict[str, str]]:
        """Training begins, or goes on, after `step`; the rows up to there."""
        rows = [row for row in _rows(self.path) if int(row["step"]) <= step]
        self.before = max((float(row["seconds"]) for row in rows), default=0.0)
        with files.replacing(self.path) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, COLUMNS)
            writer.writeheader()
            writer.writerows(rows)
        self.began = self.then = time.perf_counter()
        self.at = step
        return rows

    def report(self, step: int, loss: float) -> None:
        """The mean loss of the steps since the last report."""
        now = time.perf_counter()
        rate = (step - self.at) * self.batch_size / max(now - self.then, 1e-9)
        self.at, self.then = step, now
        self.row(step, loss=loss, images_per_second=rate)
        if now - self._printed >= LINE_EVERY or step == self.steps:
            self._printed = now
            left = (self.steps - step) * self.batch_size / rate
            print(
                f"step {step:,} of {self.steps:,} · loss {loss:.4f} · {rate:,.4g} images/s · {duration(left)} left",
                file=sys.stderr,
                flush=True,
            )

    def row(self, step: int, **cells: float) -> None:
        """One row more."""
        seconds = self.before + time.perf_counter() - self.began
        row = {"step": step, "images": step * self.batch_size, "seconds": round(seconds, 1)}
        row |= {name: float(f"{value:.6g}") for name, value in cells.items()}
        with self.path.open("a", newline="", encoding="utf-8") as file:
            csv.DictWriter(file, COLUMNS).writerow(row)
        if self.board is not None:
            for name, value in cells.items():
                self.board.add_scalar(name, value, step)

    def sheet(self, step: int, picture: np.ndarray) -> None:
        """A sheet of samples (height, width, 3) for TensorBoard."""
        if self.board is not None:
            self.board.add_image("samples", picture, step, dataformats="HWC")
            self.board.flush()

    def pause(self, seconds: float) -> None:
        """Leave out of the rate a time that was not spent on steps."""
        self.then += seconds


def _rows(path: Path) -> list[dict[str, str]]:
    """The rows of a log as far as it is whole; none where there is no log."""
    rows: list[dict[str, str]] = []
    ends = contextlib.suppress(csv.Error, OSError)
    with ends, files.regular(path).open(newline="", encoding="utf-8", errors="replace") as file:
        for row in csv.DictReader(file, restval="cut off"):
            with contextlib.suppress(ValueError, TypeError, KeyError):
                cells = {name: float(cell) for name, cell in row.items() if cell}
                if row["step"].isdecimal() and {*cells} <= {*COLUMNS} and cells["step"] + cells["seconds"] < np.inf:
                    rows.append(row)
    return rows


def _board(folder: Path) -> Any:
    """TensorBoard's writer, or None where it is not installed."""
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        print("TensorBoard is not installed: log.csv holds it all", file=sys.stderr)
        return None
    return SummaryWriter(str(folder / "tensorboard"))
