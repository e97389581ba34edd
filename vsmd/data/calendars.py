"""Public holidays as real features that are known in advance: Mondays that are Sundays."""

from __future__ import annotations

import numpy as np
import pandas as pd

DAYS_BEFORE = (0, 1, 7)  # a holiday matters on its day, the day after, and where last week's value is looked at
HARMONICS = 2  # of the day, by which its effect may vary over the hours


def holiday_features(stamps: pd.DatetimeIndex, country: str) -> np.ndarray:
    """Features (F, T) at T time stamps: was it a public holiday 0, 1, 7 days before; within days, times waves of a day.

    country: an ISO 3166 code that the `holidays` package knows, or one with a subdivision, "DE" or "DE-BY". F = 3 for
    stamps that all have one time of day, else 3 (1 + 2 HARMONICS). Raises ValueError for a code that is not known.
    """
    import holidays

    code, _, part = country.partition("-")
    try:
        known = holidays.country_holidays(code, subdiv=part or None)
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
        there = pd.Series([(d - pd.Timedelta(days=before)).date() in known for d in dates], index=dates, dtype=float)
        features += [there.loc[days].to_numpy() * wave for wave in waves]
    return np.stack(features)
