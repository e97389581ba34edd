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
from vsmd.data import calendars
from vsmd.data.calendars import as_period, holiday_features, later, period_freq, split_freq, weekday_features
from vsmd.data.tables import check_cells, wide

if TYPE_CHECKING:
    from gluonts.dataset.common import Dataset


@dataclass(frozen=True)
class Panel:
    """d series on a calendar of frequency `freq` that starts at `start`: values (d, T), the last part for testing.

    NaN in values is a missing one. times: the true time stamps (T,) where they are no starts of periods (closed-up
    holidays, ends of months). features (F, T), or (F, T + prediction_length) if the future is to be forecast: real
    features known in advance, feat_dynamic_real of GluonTS. Raises ValueError for values or features of a wrong shape
    or infinite, for series without a value or constant in the training part, a horizon or windows < 1 or too long.
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
        if values.ndim != 2 or len(values) != len(self.names) or not len(values):
            raise ValueError(f"values: shape {values.shape}; must be ({len(self.names) or 'one or more'} series, time)")
        if infinite := [n for n, row in zip(self.names, values) if np.isinf(row).any()]:
            raise ValueError(f"values: infinite in {checks.some(infinite)}; NaN is what marks a missing value")
        if self.features is not None:
            shape = np.shape(self.features)
            steps = (values.shape[1], values.shape[1] + self.prediction_length)
            if len(shape) != 2 or shape[1] not in steps or not np.isfinite(self.features).all():
                said = f"(features, {steps[0]}) finite numbers, or {steps[1]} to forecast the future"
                raise ValueError(f"features: shape {shape}; must be {said}")
        if self.first < 2:
            need = self.prediction_length * self.windows + 2
            raise ValueError(f"values: {values.shape[1]} time steps; must be at least {need} for this test part")
        known = {n: row[~np.isnan(row)] for n, row in zip(self.names, values[:, : self.first])}
        if missing := [n for n, row in known.items() if not len(row)]:
            raise ValueError(f"values: all missing in the training part in {checks.some(missing)}; drop these series")
        if constant := [n for n, row in known.items() if np.ptp(row) == 0]:
            raise ValueError(f"values: constant in the training part in {checks.some(constant)}; drop these series")
        object.__setattr__(self, "freq", period_freq(self.freq))
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
    def future(self) -> Dataset:
        """All that is known, to forecast the `prediction_length` steps after its end from."""
        steps = self.values.shape[1]
        if self.features is not None and self.features.shape[1] == steps:
            raise ValueError(f"features: end with the panel; must have {steps + self.prediction_length} columns")
        return self._dataset([steps], self.prediction_length)

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
        return self._with(holiday_features(self._stamps, country))

    def with_weekdays(self) -> Panel:
        """The panel with the day of the week as features in addition to those it has: effects of trading days."""
        return self._with(weekday_features(self._stamps))

    @property
    def _stamps(self) -> pd.DatetimeIndex:
        return pd.DatetimeIndex(self.dates(0, self.values.shape[1] + self.prediction_length))

    def _with(self, features: np.ndarray) -> Panel:
        if self.features is not None:
            steps = self.features.shape[1]
            features = np.concatenate([self.features, features[:, :steps]])
        return dataclasses.replace(self, features=features)

    def dates(self, index: int, count: int) -> np.ndarray:
        """Time stamps of `count` steps from `index` on, datetime64 (count,); after the last, on as they were."""
        known = np.array([], "datetime64[ns]") if self.times is None else self.times[index : index + count]
        if len(known) == count:
            return known
        first = later(self.start, index)
        if self.times is not None:
            first = later(as_period(self.times[-1], self.freq), max(0, index - len(self.times)) + 1)
        like = None if self.times is None else pd.DatetimeIndex(self.times)
        following = calendars.stamps(first, count - len(known), like).to_numpy()
        return np.concatenate([known, following.astype("datetime64[ns]")])

    def _dataset(self, ends: list[int], ahead: int = 0) -> Dataset:
        items = [{"start": self.start, "target": self.values[:, :end], "item_id": f"{self.name}-{end}"} for end in ends]
        if self.features is not None:
            for item, end in zip(items, ends):
                item["feat_dynamic_real"] = self.features[:, : end + ahead]
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of GluonTS: its JSON reader, business-day periods
            from gluonts.dataset.common import ListDataset

            return ListDataset(items, freq=self.freq, one_dim_target=False)


def from_wide(
    source: pd.Series | pd.DataFrame | str | Path,
    freq: str,
    prediction_length: int,
    *,
    windows: int = 5,
    name: str = "panel",
    gaps: str = "error",
    csv: dict[str, Any] | None = None,
) -> Panel:
    """Your own panel: a table with one column a series, or a long one; empty cells are missing values.

    source: a Series, DataFrame, CSV (.gz) or parquet file, of 512 MiB and 2^27 values at most, whose index, first
        column or (in a frame) column of dates holds time stamps; or long, with unique_id, ds, y. With time zones,
        steps below one day are in UTC.
    freq: pandas frequency, such as "B", "D", "h", "MS".
    prediction_length, windows: steps of a test window, and how many stand at the end.
    name: of the panel.
    gaps: where time stamps are not `freq` apart, "error"; "missing" puts missing values between them; "close" takes the
        rows as consecutive, as trading days are.
    csv: arguments of `pandas.read_csv`; separator (, ; | or tab) and decimal comma are seen without.
    Raises ValueError for time stamps that cannot be read, are unsorted, duplicated or (by default) not consecutive, and
    for columns that are no numbers, have no value or never change in the training part.
    """
    checks.one_of("gaps", gaps, ("error", "missing", "close"))
    as_period("2000-01-03", freq)
    sizes = (checks.positive_int("prediction_length", prediction_length), checks.positive_int("windows", windows))
    try:
        start, values, names, times = _regular(wide(source, freq, csv), freq, gaps)
        return Panel(name, freq, start, values, names, *sizes, times)
    except (ValueError, FileNotFoundError) as error:
        label = source if isinstance(source, str | Path) else "source"
        kind = ValueError if isinstance(error, ValueError) else FileNotFoundError  # some subclasses take no message
        raise kind(f"{label}: {error}") from None


def _regular(frame: pd.DataFrame, freq: str, gaps: str) -> tuple[Any, np.ndarray, tuple[str, ...], np.ndarray]:
    """Start, values (d, T), names and true times of a wide table; ValueError where its steps are not regular."""
    index = pd.DatetimeIndex(frame.index)
    if index.hasnans or not len(index):
        raise ValueError("has rows without a time stamp, or no rows at all")
    if index.has_duplicates:
        clock = "; if clocks were put back then, frame.tz_localize tells the hours apart" * bool(np.any(index.hour))
        raise ValueError(f"time stamp {index[index.duplicated()][0]} is there more than once; keep one row{clock}")
    if not index.is_monotonic_increasing:
        raise ValueError("time stamps are not sorted; use frame.sort_index()")
    values = frame.to_numpy(dtype=np.float64, na_value=np.nan).T
    start, times, names = as_period(index[0], freq), index.to_numpy(), tuple(map(str, frame.columns))
    if gaps == "close":
        return start, values, names, times
    position = _steps(index, freq)
    steps = np.diff(position)
    if (same := steps == 0).any():
        i = int(same.argmax())
        raise ValueError(f"{index[i]} and {index[i + 1]} are one step of freq={freq!r}; keep one row a step")
    if (steps == 1).all():
        return start, values, names, times
    if gaps == "error":
        i = int((steps != 1).argmax()) + 1
        pair = f"{index[i]} does not follow {index[i - 1]}"
        raise ValueError(f"{pair} at freq={freq!r}; give gaps='missing' or gaps='close'")
    try:
        check_cells(len(values), position[-1] + 1)
    except ValueError as error:
        i = int(steps.argmax())
        raise ValueError(f"from {index[i]} to {index[i + 1]} all is missing: {error}") from None
    regular = np.full((len(values), position[-1] + 1), np.nan)
    regular[:, position] = values
    return start, regular, names, calendars.stamps(start, len(regular[0]), index).to_numpy()


def _steps(index: pd.DatetimeIndex, freq: str) -> np.ndarray:
    """Steps of `freq` from the first time stamp to each; a stamp between two steps counts for the earlier one."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        ordinals = np.asarray(index.to_period(period_freq(freq)).astype("int64"))
    return (ordinals - ordinals[0]) // split_freq(freq)[0]
