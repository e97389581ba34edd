"""A small data set in GluonTS's files, as the benchmarks come."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import numpy as np

STEPS, HORIZON, WINDOWS = 40, 4, 2


def series() -> np.ndarray:
    return np.random.default_rng(0).standard_normal((3, STEPS + HORIZON * WINDOWS)).round(3)


def write(folder: Path, values: Any, zipped: bool = False, ends: tuple[int, ...] = (STEPS + 4, STEPS + 8)) -> Path:
    """The benchmark's layout: metadata that GluonTS itself refuses, a training part, each series once a window."""
    item = {"start": "2024-01-01 00:00:00"}
    lines = {
        "train": [{**item, "target": list(row[:STEPS])} for row in values],
        "test": [{**item, "target": list(row[:end])} for end in ends for row in values],
    }
    (folder / "metadata").mkdir(parents=True)
    (folder / "metadata" / "metadata.json").write_text('{"time_granularity": "h", "target": {"name": "target"}}')
    for part, items in lines.items():
        (folder / part).mkdir()
        (folder / part / "._data.json").write_bytes(b"\x00 a stray file")
        text = "".join(json.dumps(i) + "\n" for i in items).encode()
        (folder / part / ("data.json.gz" if zipped else f"{part}.json")).write_bytes(
            gzip.compress(text) if zipped else text
        )
    return folder
