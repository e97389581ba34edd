"""Holiday features: the right days, the days that look back at them, the waves of a day, and unknown countries."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from vsmd.data.calendars import DAYS_BEFORE, HARMONICS, holiday_features
from vsmd.data.panels import Panel, from_wide


def test_days_of_a_year() -> None:
    """Germany's public holidays of all states in 2016, by hand."""
    stamps = pd.date_range("2016-01-01", "2016-12-31", freq="D")
    today, yesterday, week = holiday_features(stamps, "DE")
    days = [f"{stamp:%m-%d}" for stamp in stamps[today == 1]]
    assert days == ["01-01", "03-25", "03-28", "05-01", "05-05", "05-16", "10-03", "12-25", "12-26"]
    assert set(today) == {0.0, 1.0}
    assert np.array_equal(yesterday[1:], today[:-1])
    assert np.array_equal(week[7:], today[:-7])
    assert yesterday[0] == 0  # New Year's Eve is none
    assert week[0] == week[1] == 1  # 25 and 26 December of the year before


def test_a_state_has_more() -> None:
    stamps = pd.date_range("2016-01-06", periods=1, freq="D")  # Epiphany, in Bavaria
    assert holiday_features(stamps, "DE-BY")[0, 0] == 1
    assert holiday_features(stamps, "DE")[0, 0] == 0


def test_within_days_the_effect_may_vary() -> None:
    stamps = pd.date_range("2016-12-25 00:00", periods=48, freq="h")
    features = holiday_features(stamps, "DE")
    assert features.shape == (len(DAYS_BEFORE) * (1 + 2 * HARMONICS), 48)
    hour = np.arange(48) % 24
    assert np.allclose(features[1], np.sin(2 * np.pi * hour / 24))
    assert np.allclose(features[4], np.cos(4 * np.pi * hour / 24))
    assert np.allclose(features[5, :24], 0)  # Christmas Eve is none
    assert np.allclose(features[5, 24:], 1)


@pytest.mark.parametrize("country", ["XX", "Germany!", "DE-XX", ""])
def test_unknown_countries_are_one_line(country: str) -> None:
    with pytest.raises(ValueError, match=f"country='{country}': must be an ISO code") as caught:
        holiday_features(pd.date_range("2016-01-01", periods=3), country)
    assert "\n" not in str(caught.value)


def hourly(windows: int = 2) -> Panel:
    index = pd.date_range("2016-12-20", periods=240, freq="h")
    values = np.random.default_rng(0).standard_normal((240, 2)).cumsum(0)
    return from_wide(pd.DataFrame(values, index=index), "h", 24, windows=windows)


def test_a_panel_knows_its_holidays_ahead() -> None:
    panel = hourly().with_holidays("DE")
    assert hourly().num_feat_dynamic_real == 0
    assert panel.num_feat_dynamic_real == 15
    assert panel.features is not None
    flagged = panel.dates(0, 264)[panel.features[0] == 1]
    assert {str(day)[:10] for day in flagged} == {"2016-12-25", "2016-12-26"}
    for past, end in zip(panel.histories, panel.ends):
        assert past["feat_dynamic_real"].shape == (15, end + 24)  # over the horizon
    (train,) = panel.train
    assert train["feat_dynamic_real"].shape == (15, panel.first)  # as GluonTS's estimators want it
    inner = panel.validation(1)
    assert inner.features is not None
    assert np.array_equal(inner.features, panel.features[:, : panel.first])
    assert panel.with_holidays("FR").num_feat_dynamic_real == 30


@pytest.mark.parametrize("features", [np.zeros(240), np.zeros((1, 239)), np.full((1, 240), np.nan)])
def test_bad_features(features: np.ndarray) -> None:
    panel = hourly()
    with pytest.raises(ValueError, match=r"features: shape .* must be \(features, 240\) finite numbers"):
        Panel("p", "h", panel.start, panel.values, panel.names, 24, 2, features=features)


@pytest.mark.parametrize(
    ("freq", "period", "last", "following"),
    [
        ("W", "W", "2023-10-29", ["2023-11-05", "2023-11-12"]),
        ("ME", "M", "2016-08-31", ["2016-09-30", "2016-10-31"]),
        ("MS", "M", "2016-08-01", ["2016-09-01", "2016-10-01"]),
        ("3ME", "3M", "2016-08-31", ["2016-11-30", "2017-02-28"]),
        ("YE", "Y", "2016-12-31", ["2017-12-31", "2018-12-31"]),
        ("B", "B", "2016-08-31", ["2016-09-01", "2016-09-02"]),
        ("24h", "D", "2016-08-31T16:00", ["2016-09-01T16:00", "2016-09-02T16:00"]),
    ],
)
def test_stamps_keep_their_side_of_the_period(freq: str, period: str, last: str, following: list[str]) -> None:
    index = pd.date_range(end=last, periods=9, freq=freq)
    panel = from_wide(pd.Series(np.arange(9.0), index), period, 2, windows=1)
    assert panel.dates(9, 2).tolist() == pd.DatetimeIndex(following).astype("datetime64[ns]").to_numpy().tolist()
    gap = from_wide(pd.Series(np.arange(8.0), index.delete(3)), period, 2, windows=1, gaps="missing")
    assert gap.dates(0, 9).tolist() == index.astype("datetime64[ns]").to_numpy().tolist()
    assert gap.dates(9, 2).tolist() == panel.dates(9, 2).tolist()
