"""Generated stand-ins: the benchmarks' shape, nights, seasons, and correlation across series."""

from __future__ import annotations

import numpy as np
import pytest

from repro.studies.sets.panels import BENCHMARKS
from repro.studies.sets.shaped_panels import electricity_shaped, solar_shaped
from vsmd.data.panels import Panel


@pytest.mark.parametrize("make", [electricity_shaped, solar_shaped])
def test_shape_is_the_benchmarks(make: object) -> None:
    panel = make()  # type: ignore[operator]
    expected = BENCHMARKS[panel.name.replace("shaped", "nips")]
    measured = (panel.freq, panel.dim, panel.first, panel.prediction_length, panel.windows)
    assert measured == (expected.freq, expected.series, expected.steps, expected.prediction_length, expected.windows)
    assert np.isfinite(panel.values).all()
    assert panel.values.min() >= 0


def seasonal_gain(panel: Panel, season: int) -> float:
    """How much better the value a season ago predicts than the one an odd lag ago, mean squares of all series."""
    values = panel.values / panel.values.std(1, keepdims=True)
    errors = [float(((values[:, lag:] - values[:, :-lag]) ** 2).mean()) for lag in (season + season // 3, season)]
    return errors[0] / errors[1]


def test_electricity_has_days_weeks_and_neighbours() -> None:
    panel = electricity_shaped(12, 2_000)
    assert seasonal_gain(panel, 24) > 2
    assert seasonal_gain(panel, 168) > 2
    changes = np.diff(np.log(panel.values), 24)
    assert np.corrcoef(changes)[np.triu_indices(12, 1)].mean() > 0.1
    assert np.array_equal(panel.values, electricity_shaped(12, 2_000).values)


def test_solar_has_nights_days_and_neighbours() -> None:
    panel = solar_shaped(12, 2_000)
    hours = np.arange(panel.values.shape[1]) % 24
    assert (panel.values[:, (hours < 3) | (hours > 21)] == 0).all()
    assert (panel.values[:, (hours > 9) & (hours < 15)] > 0).all()
    noon = panel.values[:, hours == 12]
    assert np.corrcoef(noon)[np.triu_indices(12, 1)].mean() > 0.1
    assert seasonal_gain(panel, 24) > 2
