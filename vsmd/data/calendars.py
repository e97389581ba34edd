"""Frequencies and their periods; holidays and weekdays as real features that are known in advance."""

from __future__ import annotations

import re
import warnings
from typing import Any

import numpy as np
import pandas as pd

from vsmd import messages

DAYS_BEFORE = (0, 1, 7)  # a holiday matters on its day, the day after, and where last week's value is looked at
HARMONICS = 2  # of the day, by which its effect may vary over the hours


ALIAS = re.compile(r"(\d*)B?([MQYA])([SE])(?:-([A-Z]{3}))?")  # "MS", "QE-NOV": stamps at a period's start or end
MONTHS = ("JAN", "FEB", "MAR", "APR", "MAY", "JUN", "JUL", "AUG", "SEP", "OCT", "NOV", "DEC")
BELOW_DAY = ("h", "min", "s", "ms", "us", "ns")


def period_freq(freq: str) -> str:
    """The frequency of the periods whose starts or ends `freq` stamps: "MS" -> "M", "QS-FEB" -> "Q-JAN"."""
    if not isinstance(freq, str) or not (match := ALIAS.fullmatch(freq)):
        return freq
    count, base, side, month = match.groups()
    if month in MONTHS and side == "S":  # a year that starts in February ends in January
        month = MONTHS[MONTHS.index(month) - 1]
    return f"{count}{'Y' if base == 'A' else base}{'' if month is None else '-' + month}"


def as_period(start: Any, freq: str) -> Any:
    """`start` as a pandas Period of frequency `freq`, "MS" and the like included.

    Raises ValueError for an unknown frequency, a bad time stamp, and a Period of another frequency.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # business-day periods: GluonTS uses them too
        try:
            known = pd.Period("2000-01-03", freq=period_freq(freq) or "")  # None would be guessed
        except (ValueError, KeyError, AttributeError, TypeError):
            want = "must be a pandas period frequency such as 'B', 'D', 'h', 'MS'"
            raise ValueError(f"freq={messages.told(freq)}: {want}") from None
        if isinstance(start, pd.Period) and start.freq != known.freq:
            raise ValueError(f"freq={freq!r}: start={str(start)!r} is a period of freq={start.freqstr!r}; must agree")
        try:
            return pd.Period(start, freq=known.freqstr)
        except (ValueError, TypeError):
            raise ValueError(f"start={messages.told(start)}: must be a time stamp") from None


def later(period: Any, steps: int) -> Any:
    """The period `steps` after `period`, in steps of its frequency."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        return period + steps


def stamps(first: Any, count: int, like: pd.DatetimeIndex | None) -> pd.DatetimeIndex:
    """Time stamps of `count` periods from `first` on: so long after the start or before the end as all of `like` are in
    theirs; at the start without any, or where they stand differently.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # business-day periods: GluonTS uses them too
        periods: Any = pd.period_range(first, periods=count)
        base = periods.freqstr.lstrip("0123456789")
        ours, like = periods.asfreq(base, how="start"), periods[:0].to_timestamp() if like is None else like
        theirs = like.to_period(base)
        apart = {side: (like.as_unit("ns") - theirs.to_timestamp(how=side)).unique() for side in ("start", "end")}
        order = ("end", "start") if any(apart["start"][:1]) else ("start", "end")  # a month's last day is no fixed one
        side = next((side for side in order if len(apart[side]) == 1), None)
        return ours.to_timestamp() if side is None else ours.to_timestamp(how=side) + apart[side][0]


def split_freq(freq: str) -> tuple[int, str]:
    """Multiple and base of a frequency: "15min" -> (15, "min"); ValueError if it is unknown."""
    known = as_period("2000-01-03", freq)
    return int(known.freq.n), known.freqstr.lstrip("0123456789").split("-")[0]


def holiday_features(stamps: pd.DatetimeIndex, country: str) -> np.ndarray:
    """Features (F, T) at T time stamps: 1 where there was a public holiday 0, 1, 7 days before, else 0.

    Where the stamps have several times of day, also times sin and cos of 1 … HARMONICS turns a day: F = 3 or
    3 (1 + 2 HARMONICS).

    stamps: T of them.
    country: an ISO 3166 code that the `holidays` package knows, or one with a subdivision, "DE" or "DE-BY".
    Raises ValueError for a code that is not known.
    """
    import holidays

    code, _, subdivision = country.partition("-")
    try:
        public = holidays.country_holidays(code, subdiv=subdivision or None)
    except NotImplementedError:
        want = "must be an ISO code that the holidays package knows, such as 'DE' or 'DE-BY'"
        raise ValueError(f"country={messages.told(country)}: {want}") from None
    days = stamps.normalize()
    seconds = (stamps - days).total_seconds().to_numpy()
    waves = [np.ones(len(stamps))]
    if len(stamps) and np.ptp(seconds) > 0:
        angles = [2 * np.pi * k * seconds / 86_400 for k in range(1, HARMONICS + 1)]
        waves += [wave(angle) for angle in angles for wave in (np.sin, np.cos)]
    dates = days.unique()
    features = []
    for before in DAYS_BEFORE:
        earlier = [(date - pd.Timedelta(days=before)).date() for date in dates]
        is_holiday = pd.Series([date in public for date in earlier], index=dates, dtype=float)
        features += [is_holiday.loc[days].to_numpy() * wave for wave in waves]
    return np.stack(features)


def weekday_features(stamps: pd.DatetimeIndex) -> np.ndarray:
    """Features (F, T): 1 on a day of the week, one row for each that occurs but the first, else 0."""
    return np.stack([stamps.dayofweek == day for day in sorted(set(stamps.dayofweek))[1:] or [0]]).astype(float)
