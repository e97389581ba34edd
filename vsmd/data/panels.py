"""Panels of series, and `from_wide` for your own; named ones are in `vsmd.data.panel_sources`.

A panel is a table (series, time) on a regular calendar with a test part at its end: `windows` forecast windows of
`prediction_length` steps, one after the other. Models are trained on what precedes the first of them. NaN is a missing
value, anywhere: a series that starts late begins with them.
"""

from __future__ import annotations

import dataclasses
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from vsmd import checks
from vsmd.data.calendars import holiday_features

if TYPE_CHECKING:
    from gluonts.dataset.common import Dataset


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

    NaN in values is a missing one. times: the true time stamps (T,) where they are not simply `freq` apart (closed-up
    holidays); for pictures. features (F, T): real features known in advance, GluonTS's feat_dynamic_real. Raises
    ValueError for values or features of a wrong shape or infinite, for series without a value or constant in the
    training part, a horizon or windows < 1 or too long.
    """

    name: str
    freq: str
    start: Any
    values: np.ndarray
    names: tuple[str, ...]
    prediction_length: int
    windows: int
    times: np.ndarray | None = None
    features: np.ndarray | None = None

    def __post_init__(self) -> None:
        values = np.asarray(self.values, dtype=np.float64)
        checks.positive_int("prediction_length", self.prediction_length)
        checks.positive_int("windows", self.windows)
        if values.ndim != 2 or len(values) != len(self.names):
            raise ValueError(f"values: shape {values.shape}; must be ({len(self.names)} series, time)")
        if infinite := [n for n, row in zip(self.names, values) if np.isinf(row).any()]:
            raise ValueError(f"values: infinite in {some(infinite)}; NaN is what marks a missing value")
        if self.features is not None:
            shape = np.shape(self.features)
            if len(shape) != 2 or shape[1] != values.shape[1] or not np.isfinite(self.features).all():
                raise ValueError(f"features: shape {shape}; must be (features, {values.shape[1]}) finite numbers")
        if self.first < 2:
            need = self.prediction_length * self.windows + 2
            raise ValueError(f"values: {values.shape[1]} time steps; must be at least {need} for this test part")
        known = {n: row[~np.isnan(row)] for n, row in zip(self.names, values[:, : self.first])}
        if missing := [n for n, row in known.items() if not len(row)]:
            raise ValueError(f"values: all missing in the training part in {some(missing)}; drop these series")
        if constant := [n for n, row in known.items() if np.ptp(row) == 0]:
            raise ValueError(f"values: constant in the training part in {some(constant)}; drop these series")
        object.__setattr__(self, "values", values)
        object.__setattr__(self, "start", as_period(self.start, self.freq))

    @property
    def dim(self) -> int:
        """Number of series d."""
        return len(self.names)

    @property
    def num_feat_dynamic_real(self) -> int:
        """Number of real features known in advance; estimators take an argument of this name."""
        return 0 if self.features is None else len(self.features)

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
        return self._dataset(self.ends, self.prediction_length)

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
        features = None if self.features is None else self.features[:, : self.first]
        return dataclasses.replace(
            self, values=self.values[:, : self.first], windows=windows, times=times, features=features
        )

    def with_holidays(self, country: str) -> Panel:
        """The panel with features of the public holidays of a country ("DE", "DE-BY") in addition to those it has.

        Raises ValueError for a country that is not known.
        """
        features = holiday_features(pd.DatetimeIndex(self.dates(0, self.values.shape[1])), country)
        if self.features is not None:
            features = np.concatenate([self.features, features])
        return dataclasses.replace(self, features=features)

    def dates(self, index: int, count: int) -> np.ndarray:
        """Time stamps of `count` steps from `index` on, datetime64 (count,)."""
        if self.times is not None:
            return self.times[index : index + count]
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)  # business-day periods: GluonTS uses them too
            periods = pd.period_range(later(self.start, index), periods=count, freq=self.freq)
            return periods.to_timestamp().to_numpy().astype("datetime64[ns]")

    def _dataset(self, ends: list[int], ahead: int = 0) -> Dataset:
        items = [{"start": self.start, "target": self.values[:, :end], "item_id": f"{self.name}-{end}"} for end in ends]
        if self.features is not None:
            for item, end in zip(items, ends):
                item["feat_dynamic_real"] = self.features[:, : end + ahead]
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of GluonTS: its JSON reader, business-day periods
            from gluonts.dataset.common import ListDataset

            return ListDataset(items, freq=self.freq, one_dim_target=False)


def some(names: list[str]) -> str:
    """The first five names, and how many more there are."""
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
    """Your own panel: a table with one column a series; empty cells are missing values.

    source: a DataFrame, or a CSV or parquet file, whose index or first column holds time stamps.
    freq: pandas frequency, such as "B", "D", "h".
    prediction_length, windows: steps of a test window, and how many stand at the end.
    name: of the panel.
    gaps: where time stamps are not `freq` apart, "error"; "missing" puts missing values between them; "close" takes the
        rows as consecutive, as trading days are.
    Raises ValueError for time stamps that cannot be read, are unsorted, duplicated or (by default) not consecutive, and
    for columns that are no numbers, have no value or never change in the training part.
    """
    checks.one_of("gaps", gaps, ("error", "missing", "close"))
    frame = source if isinstance(source, pd.DataFrame) else _read(Path(source))
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
        raise ValueError(f"source: columns {some(other)} hold no numbers; drop them")
    start, values = as_period(index[0], freq), frame.to_numpy(dtype=np.float64).T
    times: np.ndarray | None = index.to_numpy()
    if gaps != "close":
        position = _steps(index, freq)
        if (same := np.diff(position) == 0).any():
            i = int(same.argmax())
            raise ValueError(
                f"source: {index[i]} and {index[i + 1]} are one step of freq={freq!r}; keep one row a step"
            )
        if (wrong := np.diff(position) != 1).any() and gaps == "error":
            i = int(wrong.argmax()) + 1
            pair = f"{index[i]} does not follow {index[i - 1]}"
            raise ValueError(f"source: {pair} at freq={freq!r}; give gaps='missing' or gaps='close'")
        if wrong.any():
            values = np.full((len(values), position[-1] + 1), np.nan)
            values[:, position] = frame.to_numpy(dtype=np.float64).T
            times = None
    names = tuple(map(str, frame.columns))
    return Panel(name, freq, start, values, names, prediction_length, windows, times)


def _read(path: Path) -> pd.DataFrame:
    """A CSV or parquet file; without a time index of its own, the first column is it."""
    if path.suffix not in (".parquet", ".pq"):
        return pd.read_csv(path, index_col=0)
    frame = pd.read_parquet(path)
    return frame if frame.index.dtype.kind == "M" else frame.set_index(frame.columns[0])


def _steps(index: pd.DatetimeIndex, freq: str) -> np.ndarray:
    """Steps of `freq` from the first time stamp to each; a stamp between two steps counts for the earlier one."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        ordinals = np.asarray(index.tz_localize(None).to_period(freq).astype("int64"))
    return (ordinals - ordinals[0]) // split_freq(freq)[0]
