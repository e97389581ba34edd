"""reports/reliability.csv and .md: the counts, where and with what they were made, memory over time."""

from __future__ import annotations

import csv
import io
import os
import platform
from collections.abc import Mapping, Sequence
from dataclasses import asdict, fields
from pathlib import Path

import numpy as np

from repro.grid.pool import commit
from torture import PARTS
from torture.tally import Row
from vsmd.durations import duration
from vsmd.files import write_atomic

Curves = Mapping[str, Sequence[tuple[float, float]]]
POINTS = 9  # of a curve that the table shows
HEAD = """# Reliability

Written by `make torture`; every row is an attempt to make the package lose work, give a wrong result in silence,
hang, or
end in an error that it does not document. A failure names the seed or the file that reproduces it.

"""


def write(folder: Path, rows: Sequence[Row], curves: Curves, seed: int, scale: float, seconds: float) -> Path:
    """Both files, each whole or not at all; the path of the words."""
    text = io.StringIO()
    writer = csv.DictWriter(text, [f.name for f in fields(Row)], lineterminator="\n")
    writer.writeheader()
    writer.writerows(asdict(row) | {"seconds": round(row.seconds, 1)} for row in rows)
    write_atomic(folder / "reliability.csv", text.getvalue())
    path = folder / "reliability.md"
    write_atomic(path, HEAD + about(rows, seed, scale, seconds) + "\n" + table(rows) + "\n" + memory(curves))
    return path


def about(rows: Sequence[Row], seed: int, scale: float, seconds: float) -> str:
    """Counts in all, machine, versions and commit."""
    import torch

    count, lost = sum(row.count for row in rows), sum(row.failures for row in rows)
    lines = [
        f"**{count:,} attempts, {lost} failures**, in {duration(seconds)}; seed {seed}, scale {scale:g}.",
        f"Commit {commit(Path.cwd()) or 'unknown'}; {os.cpu_count()} cores, {platform.system()} {platform.machine()}; "
        f"Python {platform.python_version()}, torch {torch.__version__}, numpy {np.__version__}.",
    ]
    return "\n".join([*lines, ""])


def table(rows: Sequence[Row]) -> str:
    """A Markdown table of all rows, with a line a part for its sum."""
    lines = ["| part | kind | what | count | failures | seconds |", "|---|---|---|---:|---:|---:|"]
    for part, title in PARTS.items():
        own = [row for row in rows if row.part == part]
        if own:
            sums = (sum(r.count for r in own), sum(r.failures for r in own), sum(r.seconds for r in own))
            lines.append(f"| **{part}** | | **{title}** | **{sums[0]:,}** | **{sums[1]}** | **{sums[2]:,.0f}** |")
        for row in own:
            what = " – ".join(filter(None, (row.what, row.note)))
            lines.append(f"| | {row.kind} | {what} | {row.count:,} | {row.failures} | {row.seconds:,.0f} |")
    return "\n".join(lines) + "\n"


def memory(curves: Curves) -> str:
    """A small table a curve: resident megabytes at some of its points."""
    parts = ["## Memory over time\n"] if curves else []
    for name, points in curves.items():
        chosen = [points[round(i)] for i in np.linspace(0, len(points) - 1, min(POINTS, len(points)))]
        head = " | ".join(f"{x:,.0f}" for x, _ in chosen)
        values = " | ".join(f"{y:,.1f}" for _, y in chosen)
        rule = "---:|" * len(chosen)
        parts.append(f"{name}, resident MB of its own\n\n| after | {head} |\n|---|{rule}\n| MB | {values} |\n")
    return "\n".join(parts)
