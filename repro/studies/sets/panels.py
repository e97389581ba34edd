"""The panels of the studies by name: three benchmarks of the literature, SimBench profiles, generated ones."""

from __future__ import annotations

import hashlib
import os
import socket
import tarfile
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from repro.studies.sets import gluonts_files
from repro.studies.sets.shaped_panels import electricity_shaped, solar_shaped
from vsmd import checks, messages
from vsmd.data import panel_sources
from vsmd.data.arrays import read
from vsmd.data.panels import Panel

PATIENCE = 10.0  # seconds without a byte, after which a download is given up


@dataclass(frozen=True)
class Benchmark:
    """What a benchmark must be. steps: length of its training part; digest: of its values in float32, where known."""

    freq: str
    series: int
    steps: int
    prediction_length: int
    windows: int
    digest: str | None = None


BENCHMARKS = {  # the splits of Salinas et al. 2019
    "exchange_rate_nips": Benchmark(
        "B", 8, 6_071, 30, 5, "4f619949566023ce793cbb2c18e1f53148617c43b2666e57395ec75c849b87ea"
    ),
    "solar_nips": Benchmark("h", 137, 7_009, 24, 7),
    "electricity_nips": Benchmark("h", 370, 5_833, 24, 7),
}


def benchmark(name: str) -> Panel:
    """A benchmark of the literature: "exchange_rate_nips" (8 series, daily), "solar_nips" (137) or "electricity_nips"
    (370, hourly).

    Read from the folder VSMD_DATA – `<name>/` or `<name>.tar.gz`, in GluonTS's files – or else from GluonTS's own
    folder, into which `gluonts.dataset.repository` downloads it once. Raises FileNotFoundError if it can be had from
    neither, ValueError if it is damaged or another data set.
    """
    expected = BENCHMARKS[checks.one_of("name", name, BENCHMARKS)]
    path = locate(name)
    panel = gluonts_files.read(path, name, expected.freq, expected.prediction_length)
    sizes, wanted = (panel.dim, panel.first, panel.windows), (expected.series, expected.steps, expected.windows)
    if sizes != wanted:
        raise ValueError(f"{path}: holds (series, training steps, windows) {sizes}; {name} has {wanted}")
    digest = hashlib.sha256(np.ascontiguousarray(panel.values, dtype="<f4").tobytes()).hexdigest()
    if expected.digest not in (None, digest):
        raise ValueError(f"{path}: is damaged or another data set (SHA-256 of its values differs)")
    return panel


def simbench(kind: str) -> Panel:
    """Hourly SimBench profiles of 2016, "load" (95) or "renewables" (42): 8,784 hours, 7 test windows of 24.

    From `simbench_hourly/<kind>_hourly.npz` in the folder VSMD_DATA (ODbL; partly derived profiles): stand-ins for the
    electricity and solar panels, and named so. Loads are German ones and know the public holidays of that country.
    Raises FileNotFoundError if they are not there, ValueError naming the file if it is damaged or another one.
    """
    file = f"simbench_hourly/{checks.one_of('kind', kind, ('load', 'renewables'))}_hourly.npz"
    folder = os.environ.get("VSMD_DATA")
    if not folder or not (Path(folder) / file).exists():
        where = f"in VSMD_DATA={folder!r}" if folder else "VSMD_DATA is not set"
        raise FileNotFoundError(
            f"simbench_{kind}: not found, {where}; point VSMD_DATA to a folder that holds {file} "
            "(hourly means of the profiles of the simbench package: values (hours, series), names, start)"
        )
    arrays = read(f"simbench_{kind}", Path(folder) / file, ("values", "names", "start"))
    try:
        values, names, start = arrays["values"].T, tuple(map(str, arrays["names"])), str(arrays["start"])
        profiles = Panel(f"simbench_{kind}", "h", start, values, names, prediction_length=24, windows=7)
    except (KeyError, TypeError, ValueError) as error:
        said = f"{error} is missing" if isinstance(error, KeyError) else messages.line(error, 120)
        raise ValueError(f"{Path(folder) / file}: is damaged or another file ({said})") from None
    return profiles.with_holidays("DE") if kind == "load" else profiles


def locate(name: str) -> Path:
    """Where the data set `name` lies: folder or archive in VSMD_DATA, else GluonTS's own folder, downloaded if it must.

    Raises FileNotFoundError, one line: what was looked for and where, why it was not downloaded, how to provide it.
    """
    folder = os.environ.get("VSMD_DATA")
    if folder:
        for path in (Path(folder) / name, Path(folder) / f"{name}.tar.gz"):
            if path.exists():
                return path
    sought = f"neither {name}/ nor {name}.tar.gz in VSMD_DATA={folder!r}" if folder else "VSMD_DATA is not set"
    try:
        return _download(name)
    except (OSError, EOFError, zlib.error, tarfile.TarError, ImportError, ValueError) as error:
        reason = " ".join(str(error).split())[:120] or type(error).__name__
    raise FileNotFoundError(
        f"{name}: not found, {sought}, and GluonTS could not download it ({reason}); offline, point VSMD_DATA to a "
        f"folder that holds {name}/ or {name}.tar.gz, as gluonts.dataset.repository.get_dataset({name!r}) leaves it"
    )


def _download(name: str) -> Path:
    """GluonTS's folder of a data set of its repository, made at the first call; `PATIENCE` without a byte ends it."""
    from gluonts.dataset.repository.datasets import materialize_dataset

    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(PATIENCE)
    try:
        return Path(materialize_dataset(name))
    finally:
        socket.setdefaulttimeout(before)


PANELS: dict[str, Callable[[], Panel]] = {
    **panel_sources.PANELS,
    **{name: partial(benchmark, name) for name in BENCHMARKS},
    "simbench_load": partial(simbench, "load"),
    "simbench_renewables": partial(simbench, "renewables"),
    "electricity_shaped": electricity_shaped,
    "solar_shaped": solar_shaped,
}


def panel(name: str) -> Panel:
    """The panel `name`: one of `vsmd.data.panel_sources`, or one of the studies; ValueError for another name."""
    return PANELS[checks.one_of("panel", name, PANELS)]()
