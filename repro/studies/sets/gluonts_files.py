"""Panels in GluonTS's files, as the benchmarks have them: a folder or .tar.gz with `train` and `test`.

They hold JSON lines, one a series. The test part holds every series once a window, each time `prediction_length` steps
longer.
"""

from __future__ import annotations

import json
import tarfile
import zlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from vsmd import checks
from vsmd.data.calendars import as_period
from vsmd.data.panels import Panel
from vsmd.data.tables import LARGEST, bounded, check_cells

SUFFIXES = (".json", ".jsonl", ".json.gz", ".jsonl.gz")
Item = tuple[str, np.ndarray]  # start and values


def read(path: Path, name: str, freq: str, prediction_length: int) -> Panel:
    """The panel that a folder or archive holds, its series in the order of the training part.

    Series may start at different times (earlier values are missing) but end together.

    path: the folder, or .tar.gz.
    name: of the panel.
    freq, prediction_length: frequency and horizon; the files' metadata have several names for them.
    Raises ValueError, in one line that names the path, for damaged files, for series that end apart, and for a test
    part that does not extend the training part.
    """
    train, test = _series(path, "train"), _series(path, "test")
    try:
        return _panel(train, test, name, freq, prediction_length)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None


def _panel(train: list[Item], test: list[Item], name: str, freq: str, prediction_length: int) -> Panel:
    count, horizon = len(train), checks.positive_int("prediction_length", prediction_length)
    if not count or not test or len(test) % count:
        raise ValueError(f"{count} training and {len(test)} test series; must be as many in each test window")
    last = test[-count:]  # the longest: earlier windows are its beginnings
    lengths = [len(target) for _, target in test[::count]]
    if (np.diff(lengths) != horizon).any():
        raise ValueError(f"test windows of lengths {lengths}; must be {horizon} steps apart")
    begins = [as_period(start, freq) for start, _ in train]
    origin = min(begins)
    offsets = [(begin.ordinal - origin.ordinal) // origin.freq.n for begin in begins]
    for split, series in (("training", train), ("test", last)):
        ends = {offset + len(target) for offset, (_, target) in zip(offsets, series)}
        if len(ends) > 1:
            raise ValueError(f"{split} series of differing lengths: {min(ends)} … {max(ends)} steps")
    pairs = [(target, past) for (_, target), (_, past) in zip(last, train)]
    names = tuple(f"series {i + 1}" for i in range(count))
    windows, end = len(test) // count, offsets[0] + len(last[0][1])
    short = end - windows * horizon < offsets[0] + len(train[0][1])
    if apart := [n for n, (t, p) in zip(names, pairs) if short or not _extends(t, p)]:
        raise ValueError(f"the test part does not extend the training part in {checks.some(apart)}")
    check_cells(count, end)
    values = np.full((count, end), np.nan)
    for row, offset, (target, _) in zip(values, offsets, pairs):
        row[offset:] = target
    return Panel(name, freq, origin, values, names, horizon, windows)


def _extends(target: np.ndarray, past: np.ndarray) -> bool:
    return np.allclose(target[: len(past)], past, rtol=1e-6, equal_nan=True)


def _series(path: Path, split: str) -> list[Item]:
    """Start and values of the series in all files of `train` or `test`."""
    series, size = [], 0
    try:
        for data in _files(path, split):
            if (size := size + len(data)) > LARGEST:
                raise ValueError(f"more than {LARGEST >> 20} MiB in {split}, which is the bound")
            for line in data.splitlines():
                item = json.loads(line)
                series.append((str(item["start"]), np.array(item["target"], dtype=np.float64, ndmin=1)))
                if series[-1][1].ndim != 1:
                    raise ValueError("a target must be one row of numbers")
    except RecursionError:
        raise ValueError(f"{path}: is damaged or another file (nested too deeply)") from None
    except (OSError, EOFError, zlib.error, tarfile.TarError, ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{path}: is damaged or another file ({' '.join(str(error).split())[:100]})") from None
    return series


def _files(path: Path, split: str) -> Iterator[bytes]:
    """Contents of the data files of `train` or `test`, ordered by name; nothing is extracted."""

    def wanted(name: str) -> bool:
        return name.endswith(SUFFIXES) and not name.startswith((".", "_"))

    if path.is_dir():
        for file in sorted((path / split).iterdir()):
            if wanted(file.name):
                if not file.is_file():
                    raise ValueError(f"{file.name} is no regular file")
                with file.open("rb") as opened:
                    yield bounded(opened, file.name)
        return
    if not path.is_file():
        raise ValueError("there is no such folder or file")
    with tarfile.open(path) as archive:
        for member in sorted(archive.getmembers(), key=lambda m: m.name):
            *_, folder, name = ("", "", *member.name.split("/"))
            if folder == split and wanted(name) and (data := archive.extractfile(member)) is not None:
                yield bounded(data, name)
