"""Public holidays as real features that are known in advance."""

from __future__ import annotations

import numpy as np
import pandas as pd

DAYS_BEFORE = (0, 1, 7)  # a holiday matters on its day, the day after, and where last week's value is looked at
HARMONICS = 2  # of the day, by which its effect may vary over the hours


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
        raise ValueError(
            f"country={country!r}: must be an ISO code that the holidays package knows, such as 'DE' or 'DE-BY'"
        ) from None
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
